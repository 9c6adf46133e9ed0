//! The agent's life: it reloads what changed, keeps what was good, logs a line an event, and ends when it is told to.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Agent, SEGPROBE, SOON, Silent, closed, directory,
    dns::{honest, is_technique, serve, srv},
    hostile, http, listen, process, wait_for, write_config,
};

/// A boundary over these targets: `(name, address)`.
fn config(control: SocketAddr, targets: &[(&str, SocketAddr)], more: &str) -> String {
    let line = |(name, address): &(&str, SocketAddr)| {
        let (ip, port) = (address.ip(), address.port());
        format!(
            "  - {{zone: high, namespace: payments, service: {name}, endpoints: [{ip}], ports: [{{port: 80, target_port: {port}}}]}}\n"
        )
    };
    let targets: String = targets.iter().map(line).collect();
    format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - {{name: b, from: low, to: high, interval: 1m, tcp: {{attempts: 1, closed: unverified}}}}
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
targets:
{targets}{more}"
    )
}

/// The targets that have verdict series, in order.
fn targets(agent: &Agent) -> Vec<String> {
    agent.page().verdicts().into_keys().map(|(_, _, target, _)| target).collect()
}

fn reload_successful(agent: &Agent) -> Option<f64> {
    agent.page().value("segprobe_config_last_reload_successful", &[])
}

#[test]
fn a_reload_takes_effect_at_once_and_a_bad_one_not_at_all() {
    let ((_control, control), (_open, open), closed) = (listen(), listen(), closed());
    let directory = directory();
    let path = write_config(directory.path(), &config(control, &[("ledger", open), ("vault", closed)], ""));
    let agent = Agent::start(directory.path(), &path, &[]);
    agent.wait_for_sweeps();
    assert_eq!(targets(&agent), ["ledger:80", "vault:80"]);
    assert_eq!(reload_successful(&agent), Some(1.0));
    let count = |page: &crate::support::metrics::Page| {
        page.value("segprobe_findings_total", &[("boundary", "b"), ("check", "tcp-connect")])
    };
    assert_eq!(count(&agent.page()), Some(1.0));

    // Bad: everything that is known stays, and whoever asked hears why.
    write_config(directory.path(), "zones: {}\n\"\\n\\e[31mlevel=error\": 1\n");
    let answer = http::post(agent.address, "/-/reload");
    assert_eq!(answer.status, 500);
    assert!(
        answer.text().contains("segprobe.yaml:2:1: unknown field") && !answer.text().contains('\x1b'),
        "{answer:?}"
    );
    assert_eq!(reload_successful(&agent), Some(0.0));
    assert_eq!(targets(&agent), ["ledger:80", "vault:80"]);
    assert_eq!(agent.get("/-/ready").status, 200);

    // Good again: the one that is gone has no series from this moment on, the one that stays keeps its verdict and finding.
    write_config(directory.path(), &config(control, &[("ledger", open)], ""));
    assert_eq!(http::post(agent.address, "/-/reload").status, 200);
    let page = agent.page();
    let verdicts: Vec<_> = page.verdicts().into_iter().map(|((_, _, target, _), verdict)| (target, verdict)).collect();
    assert_eq!(verdicts, [("ledger:80".to_owned(), "fail".to_owned())]);
    assert_eq!(count(&page), Some(1.0));
    assert_eq!(reload_successful(&agent), Some(1.0));

    // SIGHUP does the same; what is new is pending until it is swept.
    write_config(directory.path(), &config(control, &[("ledger", open), ("batch", closed)], ""));
    agent.process.signal(Signal::SIGHUP);
    wait_for("the new target has series", SOON, || (targets(&agent) == ["batch:80", "ledger:80"]).then_some(()));

    // A boundary that is renamed takes all its series with it.
    let renamed = config(control, &[("ledger", open)], "").replace("name: b,", "name: c,");
    write_config(directory.path(), &renamed);
    assert_eq!(http::post(agent.address, "/-/reload").status, 200);
    let page = agent.page();
    page.assert_unique();
    assert!(page.0.iter().all(|sample| sample.label("boundary") != "b"), "{:?}", page.all("", &[("boundary", "b")]));
    assert!(!page.all("segprobe_check_verdict", &[("boundary", "c")]).is_empty());

    for line in agent.process.stderr().lines() {
        assert!(line.starts_with("ts=") && !line.contains(hostile), "{line:?}");
    }
}

#[test]
fn requests_to_reload_what_did_not_change_keep_no_sweep_from_its_end() {
    let ((_control, control), closed) = (listen(), closed());
    let directory = directory();
    let names: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    let targets: Vec<_> = names.iter().map(|name| (name.as_str(), closed)).collect();
    let text = config(control, &targets, "pace: {per_second: 10, spacing: 0s}\n");
    let agent = Agent::start(directory.path(), &write_config(directory.path(), &text), &[]);
    wait_for("a sweep that takes longer than a second", SOON, || {
        assert_eq!(http::post(agent.address, "/-/reload").status, 200);
        agent.page().value("segprobe_sweep_duration_seconds_count", &[("boundary", "b")]).filter(|sweeps| *sweeps > 0.0)
    });
}

