//! From targets to the contents of a fixed number of ConfigMaps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

use jiff::Timestamp;
use serde::Serialize;

use super::targets::{Negative, TargetSet, hash};

/// ConfigMaps: `segprobe-targets-0` and so on.
pub const CHUNKS: usize = 8;
/// Most bytes in one: a ConfigMap holds 1 MiB, its key and all else included.
pub const MOST_BYTES: usize = 900 << 10;
/// What the agents hold: addresses times ports, of all chunks.
pub const MOST_WEIGHT: usize = 500_000;
/// Nodes that agents take: more would cost them the whole file.
const MOST_NODES: usize = 20_000;
/// Nodes fill a file to here: so many of the longest names fit, and leave room for targets.
const MOST_NODE_BYTES: usize = MOST_BYTES / 4 * 3;
/// `{"heartbeat":"2026-11-26T03:34:19Z",` and the newlines and brackets around the parts.
const FRAME: usize = 128;

/// One target file for each ConfigMap, without its heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// All after the heartbeat; whoever shows the numbers has it as well, without a copy.
    rest: Arc<str>,
    /// Targets in it.
    pub targets: usize,
}

/// All chunks, and what did not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    /// In the order of their numbers.
    pub chunks: Vec<Chunk>,
    /// Targets that are in none.
    pub left_out: usize,
    /// The first of them: namespace and name.
    pub first_left_out: Option<(String, String)>,
}

impl Chunk {
    /// The text of the file. The heartbeat comes first, so that readers can tell it from the rest.
    pub fn text(&self, heartbeat: Option<Timestamp>) -> String {
        let mut text = String::with_capacity(self.rest.len() + 40);
        text.push('{');
        if let Some(heartbeat) = heartbeat {
            // Whole seconds, down: it never claims more than was seen.
            let second = Timestamp::from_second(heartbeat.as_second()).unwrap_or(heartbeat);
            let _ = write!(text, "\"heartbeat\":\"{second}\",");
        }
        text.push_str(&self.rest);
        text
    }

    /// Its size with a heartbeat.
    pub fn bytes(&self) -> usize {
        self.rest.len() + "{\"heartbeat\":\"2026-11-26T03:34:19Z\",".len()
    }
}

/// The part of a chunk that is being filled.
#[derive(Default)]
struct Filling<'a> {
    nodes: Vec<&'a str>,
    zones: BTreeMap<&'a str, BTreeSet<&'a str>>,
    lines: Vec<(usize, String)>,
    bytes: usize,
}

impl<'a> Filling<'a> {
    /// What a zone and a namespace of it cost; an empty namespace is none.
    fn zone_bytes(&self, zone: &str, namespace: &str) -> usize {
        let of_namespace = if namespace.is_empty() { 0 } else { namespace.len() + 3 };
        match self.zones.get(zone) {
            Some(known) if known.contains(namespace) => 0,
            Some(_) => of_namespace,
            None => zone.len() + of_namespace + 6,
        }
    }

    fn add_zone(&mut self, zone: &'a str, namespace: &'a str) {
        self.bytes += self.zone_bytes(zone, namespace);
        let namespaces = self.zones.entry(zone).or_default();
        if !namespace.is_empty() {
            namespaces.insert(namespace);
        }
    }
}

/// Spreads targets over the chunks. Each has its place by the hash of its namespace and name, whoever else comes or goes; where
/// that is full, the next one in an order of its own.
pub fn chunks(set: &TargetSet, namespace: &str) -> Chunks {
    let mut filling: Vec<Filling<'_>> = (0..CHUNKS).map(|_| Filling { bytes: FRAME, ..Filling::default() }).collect();
    filling[0].bytes += json(&set.negative).len();
    for node in set.nodes.get(namespace).into_iter().flatten().take(MOST_NODES) {
        let bytes = node.len() + 3;
        if let Some(chunk) = filling.iter_mut().find(|chunk| chunk.bytes + bytes <= MOST_NODE_BYTES) {
            chunk.bytes += bytes;
            chunk.nodes.push(node);
        }
    }
    // Every file is complete in itself: it tells the zones of the namespaces that it needs, because files reach an agent one by one.
    for (zone, namespaces) in &set.zones {
        for namespace in namespaces {
            filling[home(namespace, "")].add_zone(zone, namespace);
        }
    }
    let (mut left_out, mut first_left_out, mut weight) = (0, None, 0);
    for (order, target) in set.targets.iter().enumerate() {
        let line = json(target);
        let fits = |chunk: &&usize| {
            let of_zone = filling[**chunk].zone_bytes(&target.zone, &target.namespace);
            filling[**chunk].bytes + of_zone + line.len() + 2 <= MOST_BYTES
        };
        let chunk = places(&target.namespace, target.label()).iter().find(fits).copied();
        match chunk.filter(|_| weight + target.weight() <= MOST_WEIGHT) {
            Some(chunk) => {
                let chunk = &mut filling[chunk];
                chunk.add_zone(&target.zone, &target.namespace);
                chunk.bytes += line.len() + 2;
                chunk.lines.push((order, line));
                weight += target.weight();
            }
            None => {
                left_out += 1;
                first_left_out.get_or_insert_with(|| (target.namespace.clone(), target.label().to_owned()));
            }
        }
    }
    let chunks = filling.into_iter().enumerate().map(|(number, filling)| {
        let negative = if number == 0 { &set.negative[..] } else { &[] };
        Chunk { targets: filling.lines.len(), rest: rest(&filling, negative).into() }
    });
    Chunks { chunks: chunks.collect(), left_out, first_left_out }
}

/// Everything after the heartbeat: one target a line, so that what changed is a line in a diff.
fn rest(filling: &Filling<'_>, negative: &[Negative]) -> String {
    let mut rest = String::with_capacity(filling.bytes);
    for (key, value, empty) in [
        ("nodes", json(&filling.nodes), filling.nodes.is_empty()),
        ("zones", json(&filling.zones), filling.zones.is_empty()),
        ("negative", json(&negative), negative.is_empty()),
    ] {
        if !empty {
            let _ = write!(rest, "\n\"{key}\":{value},");
        }
    }
    rest.push_str("\n\"targets\":[");
    for (i, (_, line)) in filling.lines.iter().enumerate() {
        rest.push_str(if i == 0 { "\n" } else { ",\n" });
        rest.push_str(line);
    }
    rest.push_str("\n]}\n");
    rest
}

fn home(namespace: &str, name: &str) -> usize {
    places(namespace, name)[0]
}

/// The chunks in the order in which one target would have them.
fn places(namespace: &str, name: &str) -> [usize; CHUNKS] {
    let mut places: [usize; CHUNKS] = std::array::from_fn(|chunk| chunk);
    places.sort_by_cached_key(|chunk| hash(&[namespace, name, &chunk.to_string()]));
    places
}

/// Cannot fail: there are no maps with keys that are no strings.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
