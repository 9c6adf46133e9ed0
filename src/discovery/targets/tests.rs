//! One table of clusters and what is found in them.

#![allow(clippy::needless_pass_by_value, reason = "objects are written where they are used")]

use std::path::Path;

use serde_json::{Value, json};

use super::{super::objects::Object, pods::workload, *};
use crate::discovery::settings::parse;

const SETTINGS: &str = "
zones:
  low: {namespace_labels: {pci-scope: out}}
  high: {namespace_labels: {pci-scope: in}, targets: true}
service_cidrs: [10.96.0.0/16]
into: [segprobe]
";

fn settings(more: &str) -> Settings {
    parse(Path::new("d.yaml"), &format!("{SETTINGS}{more}")).unwrap()
}

fn add<T: Object>(inventory: &mut Inventory, object: &Value) {
    let object: T = serde_json::from_value(object.clone()).unwrap();
    let key = (object.metadata().namespace.clone(), object.metadata().name.clone());
    T::all(inventory).insert(key, object);
}

/// An inventory of objects as the API writes them, with the namespaces `storefront` (low) and `payments` (high), and nodes.
fn inventory(objects: &[Value]) -> Inventory {
    let mut inventory = Inventory::default();
    let namespace = |name: &str, scope: &str| json!({"kind": "Namespace", "metadata": {"name": name, "labels": {"pci-scope": scope}}});
    let node = |name: &str, ip: &str, role: &str| {
        json!({"kind": "Node", "metadata": {"name": name, "labels": {role: ""}},
            "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": ip}]}})
    };
    let around = [
        namespace("storefront", "out"),
        namespace("payments", "in"),
        namespace("kube-system", "none"),
        node("cp", "192.0.2.1", "node-role.kubernetes.io/control-plane"),
        node("worker-1", "192.0.2.11", "x"),
        node("worker-2", "192.0.2.12", "x"),
    ];
    for object in around.iter().chain(objects) {
        match object["kind"].as_str().unwrap() {
            "Namespace" => add::<super::super::objects::Namespace>(&mut inventory, object),
            "Node" => add::<super::super::objects::Node>(&mut inventory, object),
            "Service" => add::<Service>(&mut inventory, object),
            "EndpointSlice" => add::<EndpointSlice>(&mut inventory, object),
            "Pod" => add::<Pod>(&mut inventory, object),
            "ServiceCIDR" => add::<super::super::objects::ServiceCidr>(&mut inventory, object),
            kind => panic!("{kind}"),
        }
    }
    inventory
}

fn service(name: &str, spec: Value) -> Value {
    json!({"kind": "Service", "metadata": {"name": name, "namespace": "payments"}, "spec": spec})
}

fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> Value {
    json!({"kind": "EndpointSlice", "metadata": {"name": name, "namespace": "payments",
        "labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4", "ports": ports, "endpoints": endpoints})
}

fn pod(name: &str, spec: Value, ip: &str) -> Value {
    json!({"kind": "Pod", "metadata": {"name": name, "namespace": "payments", "labels": {"pod-template-hash": "5d4"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "ledger-5d4", "controller": true}]},
        "spec": spec, "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "192.0.2.11"}})
}

fn found(more: &str, objects: &[Value]) -> TargetSet {
    find(&settings(more), &inventory(objects))
}

/// The targets as they stand in the file, without zone and namespace.
fn targets(set: &TargetSet) -> Vec<Value> {
    let without = |target: &Target| {
        let mut value = serde_json::to_value(target).unwrap();
        let fields = value.as_object_mut().unwrap();
        assert_eq!(fields.remove("zone"), Some("high".into()));
        assert_eq!(fields.remove("namespace"), Some("payments".into()));
        value
    };
    set.targets.iter().map(without).collect()
}

fn gaps(set: &TargetSet) -> Vec<(&'static str, usize)> {
    set.gaps.iter().map(|(gap, count)| (gap.as_str(), *count)).collect()
}

#[test]
fn a_service_is_known_by_its_addresses_and_every_endpoint() {
    let set = found(
        "",
        &[
            service(
                "ledger",
                json!({"type": "ClusterIP", "clusterIP": "10.96.0.40", "clusterIPs": ["10.96.0.40", "fd00::40"],
                "ports": [{"name": "pg", "port": 5432, "protocol": "TCP"}, {"name": "admin", "port": 80}]}),
            ),
            slice(
                "a",
                "ledger",
                json!([{"name": "pg", "port": 15432, "protocol": "TCP"}, {"name": "admin", "port": 80}]),
                json!([{"addresses": ["10.244.1.5"], "conditions": {"ready": true}},
                    {"addresses": ["10.244.2.7"], "conditions": {"ready": false}},
                    {"addresses": ["10.244.2.8"], "conditions": {"ready": false, "terminating": true}}]),
            ),
            // Go's nil slices, and a slice of another Service.
            slice("b", "ledger", Value::Null, Value::Null),
            slice("c", "other", json!([{"name": "pg", "port": 1}]), json!([{"addresses": ["10.244.9.9"]}])),
        ],
    );
    let expected = json!([{"service": "ledger", "cluster_ip": ["10.96.0.40", "fd00::40"],
        "endpoints": ["10.244.1.5", "10.244.2.7"], "ports": [{"port": 80}, {"port": 5432, "target_port": 15432}]}]);
    assert_eq!(json!(targets(&set)), expected);
    assert_eq!(set.endpoints[&("high".to_owned(), true)], 1);
    assert_eq!(set.endpoints[&("high".to_owned(), false)], 2);
    assert_eq!(gaps(&set), []);
    let names = |zone: &str| set.zones[zone].iter().cloned().collect::<Vec<_>>();
    assert_eq!((names("low"), names("high")), (vec!["storefront".to_owned()], vec!["payments".to_owned()]));
}

#[test]
fn a_named_target_port_is_resolved_in_each_slice() {
    let set = found(
        "",
        &[
            service("ledger", json!({"clusterIP": "10.96.0.40", "ports": [{"name": "pg", "port": 5432}]})),
            slice(
                "a",
                "ledger",
                json!([{"name": "pg", "port": 15432}]),
                json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]),
            ),
            slice("b", "ledger", json!([{"name": "pg", "port": 25432}]), json!([{"addresses": ["10.0.0.3"]}])),
        ],
    );
    // No address is tried on a port that only others have: its RST would read as a finding.
    let expected = json!([
        {"service": "ledger", "cluster_ip": ["10.96.0.40"], "endpoints": ["10.0.0.1", "10.0.0.2"], "ports": [{"port": 5432, "target_port": 15432}]},
        {"name": "ledger.25432", "endpoints": ["10.0.0.3"], "ports": [{"port": 25432}]},
    ]);
    assert_eq!(json!(targets(&set)), expected);

    // The same where one slice lacks a port.
    let set = found(
        "",
        &[
            service(
                "ledger",
                json!({"clusterIP": "10.96.0.40", "ports": [{"name": "pg", "port": 5432}, {"name": "admin", "port": 80}]}),
            ),
            slice("a", "ledger", json!([{"name": "pg", "port": 5432}]), json!([{"addresses": ["10.0.0.1"]}])),
            slice(
                "b",
                "ledger",
                json!([{"name": "pg", "port": 5432}, {"name": "admin", "port": 80}]),
                json!([{"addresses": ["10.0.0.3"]}]),
            ),
        ],
    );
    let expected = json!([
        {"service": "ledger", "cluster_ip": ["10.96.0.40"], "endpoints": ["10.0.0.3"], "ports": [{"port": 80}]},
        {"service": "ledger", "cluster_ip": ["10.96.0.40"], "endpoints": ["10.0.0.1", "10.0.0.3"], "ports": [{"port": 5432}]},
    ]);
    assert_eq!(json!(targets(&set)), expected);
}

