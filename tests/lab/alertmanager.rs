//! From a policy that is removed to Alertmanager: segprobe, Prometheus with the rule file, and Alertmanager, all in the client's
//! namespace.

use std::{
    env,
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use libtest_mimic::{Failed, Trial};
use segprobe::model::Family;
use serde_json::Value;

use crate::{
    dynamic::{POLICY, lab, rules},
    engine::Knobs,
    network::{Namespace, fill},
    skipped,
};

pub fn trials() -> Vec<Trial> {
    const NAME: &str = "alertmanager::a-breach-arrives";
    let missing: Vec<&str> = ["prometheus", "prometheus-alertmanager"].into_iter().filter(|p| !installed(p)).collect();
    let is_skipped = !missing.is_empty() && !skipped::is_required();
    if is_skipped {
        skipped::skip(NAME, &format!("not installed: {}", missing.join(", ")));
    }
    vec![Trial::test(NAME, a_breach_arrives).with_ignored_flag(is_skipped)]
}

fn installed(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// What the documentation says the time was measured at.
const SWEEP: &str = "11s";
const SCRAPE_AND_EVALUATION: &str = "1s";
/// An interval, a sweep, a scrape, an evaluation, and a machine that does other things meanwhile.
const IN_TIME: Duration = Duration::from_secs(30);

const AGENT: u16 = 11450;
const PROMETHEUS: u16 = 9090;
const ALERTMANAGER: u16 = 9093;

/// The policy holds: no alert. It is removed: `SegprobeBreach` is at Alertmanager's, by way of a finding, a scrape and a rule.
fn a_breach_arrives() -> Result<(), Failed> {
    let family = Family::V4;
    let (network, _servers, knobs) = lab(family)?;
    rules(&network, family, &[POLICY])?;
    let knobs = Knobs { interval: SWEEP.into(), attempts: 1, witness: Some(fill("$witness", family)), ..knobs };
    let folder = tempfile::tempdir()?;
    let place = Place { namespace: &network.client, folder: folder.path() };
    let _started = [place.start_agent(&knobs.yaml())?, place.start_alertmanager()?, place.start_prometheus()?];

    let of_blocked = r#"segprobe_check_verdict{verdict="pass"} == 1"#;
    place.wait("the blocked check is scraped", || place.query(of_blocked).len() == 1);
    place.wait("the rules are evaluated", || place.query("segprobe:boundary_checks:sum > 0").len() == 1);
    place.wait("Alertmanager is found", || {
        let found = place.get(PROMETHEUS, "/api/v1/alertmanagers");
        found["data"]["activeAlertmanagers"].as_array().is_some_and(|active| active.len() == 1)
    });
    assert_eq!(place.query(r#"ALERTS{alertstate="firing"}"#), Vec::<Value>::new(), "a policy that holds");
    assert_eq!(place.get(ALERTMANAGER, "/api/v2/alerts"), Value::Array(vec![]), "a policy that holds");

    rules(&network, family, &[])?;
    let removed = Instant::now();
    let mut after = Vec::new();
    let mut stage = |what: &'static str, reached: &dyn Fn() -> bool| {
        place.wait(what, reached);
        after.push((what, removed.elapsed()));
    };
    stage("found", &|| {
        place.page().lines().any(|line| line.starts_with("segprobe_findings_total{") && line.ends_with(" 1"))
    });
    stage("scraped", &|| !place.query("segprobe_findings_total > 0").is_empty());
    stage("alert", &|| !place.query(r#"ALERTS{alertname="SegprobeBreach",alertstate="firing"}"#).is_empty());
    stage("at Alertmanager's", &|| {
        place.get(ALERTMANAGER, "/api/v2/alerts").as_array().is_some_and(|alerts| !alerts.is_empty())
    });
    let words: Vec<String> = after.iter().map(|(what, after)| format!("{what} {:.2} s", after.as_secs_f64())).collect();
    eprintln!(
        "policy removed at 0 s: {} (sweeps every {SWEEP}, scrapes and evaluations every {SCRAPE_AND_EVALUATION})",
        words.join(", ")
    );

    let alerts = place.get(ALERTMANAGER, "/api/v2/alerts");
    assert_eq!(alerts.as_array().map(Vec::len), Some(1), "{alerts:#}");
    let labels = serde_json::json!({"alertname": "SegprobeBreach", "boundary": "lab", "severity": "critical", "cluster": "lab-cluster"});
    assert_eq!(alerts[0]["labels"], labels, "{alerts:#}");
    let description = alerts[0]["annotations"]["description"].as_str().unwrap_or_default();
    assert!(description.contains("to payments/ledger:5432 (endpoint) from 1 node(s)"), "{description}");
    assert!(description.contains("Nodes: lab-node."), "{description}");
    assert!(removed.elapsed() < IN_TIME, "{words:?}");

    // What a real agent exports is what the rules ask for.
    for recorded in ["findings_open:sum", "agents:count", "boundary_nodes:count", "boundary_conclusive:ratio"] {
        // Their group may be evaluated after the alert's.
        let began = Instant::now();
        while place.query(&format!("segprobe:{recorded} == 1")).len() != 1 {
            assert!(began.elapsed() < IN_TIME, "{recorded}");
            thread::sleep(Duration::from_millis(100));
        }
    }
    let groups = place.get(PROMETHEUS, "/api/v1/rules");
    let rules = groups["data"]["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array());
    let rules: Vec<&Value> = rules.flatten().collect();
    assert!(rules.len() > 20, "{groups:#}");
    for rule in rules {
        // Some have not been evaluated yet, and are unknown.
        assert_ne!(rule["health"], "err", "{rule:#}");
        place.query(rule["query"].as_str().unwrap_or_default());
    }
    Ok(())
}

/// Where the programs run, and where their files are.
struct Place<'a> {
    namespace: &'a Namespace,
    folder: &'a Path,
}

impl Place<'_> {
    fn start_agent(&self, yaml: &str) -> Result<Started, Failed> {
        let config = self.write("segprobe.yaml", yaml)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_segprobe"));
        command.args(["agent", "--config.file", &config, "--web.listen-address", &local(AGENT).to_string()]);
        self.start(command, "segprobe")
    }

    fn start_alertmanager(&self) -> Result<Started, Failed> {
        let config = self.write("alertmanager.yml", "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")?;
        let mut command = Command::new("prometheus-alertmanager");
        command.arg(format!("--config.file={config}"));
        command.arg(format!("--storage.path={}", self.folder.join("alertmanager").display()));
        command.arg(format!("--web.listen-address={}", local(ALERTMANAGER)));
        command.arg("--cluster.listen-address=");
        self.start(command, "alertmanager")
    }

    fn start_prometheus(&self) -> Result<Started, Failed> {
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/alerts/segprobe.rules.yaml");
        let (agent, alertmanager) = (local(AGENT), local(ALERTMANAGER));
        let config = self.write(
            "prometheus.yml",
            &format!(
                "global: {{scrape_interval: {SCRAPE_AND_EVALUATION}, evaluation_interval: {SCRAPE_AND_EVALUATION}, \
                   external_labels: {{cluster: lab-cluster}}}}\n\
                 rule_files: ['{rules}']\n\
                 alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}\n\
                 scrape_configs:\n\
                 - job_name: segprobe\n  static_configs: [{{targets: ['{agent}'], labels: {{node: lab-node, namespace: segprobe, pod: agent}}}}]\n"
            ),
        )?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={config}"));
        command.arg(format!("--storage.tsdb.path={}", self.folder.join("prometheus").display()));
        command.arg(format!("--web.listen-address={}", local(PROMETHEUS)));
        self.start(command, "prometheus")
    }

    fn write(&self, name: &str, text: &str) -> Result<String, Failed> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    fn start(&self, mut command: Command, name: &str) -> Result<Started, Failed> {
        let output = File::create(self.folder.join(format!("{name}.log")))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = self.namespace.run(|| command.spawn()).map_err(|e| format!("start {name}: {e}"))?;
        Ok(Started(child))
    }

    /// Looks again and again; fails with the programs' logs when the time is up.
    fn wait(&self, what: &str, reached: impl Fn() -> bool) {
        let began = Instant::now();
        while !reached() {
            if began.elapsed() > 2 * IN_TIME {
                let logs = ["segprobe", "prometheus", "alertmanager"].map(|name| {
                    let log = fs::read_to_string(self.folder.join(format!("{name}.log"))).unwrap_or_default();
                    format!("--- {name}\n{log}")
                });
                panic!("waited {:?} in vain: {what}\n{}", began.elapsed(), logs.concat());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn page(&self) -> String {
        self.body(AGENT, "/metrics").unwrap_or_default()
    }

    /// The JSON at a path; null while nobody answers.
    fn get(&self, port: u16, path: &str) -> Value {
        self.body(port, path).and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default()
    }

    fn query(&self, expression: &str) -> Vec<Value> {
        let encoded: String = expression.bytes().map(|b| format!("%{b:02x}")).collect();
        let answer = self.get(PROMETHEUS, &format!("/api/v1/query?query={encoded}"));
        assert_ne!(answer["status"], "error", "{expression}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    fn body(&self, port: u16, path: &str) -> Option<String> {
        let ask = || {
            let mut stream = TcpStream::connect(local(port)).ok()?;
            stream.set_read_timeout(Some(IN_TIME)).ok()?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: lab\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
        };
        self.namespace.run(ask)
    }
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// A program that ends with its test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
