//! What serde cannot see: whether the document's parts fit each other. Gives a [`Config`] or everything that is wrong.

mod dns;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::proto::rr::Name;
use ipnet::IpNet;

use super::{
    Address, Boundary, Config, LoadError, PaceConfig, PodsConfig, Port, PositiveControl, Problem, SeriesConfig,
    ShareConfig, ShareOf, Target, VantageConfig, WitnessConfig, WitnessWho, Zone, document as doc,
    load::{Listed, More},
    scalars::{Ip, Located, NodeName, OneOrMany, Position},
};
use crate::model::{AddressKind, CheckKind, Expect, Family, Mode, NegativeControl, Transport, VantageMode};

/// More problems than this are not worth reading.
const MOST_PROBLEMS: usize = 20;
/// More names than this in one message are not worth reading.
const MOST_LISTED: usize = 10;
/// Bounds what one configuration can make the agent hold.
const MOST_ADDRESSES: usize = 500_000;
/// The same: each address is put into an order of its own for each of them.
const MOST_NODES: usize = 20_000;
/// Bounds of a budget, in connects a second.
const BUDGETS: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;
const LEAST_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the container runtime may be asked for its pods, and how long the start of a pod may take.
const LEAST_POLL: Duration = Duration::from_millis(200);
const MOST_POLL: Duration = Duration::from_secs(60);

struct Checker<'a> {
    main: &'a Path,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, at: Position, message: impl Into<String>) {
        let main = self.main;
        self.problem_in(main, at, message);
    }

    fn problem_in(&mut self, file: &Path, at: Position, message: impl Into<String>) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(Problem::new(file, at, message));
        }
    }

    fn number(&mut self, what: &str, value: &Located<u32>, range: std::ops::RangeInclusive<u32>) -> u32 {
        if !range.contains(&value.value) {
            let (least, most) = (range.start(), range.end());
            self.problem(value.at, format!("{what}: found {}, expected {least} to {most}", value.value));
        }
        // Within the range even where it was not found so: what is computed from it cannot overflow.
        value.value.clamp(*range.start(), *range.end())
    }

    fn word(&mut self, what: &str, value: &Located<String>) {
        if !is_word(&value.value) {
            let message =
                format!("{what}: found `{}`, expected up to 63 letters, digits, `-`, `_` or `.`", value.value);
            self.problem(value.at, message);
        }
    }
}

