//! The chunks are stable, bounded, and what the agents read.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{
        objects::{EndpointSlice, Inventory, Namespace, Node, Object, Pod, Service},
        targets::{Port, Target},
    },
    *,
};

fn target(i: u32, endpoints: u32) -> Target {
    Target {
        zone: "high".into(),
        namespace: format!("ns-{}", i % 7),
        service: Some(format!("service-{i}")),
        endpoints: (0..endpoints)
            .map(|e| (10 + e / 62_500) << 24 | (i % 200) << 16 | (e / 250 % 250) << 8 | (e % 250 + 1))
            .map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)))
            .collect(),
        ports: vec![Port::tcp(443)],
        ..Target::default()
    }
}

fn set(targets: impl IntoIterator<Item = Target>) -> TargetSet {
    let mut targets: Vec<Target> = targets.into_iter().collect();
    targets.sort_by_key(|t| (t.namespace.clone(), t.label().to_owned()));
    let namespaces = (0..7).map(|i| format!("ns-{i}")).collect();
    TargetSet {
        zones: [("high".to_owned(), namespaces), ("low".to_owned(), ["web".to_owned()].into())].into(),
        nodes: [("segprobe".to_owned(), ["n1".to_owned(), "n2".to_owned()].into())].into(),
        negative: vec![Negative { tcp: "10.96.1.1".parse().unwrap(), ports: [443].into() }],
        targets,
        ..TargetSet::default()
    }
}

/// Which chunk each target is in.
fn places_of(chunks: &Chunks) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (number, chunk) in chunks.chunks.iter().enumerate() {
        let file: serde_json::Value = serde_json::from_str(&chunk.text(None)).unwrap();
        for target in file["targets"].as_array().unwrap() {
            places.insert(target["service"].as_str().unwrap().to_owned(), number);
        }
    }
    places
}

#[test]
fn all_of_it_is_read_by_an_agent() {
    let set = set((0..100).map(|i| target(i, 3)));
    let directory = tempfile::tempdir().unwrap();
    let main = directory.path().join("segprobe.yaml");
    let text = "zones: {low: {}, high: {}}\nboundaries: [{name: b, from: low, to: high}]\ncontrols: {positive: [{tcp: '10.96.0.1:443'}]}\n\
        target_files: ['targets/*.json']\n";
    std::fs::write(&main, text).unwrap();
    std::fs::create_dir(directory.path().join("targets")).unwrap();
    let chunks = chunks(&set, "segprobe");
    let at: Timestamp = "2026-11-26T03:34:19.9Z".parse().unwrap();
    for (number, chunk) in chunks.chunks.iter().enumerate() {
        let text = chunk.text(Some(at));
        assert!(text.starts_with("{\"heartbeat\":\"2026-11-26T03:34:19Z\",\n"), "{text}");
        assert_eq!(text.len(), chunk.bytes());
        std::fs::write(directory.path().join(format!("targets/{number}.json")), text).unwrap();
    }
    let (config, files) = crate::config::load(&main).unwrap();
    assert_eq!(config.targets.len(), 100);
    assert!(config.targets.iter().all(|t| t.vouched_by.is_some()));
    assert_eq!((config.zones["high"].namespaces.len(), config.zones["low"].namespaces.len()), (7, 1));
    assert_eq!(config.negative.len(), 1);
    assert_eq!(files.look().unwrap().heartbeats, *config.heartbeats);

    // Each file is complete in itself: they reach an agent one by one.
    for number in 1..CHUNKS {
        std::fs::remove_file(directory.path().join(format!("targets/{number}.json"))).unwrap();
        crate::config::load(&main).unwrap();
    }
    let first: serde_json::Value = serde_json::from_str(&chunks.chunks[0].text(None)).unwrap();
    assert_eq!(first["nodes"], serde_json::json!(["n1", "n2"]));
    assert_eq!(first.get("heartbeat"), None);
}

#[test]
fn a_target_stays_in_its_chunk_when_others_come_and_go() {
    let all = places_of(&chunks(&set((0..500).map(|i| target(i, 3))), "segprobe"));
    let half = places_of(&chunks(&set((0..500).filter(|i| i % 2 == 0).map(|i| target(i, 3))), "segprobe"));
    assert!(half.iter().all(|(name, chunk)| all[name] == *chunk));
    for chunk in 0..CHUNKS {
        assert!((30..100).contains(&all.values().filter(|c| **c == chunk).count()), "spread evenly");
    }
    // One that changes, changes one file.
    let before = chunks(&set((0..500).map(|i| target(i, 3))), "segprobe");
    let after = chunks(&set((0..500).map(|i| target(i, if i == 77 { 4 } else { 3 }))), "segprobe");
    assert_eq!(before.chunks.iter().zip(&after.chunks).filter(|(a, b)| a != b).count(), 1);
}

