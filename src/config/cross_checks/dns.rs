//! The cluster's DNS: servers, names and ranges.

use std::{collections::BTreeSet, time::Duration};

use hickory_resolver::proto::rr::Name;
use ipnet::IpNet;

use super::{Checker, absolute, address_kind, is_word};
use crate::config::{
    DnsConfig, DnsServer, document as doc,
    scalars::{Located, Position, socket_address},
};

/// Most addresses in the ranges that are looked up: a /8.
const MOST_REVERSE: u128 = 1 << 24;

pub(super) fn check(c: &mut Checker<'_>, dns: &doc::Dns) -> Option<DnsConfig> {
    let zone = absolute(&dns.zone.value).filter(|z| !z.is_root());
    if zone.is_none() {
        c.problem(
            dns.zone.at,
            format!("dns.zone: found `{}`, expected a DNS name such as cluster.local", dns.zone.value),
        );
    }
    let mut names = BTreeSet::new();
    let mut servers = Vec::new();
    for server in &dns.servers {
        let (name, text, kind) = match &server.value {
            doc::Server::Plain(text) => (text, text, None),
            doc::Server::Named(named) => {
                if !is_word(&named.name) {
                    c.problem(server.at, format!("name: found `{}`, expected a short plain word", named.name));
                }
                // Theirs are the names of the system's servers, however many they are.
                if named.name == "system" || named.name.starts_with("system-") || named.address == "system" {
                    let message =
                        "name: only the plain word `system` stands for the system's servers and gives their names";
                    c.problem(server.at, message);
                }
                (&named.name, &named.address, named.kind)
            }
        };
        if !names.insert(name) {
            c.problem(server.at, format!("DNS server `{name}` exists already, expected another `name`"));
        }
        servers.extend(dns_server(c, server.at, name, text, kind));
    }
    let resolver = dns_server(c, dns.resolver.at, &dns.resolver.value, &dns.resolver.value, None);
    let mut known_names = Vec::new();
    match &dns.known_names {
        None => known_names.extend(
            zone.as_ref().and_then(|zone| Name::from_ascii("kubernetes.default.svc").ok()?.append_domain(zone).ok()),
        ),
        Some(names) => {
            for name in names {
                match absolute(&name.value) {
                    Some(known) => known_names.push(known),
                    None => c.problem(name.at, format!("known_names: found `{}`, expected a DNS name", name.value)),
                }
            }
        }
    }
    let timeout = dns.timeout.value.0;
    if !(Duration::from_millis(100)..=Duration::from_secs(30)).contains(&timeout) {
        c.problem(dns.timeout.at, format!("dns.timeout: found {timeout:?}, expected 100ms to 30s"));
    }
    let ask_again = dns.ask_again.value.0;
    if ask_again > Duration::from_secs(60) {
        c.problem(dns.ask_again.at, format!("dns.ask_again: found {ask_again:?}, expected 60s at most"));
    }
    let (reverse_ranges, reverse_per_sweep) = reverse_sweep(c, dns.reverse_sweep.as_ref());
    Some(DnsConfig {
        zone: zone?,
        servers,
        resolver: resolver?,
        timeout,
        attempts: c.number("dns.attempts", &dns.attempts, 1..=10),
        queries_per_second: c.number("dns.queries_per_second", &dns.queries_per_second, 1..=1_000_000),
        in_flight: c.number("dns.in_flight", &dns.in_flight, 1..=1_000),
        sockets: c.number("dns.sockets", &dns.sockets, 1..=16),
        ask_again,
        known_names,
        reverse_ranges,
        reverse_per_sweep,
        names_in_log: c.number("dns.names_in_log", &dns.names_in_log, 0..=1_000),
    })
}

/// Ranges without overlap, and their budget.
fn reverse_sweep(c: &mut Checker<'_>, reverse: Option<&Located<doc::Reverse>>) -> (Vec<IpNet>, u32) {
    let Some(Located { value: reverse, at }) = reverse else { return (Vec::new(), 0) };
    let mut ranges = Vec::new();
    for text in &reverse.ranges {
        match text.parse::<IpNet>() {
            Ok(range) => ranges.push(range.trunc()),
            Err(_) => c.problem(*at, format!("ranges: found `{text}`, expected a CIDR such as 10.96.0.0/16")),
        }
    }
    let ranges = IpNet::aggregate(&ranges);
    let bits = |range: &IpNet| u32::from(range.max_prefix_len() - range.prefix_len());
    let addresses = ranges.iter().map(|r| 1_u128.checked_shl(bits(r)).unwrap_or(u128::MAX));
    let addresses = addresses.fold(0, u128::saturating_add);
    if ranges.is_empty() || addresses > MOST_REVERSE {
        c.problem(*at, format!("ranges: found {addresses} addresses, expected 1 to {MOST_REVERSE}"));
    }
    if reverse.queries_per_sweep == 0 {
        c.problem(*at, "queries_per_sweep: found 0, expected the number of addresses to look up in each sweep");
    }
    (ranges, reverse.queries_per_sweep)
}

fn dns_server(
    c: &mut Checker<'_>,
    at: Position,
    name: &str,
    text: &str,
    kind: Option<doc::KindWord>,
) -> Option<DnsServer> {
    if text == "system" {
        return Some(DnsServer::System);
    }
    let address = socket_address(text, 53);
    if address.is_none() {
        c.problem(at, format!("DNS server: found `{text}`, expected `system`, an address or `address:port`"));
    }
    // Whoever does not say so may mean a Service, behind which several answer.
    Some(DnsServer::Named(name.into(), address?, address_kind(kind)))
}
