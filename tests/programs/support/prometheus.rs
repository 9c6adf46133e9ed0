//! Real Prometheus servers and promtools, of every installed release, and what they answer.

use std::{
    collections::BTreeSet,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use super::{
    SOON, have, http,
    process::{self, Process},
    skip, wait_for,
};

/// A program of Prometheus 3, which `tests/tools/build` builds. Where it is absent, the test reports that.
pub fn release_3(program: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin").join(program);
    let built = path.is_file() || skip(&format!("`{program}` of Prometheus 3 is absent: tests/tools/build {program}"));
    built.then_some(path)
}

/// Every installed release of a program of Prometheus: those of the path, Debian's 2.42, and release 3.
pub fn releases(program: &str) -> BTreeSet<PathBuf> {
    let path = env::var_os("PATH").filter(|_| have(program)).unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/bin".into()]);
    let installed = folders.filter_map(|folder| folder.join(program).canonicalize().ok());
    installed.chain(release_3(program)).collect()
}

/// The tests of the rules take 14 s of a core. On a busy machine that is more than [`SOON`].
const LONG: Duration = Duration::from_secs(300);

/// Runs every installed promtool. Each must be content.
pub fn promtool(arguments: &[&str], files: &[PathBuf]) {
    for program in releases("promtool") {
        let mut command = Command::new(&program);
        command.args(arguments).args(files);
        let ended = process::run(command, LONG);
        assert_eq!(ended.code, Some(0), "{}: {}{}", program.display(), ended.stdout, ended.stderr);
    }
}

pub struct Prometheus {
    _process: Process,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts a release of it with this configuration, on a port that the system chooses, and waits until it is ready.
    pub fn start(program: &Path, directory: &Path, text: &str) -> Self {
        let config = directory.join("prometheus.yaml");
        fs::write(&config, text).unwrap();
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg("--web.listen-address=127.0.0.1:0");
        let mut process = Process::start(command, directory, "prometheus");
        let address = wait_for("Prometheus listens", SOON, || {
            if let Some(status) = process.ended() {
                panic!("Prometheus ended with {status}: {}", process.stderr());
            }
            let log = process.stderr();
            let line = log.lines().find(|line| line.contains("msg=\"Listening on\""))?;
            line.split_once("address=")?.1.split(' ').next()?.trim().parse().ok()
        });
        let ready = || (http::get(address, "/-/ready").status == 200).then_some(());
        wait_for("Prometheus is ready", SOON, ready);
        Self { _process: process, address }
    }

    pub fn api(&self, path: &str) -> Value {
        let answer = http::get(self.address, &format!("/api/v1/{path}"));
        serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{path}: {e}: {answer:?}"))
    }

    /// The result of an instant query.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let answer = self.api(&format!("query?query={}", encoded(expression)));
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }
}

/// Any text as a part of a URL.
pub fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02x}")).collect()
}

/// The value of a sample.
pub fn value(sample: &Value) -> f64 {
    sample["value"][1].as_str().unwrap().parse().unwrap()
}