#[test]
fn what_does_not_fit_is_counted_and_named() {
    // 100 targets of 90 KB.
    let set = set((0..100).map(|i| target(i, 6_000)));
    let chunks = chunks(&set, "segprobe");
    let placed = chunks.chunks.iter().map(|c| c.targets).sum::<usize>();
    assert!(chunks.left_out > 0 && placed + chunks.left_out == 100, "{placed} and {}", chunks.left_out);
    assert!(placed * 6_000 <= MOST_WEIGHT);
    let (namespace, name) = chunks.first_left_out.clone().unwrap();
    assert!(namespace.starts_with("ns-") && name.starts_with("service-"));
    for chunk in &chunks.chunks {
        assert!(chunk.text(Some(Timestamp::UNIX_EPOCH)).len() <= MOST_BYTES, "{}", chunk.bytes());
    }
    // A full chunk overflows into others before anything is left out.
    let places = places_of(&chunks);
    assert!(places.iter().any(|(name, chunk)| {
        let of = set.targets.iter().find(|t| t.label() == name).unwrap();
        places_in_order(of)[0] != *chunk
    }));
    // One that is larger than any chunk costs no other.
    let with_giant = super::chunks(&self::set((0..10).map(|i| target(i, if i == 5 { 90_000 } else { 3 }))), "segprobe");
    assert_eq!(with_giant.left_out, 1);
    assert_eq!(with_giant.first_left_out, Some(("ns-5".into(), "service-5".into())));
}

fn places_in_order(target: &Target) -> [usize; CHUNKS] {
    places(&target.namespace, target.label())
}

#[test]
fn agents_of_another_namespace_have_other_nodes() {
    let set = set([target(1, 1)]);
    let (own, other) = (chunks(&set, "segprobe"), chunks(&set, "segprobe-system"));
    assert!(own.chunks[0] != other.chunks[0] && !other.chunks[0].text(None).contains("\"nodes\""));
    assert_eq!(own.chunks[1..], other.chunks[1..]);
}

#[test]
fn nodes_are_bounded_and_leave_room() {
    let mut set = set((0..100).map(|i| target(i, 3)));
    // The longest names that there are, and more than agents take.
    let names = (0..MOST_NODES + 5).map(|i| format!("{i:05}.{}", vec!["x".repeat(61); 4].join(".")));
    set.nodes.insert("segprobe".to_owned(), names.collect());
    let chunks = chunks(&set, "segprobe");
    assert_eq!((chunks.left_out, set.nodes["segprobe"].first().unwrap().len()), (0, 253));
    let directory = tempfile::tempdir().unwrap();
    for (number, chunk) in chunks.chunks.iter().enumerate() {
        let text = chunk.text(Some(Timestamp::UNIX_EPOCH));
        assert!(text.len() <= MOST_BYTES, "{} bytes", text.len());
        std::fs::write(directory.path().join(format!("{number}.json")), text).unwrap();
    }
    let main = directory.path().join("segprobe.yaml");
    let text = "zones: {low: {}, high: {}}\nboundaries: [{name: b, from: low, to: high}]\ncontrols: {positive: [{tcp: '10.96.0.1:443'}]}\n\
        target_files: ['*.json']\nshare: {nodes_per_sweep: 2}\n";
    std::fs::write(&main, text).unwrap();
    let (config, _) = crate::config::load(&main).unwrap();
    assert_eq!((config.share.unwrap().nodes.len(), config.targets.len()), (MOST_NODES, 100));
}

proptest! {
    #[test]
    fn every_size_is_bounded_and_told(sizes in proptest::collection::vec(0..2_000_u32, 0..80)) {
        let set = set((0..).zip(&sizes).map(|(i, size)| target(i, *size)));
        let chunks = chunks(&set, "segprobe");
        prop_assert_eq!(chunks.chunks.len(), CHUNKS);
        prop_assert_eq!(chunks.chunks.iter().map(|c| c.targets).sum::<usize>() + chunks.left_out, sizes.len());
        for chunk in &chunks.chunks {
            let text = chunk.text(Some(Timestamp::UNIX_EPOCH));
            prop_assert!(text.len() <= MOST_BYTES && text.len() == chunk.bytes());
            let parsed = serde_json::from_str::<serde_json::Value>(&text);
            prop_assert!(parsed.is_ok());
        }
    }
}

// --- Agents never refuse what discovery writes ---

