//! A machine in miniature: network, mount and pid namespaces of its own, in which a node's programs run.
//!
//! Nothing of the real machine changes: `/run` is a fresh tmpfs, what is written below `/var/lib` goes to it, and no
//! packet leaves, because no link leads out. Nothing stays behind either, however the test ends: the first process of the
//! pid namespace waits for the end of a pipe that only the test holds, and everything in the namespaces dies with it.
//! Only cgroups would outlive that, so a keeper, started first, waits for the namespaces' end and removes them.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};

/// Outside: `$0` is the inner script, `$1` the name of the machine's cgroup.
const KEEPER: &str = r#"
unshare --net --mount --pid --fork sh -eu -c "$0"
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
    [ -d "$hierarchy/$1" ] && find "$hierarchy/$1" -depth -type d -exec rmdir {} +
done
"#;

/// Inside. This proc is still the outer one: it tells the process's outer id. `cat`, with SIGCHLD ignored so that
/// orphans are reaped, ends when the test does.
const INIT: &str = r#"
read -r pid rest < /proc/self/stat
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/written/upper /run/written/work /run/node
mount -t overlay -o lowerdir=/var/lib,upperdir=/run/written/upper,workdir=/run/written/work overlay /var/lib
ip link set lo up
ip address add 10.85.0.1/32 dev lo
echo "$pid"
exec env --ignore-signal=CHLD cat
"#;

/// The namespaces, and the processes that keep them.
pub struct Machine {
    keeper: Child,
    /// Its end is the machine's end.
    alive: Option<ChildStdin>,
    /// The first process of the pid namespace, as the test sees it.
    init: String,
    cgroup: String,
}

impl Machine {
    pub fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let cgroup = format!("segprobe-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, INIT, &cgroup])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // An interrupt from the keyboard ends the test, not the keeper: it has work to do then.
            .process_group(0)
            .spawn()
            .unwrap();
        let mut init = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut init).unwrap();
        assert!(init.ends_with('\n'), "namespaces of its own: see the messages of unshare, mount or ip above");
        Self { alive: keeper.stdin.take(), keeper, init: init.trim_end().to_owned(), cgroup }
    }

    /// The name of the cgroup, in every hierarchy's root, under which everything belongs.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The outer path of an absolute path inside. `/var/run` is a link to `/run`: from outside it would lead outside.
    pub fn outer(&self, path: &str) -> PathBuf {
        let path = if path.starts_with("/var/run/") { &path["/var".len()..] } else { path };
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Runs `work` on a thread that has entered the machine, and there the network namespace at the path `netns` inside or
    /// the machine's own. What it starts is a process of the machine and still the test's own child. It cannot start
    /// threads: the kernel refuses those once a thread's children belong to another pid namespace.
    pub fn inside<T: Send>(&self, netns: Option<&str>, work: impl FnOnce() -> T + Send) -> T {
        let [net, mount, pid] = [self.network(netns), self.namespace("mnt"), self.namespace("pid")];
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_FS).unwrap();
            setns(pid, CloneFlags::CLONE_NEWPID).unwrap();
            setns(net, CloneFlags::CLONE_NEWNET).unwrap();
            setns(mount, CloneFlags::CLONE_NEWNS).unwrap();
            work()
        })
    }

    /// Runs `work` on a thread that has entered only a network namespace, chosen as for [`Machine::inside`].
    pub fn in_network<T: Send>(&self, netns: Option<&str>, work: impl FnOnce() -> T + Send) -> T {
        let net = self.network(netns);
        on_a_thread(|| {
            setns(net, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    fn network(&self, netns: Option<&str>) -> File {
        netns.map_or_else(|| self.namespace("net"), |path| open(&self.outer(path)))
    }

    fn namespace(&self, kind: &str) -> File {
        open(&Path::new("/proc").join(&self.init).join("ns").join(kind))
    }

    /// Writes a file inside, with its directories.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.outer(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.alive.take();
        // It ends when every process of the machine has been waited for, also those that the test started and forgot. No
        // panic here, nor waiting for ever: either would hide the test's own failure.
        let began = Instant::now();
        while let Ok(None) = self.keeper.try_wait() {
            if began.elapsed() > Duration::from_secs(10) {
                eprintln!(
                    "{}: a process that was started inside is not waited for; it goes with the test",
                    self.cgroup
                );
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match thread::scope(|scope| scope.spawn(work).join()) {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