#[test]
fn every_kind_of_service() {
    let one = |spec: Value, status: Value, endpoints: Value| {
        let mut service = service("ledger", spec);
        service["status"] = status;
        let set = found("", &[service, slice("a", "ledger", json!([{"name": "", "port": 8443}]), endpoints)]);
        (json!(targets(&set)), gaps(&set))
    };
    let there = || json!([{"addresses": ["10.0.0.1"]}]);
    // Headless.
    let (targets, gaps) =
        one(json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 443}]}), json!({}), there());
    assert_eq!(
        targets,
        json!([{"service": "ledger", "endpoints": ["10.0.0.1"], "ports": [{"port": 443, "target_port": 8443}]}])
    );
    assert_eq!(gaps, []);
    // Headless and without endpoints: no name resolves, and nobody is there.
    let (targets, gaps) = one(json!({"clusterIP": "None", "ports": [{"port": 443}]}), json!({}), json!([]));
    assert_eq!((targets, gaps), (json!([]), vec![("no-address", 1)]));
    // Another name.
    let (targets, gaps) = one(json!({"type": "ExternalName", "externalName": "db.example.com"}), json!({}), json!([]));
    assert_eq!((targets, gaps), (json!([]), vec![("external-name", 1)]));
    // A load balancer: by address, by name, and at the nodes.
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "externalIPs": ["198.51.100.7"],
        "ports": [{"port": 443, "nodePort": 30443}], "healthCheckNodePort": 31000});
    let status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.5"}, {"hostname": "LB.example.com"}, {"hostname": "b\u{1b}ad name"}]}});
    let (targets, gaps) = one(spec, status, there());
    let expected = json!([{"service": "ledger", "cluster_ip": ["10.96.0.9"], "endpoints": ["10.0.0.1"],
        "nodes": ["192.0.2.1", "192.0.2.11", "192.0.2.12"], "external": ["198.51.100.7", "203.0.113.5", "lb.example.com"],
        "ports": [{"port": 443, "target_port": 8443, "node_port": 30443}]}]);
    assert_eq!((targets, gaps), (expected, vec![("malformed", 1)]));
    // A load balancer without NodePorts leads to no node.
    let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 443}]});
    assert_eq!(one(spec, json!({}), there()).0[0].get("nodes"), None);
    // UDP of DNS servers alone; SCTP not at all.
    let spec = json!({"clusterIP": "10.96.0.9", "ports": [{"name": "dns", "port": 5353, "protocol": "UDP"}, {"name": "q", "port": 443, "protocol": "UDP"},
        {"name": "s", "port": 5, "protocol": "SCTP"}, {"name": "d", "port": 53, "protocol": "UDP"}]});
    let (targets, gaps) = one(spec, json!({}), there());
    assert_eq!(targets[0]["ports"], json!([{"port": 53, "protocol": "UDP"}, {"port": 5353, "protocol": "UDP"}]));
    assert_eq!(gaps, [("protocol", 2), ("unknown-port", 1)], "the slice tells of another port");
}

