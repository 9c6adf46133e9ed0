//! Child processes: started with their output in files, ended by their own id, never left behind.

use std::{
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
        // What the surroundings would say of node and pod, and of colours.
        command.env_remove("NODE_NAME").env_remove("POD_NAMESPACE").env_remove("CLICOLOR_FORCE");
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
