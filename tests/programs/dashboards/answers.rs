//! Every expression of every dashboard, asked of a Prometheus that scraped real agents: with breaches, passes, unverified and
//! inconclusive checks, a finding that opened and closed, disclosing and silent DNS servers, an agent in the high zone, pods of both
//! zones on a node, and an agent that is down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    thread,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use super::{Dashboard, Query, expression_of, interpolate, label_values, promql::named, text};
use crate::{
    fake_cri::{FakeCri, FakePod},
    support::{
        Agent, closed, directory,
        dns::{honest, leaky, serve},
        listen, loopback,
        prometheus::{Prometheus, encoded, releases},
        wait_for, write_config,
    },
};

/// A sweep takes the time of three connects that time out at most, which must fit; closing a finding takes three sweeps.
const INTERVAL: &str = "7s";
/// Prometheus refuses to hold more samples for one query (`--query.max-samples`).
const MOST_SAMPLES: f64 = 50e6;
/// A large cluster, whose dashboards must still be answered, and how many agents stand for it here.
const NODES: f64 = 5000.0;
const LOW_AGENTS: f64 = 2.0;
const LONG: Duration = Duration::from_secs(300);

/// One target a line: `(name, address)`. Its name and port are the labels, so that both zones' agents can mean the same.
fn targets(targets: &[(&str, SocketAddr)], kind: &str) -> String {
    let line = |(name, at): &(&str, SocketAddr)| {
        let (ip, port) = (at.ip(), at.port());
        format!(
            "  - {{zone: high, namespace: payments, service: {name}, {kind}: [{ip}], ports: [{{port: 80, target_port: {port}}}]}}\n"
        )
    };
    targets.iter().map(line).collect()
}

fn config(expect: &str, boundary: &str, more: &str) -> String {
    format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - {{name: {boundary}, from: low, to: high, expect: {expect}, interval: {INTERVAL}, tcp: {{attempts: 1, closed: unverified}}{more}"
    )
}

/// An exporter that says one thing: what is exported by others than the agents of this tree, as [`super::OTHERS`] lists them.
fn stand_in() -> SocketAddr {
    let (listener, address) = listen();
    let mut page = String::new();
    for node in 1..=5 {
        writeln!(page, "kube_node_info{{node=\"node-{node}\"}} 1").unwrap();
    }
    // Discovery runs where no agent does.
    let discovery = "{job=\"segprobe\",namespace=\"segprobe-discover\",node=\"node-5\"} 1";
    for metric in ["segprobe_build_info", "segprobe_discovery_heartbeat_timestamp_seconds"] {
        writeln!(page, "{metric}{discovery}").unwrap();
    }
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            // One who went away is no loss.
            let _ = stream.read(&mut [0; 4096]);
            let length = page.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\r\n{page}"
            );
        }
    });
    address
}

/// As relabelling leaves it: `(address, node, namespace)`.
fn scrape_config(agents: &[(SocketAddr, &str, &str)], others: SocketAddr) -> String {
    let mut text =
        String::from("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: segprobe\n  static_configs:\n");
    for (address, node, namespace) in agents {
        writeln!(
            text,
            "  - {{targets: ['{address}'], labels: {{cluster: lab, node: {node}, namespace: {namespace}, pod: segprobe-{node}}}}}"
        )
        .unwrap();
    }
    writeln!(
        text,
        "- job_name: others\n  honor_labels: true\n  static_configs: [{{targets: ['{others}'], labels: {{cluster: lab}}}}]"
    )
    .unwrap();
    text
}

/// A server that takes whoever comes: a queue that nobody empties would be full after some sweeps.
fn accepting() -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || listener.incoming().for_each(drop));
    address
}

struct Answer {
    series: Vec<Value>,
    /// Whether any of them has a number.
    numbers: bool,
    /// The most samples that Prometheus held at once.
    peak: f64,
}

