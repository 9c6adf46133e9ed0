//! `discover.yaml`: which namespaces are which zone, what is a target, and where the targets are written.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;

use crate::{
    config::{LoadError, Located, Position, Problem, Span, is_label, is_word, parse_yaml, read_text},
    model::words,
};

words! {
    /// Infrastructure that low pods have no business with.
    Preset {
        /// 169.254.169.254: credentials of the node, on most clouds.
        CloudMetadata = "cloud-metadata",
        /// Port 10250 of every node.
        Kubelet = "kubelet",
        /// The Service `default/kubernetes` and the servers behind it.
        ApiServer = "api-server",
        /// Ports 2379 and 2380 of the control plane's nodes.
        Etcd = "etcd",
        /// The metrics of the pods behind `kube-system/kube-dns`.
        CorednsMetrics = "coredns-metrics",
    }
}

/// Largest file, in bytes.
const MOST_BYTES: u32 = 1 << 20;
const LEAST_HEARTBEAT: Duration = Duration::from_secs(10);
const MOST_HEARTBEAT: Duration = Duration::from_secs(3600);
const MOST_SETTLE: Duration = Duration::from_secs(60);
const MOST_NODES: u32 = 1_000;
const MOST_NAMESPACES: usize = 8;

/// A checked `discover.yaml`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Zones by name.
    pub zones: BTreeMap<String, Zone>,
    /// Infrastructure that is a target, and its zone.
    pub presets: Option<(String, BTreeSet<Preset>)>,
    /// Ranges of ClusterIPs; the API is asked where there are none.
    pub service_cidrs: Vec<IpNet>,
    /// Nodes that are tried for each NodePort.
    pub nodes_per_node_port: usize,
    /// Namespaces that the targets are written into, where agents live.
    pub into: Vec<String>,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// What changes is written this much later, with what else changed meanwhile.
    pub settle: Duration,
}

