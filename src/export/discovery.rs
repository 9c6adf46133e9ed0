//! `/metrics` of `segprobe discover`.

use std::collections::BTreeMap;

use super::{
    REVISION, RUSTVERSION, VERSION, exposition::Exposition, process::process, web_configuration::web_configuration,
};
use crate::{
    discovery::{
        chunks::MOST_BYTES,
        follow::Kind,
        targets::Gap,
        write::{Written, config_map},
    },
    web::live::Status,
};

/// The whole page.
pub fn page(kinds: &[(&'static str, Kind)], written: &Written, web: Option<Status>) -> String {
    let mut page = Exposition::default();
    page.family("segprobe_build_info", "gauge", "Version of this discovery.");
    let build = [("version", VERSION), ("revision", REVISION), ("rustversion", RUSTVERSION)];
    page.sample("segprobe_build_info", &build, 1);
    watched(&mut page, kinds);
    found(&mut page, written);
    applied(&mut page, written);
    web_configuration(&mut page, web);
    process(&mut page);
    page.finish()
}

fn watched(page: &mut Exposition, kinds: &[(&'static str, Kind)]) {
    let there = || kinds.iter().filter(|(_, kind)| !kind.absent);
    page.family("segprobe_discovery_objects", "gauge", "Objects that are known.");
    for (name, kind) in there() {
        page.sample("segprobe_discovery_objects", &[("kind", name)], kind.objects);
    }
    page.family("segprobe_discovery_objects_unreadable", "gauge", "Objects that cannot be read: they are no targets.");
    for (name, kind) in there() {
        page.sample("segprobe_discovery_objects_unreadable", &[("kind", name)], kind.unreadable.len());
    }
    let name = "segprobe_discovery_as_of_timestamp_seconds";
    page.family(name, "gauge", "The API server's last word about a kind; absent until the first.");
    for (kind, as_of) in there().filter_map(|(name, kind)| Some((name, kind.as_of?))) {
        page.sample(name, &[("kind", kind)], as_of.as_second());
    }
    page.family("segprobe_discovery_watch_errors_total", "counter", "Lists and watches that failed.");
    for (name, kind) in kinds {
        page.sample("segprobe_discovery_watch_errors_total", &[("kind", name)], kind.errors);
    }
}

fn found(page: &mut Exposition, written: &Written) {
    let set = &written.set;
    page.family("segprobe_discovery_namespaces", "gauge", "Namespaces of a zone.");
    for (zone, namespaces) in &set.zones {
        page.sample("segprobe_discovery_namespaces", &[("zone", zone)], namespaces.len());
    }
    let mut counts: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for target in &set.targets {
        let kind = match (&target.service, target.label()) {
            (Some(_), _) => "service",
            (None, name) if name.ends_with(".host") => "host",
            (None, _) if target.namespace.is_empty() => "preset",
            (None, _) => "pods",
        };
        let (targets, weight) = counts.entry((&target.zone, kind)).or_default();
        *targets += 1;
        *weight += target.weight();
    }
    page.family("segprobe_discovery_targets", "gauge", "Targets that were found.");
    for ((zone, kind), (targets, _)) in &counts {
        page.sample("segprobe_discovery_targets", &[("zone", zone), ("kind", kind)], targets);
    }
    page.family("segprobe_discovery_target_addresses", "gauge", "Their addresses, each counted once for each port.");
    for ((zone, kind), (_, weight)) in &counts {
        page.sample("segprobe_discovery_target_addresses", &[("zone", zone), ("kind", kind)], weight);
    }
    page.family(
        "segprobe_discovery_endpoints",
        "gauge",
        "Endpoints of a zone's Services by readiness; all are targets.",
    );
    for ((zone, ready), count) in &set.endpoints {
        let ready = if *ready { "true" } else { "false" };
        page.sample("segprobe_discovery_endpoints", &[("zone", zone), ("ready", ready)], count);
    }
    page.family("segprobe_discovery_not_targets", "gauge", "What the API tells of and is no target.");
    for gap in Gap::ALL {
        let count = set.gaps.get(gap).copied().unwrap_or_default();
        page.sample("segprobe_discovery_not_targets", &[("reason", gap.as_str())], count);
    }
}

fn applied(page: &mut Exposition, written: &Written) {
    let left_out = written.chunks.values().map(|chunks| chunks.left_out).max().unwrap_or_default();
    page.family("segprobe_discovery_targets_left_out", "gauge", "Targets that do not fit into the ConfigMaps.");
    page.sample("segprobe_discovery_targets_left_out", &[], left_out);
    page.family("segprobe_discovery_config_map_bytes", "gauge", "Size of a ConfigMap's targets.");
    for (namespace, chunks) in &written.chunks {
        for (number, chunk) in chunks.chunks.iter().enumerate() {
            let labels = [("into", &**namespace), ("config_map", &*config_map(number))];
            page.sample("segprobe_discovery_config_map_bytes", &labels, chunk.bytes());
        }
    }
    page.family("segprobe_discovery_config_map_bytes_limit", "gauge", "Most bytes of a ConfigMap's targets.");
    page.sample("segprobe_discovery_config_map_bytes_limit", &[], MOST_BYTES);
    page.family("segprobe_discovery_heartbeat_interval_seconds", "gauge", "Time between two heartbeats.");
    page.sample("segprobe_discovery_heartbeat_interval_seconds", &[], written.interval.as_secs());
    if let Some(heartbeat) = written.heartbeat {
        let name = "segprobe_discovery_heartbeat_timestamp_seconds";
        page.family(name, "gauge", "The oldest heartbeat that was written.");
        page.sample(name, &[], heartbeat.as_second());
    }
    let name = "segprobe_discovery_last_apply_timestamp_seconds";
    page.family(name, "gauge", "When all that had to be written last was.");
    for (namespace, at) in &written.applied {
        page.sample(name, &[("into", namespace)], at.as_second());
    }
    page.family("segprobe_discovery_apply_errors_total", "counter", "ConfigMaps that could not be written.");
    page.sample("segprobe_discovery_apply_errors_total", &[], written.errors);
}