#[test]
fn node_ports_are_tried_on_a_few_nodes_that_stay() {
    let ledger = service(
        "ledger",
        json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 443, "nodePort": 30443}]}),
    );
    let node = |i: u32| {
        json!({"kind": "Node", "metadata": {"name": format!("n{i}")},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{}", 100 + i)}, {"type": "InternalIP", "address": format!("2001:db8::{i}")}]}})
    };
    let nodes_of = |objects: &[Value]| found("nodes_per_node_port: 2", objects).targets[0].nodes.clone();
    let with = |nodes: std::ops::Range<u32>| nodes_of(&nodes.map(node).chain([ledger.clone()]).collect::<Vec<_>>());
    let ten = with(0..10);
    assert!(ten.len() >= 2 && ten.len() <= 4, "two nodes, with both their families: {ten:?}");
    // One node more displaces one at most.
    assert!(with(0..11).intersection(&ten).count() * 2 >= ten.len());

    // Where nodes pass them on only to endpoints of their own, it is these nodes.
    let mut local = ledger.clone();
    local["spec"]["externalTrafficPolicy"] = "Local".into();
    let endpoints = json!([{"addresses": ["10.0.0.1"], "nodeName": "n7"},
        {"addresses": ["10.0.0.2"], "nodeName": "n8", "conditions": {"terminating": true}}]);
    let endpoints = slice("a", "ledger", json!([{"port": 8443}]), endpoints);
    let of = |service: &Value, endpoints: &Value| {
        nodes_of(&(0..10).map(node).chain([service.clone(), endpoints.clone()]).collect::<Vec<_>>())
    };
    let n7: BTreeSet<IpAddr> = ["192.0.2.107", "2001:db8::7"].map(|ip| ip.parse().unwrap()).into();
    assert_eq!(of(&local, &endpoints), n7);
    assert_eq!(of(&ledger, &endpoints), ten, "every node passes them on");
    assert_eq!(of(&local, &slice("a", "ledger", Value::Null, Value::Null)), ten, "there are none");
}

#[test]
fn pods_are_targets_where_no_service_leads() {
    let ports = |ports: Value| json!({"containers": [{"ports": ports}]});
    let ledger = [
        service("ledger", json!({"clusterIP": "10.96.0.40", "ports": [{"port": 443}]})),
        slice(
            "a",
            "ledger",
            json!([{"name": "", "port": 8443}]),
            json!([{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "p1"}}]),
        ),
    ];
    let with = |more: &str, pods: &[Value]| {
        let set = found(more, &[&ledger[..], pods].concat());
        (targets(&set).into_iter().filter(|t| t.get("name").is_some()).collect::<Vec<_>>(), gaps(&set))
    };
    // What the Service leads to is known already; the other port and the other pod are not.
    let declared = json!([{"containerPort": 8443}, {"containerPort": 9090, "name": "metrics"}]);
    let (found, _) =
        with("", &[pod("p1", ports(declared.clone()), "10.0.0.1"), pod("p2", ports(declared.clone()), "10.0.0.2")]);
    assert_eq!(
        json!(found),
        json!([
            {"name": "ledger.pods", "endpoints": ["10.0.0.2"], "ports": [{"port": 8443}]},
            {"name": "ledger.pods", "endpoints": ["10.0.0.1", "10.0.0.2"], "ports": [{"port": 9090}]},
        ])
    );
    // Ended, ending, and of no zone.
    let mut ended = pod("p1", ports(declared.clone()), "10.0.0.1");
    ended["status"]["phase"] = "Succeeded".into();
    let mut ending = pod("p2", ports(declared.clone()), "10.0.0.2");
    ending["metadata"]["deletionTimestamp"] = "2026-11-26T00:00:00Z".into();
    let mut other = pod("p3", ports(declared.clone()), "10.0.0.3");
    other["metadata"]["namespace"] = "storefront".into();
    assert_eq!(with("", &[ended, ending, other]), (vec![], vec![]));
    // The host's network and the host's ports escape NetworkPolicy.
    let mut host = ports(json!([{"containerPort": 9100, "hostPort": 9100}]));
    host["hostNetwork"] = true.into();
    let on_host = ports(
        json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81, "hostPort": 8081, "hostIP": "192.0.2.77"}]),
    );
    let (found, _) = with("", &[pod("p1", host, "192.0.2.11"), pod("p2", on_host, "10.0.0.2")]);
    assert_eq!(
        json!(found),
        json!([
            {"name": "ledger.host", "endpoints": ["192.0.2.11"], "ports": [{"port": 8080}, {"port": 9100}]},
            {"name": "ledger.host", "endpoints": ["192.0.2.77"], "ports": [{"port": 8081}]},
            {"name": "ledger.pods", "endpoints": ["10.0.0.2"], "ports": [{"port": 80}, {"port": 81}]},
        ])
    );
    // Ports that are not declared, where they are asked for.
    let more = "";
    let text = format!("{SETTINGS}{more}").replace("targets: true", "targets: true, extra_ports: [22]");
    let set = find(&parse(Path::new("d.yaml"), &text).unwrap(), &inventory(&[pod("p2", json!({}), "10.0.0.2")]));
    assert_eq!(
        json!(targets(&set)),
        json!([{"name": "ledger.pods", "endpoints": ["10.0.0.2"], "ports": [{"port": 22}]}])
    );
    // No address yet, odd ones, and ones that lead back to the agent.
    for (ip, gap) in
        [("", "no-address"), ("10.0.0.256", "malformed"), ("127.0.0.1", "malformed"), ("0.0.0.0", "malformed")]
    {
        let (found, gaps) = with("", &[pod("p2", ports(declared.clone()), ip)]);
        assert_eq!(found, Vec::<Value>::new(), "{ip}");
        assert!(gaps.iter().any(|(g, _)| *g == gap), "{ip}: {gaps:?}");
    }
}