fn some<T: Clone + std::fmt::Debug + 'static>(of: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(of.to_vec())
}

/// A port as anybody may write it.
fn odd_port(key: &'static str) -> impl Strategy<Value = Value> {
    let (numbers, protocols) = (some(&[0, 53, 80, 443, 8080, 70_000]), some(&["", "TCP", "UDP", "SCTP"]));
    (numbers, protocols, some(&["", "a", "dns", "b\u{1b}"])).prop_map(move |(number, protocol, name)| {
        json!({key: number, "nodePort": number, "hostPort": number, "protocol": protocol, "name": name})
    })
}

/// Objects whose names, addresses and ports meet more often than any cluster's, and are odd.
fn odd_object() -> impl Strategy<Value = Value> {
    let ip = || {
        some(&["10.0.0.1", "10.0.0.2", "fd00::1", "::ffff:10.0.0.1", "None", "", "256.1.1.1", "127.0.0.1", "b\u{1b}"])
    };
    let name = || some(&["a", "b", "a.80", "a.pods", "kubelet", "b\u{1b}\"", "", "A_x"]);
    let ports = |key| proptest::collection::vec(odd_port(key), 0..4);
    let of = (
        some(&["Service", "EndpointSlice", "Pod", "Namespace", "Node"]),
        name(),
        name(),
        some(&["ns-1", "ns-2", "b\u{1b}"]),
    );
    let with = (ports("port"), ports("containerPort"), ip(), ip(), some(&[true, false]));
    (of, with).prop_map(|((kind, name, other, namespace), (ports, container_ports, ip, more, flag))| {
        json!({
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "labels": {"zone": namespace, "kubernetes.io/service-name": other, "pod-template-hash": "80"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": other, "controller": flag}]},
            "ports": ports, "endpoints": [{"addresses": [ip, more]}], "addressType": "IPv4",
            "spec": {"clusterIP": ip, "externalIPs": [more], "ports": ports, "hostNetwork": flag, "nodeName": name,
                "containers": [{"ports": container_ports}]},
            "status": {"podIP": ip, "hostIP": more, "addresses": [{"type": "InternalIP", "address": ip}],
                "loadBalancer": {"ingress": [{"ip": ip, "hostname": name}]}},
        })
    })
}

fn put<T: Object>(inventory: &mut Inventory, object: &Value) {
    let object: T = serde_json::from_value(object.clone()).unwrap();
    let key = (object.metadata().namespace.clone(), object.metadata().name.clone());
    T::all(inventory).insert(key, object);
}

proptest! {
    #[test]
    fn whatever_the_api_tells_is_read_by_agents(objects in proptest::collection::vec(odd_object(), 0..40)) {
        let mut inventory = Inventory::default();
        for namespace in ["ns-1", "ns-2", "b\u{1b}"] {
            put::<Namespace>(&mut inventory, &json!({"metadata": {"name": namespace, "labels": {"high": "yes"}}}));
        }
        for object in &objects {
            match object["kind"].as_str().unwrap() {
                "Service" => put::<Service>(&mut inventory, object),
                "EndpointSlice" => put::<EndpointSlice>(&mut inventory, object),
                "Pod" => put::<Pod>(&mut inventory, object),
                "Namespace" => put::<Namespace>(&mut inventory, object),
                _ => put::<Node>(&mut inventory, object),
            }
        }
        let settings = "zones: {high: {namespace_labels: {high: 'yes'}, targets: true, extra_ports: [80]}}\ninto: [segprobe]\n\
            service_cidrs: [10.0.0.0/24]\npresets: {zone: infra, include: [cloud-metadata, kubelet, api-server, etcd, coredns-metrics]}\n";
        let settings = crate::discovery::settings::parse(std::path::Path::new("d.yaml"), settings).unwrap();
        let set = crate::discovery::targets::find(&settings, &inventory);
        let directory = tempfile::tempdir().unwrap();
        for (number, chunk) in chunks(&set, "segprobe").chunks.iter().enumerate() {
            std::fs::write(directory.path().join(format!("{number}.json")), chunk.text(None)).unwrap();
        }
        let main = directory.path().join("segprobe.yaml");
        std::fs::write(&main, "zones: {low: {}, high: {}, infra: {}}\nboundaries: [{name: b, from: low, to: high}]\n\
            controls: {positive: [{tcp: '10.96.0.1:443'}]}\ntarget_files: ['*.json']\n").unwrap();
        let config = crate::config::load(&main);
        prop_assert!(config.is_ok(), "{}", config.unwrap_err());
        prop_assert_eq!(config.unwrap().0.targets.len(), set.targets.len());
    }
}