/// Names that become labels: short and plain.
pub fn is_word(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A Kubernetes namespace's or Service's name (RFC 1123 label).
pub fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A DNS name that may stand where an address does.
pub fn is_dns_name(text: &str) -> bool {
    let plain = text.len() <= 253 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    plain && matches!(address(text), Some(Address::Name(_)))
}

pub fn check<'a>(
    main: &'a Path,
    document: doc::Document,
    more: &[More<'a>],
    targets: impl Iterator<Item = Listed<'a>>,
    nodes: Vec<NodeName>,
    hash: String,
) -> Result<Config, LoadError> {
    let mut c = Checker { main, problems: Vec::new() };
    let zones = zones(&mut c, &document.zones, more);
    let targets = check_targets(&mut c, &zones, targets);
    let dns = dns::check(&mut c, &document.dns);
    let witnesses = witnesses(&mut c, &zones, &document.witnesses);
    let boundaries = boundaries(&mut c, &zones, &witnesses, &document.boundaries);
    let positive = document.controls.positive.value.iter().filter_map(|p| positive(&mut c, p)).collect();
    if document.controls.positive.value.is_empty() {
        let message = "controls.positive is empty, expected at least one: without it nothing can ever pass";
        c.problem(document.controls.positive.at, message);
    }
    let own = document.controls.negative.iter().map(|n| (main, n.at, &n.value));
    let found = more.iter().filter_map(|more| Some((more.file, more.negative.as_ref()?)));
    let found = found.flat_map(|(file, list)| list.value.iter().map(move |control| (file, list.at, control)));
    let negative = own.chain(found).filter_map(|(file, at, control)| negative(&mut c, file, at, control)).collect();
    let vantage = vantage(&mut c, document.vantage);
    let co_resident = boundaries.iter().any(|b| b.co_residency.is_some());
    let pods = match document.pods {
        None if vantage.mode == VantageMode::Own && !co_resident => None,
        section => Some(pods(&mut c, section.unwrap_or_default())),
    };
    own_needs_no_pods(&mut c, vantage.mode, &document.witnesses);
    let pace = PaceConfig {
        in_flight: c.number("pace.in_flight", &document.pace.in_flight, 1..=65_536),
        per_second: c.number("pace.per_second", &document.pace.per_second, 1..=1_000_000),
        spacing: document.pace.spacing.0,
    };
    let share = document.share.map(|section| share(&mut c, section, nodes));
    let series = SeriesConfig { every_check: document.series.every_check, worst_checks: document.series.worst_checks };
    match dns {
        Some(dns) if c.problems.is_empty() => Ok(Config {
            hash,
            source: Arc::default(),
            zones,
            boundaries,
            targets,
            heartbeats: Arc::default(),
            vantage,
            pods,
            witnesses,
            positive,
            negative,
            dns,
            pace,
            share,
            series,
        }),
        _ => Err(LoadError(c.problems)),
    }
}

fn zones(
    c: &mut Checker<'_>,
    zones: &BTreeMap<String, Located<doc::Zone>>,
    more: &[More<'_>],
) -> BTreeMap<Arc<str>, Zone> {
    let mut owner: HashMap<&str, &str> = HashMap::new();
    let mut checked: BTreeMap<Arc<str>, Zone> = BTreeMap::new();
    for (name, zone) in zones {
        if !is_word(name) {
            c.problem(zone.at, format!("zone `{name}`: expected up to 63 letters, digits, `-`, `_` or `.`"));
        }
        if name == "unknown" {
            c.problem(zone.at, "zone `unknown`: the word stands for pods that nobody knows of; expected another name");
        }
        for namespace in &zone.value.namespaces {
            if !is_label(&namespace.value) {
                let message = format!("found `{}`, expected a Kubernetes namespace", namespace.value);
                c.problem(namespace.at, message);
            }
            match owner.entry(&namespace.value) {
                Entry::Occupied(other) => {
                    let message = format!(
                        "namespace `{}` is in zone `{}` already, expected one zone at most",
                        namespace.value,
                        other.get()
                    );
                    c.problem(namespace.at, message);
                }
                Entry::Vacant(free) => {
                    free.insert(name);
                }
            }
        }
        let namespaces = zone.value.namespaces.iter().map(|n| n.value.as_str().into()).collect();
        checked.insert(name.as_str().into(), Zone { namespaces, pod_labels: labels(&zone.value.pod_labels) });
    }
    for (file, found) in more.iter().filter_map(|more| Some((more.file, more.zones.as_ref()?))) {
        for (name, namespaces) in &found.value {
            let Some(zone) = checked.get_mut(name.as_str()) else { continue };
            for namespace in namespaces {
                if !is_label(namespace) {
                    c.problem_in(
                        file,
                        found.at,
                        format!("zones: found `{namespace}`, expected a Kubernetes namespace"),
                    );
                }
                match owner.entry(namespace) {
                    // Each file tells of the namespaces that it needs.
                    Entry::Occupied(other) if *other.get() == name => {}
                    Entry::Occupied(other) => {
                        let message = format!(
                            "zones: namespace `{namespace}` is in zone `{}` already, expected one zone at most",
                            other.get()
                        );
                        c.problem_in(file, found.at, message);
                    }
                    Entry::Vacant(free) => {
                        free.insert(name);
                        zone.namespaces.push(namespace.as_str().into());
                    }
                }
            }
        }
    }
    checked
}

fn labels(labels: &BTreeMap<String, String>) -> BTreeMap<Box<str>, Box<str>> {
    labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
}

/// The first few: a message is built for each of perhaps a million wrong targets.
fn list(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let mut names = names.into_iter().map(|n| format!("`{}`", n.as_ref()));
    let some: Vec<String> = names.by_ref().take(MOST_LISTED).collect();
    let more = if names.next().is_some() { ", …" } else { "" };
    some.join(", ") + more
}

fn boundaries(
    c: &mut Checker<'_>,
    zones: &BTreeMap<Arc<str>, Zone>,
    witnesses: &[WitnessConfig],
    boundaries: &Located<Vec<Located<doc::Boundary>>>,
) -> Vec<Boundary> {
    let Located { value: boundaries, at } = boundaries;
    if boundaries.is_empty() {
        c.problem(*at, "boundaries is empty, expected at least one");
    }
    let mut names = BTreeSet::new();
    let mut checked = Vec::with_capacity(boundaries.len());
    for located in boundaries {
        let boundary = &located.value;
        c.word("boundary name", &boundary.name);
        if !names.insert(&boundary.name.value) {
            c.problem(
                boundary.name.at,
                format!("boundary `{}` exists already, expected another name", boundary.name.value),
            );
        }
        for (what, zone) in [("from", &boundary.from), ("to", &boundary.to)] {
            if !zones.contains_key(zone.value.as_str()) {
                let message = format!("{what}: no zone `{}`, expected one of {}", zone.value, list(zones.keys()));
                c.problem(zone.at, message);
            }
        }
        let tcp = &boundary.tcp.value;
        let attempts = c.number("tcp.attempts", &tcp.attempts, 1..=10);
        let timeout = tcp.timeout.value.0;
        if timeout < LEAST_TIMEOUT {
            let message = format!(
                "tcp.timeout: found {timeout:?}, expected 2s or more: the kernel repeats a lost SYN after 1 s only"
            );
            c.problem(tcp.timeout.at, message);
        }
        let interval = boundary.interval.value.0;
        let witnessed = witnesses.iter().any(|w| *w.zone == *boundary.to.value);
        // A silent address costs every attempt, the witness before and after, and the controls before and after.
        let connects = attempts + 2 + if witnessed { 2 } else { 0 };
        let longest = timeout * connects;
        if longest >= interval {
            let message = format!(
                "interval: found {interval:?}, but {connects} connects of {timeout:?} to one silent address take {longest:?}; \
                 expected a longer interval, or fewer attempts or a shorter time-out"
            );
            let at = if boundary.interval.at == Position::default() { located.at } else { boundary.interval.at };
            c.problem(at, message);
        }
        let expect = match boundary.expect {
            doc::ExpectWord::Blocked => Expect::Blocked,
            doc::ExpectWord::Open => Expect::Open,
        };
        if boundary.co_residency.value != doc::ModeWord::Off && expect == Expect::Open {
            c.problem(
                boundary.co_residency.at,
                "co_residency: found in a boundary that expects `open`, where sharing a node is no breach",
            );
        }
        if boundary.co_residency.value != doc::ModeWord::Off && boundary.from.value == boundary.to.value {
            let message = format!(
                "co_residency: found in a boundary from zone `{}` to itself, expected two zones",
                boundary.to.value
            );
            c.problem(boundary.co_residency.at, message);
        }
        if let (Some(techniques), Expect::Open) = (&boundary.dns, expect) {
            c.problem(techniques.at, "dns: found in a boundary that expects `open`, where disclosure is no breach");
        }
        let defaults = doc::Techniques::default();
        let on = match (expect, &boundary.dns) {
            (Expect::Open, _) => None,
            (Expect::Blocked, Some(techniques)) => techniques.value.0.as_ref(),
            (Expect::Blocked, None) => Some(&defaults),
        };
        let words = |t: &doc::Techniques| {
            [
                (CheckKind::SrvWildcard, t.srv_wildcard),
                (CheckKind::ReverseSweep, t.reverse_sweep),
                (CheckKind::ZoneTransfer, t.zone_transfer),
                (CheckKind::ServiceLookup, t.service_lookup),
                (CheckKind::NamespaceOracle, t.namespace_oracle),
                (CheckKind::PodOracle, t.pod_oracle),
            ]
        };
        let techniques = on.into_iter().flat_map(words).filter_map(|(kind, word)| match word {
            doc::ModeWord::Off => None,
            doc::ModeWord::Judge => Some((kind, Mode::Judge)),
            doc::ModeWord::Report => Some((kind, Mode::Report)),
        });
        checked.push(Boundary {
            name: boundary.name.value.as_str().into(),
            from: boundary.from.value.as_str().into(),
            to: boundary.to.value.as_str().into(),
            expect,
            interval,
            timeout,
            attempts,
            closed: tcp.closed,
            techniques: techniques.collect(),
            co_residency: match boundary.co_residency.value {
                doc::ModeWord::Off => None,
                doc::ModeWord::Judge => Some(Mode::Judge),
                doc::ModeWord::Report => Some(Mode::Report),
            },
        });
    }
    checked
}

fn check_targets<'a>(
    c: &mut Checker<'_>,
    zones: &BTreeMap<Arc<str>, Zone>,
    targets: impl Iterator<Item = Listed<'a>>,
) -> Vec<Target> {
    // Words repeat in thousands of targets: each is kept once.
    let mut words: BTreeSet<Arc<str>> =
        zones.keys().chain(zones.values().flat_map(|z| &z.namespaces)).cloned().collect();
    let mut intern = |text: &str| -> Arc<str> {
        words.get(text).cloned().unwrap_or_else(|| {
            let word: Arc<str> = text.into();
            words.insert(word.clone());
            word
        })
    };
    let mut identities = HashMap::new();
    let mut addresses = 0;
    let mut checked = Vec::new();
    for Listed { file, vouched_by, target } in targets {
        if c.problems.len() >= MOST_PROBLEMS {
            break;
        }
        let Located { value: target, at } = match target {
            Ok(target) => target,
            Err(problem) => {
                c.problems.push(problem);
                continue;
            }
        };
        let before = c.problems.len();
        let zone = intern(&target.zone);
        let namespace = intern(target.namespace.as_deref().unwrap_or_default());
        let mut wrong = |message: String| c.problem_in(file, at, message);
        match zones.get(&zone) {
            None => wrong(format!("zone: no zone `{zone}`, expected one of {}", list(zones.keys()))),
            Some(Zone { namespaces, .. }) if !namespace.is_empty() && !namespaces.contains(&namespace) => {
                wrong(format!("namespace `{namespace}` is not in zone `{zone}`"));
            }
            Some(_) => {}
        }
        let (name, is_service) = match (&target.service, &target.name) {
            (Some(service), None) => (service.as_str(), true),
            (None, Some(name)) => (name.as_str(), false),
            (service, _) => {
                let found = if service.is_some() { "both" } else { "neither" };
                wrong(format!("found {found}, expected exactly one of `service` and `name`"));
                continue;
            }
        };
        if is_service && (!is_label(name) || namespace.is_empty()) {
            wrong(format!("service `{name}`: expected a Kubernetes Service's name, and its `namespace`"));
        }
        if !is_word(name) {
            wrong(format!("name: found `{name}`, expected up to 63 letters, digits, `-`, `_` or `.`"));
        }
        if target.ports.is_empty() {
            wrong(format!("target `{name}` has no ports, expected at least one in `ports`"));
        }
        let ips = |list: OneOrMany<Ip>| list.0.into_iter().map(|ip| ip.0).collect::<Box<[IpAddr]>>();
        let (cluster_ips, endpoints, nodes) = (ips(target.cluster_ip), ips(target.endpoints), ips(target.nodes));
        let external: Box<[Address]> = target
            .external
            .0
            .iter()
            .filter_map(|text| match address(text) {
                Some(address) => Some(address),
                None => {
                    wrong(format!("external: found `{text}`, expected an IP address or a DNS name"));
                    None
                }
            })
            .collect();
        let listed = cluster_ips.len() + endpoints.len() + nodes.len() + target.external.0.len();
        let kind = address_kind(target.kind);
        let address = match &target.address {
            Some(text) => match address(text) {
                Some(address) => Some((address, kind)),
                None => {
                    wrong(format!("address: found `{text}`, expected an IP address or a DNS name"));
                    None
                }
            },
            None if listed == 0 && !is_service => {
                wrong(format!("target `{name}` has no address, expected `address`, `endpoints` or `external`"));
                None
            }
            None => None,
        };
        if target.kind.is_some() && target.address.is_none() {
            wrong("kind: belongs to `address`, which is absent".into());
        }
        if !nodes.is_empty() && target.ports.iter().all(|p| p.node_port.is_none()) {
            wrong("nodes: no port has a `node_port`".into());
        }
        addresses += listed.max(1) * target.ports.len();
        let ports: Box<[Port]> = target
            .ports
            .iter()
            .map(|p| Port {
                transport: p.transport,
                port: p.port,
                target_port: p.target_port.unwrap_or(p.port),
                node_port: p.node_port,
            })
            .collect();
        let name = intern(name);
        for port in &ports {
            match identities.entry((zone.clone(), namespace.clone(), name.clone(), port.port, port.transport)) {
                Entry::Occupied(other) => {
                    let (file, position): &(&Path, Position) = other.get();
                    wrong(format!(
                        "two checks with one identity: `{name}:{}` stands at {}:{}:{} already; merge their addresses",
                        port.port,
                        file.display(),
                        position.line,
                        position.column
                    ));
                }
                Entry::Vacant(free) => {
                    free.insert((file, at));
                }
            }
        }
        if c.problems.len() == before {
            checked.push(Target {
                zone,
                namespace,
                name,
                is_service,
                cluster_ips,
                endpoints,
                nodes,
                external,
                address,
                ports,
                vouched_by,
            });
        }
    }
    if addresses > MOST_ADDRESSES {
        let message = format!("targets have {addresses} addresses and ports, expected {MOST_ADDRESSES} at most");
        c.problem(Position::default(), message);
    }
    checked
}

const fn address_kind(word: Option<doc::KindWord>) -> AddressKind {
    match word {
        Some(doc::KindWord::Endpoint) => AddressKind::Endpoint,
        Some(doc::KindWord::Virtual) | None => AddressKind::Virtual,
    }
}

/// An IP address, or a DNS name made absolute.
fn address(text: &str) -> Option<Address> {
    if let Ok(ip) = text.parse() {
        return Some(Address::Ip(ip));
    }
    // Digits and dots only is a mistyped address, never a name.
    let looks_like_an_address = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') || text.contains(':');
    let name = Some(text).filter(|_| !looks_like_an_address && !text.is_empty()).and_then(absolute)?;
    Some(Address::Name(name.to_ascii().into()))
}

fn absolute(text: &str) -> Option<Name> {
    let mut name = Name::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn witnesses(
    c: &mut Checker<'_>,
    zones: &BTreeMap<Arc<str>, Zone>,
    witnesses: &[Located<doc::Witness>],
) -> Vec<WitnessConfig> {
    let mut seen = BTreeSet::new();
    let mut checked: Vec<WitnessConfig> = Vec::new();
    for located in witnesses {
        let witness = &located.value;
        if !zones.contains_key(witness.zone.as_str()) {
            let message = format!("zone: no zone `{}`, expected one of {}", witness.zone, list(zones.keys()));
            c.problem(located.at, message);
        }
        let who = match (&witness.source, witness.node, &witness.pods) {
            (Some(source), None, None) => {
                if source.0.is_empty() {
                    c.problem(located.at, "source: found no address, expected one of each family that it speaks for");
                }
                WitnessWho::Source(sources(c, located.at, source))
            }
            (None, Some(true), None) => WitnessWho::Node,
            (None, None, Some(with)) => WitnessWho::Pods(labels(with)),
            _ => {
                let message = "expected exactly one of `source`, `node: true` and `pods`, with the pods' labels";
                c.problem(located.at, message);
                continue;
            }
        };
        let (kind, again) = match who {
            WitnessWho::Node => ("node", "the node as"),
            WitnessWho::Pods(_) => ("pods", "pods as"),
            WitnessWho::Source(_) => ("source", "source addresses as"),
        };
        if !seen.insert((&witness.zone, kind)) {
            c.problem(located.at, format!("zone `{}` has {again} a witness already", witness.zone));
        }
        checked.push(WitnessConfig { zone: witness.zone.as_str().into(), who });
    }
    checked.sort_by(|a, b| a.who.cmp(&b.who));
    checked
}

/// Other namespaces are entered in mode `pods` only.
fn own_needs_no_pods(c: &mut Checker<'_>, mode: VantageMode, witnesses: &[Located<doc::Witness>]) {
    let needs_pods = |w: &doc::Witness| w.node.is_some() || w.pods.is_some();
    for witness in witnesses.iter().filter(|w| mode == VantageMode::Own && needs_pods(&w.value)) {
        c.problem(witness.at, "`node` and `pods` are witnesses of `vantage.mode: pods` only; expected `source`");
    }
}

fn sources(c: &mut Checker<'_>, at: Position, source: &OneOrMany<Ip>) -> Box<[IpAddr]> {
    let addresses: Box<[IpAddr]> = source.0.iter().map(|ip| ip.0).collect();
    for family in Family::ALL {
        if addresses.iter().filter(|a| Family::of(**a) == *family).count() > 1 {
            c.problem(at, format!("source: expected one {family} address at most"));
        }
    }
    addresses
}

fn positive(c: &mut Checker<'_>, control: &Located<doc::Positive>) -> Option<(Transport, PositiveControl)> {
    let (transport, text) = match (&control.value.tcp, &control.value.udp) {
        (Some(text), None) => (Transport::Tcp, text),
        (None, Some(text)) => (Transport::Udp, text),
        (tcp, _) => {
            let found = if tcp.is_some() { "both" } else { "neither" };
            c.problem(control.at, format!("found {found}, expected exactly one of `tcp` and `udp`"));
            return None;
        }
    };
    if text == "resolver" {
        return Some((transport, PositiveControl::Resolver));
    }
    let address = text.parse::<SocketAddr>().ok().filter(|a| a.port() > 0);
    if address.is_none() {
        c.problem(control.at, format!("{transport}: found `{text}`, expected `resolver` or `address:port`"));
    }
    address.map(|address| (transport, PositiveControl::Address(address)))
}

fn negative(c: &mut Checker<'_>, file: &Path, at: Position, control: &doc::Negative) -> Option<NegativeControl> {
    let address = control.tcp.0;
    if control.ports.is_empty() || control.ports.contains(&0) {
        let message = format!("ports: found {:?}, expected at least one port from 1 to 65535", control.ports);
        c.problem_in(file, at, message);
    }
    let range = match &control.range {
        None if address.is_ipv4() => "0.0.0.0/0".parse(),
        None => "::/0".parse(),
        Some(text) => text.parse::<IpNet>(),
    };
    match range {
        Ok(range) if range.contains(&address) => Some(NegativeControl { address, ports: control.ports.clone(), range }),
        Ok(range) => {
            c.problem_in(file, at, format!("range {range} does not contain the control's own address {address}"));
            None
        }
        Err(_) => {
            let found = control.range.as_deref().unwrap_or_default();
            c.problem_in(file, at, format!("range: found `{found}`, expected a CIDR such as 10.96.0.0/12"));
            None
        }
    }
}

fn vantage(c: &mut Checker<'_>, vantage: doc::Vantage) -> VantageConfig {
    let of_own = [("namespace", &vantage.namespace), ("identity", &vantage.identity)];
    for (what, word) in of_own.into_iter().filter_map(|(what, word)| Some((what, word.as_ref()?))) {
        c.word(&format!("vantage.{what}"), word);
    }
    let mode = match vantage.mode.value {
        doc::VantageWord::Own => VantageMode::Own,
        doc::VantageWord::Pods => VantageMode::Pods,
    };
    let at = vantage.source.as_ref().map(|s| s.at);
    let given = of_own.into_iter().filter_map(|(what, word)| Some((what, word.as_ref()?.at)));
    for (what, at) in given.chain(at.map(|at| ("source", at))).filter(|_| mode == VantageMode::Pods) {
        c.problem(at, format!("vantage.{what}: belongs to `mode: own`; in mode `pods` the pods' own are used"));
    }
    VantageConfig {
        mode,
        namespace: vantage.namespace.map(|w| w.value.into()),
        identity: vantage.identity.map(|w| w.value.into()),
        source: vantage.source.map(|s| sources(c, s.at, &s.value)).unwrap_or_default(),
    }
}

fn pods(c: &mut Checker<'_>, pods: doc::Pods) -> PodsConfig {
    let poll = pods.poll.value.0;
    if !(LEAST_POLL..=MOST_POLL).contains(&poll) {
        c.problem(pods.poll.at, format!("pods.poll: found {poll:?}, expected {LEAST_POLL:?} to {MOST_POLL:?}"));
    }
    let startup_window = pods.startup_window.value.0;
    if startup_window > MOST_POLL {
        let message = format!("pods.startup_window: found {startup_window:?}, expected {MOST_POLL:?} at most");
        c.problem(pods.startup_window.at, message);
    }
    PodsConfig {
        socket: pods.socket,
        poll,
        ignore_labels: pods.ignore_labels.iter().map(|l| l.as_str().into()).collect(),
        turn_within: c.number("pods.turn_within", &pods.turn_within, 1..=1_000),
        per_second: c.number("pods.per_second", &pods.per_second, 1..=100_000),
        startup_window,
    }
}

fn share(c: &mut Checker<'_>, share: Located<doc::Share>, in_files: Vec<NodeName>) -> ShareConfig {
    let Located { value: share, at } = share;
    let of = match (&share.nodes_per_sweep, &share.connects_per_second) {
        (Some(nodes), None) => ShareOf::NodesPerSweep(c.number("share.nodes_per_sweep", nodes, 1..=1_000_000)),
        (None, Some(budget)) => {
            if !BUDGETS.contains(&budget.value) {
                let (least, most) = (BUDGETS.start(), BUDGETS.end());
                let message = format!("share.connects_per_second: found {}, expected {least} to {most}", budget.value);
                c.problem(budget.at, message);
            }
            ShareOf::ConnectsPerSecond(budget.value)
        }
        (nodes, _) => {
            let found = if nodes.is_some() { "both" } else { "neither" };
            let message =
                format!("share: found {found}, expected exactly one of `nodes_per_sweep` and `connects_per_second`");
            c.problem(at, message);
            ShareOf::NodesPerSweep(1)
        }
    };
    let mut nodes: Vec<Arc<str>> = share.nodes.into_iter().chain(in_files).map(|node| node.0).collect();
    nodes.sort_unstable();
    nodes.dedup();
    if nodes.len() > MOST_NODES {
        let message = format!("{} nodes are listed with the targets, expected {MOST_NODES} at most", nodes.len());
        c.problem(at, message);
    }
    ShareConfig { of, nodes, own: Arc::default() }
}
