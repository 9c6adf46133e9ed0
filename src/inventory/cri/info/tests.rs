use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const CNI: &str = "/var/run/netns/cni-0a1b";

/// What each runtime tells of a pod in a network of its own, in the shapes of the runtimes' sources.
fn of_runtimes() -> Vec<(&'static str, Value, &'static str)> {
    let spec = |path: Value| {
        json!({"ociVersion": "1.1.0", "linux": {"resources": {}, "namespaces": [
            {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network", "path": path}]}})
    };
    let metadata = json!({"Version": "v1", "Metadata": {"ID": "1", "Name": "p_n_u_0", "Config": null, "NetNSPath": CNI,
        "IP": "10.0.0.2", "AdditionalIPs": null, "RuntimeHandler": "", "CNIResult": null, "ProcessLabel": ""}});
    vec![
        (
            "containerd 1.6, 1.7",
            json!({"pid": 42, "processStatus": "running", "netNamespaceClosed": false, "image": "pause:3.6", "snapshotKey": "k",
                "snapshotter": "overlayfs", "runtimeHandler": "", "runtimeType": "io.containerd.runc.v2",
                "runtimeOptions": {}, "config": {"metadata": {"name": "p"}}, "runtimeSpec": spec(json!(CNI)), "cniResult": {}}),
            CNI,
        ),
        (
            "containerd 1.7 with the sandboxed server, 2.0",
            json!({"pid": 42, "netNamespaceClosed": false, "runtimeType": "io.containerd.runc.v2", "runtimeSpec": spec(json!(CNI)),
                "sandboxMetadata": metadata}),
            CNI,
        ),
        (
            "containerd 2.3, mounts under its state directory",
            json!({"pid": 42, "runtimeSpec": spec(json!("/run/containerd/io.containerd.cri/netns/cni-0a1b")),
                "sandboxMetadata": metadata}),
            "/run/containerd/io.containerd.cri/netns/cni-0a1b",
        ),
        ("containerd, a dead shim", json!({"pid": 0, "runtimeSpec": null, "sandboxMetadata": metadata}), CNI),
        ("containerd, a record without its envelope", json!({"sandboxMetadata": metadata["Metadata"]}), CNI),
        (
            "containerd, a record without a path",
            json!({"pid": 42, "sandboxMetadata": {"NetNSPath": ""}}),
            "/proc/42/ns/net",
        ),
        ("containerd, a spec without a path", json!({"pid": 42, "runtimeSpec": spec(json!(""))}), "/proc/42/ns/net"),
        (
            "CRI-O, infra container",
            json!({"image": "pause:3.10", "pid": 42, "runtimeSpec": spec(json!("/var/run/netns/5d2e"))}),
            "/var/run/netns/5d2e",
        ),
        ("CRI-O", json!({"runtimeSpec": spec(json!("/var/run/netns/5d2e"))}), "/var/run/netns/5d2e"),
    ]
}

fn network(info: &Value) -> Network {
    Info::read(&info.to_string()).unwrap().network(&[])
}

fn pod(path: &str) -> Network {
    Network::Pod(path.into())
}

fn why(network: Network) -> String {
    match network {
        Network::Unknown(why) => why.into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_runtimes_shape_is_read() {
    for (what, info, expected) in of_runtimes() {
        assert_eq!(network(&info), pod(expected), "{what}");
    }
}

/// What the real containerd told, see `tests/pods/recorded.rs`.
#[test]
fn what_containerd_told_is_read() {
    let [pod, host] = [
        include_str!("../../../../tests/data/cri/containerd-1.6-pod.json"),
        include_str!("../../../../tests/data/cri/containerd-1.6-host.json"),
    ]
    .map(|text| Info::read(text).unwrap());
    let netns = "/var/run/netns/cni-7ccb3d47-6504-6f7a-15d6-ae89dc38b458";
    assert_eq!((pod.network(&[]), host.network(&[])), (self::pod(netns), Network::Host));
    for (told, namespace) in [(&pod, "web"), (&host, "kube-system")] {
        let searches =
            [&*format!("{namespace}.svc.cluster.local"), "svc.cluster.local", "cluster.local"].map(Box::from);
        let servers = ["10.86.255.253".parse().unwrap()];
        assert_eq!(told.dns, PodDns { servers: servers.into(), searches: searches.into() });
    }
}

#[test]
fn one_odd_field_does_not_cost_the_path() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!("x"),
        json!([{}]),
        json!({"linux": [1], "Metadata": 7}),
    ];
    for (what, info, expected) in of_runtimes() {
        let telling = ["runtimeSpec", "sandboxMetadata", "pid"].map(|key| (key, info.get(key).cloned()));
        for (key, odd) in info.as_object().unwrap().keys().flat_map(|key| odd.iter().map(move |odd| (key, odd))) {
            let mut changed = info.clone();
            changed[key] = odd.clone();
            let told = network(&changed);
            match telling.iter().any(|(telling, _)| telling == key) {
                false if key == "netNamespaceClosed" && *odd == json!(true) => assert!(why(told).contains("closed")),
                false => assert_eq!(told, pod(expected), "{what}: {key} is {odd}"),
                // Another of them tells, or none.
                true => {
                    assert!(matches!(told, Network::Pod(_) | Network::Unknown(_)), "{what}: {key} is {odd}: {told:?}");
                }
            }
        }
    }
    let entries = json!({"runtimeSpec": {"linux": {"namespaces": [1, {"type": 2}, {"type": "network", "path": CNI}]}}});
    assert_eq!(network(&entries), pod(CNI));
    let path = json!({"runtimeSpec": {"linux": {"namespaces": [{"type": "network", "path": 5}]}}, "sandboxMetadata": {"NetNSPath": CNI}});
    assert_eq!(network(&path), pod(CNI));
}

#[test]
fn only_a_spec_that_tells_all_namespaces_tells_of_the_hosts_network() {
    let of = |namespaces: Value| network(&json!({"pid": 42, "runtimeSpec": {"linux": {"namespaces": namespaces}}}));
    assert_eq!(of(json!([{"type": "pid"}, {"type": "mount"}])), Network::Host);
    for untold in
        [json!([]), json!(null), json!("x"), json!([{"type": "pid"}, {"type": 7}]), json!([{"type": "pid"}, 3])]
    {
        assert_eq!(of(untold.clone()), pod("/proc/42/ns/net"), "{untold}");
    }
    // containerd's own record knows better.
    let both =
        json!({"runtimeSpec": {"linux": {"namespaces": [{"type": "pid"}]}}, "sandboxMetadata": {"NetNSPath": CNI}});
    assert_eq!(network(&both), pod(CNI));
}

#[test]
fn odd_paths_are_not_followed() {
    let long = format!("/{}", "x".repeat(4_096));
    let odd = [
        "var/run/netns/x",
        "../netns",
        "/var/run/../../etc",
        "/",
        "//",
        "/..",
        "/a\0b",
        "/a\nb",
        "/var/run/netns/..",
        &long,
    ];
    for path in odd {
        for info in [
            json!({"pid": 42, "runtimeSpec": {"linux": {"namespaces": [{"type": "network", "path": path}]}}}),
            json!({"pid": 42, "sandboxMetadata": {"Metadata": {"NetNSPath": path}}}),
        ] {
            let why = why(network(&info));
            assert!(why.contains("odd") && why.len() <= 200 && !why.contains(char::is_control), "{path:?}: {why:?}");
        }
    }
    assert!(is_plain("/var/run/netns/..data") && is_plain("/proc/1/ns/net"));
}

#[test]
fn processes_are_positive() {
    for pid in [json!(0), json!(-1), json!("7"), json!(4_294_967_296_u64), json!(1.5)] {
        assert!(why(network(&json!({"pid": pid}))).contains("neither"), "{pid}");
    }
}

#[test]
fn hiding_runtimes_are_recognised_wherever_they_are_told() {
    for (info, by) in [
        (json!({"runtimeType": "io.containerd.kata.v2"}), "io.containerd.kata.v2"),
        (json!({"runtimeHandler": "GVISOR"}), "GVISOR"),
        (json!({"sandboxMetadata": {"Version": "v1", "Metadata": {"RuntimeHandler": "runsc-kvm"}}}), "runsc-kvm"),
        (json!({"runtimeSpec": {"annotations": {"io.kubernetes.cri-o.RuntimeHandler": "kata"}}}), "kata"),
    ] {
        assert_eq!(network(&info), Network::Hidden(by.into()));
    }
    let plain = Info::read(&of_runtimes()[0].1.to_string()).unwrap();
    assert_eq!(plain.network(&["runc", "nvidia"]), pod(CNI));
    assert_eq!(plain.network(&["", "Kata-clh"]), Network::Hidden("Kata-clh".into()));
}

#[test]
fn the_resolver_is_read() {
    let dns = |dns: Value| Info::read(&json!({"config": {"dns_config": dns}}).to_string()).unwrap().dns;
    let told = dns(json!({"servers": ["10.96.0.10", "x", 3, "fe80::1%eth0", "fd00::a"], "options": ["ndots:5"],
        "searches": ["a.svc.cluster.local", null, "a\nb", "x".repeat(257), "cluster.local"]}));
    assert_eq!(told.servers, ["10.96.0.10".parse::<IpAddr>().unwrap(), "fd00::a".parse().unwrap()].into());
    assert_eq!(told.searches, ["a.svc.cluster.local".into(), "cluster.local".into()].into());
    let many = dns(json!({"servers": vec!["10.0.0.1"; 99], "searches": vec!["a"; 99]}));
    assert_eq!((many.servers.len(), many.searches.len()), (16, 64));
    for none in [json!(null), json!([]), json!({"servers": "10.0.0.1", "searches": {}})] {
        assert_eq!(dns(none), PodDns::default());
    }
}

#[test]
fn what_is_no_object_is_told() {
    for text in ["", "null", "7", "[]x", "{", r#"{"pid": 1, "pid": 2}"#, r#"{"a": "\ud800"#, &"[".repeat(100_000)] {
        let why = Info::read(text).unwrap_err();
        assert!(why.contains("JSON"), "{why}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "/[a-z./]{0,20}".prop_map(Value::from),
        Just(json!("network")),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "pid",
            "runtimeSpec",
            "sandboxMetadata",
            "config",
            "netNamespaceClosed",
            "runtimeType",
            "linux",
            "namespaces",
            "type",
            "path",
            "Metadata",
            "NetNSPath",
            "dns_config",
            "servers",
            "searches",
            "annotations",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_read_to_an_end(text in any::<String>()) {
        let _ = Info::read(&text);
    }

    #[test]
    fn whatever_is_told_a_path_is_plain(info in any_json()) {
        if let Ok(info) = Info::read(&info.to_string()) {
            match info.network(&[]) {
                Network::Pod(path) => prop_assert!(path.is_absolute() && !path.to_str().unwrap().split('/').any(|p| p == "..")),
                Network::Hidden(why) | Network::Unknown(why) => prop_assert!(!why.contains(char::is_control)),
                Network::Host => {}
            }
        }
    }
}