/// Which namespaces are a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Labels that its namespaces have.
    pub namespace_labels: BTreeMap<String, String>,
    /// Labels that its pods have.
    pub pod_labels: BTreeMap<String, String>,
    /// What is in it is a target.
    pub targets: bool,
    /// TCP ports that its pods are tried on beside those that they declare.
    pub extra_ports: BTreeSet<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    zones: Located<BTreeMap<String, Located<ZoneDocument>>>,
    presets: Option<Located<PresetsDocument>>,
    #[serde(default)]
    service_cidrs: Vec<Located<String>>,
    nodes_per_node_port: Option<Located<u32>>,
    into: Located<Vec<Located<String>>>,
    heartbeat: Option<Located<Span>>,
    settle: Option<Located<Span>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneDocument {
    namespace_labels: BTreeMap<String, String>,
    #[serde(default)]
    pod_labels: BTreeMap<String, String>,
    #[serde(default)]
    targets: bool,
    #[serde(default)]
    extra_ports: Vec<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresetsDocument {
    zone: String,
    include: Vec<Located<String>>,
}

/// Reads and checks a file.
///
/// # Errors
/// Everything that is wrong with it, with line and column.
pub fn load(path: &Path) -> Result<Settings, LoadError> {
    parse(path, &read_text(path, MOST_BYTES)?)
}

/// Checks a text; `path` stands for the file in errors.
///
/// # Errors
/// Everything that is wrong with it, with line and column.
pub fn parse(path: &Path, text: &str) -> Result<Settings, LoadError> {
    let document: Document = parse_yaml(path, text)?;
    let mut problems = Vec::new();
    let settings = check(document, &mut |at, message| problems.push(Problem::new(path, at, message)));
    if problems.is_empty() { Ok(settings) } else { Err(LoadError(problems)) }
}

fn check(document: Document, wrong: &mut impl FnMut(Position, String)) -> Settings {
    let zones_at = document.zones.at;
    let mut zones = BTreeMap::new();
    for (name, Located { value: zone, at }) in document.zones.value {
        if !is_word(&name) {
            wrong(at, format!("zone `{name}`: expected up to 63 letters, digits, `-`, `_` or `.`"));
        }
        if zone.namespace_labels.is_empty() {
            wrong(
                at,
                format!("zone `{name}`: namespace_labels is empty, and would select every namespace; expected a label"),
            );
        }
        if !zone.targets && !zone.extra_ports.is_empty() {
            wrong(at, format!("zone `{name}`: extra_ports belong to a zone with `targets: true`"));
        }
        if zone.extra_ports.contains(&0) {
            wrong(at, format!("zone `{name}`: extra_ports: found 0, expected ports from 1 to 65535"));
        }
        let ZoneDocument { namespace_labels, pod_labels, targets, extra_ports } = zone;
        let extra_ports = extra_ports.into_iter().collect();
        zones.insert(name, Zone { namespace_labels, pod_labels, targets, extra_ports });
    }
    if zones.is_empty() {
        wrong(zones_at, "zones is empty, expected at least one".into());
    } else if !zones.values().any(|zone: &Zone| zone.targets) && document.presets.is_none() {
        wrong(zones_at, "no zone has `targets: true`, and there are no presets: nothing would ever be a target".into());
    }
    let presets = document.presets.map(|Located { value: presets, at }| {
        if !is_word(&presets.zone) {
            wrong(at, format!("presets.zone: found `{}`, expected a zone's name", presets.zone));
        }
        let known = |word: &Located<String>| Preset::ALL.iter().copied().find(|p| p.as_str() == word.value);
        let mut include = BTreeSet::new();
        for word in &presets.include {
            match known(word) {
                Some(preset) => _ = include.insert(preset),
                None => {
                    let all: Vec<String> = Preset::ALL.iter().map(|p| format!("`{p}`")).collect();
                    wrong(word.at, format!("presets: found `{}`, expected one of {}", word.value, all.join(", ")));
                }
            }
        }
        (presets.zone, include)
    });
    let mut service_cidrs = Vec::new();
    for cidr in &document.service_cidrs {
        match cidr.value.parse::<IpNet>() {
            Ok(range) => service_cidrs.push(range.trunc()),
            Err(_) => {
                let message = format!("service_cidrs: found `{}`, expected a CIDR such as 10.96.0.0/12", cidr.value);
                wrong(cidr.at, message);
            }
        }
    }
    let nodes = document.nodes_per_node_port.unwrap_or(Located { value: 3, at: Position::default() });
    if !(1..=MOST_NODES).contains(&nodes.value) {
        wrong(nodes.at, format!("nodes_per_node_port: found {}, expected 1 to {MOST_NODES}", nodes.value));
    }
    let Located { value: into, at } = document.into;
    if !(1..=MOST_NAMESPACES).contains(&into.len()) {
        wrong(at, format!("into: found {} namespaces, expected 1 to {MOST_NAMESPACES}", into.len()));
    }
    for namespace in into.iter().filter(|namespace| !is_label(&namespace.value)) {
        wrong(namespace.at, format!("into: found `{}`, expected a Kubernetes namespace", namespace.value));
    }
    let mut span = |what: &str, span: Option<Located<Span>>, default, range: std::ops::RangeInclusive<Duration>| {
        let Located { value: Span(value), at } =
            span.unwrap_or(Located { value: Span(default), at: Position::default() });
        if !range.contains(&value) {
            wrong(at, format!("{what}: found {value:?}, expected {:?} to {:?}", range.start(), range.end()));
        }
        value
    };
    let heartbeat = span("heartbeat", document.heartbeat, Duration::from_secs(60), LEAST_HEARTBEAT..=MOST_HEARTBEAT);
    let settle = span("settle", document.settle, Duration::from_secs(5), Duration::ZERO..=MOST_SETTLE);
    Settings {
        zones,
        presets,
        service_cidrs,
        nodes_per_node_port: nodes.value as usize,
        into: into.into_iter().map(|namespace| namespace.value).collect::<BTreeSet<_>>().into_iter().collect(),
        heartbeat,
        settle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        parse(Path::new("d.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn the_sample_is_read_whole() {
        let settings = parse(Path::new("d.yaml"), include_str!("../../tests/fixtures/discover.yaml")).unwrap();
        assert!(settings.zones["high"].targets && !settings.zones["low"].targets);
        assert_eq!(settings.presets.unwrap().1.len(), Preset::ALL.len());
        assert_eq!(settings.into, ["segprobe", "segprobe-system"]);
        assert_eq!(settings.heartbeat, Duration::from_secs(60));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let good = "zones: {high: {namespace_labels: {a: b}, targets: true}}\ninto: [x]\n";
        parse(Path::new("d.yaml"), good).unwrap();
        for (text, said) in [
            (format!("{good}odd: 1\n"), "d.yaml:3:1: unknown field"),
            ("zones: {}\ninto: [x]\n".into(), "d.yaml:1:8: zones is empty"),
            (
                "zones: {high: {namespace_labels: {}, targets: true}}\ninto: [x]\n".into(),
                "would select every namespace",
            ),
            ("zones: {low: {namespace_labels: {a: b}}}\ninto: [x]\n".into(), "nothing would ever be a target"),
            (good.replace("[x]", "[X]"), "d.yaml:2:8: into: found `X`"),
            (good.replace("[x]", "[]"), "into: found 0 namespaces"),
            (format!("{good}heartbeat: 1s\n"), "d.yaml:3:12: heartbeat: found 1s, expected 10s to 3600s"),
            (format!("{good}service_cidrs: [10.96.0.0]\n"), "d.yaml:3:17: service_cidrs: found `10.96.0.0`"),
            (
                format!("{good}presets: {{zone: infra, include: [kubelets]}}\n"),
                "found `kubelets`, expected one of `cloud-metadata`",
            ),
            (format!("{good}nodes_per_node_port: 0\n"), "nodes_per_node_port: found 0, expected 1 to 1000"),
        ] {
            assert!(problems(&text).contains(said), "{text}: {}", problems(&text));
        }
    }
}