/// Ports of the node, on which of its addresses they are, and what is found.
#[test]
fn host_ports_are_where_their_pod_says() {
    let found_at = |host_ip: Value| {
        let mut pod = pod(
            "p1",
            json!({"containers": [{"ports": [{"containerPort": 80, "hostPort": 8080, "hostIP": host_ip}]}]}),
            "10.0.0.1",
        );
        pod["status"]["hostIPs"] = json!([{"ip": "192.0.2.11"}, {"ip": "2001:db8::11"}]);
        let set = found("", &[pod]);
        let host = set.targets.iter().find(|target| target.label() == "ledger.host");
        let ips = host.map(|target| target.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>());
        (ips.unwrap_or_default(), gaps(&set))
    };
    let at = |ips: &[&str]| (ips.iter().map(|ip| (*ip).to_owned()).collect(), vec![]);
    assert_eq!(found_at(Value::Null), at(&["192.0.2.11", "2001:db8::11"]));
    assert_eq!(found_at("0.0.0.0".into()), at(&["192.0.2.11"]));
    assert_eq!(found_at("::".into()), at(&["2001:db8::11"]));
    assert_eq!(found_at("192.0.2.99".into()), at(&["192.0.2.99"]));
    // Nobody but the node itself gets there: a refusal of the node's address would be a false finding.
    assert_eq!(found_at("127.0.0.1".into()), at(&[]));
    assert_eq!(found_at("::1".into()), at(&[]));
    assert_eq!(found_at("odd".into()), (vec![], vec![("malformed", 1)]));
}

