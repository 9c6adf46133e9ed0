//! A real Prometheus, and what it answers.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use serde_json::Value;

use super::{SOON, http, process::Process, wait_for};

pub struct Prometheus {
    _process: Process,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts it with this configuration on a port that the system chooses, and waits until it is ready.
    pub fn start(directory: &Path, text: &str) -> Self {
        let config = directory.join("prometheus.yaml");
        fs::write(&config, text).unwrap();
        let mut command = Command::new("prometheus");
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
