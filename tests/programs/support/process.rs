//! Child processes: started with their output in files, ended by their own id, never left behind.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::wait_for;

/// What programs read of their environment: node, pod and cluster, language and time zone, colours and width, proxies, files of the user.
const SETTINGS: &[&str] = &[
    "NODE_NAME",
    "POD_NAMESPACE",
    "KUBECONFIG",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "FORCE_COLOR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "CURL_HOME",
    "BASH_ENV",
    "ENV",
    "NODE_OPTIONS",
    "PYTHONPATH",
    "PYTHONHOME",
    "PERL5OPT",
    "GODEBUG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RUST_BACKTRACE",
];

/// Programs behave the same for every user: of these settings they get only what the test itself has set.
fn without_the_users_settings(command: &mut Command) {
    let set: Vec<OsString> = command.get_envs().map(|(name, _)| name.to_owned()).collect();
    for (name, _) in env::vars_os().filter(|(name, _)| !set.contains(name)) {
        let is_it = |setting: &&str| match setting.strip_suffix('*') {
            Some(prefix) => name.to_string_lossy().starts_with(prefix),
            None => name == **setting,
        };
        if SETTINGS.iter().any(is_it) {
            command.env_remove(name);
        }
    }
}

/// A running process; killed when dropped.
pub struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts a command whose output goes to files in `directory`.
    pub fn start(command: Command, directory: &Path, name: &str) -> Self {
        Self::start_by(command, directory, name, Command::spawn)
    }

    /// The same, where `spawn` starts it somewhere else: the files are opened here.
    pub fn start_by(
        mut command: Command,
        directory: &Path,
        name: &str,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> Self {
        let (out, err) = (directory.join(format!("{name}.out")), directory.join(format!("{name}.err")));
        command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        without_the_users_settings(&mut command);
        let child = spawn(&mut command).unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        Self { child, out, err }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }

    /// The exit status, where it ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its directory in proc, as this test sees it.
    pub fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.child.id()))
    }

    /// A field of its status, without its unit: memory is in KiB.
    pub fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(self.proc().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").to_owned()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits for its end and gives the exit code; none where a signal ended it.
    pub fn exit_code(&mut self, within: Duration) -> Option<i32> {
        wait_for("the process ends", within, || self.child.try_wait().unwrap()).code()
    }

    /// The most memory that it ever had, in KiB.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process left.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end; fails the test where that takes too long.
pub fn run(command: Command, within: Duration) -> Ended {
    let directory = super::directory();
    let mut process = Process::start(command, directory.path(), "run");
    let code = process.exit_code(within);
    Ended { code, stdout: process.stdout(), stderr: process.stderr() }
}
