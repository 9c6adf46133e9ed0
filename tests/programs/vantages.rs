//! Pods' vantages from outside: what `vantages` shows, what is refused at start and how, and which privileges are left.
//! Loopback has no pods: a runtime made up for the test tells of them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    fake_cri::{FakeCri, FakePod, Method, Misbehaviour, Shape},
    support::{
        Agent, SEGPROBE, SOON, directory, find, have, hostile, http, listen, process, segprobe, skip, wait_for,
        write_config,
    },
};

/// From `web` to `payments`, without DNS; `more` are lines of the configuration's first level.
fn config(mode: &str, socket: &Path, more: &str) -> String {
    format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments], pod_labels: {{pci-scope: in}}}}}}
boundaries:
  - {{name: b, from: low, to: high, dns: off, tcp: {{attempts: 1}}, co_residency: report}}
vantage: {{mode: {mode}}}
pods: {{socket: {}, poll: 200ms}}
targets:
  - {{zone: high, namespace: payments, service: ledger, endpoints: [127.0.0.1], ports: [1]}}
controls: {{positive: [{{tcp: '127.0.0.1:1'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
{more}",
        socket.display()
    )
}

/// A pod whose network is this test's own: nothing has to be made for it.
fn own(namespace: &str, name: &str) -> FakePod {
    FakePod { netns: Some("/proc/self/ns/net".into()), ips: vec!["127.0.0.1".into()], ..FakePod::new(namespace, name) }
}

fn nowhere(namespace: &str, name: &str) -> FakePod {
    FakePod { netns: Some("/nonsense/netns".into()), ..own(namespace, name) }
}

fn in_scope(pod: FakePod) -> FakePod {
    FakePod { labels: [("pci-scope".to_owned(), "in".to_owned())].into(), ..pod }
}

/// One with more labels than are read.
fn crowded(pod: FakePod) -> FakePod {
    FakePod { labels: (0..65).map(|n| (format!("l{n}"), String::new())).collect(), ..pod }
}

/// True where namespaces can be entered; where not, the same holds as for a missing program.
fn may_enter() -> bool {
    let path = Path::new("/proc/self/ns/net");
    let entered = segprobe::vantage::Netns::open(path).and_then(|netns| netns.visit(|| ()));
    entered.is_ok() || skip("the test has no CAP_SYS_ADMIN")
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root() || skip("the test does not run as root")
}

/// Runs segprobe without one capability, or `all`, as user `uid`: what root would have at its start is not there.
fn without(capability: &str, uid: u32, directory: &Path) -> Command {
    // Others must be able to read what root made.
    let copy = directory.join("segprobe");
    if !copy.exists() {
        fs::copy(SEGPROBE, &copy).unwrap();
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    let (uid, removed) = (uid.to_string(), format!("-{capability}"));
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        &uid,
        "--regid",
        &uid,
        "--clear-groups",
        "--bounding-set",
        &removed,
        "--inh-caps",
        &removed,
    ]);
    command.arg(copy);
    command
}

fn vantages(config: &str) -> process::Ended {
    segprobe(&["vantages", "--config.file", config])
}

/// The value of a line of `/proc/PID/status`, in hex.
fn capabilities(agent: &Agent, set: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

const SETS: [&str; 4] = ["CapEff", "CapPrm", "CapInh", "CapAmb"];

#[test]
fn who_would_be_used_is_shown_and_why_others_are_not() {
    if !may_enter() {
        return;
    }
    let labelled = |name: &str, label: &str, pod: FakePod| FakePod {
        labels: [("app".to_owned(), label.to_owned())].into(),
        name: name.into(),
        ..pod
    };
    let runtime = FakeCri::start(vec![
        labelled("shop-0", "shop", own("web", "shop-0")),
        labelled("shop-1", "shop", FakePod { shape: Shape::CrioSpoofed, ..own("web", "shop-1") }),
        FakePod { shape: Shape::Containerd16, dns_searches: vec!["svc.other.example".into()], ..own("web", "odd") },
        nowhere("web", "gone"),
        FakePod {
            runtime_handler: "kata".into(),
            runtime_type: "io.containerd.kata.v2".into(),
            ..own("web", "hidden")
        },
        FakePod { shape: Shape::Text("}".into()), ..own("web", "garbled") },
        FakePod { shape: Shape::Nothing, ..own("web", "silent") },
        in_scope(own("payments", "ledger-0")),
        in_scope(nowhere("payments", "ledger-1")),
        own("payments", "out-of-scope"),
        crowded(own("payments", "crowded")),
        crowded(own("web", "crowded")),
        own("kube-system", "dns"),
        FakePod { host_network: true, netns: None, ..own("web", "on-host") },
        FakePod { ready: false, ..own("web", "dead") },
        FakePod { running: false, ..own("web", "empty") },
        // A runtime that means ill.
        FakePod { labels: [("app".to_owned(), "\u{1b}[2J\u{202e}x".to_owned())].into(), ..own("web", "evil\u{202e}") },
    ]);
    let directory = directory();
    let path =
        write_config(directory.path(), &config("pods", &runtime.socket(), "witnesses: [{zone: high, node: true}]\n"));
    let ended = vantages(&path);
    assert!(!ended.stdout.contains(hostile), "{ended:?}");
    for line in [
        "\nProbed from, zone low: 9 pods of 7 identities\n",
        "  web/app=shop\n    web/shop-0  127.0.0.1, net:[",
        "      DNS 10.96.0.10, search web.svc.cluster.local svc.cluster.local\n",
        "      the runtime does not tell its DNS servers: `system` is none; name dns.servers and dns.resolver\n",
        "      its search list speaks of other.example, not of dns.zone\n",
        "    web/gone  inconclusive: open network namespace \"/nonsense/netns\": it is gone with its pod",
        "    web/hidden  inconclusive: its runtime hides its network",
        "    web/garbled  inconclusive: ",
        "    web/silent  inconclusive: the runtime gave no verbose status\n",
        "  web/unreadable-labels\n    web/crowded  inconclusive: it has 65 labels, more than 64\n",
        "\nWitnesses, zone high\n  payments/crowded  not entered: it has 65 labels, more than 64\n",
        "  payments/ledger-0  127.0.0.1, listens on ",
        "  payments/ledger-1  not entered: open network namespace",
        "  the node itself: not used, the agent lives in a pod's network: set hostNetwork: true\n",
        "\nNot used: 5 sandboxes\n",
        "  payments/out-of-scope: its labels are of no zone\n",
        "  kube-system/dns: its namespace is in no zone\n",
        "  web/on-host: it has the host's network: policies do not bind it\n",
        "  web/dead: its sandbox is not ready\n",
        "  web/empty: no container has run in it yet\n",
        "    web/evil\\u{202e}  inconclusive: its label's value has control characters\n",
    ] {
        assert!(ended.stdout.contains(line), "{line:?}: {}", ended.stdout);
    }
    let whole = ended.stdout.lines().next().unwrap();
    assert!(whole.ends_with(&format!(" at {}: 17 sandboxes", runtime.socket().display())), "{whole}");
    // One that is gone passes by itself: the others can be used.
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    // If none can be entered, something is wrong with the agent, and the remedy is told.
    runtime.change(|pods| pods.retain(|pod| pod.netns.as_deref() == Some(Path::new("/nonsense/netns"))));
    let ended = vantages(&path);
    assert_eq!(ended.code, Some(64), "{ended:?}");
    assert!(ended.stderr.contains("hostPath") && ended.stderr.lines().count() == 1, "{ended:?}");
    // Nobody here is no fault.
    runtime.change(Vec::clear);
    let ended = vantages(&path);
    assert!(ended.stdout.contains("  no pod of it can be probed from: nothing is tested on this node\n"));
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn where_nobody_asks_for_pods_none_are_shown() {
    let directory = directory();
    let plain = "zones: {a: {}}\nboundaries: [{name: b, from: a, to: a, dns: off}]\ndns: {resolver: 127.0.0.1}\n";
    let ended = vantages(&write_config(directory.path(), plain));
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(64), 1), "{ended:?}");
    assert!(ended.stderr.contains("set vantage.mode: pods"), "{ended:?}");
    // In mode `own` pods are counted, without any privilege.
    let runtime = FakeCri::start(vec![own("web", "shop-0")]);
    let ended = vantages(&write_config(directory.path(), &config("own", &runtime.socket(), "")));
    assert!(ended.stdout.contains("vantage.mode is own: no pod is probed from"), "{ended:?}");
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_socket_that_is_not_there_is_told_with_its_remedy() {
    if !may_enter() {
        return;
    }
    let directory = directory();
    let socket = directory.path().join("absent.sock");
    let remedy =
        format!("no container runtime's socket at {}: mount it (hostPath) and set pods.socket", socket.display());
    for mode in ["own", "pods"] {
        let path = write_config(directory.path(), &config(mode, &socket, ""));
        for arguments in [&["vantages"][..], &["check"], &["agent", "--web.listen-address", "127.0.0.1:0"]] {
            let ended = segprobe(&[arguments, &["--config.file", &path]].concat());
            assert_eq!(ended.code, Some(64), "{mode} {arguments:?}: {ended:?}");
            let told: Vec<&str> = ended.stderr.lines().filter(|line| line.contains(&remedy)).collect();
            assert_eq!(told, [format!("segprobe: {remedy}")], "{mode} {arguments:?}: {ended:?}");
        }
    }
}

#[test]
fn where_nobody_can_be_probed_from_nothing_is_known() {
    if !may_enter() {
        return;
    }
    let runtime = FakeCri::start(vec![own("wbe", "shop-0"), in_scope(own("payments", "ledger-0"))]);
    let directory = directory();
    let path = write_config(directory.path(), &config("pods", &runtime.socket(), ""));
    for more in [&[][..], &["--require-witness"], &["--output", "json"]] {
        let ended = segprobe(&[&["check", "--config.file", &path], more].concat());
        let told = "segprobe: nothing of boundary `b` was tested: no pod of zone `low` that can be probed from runs here: \
                    `segprobe vantages` tells why\n";
        assert_eq!((ended.code, &*ended.stderr), (Some(2), told), "{ended:?}");
    }
    runtime.change(|pods| pods.push(own("web", "shop-1")));
    let ended = segprobe(&["check", "--config.file", &path]);
    assert!(!ended.stderr.contains("nothing of boundary"), "{ended:?}");
}

#[test]
fn the_sample_of_pods_has_its_cost() {
    let runtime = FakeCri::start(vec![own("web", "shop-0")]);
    let directory = directory();
    let sample = include_str!("../fixtures/segprobe-pods.yaml");
    let path = write_config(
        directory.path(),
        &sample.replace("/run/containerd/containerd.sock", runtime.socket().to_str().unwrap()),
    );
    let ended = segprobe(&["check", "--config.file", &path, "--plan"]);
    // Two addresses and a virtual one: 6 attempts, two and three more rounds of 6 controls and 3 negative ones, and
    // as many questions as 30 s are given to, at 5 a second.
    let seconds = (6 + (2 + 3) * (6 + 3) + 30 * 5_u64).div_ceil(5);
    let told = format!(" packets a second, {seconds} s to {seconds} s\n");
    assert!(ended.stdout.contains(&told), "{told:?} is not in {}", ended.stdout);
}

#[test]
fn a_runtime_that_refuses_leaves_everything_inconclusive() {
    if !may_enter() {
        return;
    }
    // In scope or not: the one whose labels are not read counts.
    let high = [in_scope(own("payments", "ledger-0")), crowded(own("payments", "crowded")), own("payments", "other")];
    let runtime = FakeCri::start([own("web", "shop-0")].into_iter().chain(high).collect());
    runtime.misbehave(Method::ListPodSandbox, Misbehaviour::Error(14, "restarting"));
    let directory = directory();
    let path = write_config(directory.path(), &config("pods", &runtime.socket(), ""));
    let agent = Agent::start(directory.path(), &path, &[]);
    let report = wait_for("all is known to be unknown", SOON, || {
        let report = agent.checks();
        let is_unreadable = |kind, target| find(&report, kind, target)["reason"] == "runtime-unreadable";
        (is_unreadable("tcp-connect", "ledger:1") && is_unreadable("node-co-residency", "high")).then_some(report)
    });
    assert_eq!(find(&report, "tcp-connect", "ledger:1")["source"], "unknown");
    assert_eq!(agent.page().value("segprobe_runtime_up", &[]), Some(0.0));
    // It comes back: who is there is probed from, and who was unknown is no more.
    runtime.behave();
    wait_for("the identity is known", SOON, || {
        let report = agent.checks();
        let sources: Vec<Value> = report["checks"].as_array()?.iter().map(|c| c["source"].clone()).collect();
        (sources == ["app=shop-0", "low"]).then_some(())
    });
    let page = agent.page();
    assert_eq!(page.value("segprobe_runtime_up", &[]), Some(1.0));
    assert_eq!(page.value("segprobe_node_pods", &[("zone", "low")]), Some(1.0));
    assert_eq!(page.value("segprobe_node_pods", &[("zone", "high")]), Some(2.0));
    assert_eq!(page.all("segprobe_boundary_info", &[("vantage", "pods")]).len(), 1);
}

#[test]
fn a_reload_while_the_runtime_restarts_closes_no_finding() {
    if !may_enter() {
        return;
    }
    let runtime = FakeCri::start(vec![own("web", "shop-0")]);
    let (_listener, open) = listen();
    let (target, ports) = (format!("endpoints: [{}]", open.ip()), format!("ports: [{}]", open.port()));
    let text = config("pods", &runtime.socket(), "");
    let text = text.replace("endpoints: [127.0.0.1]", &target).replace("ports: [1]", &ports);
    let directory = directory();
    let path = write_config(directory.path(), &text);
    let agent = Agent::start(directory.path(), &path, &[]);
    let label = format!("ledger:{}", open.port());
    wait_for("it is reached", SOON, || {
        (find(&agent.checks(), "tcp-connect", &label)["reason"] == "reached").then_some(())
    });
    runtime.misbehave(Method::ListPodSandbox, Misbehaviour::Error(14, "restarting"));
    write_config(directory.path(), &format!("{text}pace: {{spacing: 300ms}}\n"));
    let answer = http::post(agent.address, "/-/reload");
    assert_eq!(answer.status, 200, "{answer:?}");
    let report = agent.checks();
    let check = find(&report, "tcp-connect", &label);
    assert_eq!((&check["source"], &check["verdict"]), (&"app=shop-0".into(), &"fail".into()), "{check:#}");
    assert_eq!(agent.page().value("segprobe_runtime_up", &[]), Some(0.0));
    let log = agent.process.stderr();
    assert!(log.contains("finding-opened") && !log.contains("finding-closed"), "{log}");
}

#[test]
fn without_the_capability_nothing_starts() {
    if !is_root() || !have("setpriv") {
        return;
    }
    let runtime = FakeCri::start(vec![own("web", "shop-0")]);
    let directory = directory();
    let path = write_config(directory.path(), &config("pods", &runtime.socket(), ""));
    for arguments in [&["check"][..], &["agent", "--web.listen-address", "127.0.0.1:0"], &["vantages"]] {
        let mut command = without("sys_admin", 0, directory.path());
        command.args(arguments).args(["--config.file", &path]);
        let ended = process::run(command, SOON);
        assert_eq!(ended.code, Some(64), "{arguments:?}: {ended:?}");
        let told: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("segprobe: ")).collect();
        assert!(told.len() == 1 && told[0].contains("SYS_ADMIN"), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn mode_own_needs_no_privilege_at_all() {
    if !is_root() || !have("setpriv") {
        return;
    }
    let (_control, control) = listen();
    let directory = directory();
    let text = format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries: [{{name: b, from: low, to: high, dns: off}}]
targets: [{{zone: high, namespace: payments, service: ledger, endpoints: [{}], ports: [{}]}}]
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}\n",
        control.ip(),
        control.port()
    );
    let path = write_config(directory.path(), &text);
    let mut command = without("all", 65_534, directory.path());
    command.args(["check", "--config.file", &path, "--output", "json"]);
    let ended = process::run(command, SOON);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    let check = find(&report, "tcp-connect", &format!("ledger:{}", control.port()));
    assert_eq!((ended.code, &check["reason"]), (Some(1), &"reached".into()), "{ended:?}");
}

#[test]
fn the_agent_keeps_no_privilege_that_it_does_not_need() {
    if !is_root() || !may_enter() {
        return;
    }
    let runtime = FakeCri::start(vec![own("web", "shop-0")]);
    let directory = directory();
    let path = write_config(directory.path(), &config("own", &runtime.socket(), ""));
    let agent = Agent::start(directory.path(), &path, &[]);
    assert_eq!(SETS.map(|set| capabilities(&agent, set)), [0; 4]);
    assert_eq!(capabilities(&agent, "NoNewPrivs"), 1);

    // What is dropped cannot be had again: the old configuration runs on.
    write_config(directory.path(), &config("pods", &runtime.socket(), ""));
    let answer = http::post(agent.address, "/-/reload");
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains("needs the capability SYS_ADMIN") && answer.text().lines().count() == 1,
        "{answer:?}"
    );
    let page = agent.page();
    assert_eq!(page.value("segprobe_config_last_reload_successful", &[]), Some(0.0));
    assert_eq!(page.all("segprobe_boundary_info", &[("vantage", "own")]).len(), 1);
    assert!(agent.process.stderr().contains("configuration not reloaded, the old one stays"));
    drop(agent);

    let path = write_config(directory.path(), &config("pods", &runtime.socket(), ""));
    let agent = Agent::start(directory.path(), &path, &[]);
    // CAP_SYS_PTRACE is 19 and CAP_SYS_ADMIN 21 in capability.h.
    let needed = 1 << 19 | 1 << 21;
    assert_eq!(SETS.map(|set| capabilities(&agent, set)), [needed, needed, 0, 0]);
    assert_eq!(capabilities(&agent, "NoNewPrivs"), 1);
    // Every thread of it: the visitors', too, are made by these.
    let tasks: Vec<PathBuf> =
        fs::read_dir(format!("/proc/{}/task", agent.process.id())).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(tasks.len() > 1);
    for task in tasks {
        // A visitor may have ended meanwhile.
        let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
        assert!(status.contains(&format!("CapEff:\t{needed:016x}\n")), "{status}");
    }
    // And back to less: that is no question.
    write_config(directory.path(), &config("own", &runtime.socket(), ""));
    assert_eq!(http::post(agent.address, "/-/reload").status, 200);
    assert_eq!(agent.page().all("segprobe_boundary_info", &[("vantage", "own")]).len(), 1);
}