/// With the labels of the manifests that are shipped.
#[test]
fn who_tests_is_no_target() {
    let pod = |name: &str, namespace: &str, component: &str| {
        json!({"kind": "Pod", "metadata": {"name": name, "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "segprobe", "app.kubernetes.io/component": component}},
            "spec": {"nodeName": "worker-1", "containers": [{"ports": [{"containerPort": 11450}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1"}})
    };
    let mut of_agents = [
        service("metrics", json!({"clusterIP": "10.96.0.50", "ports": [{"port": 11450}]})),
        slice(
            "m",
            "metrics",
            json!([{"port": 11450}]),
            json!([{"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "a"}}]),
        ),
    ];
    for object in &mut of_agents {
        object["metadata"]["namespace"] = "segprobe-witness".into();
    }
    let zone = json!({"kind": "Namespace", "metadata": {"name": "segprobe-witness", "labels": {"pci-scope": "in"}}});
    let labels = |namespace: &str| [zone.clone(), pod("a", namespace, "witness")];
    let found = |objects: &[Value]| {
        let text = SETTINGS.replace("into: [segprobe]", "into: [segprobe, segprobe-witness]");
        find(&parse(Path::new("d.yaml"), &text).unwrap(), &inventory(objects))
    };
    let set = found(&[&labels("segprobe-witness")[..], &of_agents].concat());
    assert_eq!((set.targets.as_slice(), gaps(&set)), (&[][..], vec![]));
    assert_eq!(json!(set.nodes), json!({"segprobe": [], "segprobe-witness": ["worker-1"]}));
    // Who only says that he is one, and another pod beside it.
    assert_eq!(found(&labels("payments")).targets.len(), 1);
    assert_eq!(found(&[zone.clone(), pod("a", "segprobe-witness", "else")]).targets.len(), 1);
}

#[test]
fn ports_of_slices_that_are_of_no_port_are_counted() {
    let there = || json!([{"addresses": ["10.0.0.1"]}]);
    let with = |ports: Value, endpoints: Value| {
        let ledger = service("ledger", json!({"clusterIP": "None", "ports": [{"name": "pg", "port": 5432}]}));
        gaps(&found("", &[ledger, slice("a", "ledger", ports, endpoints)]))
    };
    let no_address = ("no-address", 1);
    assert_eq!(with(json!([{"name": "pg", "port": 5432}]), there()), []);
    for ports in [Value::Null, json!([]), json!([{"name": "other", "port": 5432}])] {
        assert_eq!(with(ports.clone(), there()), [no_address, ("unknown-port", 1)], "{ports}");
        assert_eq!(with(ports, Value::Null), [no_address]);
    }
}

#[test]
fn pod_labels_narrow_a_zone() {
    let text = SETTINGS.replace("targets: true", "targets: true, pod_labels: {tier: db}");
    let with_label = |name: &str, ip: &str, tier: &str| {
        let mut pod = pod(name, json!({"containers": [{"ports": [{"containerPort": 9090}]}]}), ip);
        pod["metadata"]["labels"]["tier"] = tier.into();
        pod
    };
    let objects = [
        service("ledger", json!({"clusterIP": "10.96.0.40", "ports": [{"port": 443}]})),
        slice(
            "a",
            "ledger",
            json!([{"port": 443}]),
            json!([
            {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "name": "db"}},
            {"addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod", "name": "web"}},
            {"addresses": ["10.0.0.3"]}]),
        ),
        with_label("db", "10.0.0.1", "db"),
        with_label("web", "10.0.0.2", "web"),
    ];
    let set = find(&parse(Path::new("d.yaml"), &text).unwrap(), &inventory(&objects));
    assert_eq!(
        json!(targets(&set)),
        json!([
            {"service": "ledger", "cluster_ip": ["10.96.0.40"], "endpoints": ["10.0.0.1"], "ports": [{"port": 443}]},
            {"name": "ledger.pods", "endpoints": ["10.0.0.1"], "ports": [{"port": 9090}]},
        ])
    );
    // A Service all of whose endpoints are others' is no target; one that has none yet is.
    let others = slice(
        "b",
        "web",
        json!([{"port": 443}]),
        json!([{"addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod", "name": "web"}}]),
    );
    let web = service("web", json!({"clusterIP": "10.96.0.41", "ports": [{"port": 443}]}));
    let of = |more: &[Value]| {
        let set = find(&parse(Path::new("d.yaml"), &text).unwrap(), &inventory(&[&objects[..], more].concat()));
        set.targets.iter().filter(|target| target.service.as_deref() == Some("web")).count()
    };
    assert_eq!((of(&[web.clone(), others.clone()]), of(std::slice::from_ref(&web))), (0, 1));
    // Nor while the last of them ends; one whose pod nobody knows yet may be the zone's.
    let mut ending = others.clone();
    ending["endpoints"][0]["conditions"] = json!({"terminating": true});
    let mut unknown = others;
    unknown["endpoints"][0]["targetRef"]["name"] = "new".into();
    assert_eq!((of(&[web.clone(), ending]), of(&[web, unknown])), (0, 1));
}

#[test]
fn one_odd_object_does_not_cost_the_others() {
    let good = service("good", json!({"clusterIP": "10.96.0.41", "ports": [{"port": 443}]}));
    let evil = "x\u{1b}[31m\n\"}";
    let mut odd = [
        service(evil, json!({"clusterIP": "10.96.0.40", "ports": [{"port": 443}]})),
        service("ports", json!({"clusterIP": "10.96.0.42", "ports": [{"port": 70000}, {"port": 0}, {"port": 443}]})),
        service("ip", json!({"clusterIP": evil, "ports": [{"port": 443}]})),
        slice("a", "good", json!([{"port": 99999}]), json!([{"addresses": ["10.0.0.1"]}])),
        json!({"kind": "Namespace", "metadata": {"name": evil, "labels": {"pci-scope": "in"}}}),
        pod(evil, json!({"containers": [{"ports": [{"containerPort": 80}]}]}), "10.0.0.9"),
    ];
    odd[5]["metadata"]["ownerReferences"] = json!([]);
    let set = found("", &[&odd[..], &[good]].concat());
    assert_eq!(
        json!(targets(&set)),
        json!([
            {"service": "good", "cluster_ip": ["10.96.0.41"], "ports": [{"port": 443}]},
            {"service": "ports", "cluster_ip": ["10.96.0.42"], "ports": [{"port": 443}]},
        ])
    );
    assert_eq!(gaps(&set), [("no-address", 1), ("unknown-port", 1), ("malformed", 6)]);
    assert!(set.zones["high"].iter().all(|namespace| namespace == "payments"));
}

#[test]
fn the_presets() {
    let all = "presets: {zone: infrastructure, include: [cloud-metadata, kubelet, api-server, etcd, coredns-metrics]}";
    let mut objects = vec![
        service("kubernetes", json!({"clusterIPs": ["10.96.0.1"], "ports": [{"name": "https", "port": 443}]})),
        slice(
            "kubernetes",
            "kubernetes",
            json!([{"name": "https", "port": 6443}]),
            json!([{"addresses": ["192.0.2.1"]}]),
        ),
        slice(
            "kube-dns-a",
            "kube-dns",
            json!([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "metrics", "port": 9154}]),
            json!([{"addresses": ["10.244.0.2"]}]),
        ),
    ];
    for (i, namespace) in ["default", "default", "kube-system"].into_iter().enumerate() {
        objects[i]["metadata"]["namespace"] = namespace.into();
    }
    let set = found(all, &objects);
    let z = "infrastructure";
    assert_eq!(
        json!(set.targets),
        json!([
            {"zone": z, "name": "api-server", "cluster_ip": ["10.96.0.1"], "endpoints": ["192.0.2.1"], "ports": [{"port": 443, "target_port": 6443}]},
            {"zone": z, "name": "cloud-metadata", "address": "169.254.169.254", "kind": "endpoint", "ports": [{"port": 80}]},
            {"zone": z, "name": "coredns-metrics", "endpoints": ["10.244.0.2"], "ports": [{"port": 9154}]},
            {"zone": z, "name": "etcd", "endpoints": ["192.0.2.1"], "ports": [{"port": 2379}, {"port": 2380}]},
            {"zone": z, "name": "kubelet", "endpoints": ["192.0.2.1", "192.0.2.11", "192.0.2.12"], "ports": [{"port": 10250}]},
        ])
    );
    assert_eq!(found("presets: {zone: infrastructure, include: [cloud-metadata]}", &objects).targets.len(), 1);
}

#[test]
fn negative_controls_are_on_the_targets_ports() {
    let ledger = service(
        "ledger",
        json!({"type": "NodePort", "clusterIP": "10.96.0.40", "ports": [{"port": 443, "nodePort": 30443}, {"port": 53, "name": "dns", "protocol": "UDP"}]}),
    );
    let set = found(
        "",
        &[ledger.clone(), slice("a", "ledger", json!([{"port": 8443}]), json!([{"addresses": ["10.0.0.1"]}]))],
    );
    let [negative] = &set.negative[..] else { panic!("{:?}", set.negative) };
    assert_eq!(negative.ports.iter().copied().collect::<Vec<_>>(), [443, 8443, 30443]);
    assert!(negative.tcp.to_string().starts_with("10.96."));

    // The ports that most have, and those of nodes last.
    let many = (0..20).map(|i| {
        let ports = json!([{"port": 1000 + i, "nodePort": 30000 + i}, {"name": "b", "port": 9000 + i % 2}]);
        service(&format!("s{i}"), json!({"type": "NodePort", "clusterIP": format!("10.96.1.{i}"), "ports": ports}))
    });
    let set = found("", &many.collect::<Vec<_>>());
    let ports: Vec<u16> = set.negative[0].ports.iter().copied().collect();
    assert_eq!(ports, (1000..1014).chain(9000..9002).collect::<Vec<_>>());
    assert_eq!(gaps(&set), [("negative-port", 26)]);

    // As the API tells, where nothing is configured; and a gap where neither does.
    let text = SETTINGS.replace("service_cidrs: [10.96.0.0/16]", "");
    let unconfigured = parse(Path::new("d.yaml"), &text).unwrap();
    let of_api = json!({"kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.97.0.0/16", "fd00:97::/112", "odd"]}});
    let set = find(&unconfigured, &inventory(&[ledger.clone(), of_api]));
    assert_eq!(set.negative.len(), 2);
    assert!(set.negative[0].tcp.to_string().starts_with("10.97."));
    let set = find(&unconfigured, &inventory(&[ledger]));
    assert_eq!((set.negative.len(), gaps(&set)), (0, vec![("no-free-address", 1)]));
}

#[test]
fn nodes_with_an_agent() {
    let agent = |name: &str, namespace: &str, component: &str, node: &str| {
        json!({"kind": "Pod", "metadata": {"name": name, "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "segprobe", "app.kubernetes.io/component": component}},
            "spec": {"nodeName": node}, "status": {"phase": "Running"}})
    };
    let set = found(
        "",
        &[
            agent("a", "segprobe", "agent", "worker-1"),
            agent("b", "segprobe", "pods-agent", "worker-2"),
            agent("c", "segprobe", "discover", "cp"),
            agent("d", "elsewhere", "agent", "cp"),
            agent("e", "segprobe", "agent", ""),
            agent("f", "segprobe", "agent", "x\u{1b}[31m"),
            agent("g", "segprobe", "witness", "worker-3.example.com"),
            // Some providers name nodes so.
            agent("h", "segprobe", "agent", "10.0.0.5"),
        ],
    );
    assert_eq!(json!(set.nodes), json!({"segprobe": ["10.0.0.5", "worker-1", "worker-2", "worker-3.example.com"]}));
    assert_eq!(gaps(&set), [("malformed", 1)]);
}

#[test]
fn a_namespace_of_two_zones_is_of_the_one_with_targets() {
    let text = "zones: {a: {namespace_labels: {x: y}}, b: {namespace_labels: {pci-scope: in}, targets: true}}\ninto: [segprobe]";
    let mut both = inventory(&[]);
    add::<super::super::objects::Namespace>(
        &mut both,
        &json!({"metadata": {"name": "vault", "labels": {"x": "y", "pci-scope": "in"}}}),
    );
    let set = find(&parse(Path::new("d.yaml"), text).unwrap(), &both);
    assert!(set.zones["a"].is_empty() && set.zones["b"].contains("vault"));
    assert_eq!(gaps(&set), [("two-zones", 1)]);
}

#[test]
fn names_are_stable_and_bounded() {
    let named = |owner: Value, name: &str| {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": name, "labels": {"pod-template-hash": "5d4"}, "ownerReferences": owner}}),
        )
        .unwrap();
        bounded(&workload(&pod), ".pods")
    };
    let by = |kind: &str, name: &str| json!([{"kind": "Other", "name": "x"}, {"kind": kind, "name": name, "controller": true}]);
    assert_eq!(named(by("ReplicaSet", "ledger-5d4"), "ledger-5d4-xyz"), "ledger.pods");
    assert_eq!(named(by("StatefulSet", "db"), "db-0"), "db.pods");
    assert_eq!(named(by("Job", "backup-29012345"), "backup-29012345-abc"), "backup.pods");
    assert_eq!(named(by("Job", "once-2"), "once-2-abc"), "once-2.pods");
    assert_eq!(named(json!(null), "bare"), "bare.pods");
    let (one, other) = (named(json!(null), &"a".repeat(200)), named(json!(null), &"a".repeat(201)));
    assert!(one.len() == 63 && is_word(&one) && one != other, "{one}");
}
