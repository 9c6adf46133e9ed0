//! bind9 as the cluster's DNS, with a view for each client: one still answers wildcards, one is split, one refuses.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use serde_json::{Value, json};
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

/// named with its views, by the source address of those who ask.
struct Named {
    _process: Process,
    _directory: TempDir,
    address: SocketAddr,
    leaky: Ipv4Addr,
    clean: Ipv4Addr,
    refusing: Ipv4Addr,
}

impl Named {
    fn start() -> Self {
        let directory = directory();
        let at = directory.path();
        // named is another user where the tests are run by root.
        fs::set_permissions(at, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(at.join("leaky.zone"), leaky_zone()).unwrap();
        fs::write(at.join("clean.zone"), HEAD).unwrap();
        let [leaky, clean, refusing] = [loopback(), loopback(), loopback()];
        // named listens on addresses of interfaces only, of which there is one.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        fs::write(at.join("named.conf"), configuration(at, address.port(), leaky, clean, refusing)).unwrap();

        let mut command = as_plain_user(Path::new("named"));
        command.args(["-g", "-c"]).arg(at.join("named.conf"));
        let mut process = Process::start(command, at, "named");
        wait_for("named serves", SOON, || {
            if let Some(status) = process.ended() {
                panic!("named ended with {status}: {}", process.stderr());
            }
            process.stderr().lines().any(|line| line.ends_with(" running")).then_some(())
        });
        Self { _process: process, _directory: directory, address, leaky, clean, refusing }
    }

    /// What segprobe finds out from this source address, and its exit code.
    fn check(&self, source: Ipv4Addr) -> (Value, Option<i32>) {
        let (directory, address) = (directory(), self.address);
        let path = write_config(
            directory.path(),
            &format!(
                "zones: {{low: {{namespaces: [storefront]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - {{name: b, from: low, to: high, interval: 1m, dns: {{srv-wildcard: judge, service-lookup: judge}}}}
vantage: {{source: {source}}}
targets: [{{zone: high, namespace: payments, service: ledger-07, endpoints: [{0}], ports: [{1}]}}]
controls: {{positive: [{{tcp: '{address}'}}]}}
dns: {{resolver: '{address}', queries_per_second: 1000, servers: [{{name: bind, address: '{address}'}}]}}
",
                crate::support::closed().ip(),
                address.port(),
            ),
        );
        let ended = segprobe(&["check", "--config.file", &path, "--output", "json"]);
        (serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}")), ended.code)
    }
}

fn configuration(at: &Path, port: u16, leaky: Ipv4Addr, clean: Ipv4Addr, refusing: Ipv4Addr) -> String {
    let at = at.display();
    let view = |name: &str, client| {
        format!(
            "view {name} {{ match-clients {{ {client}; }}; recursion no;
  zone \"cluster.local\" {{ type master; file \"{at}/{name}.zone\"; }};
}};
"
        )
    };
    format!(
        "options {{
  directory \"{at}\"; managed-keys-directory \"{at}\"; pid-file none; session-keyfile none; lock-file none;
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; notify no; empty-zones-enable no;
}};
controls {{ }};
{}{}view refusing {{ match-clients {{ {refusing}; }}; recursion no; }};
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
    let named = Named::start();

    let (report, code) = named.check(named.leaky);
    let leak = find(&report, "srv-wildcard", "bind");
    assert_eq!((&leak["verdict"], &leak["reason"]), (&json!("fail"), &json!("disclosed")), "{leak:#}");
    let all: Vec<_> = (1..=SERVICES).map(|i| format!("ledger-{i:02}.payments.svc.cluster.local.")).collect();
    assert_eq!(leak["dns"]["names"], json!({ "payments": all }), "every name, although UDP has no room for them");
    assert_eq!((&leak["dns"]["cut"], &leak["dns"]["lost"]), (&json!(0), &json!(0)), "{leak:#}");
    let lookup = find(&report, "service-lookup", "bind");
    assert_eq!(lookup["reason"], "disclosed", "{lookup:#}");
    assert_eq!(lookup["dns"]["names"], json!({"payments": ["ledger-07.payments.svc.cluster.local."]}));
    assert_eq!(code, Some(1));

    let (report, _) = named.check(named.clean);
    for kind in ["srv-wildcard", "service-lookup"] {
        let clean = find(&report, kind, "bind");
        assert_eq!((&clean["verdict"], &clean["reason"]), (&json!("pass"), &json!("nothing-disclosed")), "{clean:#}");
        assert_eq!(clean["dns"]["soa"], "cluster.local.");
    }

    let (report, _) = named.check(named.refusing);
    for kind in ["srv-wildcard", "service-lookup"] {
        let refused = find(&report, kind, "bind");
        assert_eq!((&refused["verdict"], &refused["reason"]), (&json!("unverified"), &json!("no-self-check")));
        assert_eq!(refused["dns"]["control"], json!(["refused", "refused"]), "{refused:#}");
    }
}