#[test]
fn a_config_map_that_is_swapped_is_noticed() {
    let ((_control, control), (_open, open), closed) = (listen(), listen(), closed());
    let directory = directory();
    // As the kubelet lays a ConfigMap out: the names never change, the directory behind `..data` does.
    let version = |name: &str, text: &str, inventory: &str| {
        let data = directory.path().join(name);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("segprobe.yaml"), text).unwrap();
        fs::write(data.join("more.json"), inventory).unwrap();
        symlink(name, directory.path().join("..data_tmp")).unwrap();
        fs::rename(directory.path().join("..data_tmp"), directory.path().join("..data")).unwrap();
    };
    let inventory = |name: &str| {
        format!(
            r#"{{"targets": [{{"zone": "high", "namespace": "payments", "service": "{name}", "endpoints": ["{}"], "ports": [80]}}]}}"#,
            closed.ip()
        )
    };
    let text = config(control, &[("ledger", open)], "target_files: ['more*.json']\n");
    version("..first", &text, &inventory("from-file"));
    for name in ["segprobe.yaml", "more.json"] {
        symlink(Path::new("..data").join(name), directory.path().join(name)).unwrap();
    }
    let path = directory.path().join("segprobe.yaml");
    let agent = Agent::start(directory.path(), path.to_str().unwrap(), &[]);
    assert_eq!(targets(&agent), ["from-file:80", "ledger:80"]);

    let becomes = |expected: &[&str]| {
        wait_for(&format!("{expected:?}"), SOON, || (targets(&agent) == *expected).then_some(()));
    };
    version(
        "..second",
        &config(control, &[("vault", closed)], "target_files: ['more*.json']\n"),
        &inventory("from-file"),
    );
    becomes(&["from-file:80", "vault:80"]);
    // Only the inventory.
    fs::write(directory.path().join("..second/more.json"), inventory("other")).unwrap();
    becomes(&["other:80", "vault:80"]);

    version("..third", "zones: [", &inventory("other"));
    wait_for("the bad one is seen", SOON, || (reload_successful(&agent) == Some(0.0)).then_some(()));
    assert_eq!(targets(&agent), ["other:80", "vault:80"]);
    // Seen once, told once.
    thread::sleep(Duration::from_secs(6));
    let told = agent.process.stderr().lines().filter(|line| line.contains("not reloaded")).count();
    assert_eq!(told, 1, "{}", agent.process.stderr());
    version("..fourth", &text, &inventory("from-file"));
    becomes(&["from-file:80", "ledger:80"]);
    assert_eq!(reload_successful(&agent), Some(1.0));
}

#[test]
fn a_reload_in_the_midst_of_a_sweep_leaves_nothing_behind() {
    let ((old, old_control), (_new, new_control), silent) = (listen(), listen(), Silent::new());
    let directory = directory();
    // Twelve seconds of silence: the sweep's own controls are repeated after ten.
    let text = config(old_control, &[("silent", silent.address)], "").replace("attempts: 1", "attempts: 10");
    let path = write_config(directory.path(), &text);
    let agent = Agent::start(directory.path(), &path, &[]);
    old.accept().unwrap();
    let text = config(new_control, &[("silent", silent.address)], "");
    write_config(directory.path(), &text);
    assert_eq!(http::post(agent.address, "/-/reload").status, 200);

    old.set_nonblocking(true).unwrap();
    // What was under way at the reload has arrived when nothing has for two seconds.
    let mut last = Instant::now();
    wait_for("nothing more arrives", SOON, || {
        while old.accept().is_ok() {
            last = Instant::now();
        }
        (last.elapsed() > Duration::from_secs(2)).then_some(())
    });
    thread::sleep(Duration::from_secs(12));
    assert_eq!(old.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "the old sweep's controls are still running");
}

#[test]
fn it_ends_when_it_is_told_to() {
    let ((_control, control), silent) = (listen(), Silent::new());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let directory = directory();
        let path = write_config(directory.path(), &config(control, &[("silent", silent.address)], ""));
        let mut agent = Agent::start(directory.path(), &path, &[]);
        // A client that keeps its connection must not keep the agent.
        let _idle = std::net::TcpStream::connect(agent.address).unwrap();
        agent.process.signal(signal);
        // What Kubernetes waits before it kills.
        assert_eq!(agent.process.exit_code(Duration::from_secs(30)), Some(0), "{}", agent.process.stderr());
        assert!(agent.process.stderr().contains("message=stopping"));
        assert!(TcpListener::bind(agent.address).is_ok(), "its port is free");
    }
}

