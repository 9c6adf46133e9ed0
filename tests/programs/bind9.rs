//! bind9 as the cluster's DNS: one server, a view an address. One view still answers wildcards, one is split, one refuses.

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    SOON, as_plain_user, directory, find, have, loopback, process::Process, segprobe, wait_for, write_config,
};

/// Services of the protected namespace in the leaky view: more than an answer over UDP can tell.
const SERVICES: usize = 40;

const HEAD: &str = "$TTL 30
@ IN SOA ns.dns hostmaster 1 7200 1800 86400 30
@ IN NS ns.dns
ns.dns IN A 127.0.0.1
kubernetes.default.svc IN A 127.96.0.1
kubernetes.default.svc IN SRV 0 100 443 kubernetes.default.svc
web.storefront.svc IN A 127.96.0.2
";

fn leaky_zone() -> String {
    let service = |i: usize| {
        format!(
            "ledger-{i:02}.payments.svc IN A 127.96.1.{i}
any.any.svc IN SRV 0 100 5432 ledger-{i:02}.payments.svc
"
        )
    };
    HEAD.to_owned() + &(1..=SERVICES).map(service).collect::<String>()
}

struct Named {
    _process: Process,
    _directory: TempDir,
    port: u16,
    leaky: Ipv4Addr,
    clean: Ipv4Addr,
    refusing: Ipv4Addr,
}

fn start() -> Named {
    let directory = directory();
    let at = directory.path();
    // named runs as another user where the tests are run by root.
    fs::set_permissions(at, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(at.join("leaky.zone"), leaky_zone()).unwrap();
    fs::write(at.join("clean.zone"), HEAD).unwrap();
    let [leaky, clean, refusing] = [loopback(), loopback(), loopback()];
    let port = std::net::UdpSocket::bind((leaky, 0)).unwrap().local_addr().unwrap().port();
    fs::write(at.join("named.conf"), configuration(at, port, leaky, clean, refusing)).unwrap();

    let mut command = as_plain_user(Path::new("named"));
    command.args(["-g", "-c"]).arg(at.join("named.conf"));
    let mut process = Process::start(command, at, "named");
    wait_for("named serves", SOON, || {
        if let Some(status) = process.ended() {
            panic!("named ended with {status}: {}", process.stderr());
        }
        process.stderr().lines().any(|line| line.ends_with(" running")).then_some(())
    });
    Named { _process: process, _directory: directory, port, leaky, clean, refusing }
}

fn configuration(at: &Path, port: u16, leaky: Ipv4Addr, clean: Ipv4Addr, refusing: Ipv4Addr) -> String {
    let at = at.display();
    let view = |name: &str, address| {
        format!(
            "view {name} {{ match-destinations {{ {address}; }}; recursion no;
  zone \"cluster.local\" {{ type master; file \"{at}/{name}.zone\"; }};
}};
"
        )
    };
    format!(
        "options {{
  directory \"{at}\"; pid-file none; session-keyfile none; lock-file none; managed-keys-directory \"{at}\";
  listen-on port {port} {{ {leaky}; {clean}; {refusing}; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; notify no; empty-zones-enable no;
}};
controls {{ }};
{}{}view refusing {{ match-destinations {{ {refusing}; }}; recursion no; }};
",
        view("leaky", leaky),
        view("clean", clean),
    )
}

#[test]
fn a_leak_is_found_a_split_is_proven_and_a_refusal_is_neither() {
    if !have("named") {
        return;
    }
    let named = start();
    let (port, directory) = (named.port, directory());
    let path = write_config(
        directory.path(),
        &format!(
            "zones: {{low: {{namespaces: [storefront]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - {{name: b, from: low, to: high, interval: 1m, dns: {{srv-wildcard: judge, service-lookup: judge}}}}
targets: [{{zone: high, namespace: payments, service: ledger-07, endpoints: [127.0.0.1], ports: [1]}}]
controls: {{positive: [{{tcp: '{0}:{port}'}}]}}
dns:
  resolver: {0}:{port}
  queries_per_second: 1000
  servers: [{{name: leaky, address: '{0}:{port}'}}, {{name: clean, address: '{1}:{port}'}}, {{name: refusing, address: '{2}:{port}'}}]
",
            named.leaky, named.clean, named.refusing
        ),
    );
    let ended = segprobe(&["check", "--config.file", &path, "--output", "json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();

    let leak = find(&report, "srv-wildcard", "leaky");
    assert_eq!((&leak["verdict"], &leak["reason"]), (&"fail".into(), &"disclosed".into()), "{leak:#}");
    let told: Vec<_> =
        leak["dns"]["names"]["payments"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    let all: Vec<_> = (1..=SERVICES).map(|i| format!("ledger-{i:02}.payments.svc.cluster.local.")).collect();
    assert_eq!(told, all, "every name, although UDP has no room for them");
    assert_eq!((&leak["dns"]["cut"], &leak["dns"]["lost"]), (&0.into(), &0.into()), "{leak:#}");
    let lookup = find(&report, "service-lookup", "leaky");
    assert_eq!(lookup["reason"], "disclosed", "{lookup:#}");
    assert_eq!(lookup["dns"]["names"], serde_json::json!({"payments": ["ledger-07.payments.svc.cluster.local."]}));

    for kind in ["srv-wildcard", "service-lookup"] {
        let clean = find(&report, kind, "clean");
        assert_eq!((&clean["verdict"], &clean["reason"]), (&"pass".into(), &"nothing-disclosed".into()), "{clean:#}");
        assert_eq!(clean["dns"]["soa"], "cluster.local.");
        let refused = find(&report, kind, "refusing");
        assert_eq!((&refused["verdict"], &refused["reason"]), (&"unverified".into(), &"no-self-check".into()));
        assert_eq!(refused["dns"]["control"], serde_json::json!(["refused", "refused"]));
    }
}