/// Asks as Grafana does: for now, or for as many points as a panel has.
fn ask(prometheus: &Prometheus, query: &Query<'_>, asked: &str, began: u64) -> Answer {
    let mut path = format!("query?query={}&stats=all", encoded(asked));
    if !query.instant {
        let (now, points) = (seconds(), query.panel["maxDataPoints"].as_f64().unwrap());
        let step = (now - began) as f64 / points;
        path = format!("query_range?query={}&stats=all&start={began}&end={now}&step={step}", encoded(asked));
    }
    let answer = prometheus.api(&path);
    assert_eq!(answer["status"], "success", "{asked}: {answer}");
    let series = answer["data"]["result"].as_array().unwrap().clone();
    let number = |s: &Value| {
        let values = s["values"].as_array().cloned().unwrap_or_else(|| vec![s["value"].clone()]);
        values.iter().any(|value| text(&value[1]) != "NaN")
    };
    let numbers = series.iter().any(number);
    let peak = answer["data"]["stats"]["samples"]["peakSamples"].as_f64().unwrap();
    Answer { series, numbers, peak }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// The values of a dashboard's variables as "All" gives them, and each alone.
fn choices(prometheus: &Prometheus, dashboard: &Dashboard) -> Vec<Vec<(String, String)>> {
    let mut chosen: Vec<Vec<(String, String)>> = vec![vec![]];
    for variable in dashboard.variables().iter().filter(|variable| variable["type"] == "query") {
        let name = text(&variable["name"]);
        let (selector, label) = label_values(variable);
        let borrowed: Vec<(&str, String)> = chosen[0].iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
        let selector = interpolate(selector, &borrowed);
        let answer = prometheus.api(&format!("label/{label}/values?match[]={}", encoded(&selector)));
        assert_eq!(answer["status"], "success", "{selector}: {answer}");
        let values: Vec<&str> = answer["data"].as_array().unwrap().iter().map(text).collect();
        assert!(!values.is_empty(), "{}: the variable {name} has no values: {selector}", dashboard.uid);
        let all = match (variable["includeAll"] == true, variable["allValue"].as_str()) {
            (true, Some(all)) => vec![all.to_owned()],
            (true, None) => vec![format!("({})", values.join("|"))],
            (false, _) => values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let with = |value: &String| {
            chosen.iter().map(move |c| [c.clone(), vec![(name.to_owned(), value.clone())]].concat()).collect::<Vec<_>>()
        };
        chosen = all.iter().flat_map(with).collect();
    }
    chosen
}

#[test]
fn dashboards_expressions_are_answered() {
    let programs = releases("prometheus");
    if programs.is_empty() {
        return;
    }
    let (control, open, inside, shut, flapping) = (accepting(), accepting(), accepting(), closed(), closed());
    let directory = directory();
    let sub = |name: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let agent = |name: &str, text: &str| {
        let path = sub(name);
        let config = write_config(&path, text);
        Agent::start(&path, &config, &[])
    };

    let split = serve(|query, to| to.send(&honest(query)), None);
    let old = serve(|query, to| to.send(&leaky(query)), None);
    let mute = serve(|_, _| (), None);
    let low = config(
        "blocked",
        "low-to-high",
        &format!(
            "}}
vantage: {{namespace: web, identity: storefront}}
controls: {{positive: [{{tcp: '{control}'}}], negative: [{{tcp: {}, ports: [80]}}]}}
dns:
  resolver: '{split}'
  servers: [{{name: split, address: '{split}'}}, {{name: old, address: '{old}'}}, {{name: mute, address: '{mute}'}}]
  timeout: 1s
  queries_per_second: 1000
  ask_again: 100ms
targets:
{}{}",
            loopback(),
            targets(&[("admin", open), ("vault", shut), ("flapping", flapping)], "endpoints"),
            targets(&[("virtual", shut)], "external"),
        ),
    );
    let low = agent("low", &low);
    let high = config(
        "open",
        "high-to-high",
        &format!(
            "}}
vantage: {{namespace: payments, identity: witness}}
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: '{split}', servers: []}}
targets:
{}",
            targets(&[("admin", open), ("vault", inside), ("down", shut)], "endpoints")
        ),
    );
    let high = agent("high", &high);
    let runtime = FakeCri::start(
        [("web", "shop-0"), ("payments", "ledger-0")].map(|(namespace, name)| FakePod::new(namespace, name)).into(),
    );
    let discovered = directory.path().join("discovered.json");
    let target = format!(
        r#"{{"zone": "high", "namespace": "payments", "service": "vault", "endpoints": ["{}"], "ports": [{{"port": 80, "target_port": {}}}]}}"#,
        shut.ip(),
        shut.port()
    );
    let file = format!(r#"{{"heartbeat": "2026-11-26T03:34:19Z", "targets": [{target}]}}"#);
    std::fs::write(&discovered, file).unwrap();
    // Its control is nobody: it is offline, and knows only which pods run beside it. Its targets are discovered.
    let shared = config(
        "blocked",
        "low-to-high",
        &format!(
            ", dns: off, co_residency: judge}}
vantage: {{namespace: web, identity: storefront}}
pods: {{socket: {}, poll: 200ms}}
controls: {{positive: [{{tcp: '{}'}}]}}
dns: {{resolver: '{split}', servers: []}}
target_files: ['{}']
",
            runtime.socket().display(),
            closed(),
            discovered.display()
        ),
    );
    let shared = agent("shared", &shared);
    for agent in [&low, &high, &shared] {
        agent.wait_for_sweeps();
    }

    let others = stand_in();
    let scraped = [
        (low.address, "node-1", "segprobe"),
        (high.address, "node-2", "segprobe-witness"),
        (shared.address, "node-3", "segprobe"),
        (closed(), "node-4", "segprobe"),
    ];
    let began = seconds();
    let config = scrape_config(&scraped, others);
    let start = |(i, program): (usize, PathBuf)| Prometheus::start(&program, &sub(&format!("prometheus-{i}")), &config);
    let started: Vec<Prometheus> = programs.into_iter().enumerate().map(start).collect();
    // What holds for every release.
    let all = |condition: &dyn Fn(&Prometheus) -> bool| started.iter().all(condition).then_some(());
    wait_for("all but one are scraped", LONG, || all(&|prometheus| prometheus.query("up == 1").len() == 4));

    // A finding that opens and closes while it is looked at.
    let opened = "segprobe_check_verdict{target=\"flapping:80\",verdict=\"fail\"} == 1";
    assert!(all(&|prometheus| prometheus.query(opened).is_empty()).is_some());
    let listener = TcpListener::bind(flapping).unwrap();
    wait_for("the finding is scraped", LONG, || all(&|prometheus| prometheus.query(opened).len() == 1));
    drop(listener);
    let verdicts = [
        ("flapping:80", "tcp-connect", "unverified"),
        ("vault:80", "tcp-connect", "unverified"),
        ("virtual:80", "tcp-connect", "inconclusive"),
        ("split", "srv-wildcard", "pass"),
        ("old", "srv-wildcard", "fail"),
        ("mute", "srv-wildcard", "inconclusive"),
    ];
    wait_for("it is closed, and the others are what they shall be", LONG, || {
        let is = |(target, check, verdict): &(&str, &str, &str)| {
            let labels = format!("node=\"node-1\",target=\"{target}\",check=\"{check}\",verdict=\"{verdict}\"");
            let selector = format!("segprobe_check_verdict{{{labels}}} == 1");
            all(&|prometheus| prometheus.query(&selector).len() == 1).is_some()
        };
        verdicts.iter().all(is).then_some(())
    });
    for prometheus in &started {
        assert_answers(prometheus, began);
        assert_truth(prometheus);
    }
}

/// Every expression has an answer, and what panels name is in it.
fn assert_answers(prometheus: &Prometheus, began: u64) {
    let labels = prometheus.api("labels");
    let labels: BTreeSet<&str> = labels["data"].as_array().unwrap().iter().map(text).collect();
    let mut problems = String::new();
    for dashboard in Dashboard::all() {
        let choices = choices(prometheus, &dashboard);
        for expression in dashboard.expressions() {
            let named = named(expression);
            let unknown: Vec<_> =
                named.labels.iter().filter(|l| !labels.contains(l.as_str()) && !named.strings.contains(*l)).collect();
            if !unknown.is_empty() {
                writeln!(problems, "{}: nothing has the labels {unknown:?}: {expression}", dashboard.uid).unwrap();
            }
        }
        for expression in dashboard.annotations() {
            let asked = all_choices(expression, &choices);
            assert!(asked.iter().any(|asked| !prometheus.query(asked).is_empty()), "{}: {expression}", dashboard.uid);
        }
        let mut columns: BTreeMap<&str, (BTreeSet<&str>, BTreeSet<String>)> = BTreeMap::new();
        for query in dashboard.queries() {
            let title = text(&query.panel["title"]);
            let answers: Vec<_> = all_choices(query.expression, &choices)
                .iter()
                .map(|asked| ask(prometheus, &query, asked, began))
                .collect();
            let peak = answers.iter().map(|answer| answer.peak).fold(0.0, f64::max);
            // What lists single checks grows with their number, which nodes share and the configuration bounds.
            if !query.expression.contains("segprobe_check_verdict") && peak / LOW_AGENTS * NODES > MOST_SAMPLES {
                writeln!(problems, "{}: {title}: it holds {peak} samples for {LOW_AGENTS} agents", dashboard.uid)
                    .unwrap();
            }
            let answered = answers.iter().any(|answer| answer.numbers);
            if !answered {
                writeln!(problems, "{}: {title}: no answer to {}", dashboard.uid, query.expression).unwrap();
            }
            let found: BTreeSet<String> = answers
                .iter()
                .flat_map(|answer| &answer.series)
                .flat_map(|series| series["metric"].as_object().unwrap().keys().cloned())
                .collect();
            let target =
                query.panel["targets"].as_array().unwrap().iter().find(|t| t["refId"] == query.reference).unwrap();
            for label in text(&target["legendFormat"]).split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0)
            {
                if answered && !found.contains(label) {
                    writeln!(problems, "{}: {title}: its legend names {label}, of {found:?}", dashboard.uid).unwrap();
                }
            }
            let entry = columns.entry(title).or_default();
            entry.1.extend(found);
            entry.1.extend(["Value".to_owned(), format!("Value #{}", query.reference)]);
            for transformation in query.panel["transformations"].as_array().into_iter().flatten() {
                let options = &transformation["options"];
                entry.0.extend(
                    options["indexByName"].as_object().into_iter().flat_map(|names| names.keys()).map(String::as_str),
                );
                entry.0.extend(
                    ["rowField", "columnField", "valueField"].iter().filter_map(|name| options[*name].as_str()),
                );
            }
        }
        for (title, (named, there)) in columns {
            let lacking: Vec<_> = named.iter().filter(|name| !there.contains(**name)).collect();
            if !lacking.is_empty() {
                writeln!(problems, "{}: {title}: no query gives the columns {lacking:?}", dashboard.uid).unwrap();
            }
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

fn all_choices(expression: &str, choices: &[Vec<(String, String)>]) -> Vec<String> {
    let asked = choices.iter().map(|chosen| {
        let borrowed: Vec<(&str, String)> = chosen.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        interpolate(expression, &borrowed)
    });
    asked.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The answers that matter most are the right ones.
fn assert_truth(prometheus: &Prometheus) {
    let dashboards = Dashboard::all();
    let answers = |uid: &str, title: &str, query: usize, variables: &[(&str, &str)]| {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        prometheus.query(&interpolate(expression_of(&dashboards, uid, title, query), &variables))
    };
    let all = [("cluster", ".*"), ("job", ".*"), ("node", ".*"), ("boundary", "low-to-high"), ("server", ".*")];
    let number = |uid: &str, title: &str, query: usize| {
        let found = answers(uid, title, query, &all);
        assert_eq!(found.len(), 1, "{title}: {found:?}");
        text(&found[0]["value"][1]).to_owned()
    };
    assert_eq!(number("segprobe-overview", "Are we segmented?", 0), "5", "breached");
    assert_eq!(number("segprobe-overview", "Agents that do not answer", 0), "1");
    assert_eq!(number("segprobe-overview", "Nodes without an agent", 0), "2");
    assert_eq!(number("segprobe-agents", "Nodes without an agent", 0), "2");
    assert_eq!(number("segprobe-overview", "Must be reachable", 0), "5", "an outage");
    assert_eq!(number("segprobe-overview", "Nodes with a finding", 0), "2");
    assert_eq!(number("segprobe-boundary", "Nodes that report a fail", 0), "2");

    // Where nobody is scraped there is no number, least of all a green one.
    for panel in dashboards[3].panels().iter().filter(|panel| panel["type"] == "stat") {
        let found = answers("segprobe-overview", text(&panel["title"]), 0, &[("cluster", "nowhere"), ("job", ".*")]);
        assert!(found.is_empty(), "{}: {found:?}", panel["title"]);
    }

    let proven = answers("segprobe-boundary", "Unverified here, and open from the high zone", 0, &all);
    let of = |label: &str| proven.iter().map(|s| text(&s["metric"][label])).collect::<Vec<_>>();
    assert_eq!((of("target"), of("node")), (vec!["vault:80"], vec!["node-1"]));
    let matrix = answers("segprobe-boundary", "Source × target", 0, &all);
    let cells: BTreeMap<_, _> =
        matrix.iter().map(|s| ((text(&s["metric"]["to"]), text(&s["metric"]["from"])), text(&s["value"][1]))).collect();
    assert_eq!(cells.get(&("payments/admin:80/endpoint", "web/storefront")), Some(&"5"), "{cells:?}");
    let co_resident = answers("segprobe-boundary", "Nodes with pods of both zones", 0, &all);
    assert!(co_resident.iter().all(|s| s["metric"]["node"] == "node-3") && co_resident.len() == 2, "{co_resident:?}");
    let dns = answers("segprobe-dns", "Verdicts", 0, &all);
    let of: BTreeMap<_, _> = dns
        .iter()
        .map(|s| ((text(&s["metric"]["check"]), text(&s["metric"]["server"])), text(&s["value"][1])))
        .collect();
    assert_eq!(of.get(&("srv-wildcard", "old")), Some(&"5"), "{of:?}");
    assert_eq!(of.get(&("srv-wildcard", "split")), Some(&"1"), "{of:?}");
    assert_eq!(of.get(&("srv-wildcard", "mute")), Some(&"4"), "{of:?}");
}