#[test]
fn a_taken_port_is_named() {
    let ((_control, control), (_taken, taken)) = (listen(), listen());
    let directory = directory();
    let path = write_config(directory.path(), &config(control, &[("ledger", closed())], ""));
    let mut command = Command::new(SEGPROBE);
    command.args(["agent", "--config.file", &path, "--web.listen-address", &taken.to_string()]);
    let ended = process::run(command, SOON);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&format!("segprobe: listen on {taken}: Address already in use")), "{ended:?}");
}

#[test]
fn a_log_line_is_one_event_whatever_it_tells() {
    let ((_control, control), (_open, open)) = (listen(), listen());
    let tells = |query: &hickory_resolver::proto::op::Message, to: &crate::support::dns::Replier| {
        // Of what is judged, only the wildcards ask for SRV.
        if !is_technique(query) || query.queries[0].query_type != hickory_resolver::proto::rr::RecordType::SRV {
            return to.send(&honest(query));
        }
        let labels: [&[u8]; 5] = [b"\nlevel=error a=\"\x1b[31m\\", b"payments", b"svc", b"cluster", b"local"];
        let mut answer = crate::support::dns::empty(query);
        answer.add_answer(srv(query, hickory_resolver::proto::rr::Name::from_labels(labels).unwrap()));
        to.send(&answer.to_vec().unwrap());
    };
    let server = serve(tells, None);
    let servers = format!("queries_per_second: 1000, servers: [{{name: s, address: '{server}'}}]");
    let text = config(control, &[("ledger", open)], "").replace("servers: []", &servers);
    for format in ["logfmt", "json"] {
        let directory = directory();
        let path = write_config(directory.path(), &text);
        let agent = Agent::start(directory.path(), &path, &["--log.format", format]);
        agent.wait_for_sweeps();
        write_config(directory.path(), &text.replace("from: low", "from: \"\\r\\nlevel=error\\e[31m\\u202E\""));
        assert_eq!(http::post(agent.address, "/-/reload").status, 500);
        let log = wait_for("the log", SOON, || {
            let log = agent.process.stderr();
            (log.contains("not reloaded") && log.contains("finding-opened")).then_some(log)
        });
        let opened: Vec<&str> = log.lines().filter(|line| line.contains("finding-opened")).collect();
        assert_eq!(opened.len(), 2, "{log}");
        for line in log.lines() {
            assert!(!line.contains(hostile), "{line:?}");
            let whole = match format {
                "json" => serde_json::from_str::<Value>(line).is_ok_and(|event| event["timestamp"].is_string()),
                _ => line.starts_with("ts=") && line.contains(" level="),
            };
            assert!(whole, "{line:?}");
        }
        // One target, and it is the check's.
        let target = if format == "json" { "\"target\":\"ledger:80\"" } else { " target=ledger:80 " };
        assert!(opened.iter().any(|line| line.contains(target)), "{log}");
        for line in opened {
            assert_eq!(line.matches("target=").count() + line.matches("\"target\":").count(), 1, "{line}");
        }
    }
}

/// A finding tells at most so many names, and none where they are turned off; the count is always told.
#[test]
fn a_finding_names_no_more_than_it_may() {
    let ((_control, control), (_open, open)) = (listen(), listen());
    let tells = |query: &hickory_resolver::proto::op::Message, to: &crate::support::dns::Replier| {
        let mut answer = crate::support::dns::empty(query);
        if query.queries[0].name.to_ascii() != "any.any.svc.cluster.local." {
            return to.send(&honest(query));
        }
        for service in ["a", "b", "c", "d", "e"] {
            let target = format!("{service}.payments.svc.cluster.local.");
            answer.add_answer(srv(query, crate::support::dns::name(&target)));
        }
        to.send(&answer.to_vec().unwrap());
    };
    let server = serve(tells, None);
    for (setting, names) in [("", 3), ("names_in_log: 0, ", 0), ("names_in_log: 4, ", 4), ("names_in_log: 9, ", 5)] {
        let servers = format!("{setting}queries_per_second: 1000, servers: [{{name: s, address: '{server}'}}]");
        let text = config(control, &[("ledger", open)], "").replace("servers: []", &servers);
        let directory = directory();
        let path = write_config(directory.path(), &text);
        let agent = Agent::start(directory.path(), &path, &[]);
        let line = wait_for("the finding", SOON, || {
            let log = agent.process.stderr();
            log.lines().find(|l| l.contains("finding-opened") && l.contains("srv-wildcard")).map(str::to_owned)
        });
        assert!(line.contains("5 names disclosed"), "{line}");
        assert_eq!(line.matches(".payments.svc.cluster.local.").count(), names, "{setting} {line}");
    }
}
