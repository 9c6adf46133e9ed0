//! Caches in front of the cluster's DNS, as on nodes and in networks of old: they take the AA flag away, answer for others,
//! and have their own mind about transfers. What leaks through them is told all the same.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    as_plain_user, closed,
    cluster_dns::{
        Named, Policy,
        Records::{All, WithoutPayments},
        View, shared_directory, start,
    },
    have,
    process::Process,
    told::{
        FAILED, LOOKUP, MAY_KNOW, NAMESPACE, NOTHING, POD, REVERSE, SPLIT, Told, UNKNOWN, WILDCARD, ZONES,
        enumerate_all,
    },
};

/// A cache that asks bind9 from a client's address, and so for its view.
struct Cache {
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

/// What unbound answers from a zone of its own where it is not told otherwise: the reverse of loopback and private ranges.
const OWN_ZONE: &str = " local-zone: 127.in-addr.arpa nodefault\n";

fn unbound(server: SocketAddr, client: Ipv4Addr) -> Cache {
    unbound_with(server, client, OWN_ZONE)
}

/// Nobody but the server on loopback is ever asked: everything is its, the root as well.
fn unbound_with(server: SocketAddr, client: Ipv4Addr, settings: &str) -> Cache {
    let (directory, address) = (shared_directory(), closed());
    let at = directory.path();
    let zones = ["cluster.local", "127.in-addr.arpa", "."]
        .map(|zone| format!("stub-zone:\n name: {zone}\n stub-addr: {}@{}\n", server.ip(), server.port()));
    let configuration = format!(
        "server:
 directory: \"{}\"
 chroot: \"\"
 username: \"\"
 pidfile: \"\"
 use-syslog: no
 interface: {}
 port: {}
 do-ip6: no
 access-control: 127.0.0.0/8 allow
 outgoing-interface: {client}
 do-not-query-localhost: no
 module-config: iterator
{settings}remote-control:
 control-enable: no
{}",
        at.display(),
        address.ip(),
        address.port(),
        zones.concat()
    );
    let path = at.join("unbound.conf");
    fs::write(&path, configuration).unwrap();
    let mut command = as_plain_user(Path::new("unbound"));
    command.arg("-d").arg("-c").arg(path);
    let process = start(command, at, "unbound", |log| log.contains("start of service"));
    Cache { address, _process: process, _directory: directory }
}

fn dnsmasq(server: SocketAddr, client: Ipv4Addr) -> Cache {
    let (directory, address) = (shared_directory(), closed());
    let at = directory.path();
    let zones = ["cluster.local", "127.in-addr.arpa"]
        .map(|zone| format!("server=/{zone}/{}#{}@{client}\n", server.ip(), server.port()));
    let configuration = format!(
        "port={}
listen-address={}
bind-interfaces
no-resolv
no-hosts
no-poll
pid-file
log-facility=-
{}",
        address.port(),
        address.ip(),
        zones.concat()
    );
    let path = at.join("dnsmasq.conf");
    fs::write(&path, configuration).unwrap();
    let mut command = as_plain_user(Path::new("dnsmasq"));
    command.arg("--keep-in-foreground").arg(format!("--conf-file={}", path.display()));
    let process = start(command, at, "dnsmasq", |log| log.contains("cleared cache"));
    Cache { address, _process: process, _directory: directory }
}

/// The clients' defences, what is left behind unbound, which transfers nothing, and behind dnsmasq, which does.
fn defences() -> [(View, [[Told<'static>; 6]; 2]); 4] {
    let view = |name, zones| View { name, zones, transfer: true, policy: Policy::None };
    let whole = Some([All, All]);
    let split = [MAY_KNOW, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING];
    let policy = [WILDCARD, REVERSE, NOTHING, NOTHING, NOTHING, NOTHING];
    [
        (view("open", whole), [NOTHING, ZONES].map(|transfer| [WILDCARD, REVERSE, transfer, LOOKUP, NAMESPACE, POD])),
        (view("split", Some([WithoutPayments; 2])), [split, SPLIT]),
        (View { policy: Policy::ServicesAndPods, transfer: false, ..view("policy", whole) }, [policy, policy]),
        // To unbound a refusal is a server that does not work; dnsmasq hands it on.
        (view("refusing", None), [[FAILED; 6], [UNKNOWN; 6]]),
    ]
}

/// Asks through a cache for each client, twice: what the first run asked for is in the cache when the second one asks.
fn what_leaks_through(program: &str, cache: fn(SocketAddr, Ipv4Addr) -> Cache, which: usize) -> Option<Vec<Value>> {
    if !have("named") || !have(program) {
        return None;
    }
    let (views, expected): (Vec<View>, Vec<_>) = defences().into_iter().unzip();
    let named = Named::start(&views);
    let caches: Vec<Cache> = named.clients().map(|client| cache(named.address, client)).collect();
    let ask = |state| {
        let names: Vec<String> = views.iter().map(|view| format!("{} behind {program}, {state}", view.name)).collect();
        let cases = names.iter().zip(&caches).zip(named.clients()).zip(&expected);
        let cases: Vec<_> = cases
            .map(|(((name, cache), client), expected)| (name.as_str(), cache.address, client, expected[which]))
            .collect();
        enumerate_all(&cases)
    };
    Some([ask("cold"), ask("warm")].concat())
}

#[test]
fn unbound_hides_nothing_but_transfers() {
    let Some(reports) = what_leaks_through("unbound", unbound, 0) else { return };
    for check in reports.iter().flat_map(|report| report["checks"].as_array().unwrap()) {
        if let Some(dns) = check.get("dns") {
            assert_eq!(dns["authoritative"], 0, "what exists is told by the rcode, as here: {check:#}");
        }
    }
}

#[test]
fn dnsmasq_hides_nothing() {
    what_leaks_through("dnsmasq", dnsmasq, 1);
}

/// A cache that denies all addresses by itself hides them, and does not find those that this vantage may know either.
#[test]
fn a_reverse_zone_of_the_caches_own_is_no_proof() {
    if !have("named") || !have("unbound") {
        return;
    }
    let named = Named::start(&[View { name: "open", zones: Some([All, All]), transfer: true, policy: Policy::None }]);
    for client in named.clients() {
        let cache = unbound_with(named.address, client, "");
        let expected = [WILDCARD, UNKNOWN, NOTHING, LOOKUP, NAMESPACE, POD];
        enumerate_all(&[("unbound as it comes", cache.address, client, expected)]);
    }
}
