//! What refers to each other: selectors and labels, names of ConfigMaps and accounts, ports, paths, and the configurations.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::Value;

use super::{WORKLOADS, custom::KubernetesSd, documents, is_kind, name, read, rendered, root, templates};
use crate::support::{
    SEGPROBE, SOON, directory, have, process,
    prometheus::{promtool, release_3},
};

type Labels = BTreeMap<String, String>;

fn labels(value: &Value) -> Labels {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

fn is_selected(selector: &Value, by: &Value) -> bool {
    let has = labels(&by["labels"]);
    labels(&selector["matchLabels"]).iter().all(|(key, value)| has.get(key) == Some(value))
}

fn container(template: &Value) -> &Value {
    &template["spec"]["containers"][0]
}

/// Any policy on ingress closes the pods that it selects to everybody else: before its policy the example must have none, or there is no
/// breach to see.
#[test]
fn the_example_is_open_until_its_policy_comes_which_lets_the_witness_in() {
    if !have("kubectl") {
        return;
    }
    let objects = rendered("manifests/example");
    let of_the_workloads = |o: &&Value| {
        is_kind(o, "NetworkPolicy") && matches!(o["metadata"]["namespace"].as_str(), Some("payments" | "storefront"))
    };
    assert_eq!(objects.iter().filter(of_the_workloads).map(name).collect::<Vec<_>>(), [""; 0]);

    let policy = &documents(&read("manifests/example/policy.yaml"))[0];
    assert_eq!(policy["metadata"]["namespace"], "payments");
    let admits = |namespace: &str| {
        let namespace = objects.iter().find(|o| is_kind(o, "Namespace") && o["metadata"]["name"] == namespace).unwrap();
        let from = policy["spec"]["ingress"][0]["from"].as_array().unwrap();
        from.iter().any(|peer| is_selected(&peer["namespaceSelector"], &namespace["metadata"]))
    };
    let known = ["payments", "segprobe-witness", "storefront", "segprobe"];
    assert_eq!(known.map(admits), [true, true, false, false], "{known:?}");
}

/// The policy that a user copies for the witness: for some pods, and from nobody else.
#[test]
fn the_policy_for_the_witness_is_no_wider_than_that() {
    if !have("kubectl") {
        return;
    }
    let policy = &documents(&read("manifests/overlays/witness/allow-witness.yaml"))[0]["spec"];
    assert!(!labels(&policy["podSelector"]["matchLabels"]).is_empty(), "it would close a whole namespace");
    let objects = rendered("manifests/overlays/witness");
    let [(witness, template)] = &templates(&objects)[..] else { panic!("one witness") };
    let [rule] = &policy["ingress"].as_array().unwrap()[..] else { panic!("one rule") };
    let [from] = &rule["from"].as_array().unwrap()[..] else { panic!("one peer") };
    let namespace = &from["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"];
    assert_eq!(namespace, &witness["metadata"]["namespace"]);
    assert!(is_selected(&from["podSelector"], &template["metadata"]));
    assert!(rule["ports"].as_array().is_some_and(|ports| !ports.is_empty()));
}

#[test]
fn selectors_select_their_pods() {
    if !have("kubectl") {
        return;
    }
    for directory in WORKLOADS {
        let objects = rendered(directory);
        for (object, template) in templates(&objects) {
            let selector = &object["spec"]["selector"];
            assert!(is_selected(selector, &template["metadata"]), "{}: its selector", name(object));
            assert_eq!(
                labels(&object["metadata"]["labels"]),
                labels(&template["metadata"]["labels"]),
                "{}",
                name(object)
            );
            let in_namespace = |o: &&Value| {
                is_kind(o, "NetworkPolicy") && o["metadata"]["namespace"] == object["metadata"]["namespace"]
            };
            let policies: Vec<_> = objects.iter().filter(in_namespace).collect();
            assert_eq!(policies.len(), 1, "{directory}: policies of {}", name(object));
            let policy = &policies[0]["spec"];
            assert!(is_selected(&policy["podSelector"], &template["metadata"]), "{}: its policy", name(object));
            // A policy of ours on egress would be what the test then proves.
            assert_eq!(policy["policyTypes"], serde_json::json!(["Ingress"]), "{directory}");
            assert_eq!(policy["ingress"][0]["ports"][0]["port"], "metrics", "{directory}");
            assert_eq!(container(template)["ports"][0]["name"], "metrics", "{directory}");
        }
    }
}

#[test]
fn what_pods_refer_to_is_there() {
    if !have("kubectl") {
        return;
    }
    for directory in WORKLOADS {
        let objects = rendered(directory);
        let is_there = |kind: &str, namespace: &Value, name: &Value| {
            objects
                .iter()
                .any(|o| is_kind(o, kind) && o["metadata"]["namespace"] == *namespace && o["metadata"]["name"] == *name)
        };
        for (object, template) in templates(&objects) {
            let (pod, namespace) = (&template["spec"], &object["metadata"]["namespace"]);
            assert!(is_there("ServiceAccount", namespace, &pod["serviceAccountName"]), "{}", name(object));
            let volumes = pod["volumes"].as_array().unwrap();
            let maps = volumes.iter().map(|v| &v["configMap"]["name"]).filter(|name| !name.is_null());
            for map in maps {
                assert!(is_there("ConfigMap", namespace, map), "{}: ConfigMap {map}", name(object));
                // Another configuration is another name: that is what rolls the pods.
                assert_eq!(map.as_str().unwrap().rsplit('-').next().unwrap().len(), 10, "{map} has no hash");
            }
            let mounted: BTreeSet<_> = container(template)["volumeMounts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|m| m["name"].as_str().unwrap())
                .collect();
            assert_eq!(
                mounted,
                volumes.iter().map(|v| v["name"].as_str().unwrap()).collect(),
                "{}: its volumes",
                name(object)
            );
        }
        for object in objects.iter().filter(|o| !o["metadata"]["namespace"].is_null()) {
            let namespace = &object["metadata"]["namespace"];
            // Policies and roles for others' namespaces are the user's to have.
            let own = objects.iter().any(|o| is_kind(o, "Namespace") && o["metadata"]["name"] == *namespace);
            let others = ["NetworkPolicy", "Role", "RoleBinding", "ConfigMap"].iter().any(|kind| is_kind(object, kind));
            assert!(own || others, "{directory}: {} is in no namespace of its own", name(object));
        }
    }
}

/// The eight ConfigMaps that the discovery writes are what every agent mounts, in its order.
#[test]
fn agents_mount_every_chunk_of_targets() {
    if !have("kubectl") {
        return;
    }
    for directory in &WORKLOADS[..3] {
        let objects = rendered(directory);
        let pod = &templates(&objects)[0].1["spec"];
        let volumes = pod["volumes"].as_array().unwrap();
        let targets = volumes.iter().find(|v| v["name"] == "targets").unwrap();
        let sources = targets["projected"]["sources"].as_array().unwrap();
        let expected = (0..8).map(|i| {
            serde_json::json!({"configMap": {"name": format!("segprobe-targets-{i}"), "optional": true,
                "items": [{"key": "targets.json", "path": format!("{i}.json")}]}})
        });
        assert_eq!(*sources, expected.collect::<Vec<_>>(), "{directory}");
        let mounts = container(templates(&objects)[0].1)["volumeMounts"].as_array().unwrap();
        let at = mounts.iter().find(|m| m["name"] == "targets").unwrap()["mountPath"].as_str().unwrap();
        let config = config_of(&objects, "segprobe.yaml");
        assert!(config.contains(&format!("target_files:\n  - {at}/*.json\n")), "{directory}: {at}");
    }
}

/// A file of the configuration in a kustomization's ConfigMap.
fn config_of(objects: &[Value], file: &str) -> String {
    let map = objects.iter().find(|o| is_kind(o, "ConfigMap") && o["data"][file].is_string()).unwrap();
    map["data"][file].as_str().unwrap().to_owned()
}

/// The witness and the plain agent run on every node: it would be a finding of each, for ever.
#[test]
fn co_residency_is_off_until_the_user_asks() {
    if !have("kubectl") {
        return;
    }
    for directory in &WORKLOADS[..3] {
        let config = config_of(&rendered(directory), "segprobe.yaml");
        assert!(!config.contains("co_residency"), "{directory}");
    }
}

#[test]
fn configurations_in_config_maps_are_valid() {
    if !have("kubectl") {
        return;
    }
    for manifests in &WORKLOADS[..3] {
        let directory = directory();
        let path = directory.path().join("segprobe.yaml");
        fs::write(&path, config_of(&rendered(manifests), "segprobe.yaml")).unwrap();
        let mut command = Command::new(SEGPROBE);
        command.args(["validate", "--config.file"]).arg(&path);
        let ended = process::run(command, SOON);
        assert_eq!(ended.code, Some(0), "{manifests}: {}", ended.stderr);
    }
}

/// Grafana's sidecar finds them, and kubectl can keep a copy of each in an annotation.
#[test]
fn dashboards_are_labelled_and_small_enough() {
    if !have("kubectl") {
        return;
    }
    let maps = rendered("manifests/overlays/grafana");
    let mut files = BTreeSet::new();
    for map in &maps {
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1", "{}", name(map));
        assert!(map.to_string().len() < 262_144, "{} is too large for kubectl apply", name(map));
        files.extend(map["data"].as_object().unwrap().keys().cloned());
    }
    let entries = fs::read_dir(super::root().join("dashboards")).unwrap();
    let all = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(files, all.filter(|file| file.ends_with(".json")).collect());
}

/// The operator's monitor, the plain scrape configuration and the policies speak of the same namespaces, pods and port.
#[test]
fn whoever_scrapes_finds_every_pod() {
    if !have("kubectl") {
        return;
    }
    let monitor = &documents(&read("manifests/overlays/prometheus-operator/pod-monitor.yaml"))[0]["spec"];
    let scrape: Value = serde_saphyr::from_str(&read("manifests/prometheus/scrape.yaml")).unwrap();
    let plain = &scrape["scrape_configs"][0];
    let mut namespaces = BTreeSet::new();
    for directory in WORKLOADS {
        let objects = rendered(directory);
        for (object, template) in templates(&objects) {
            namespaces.insert(object["metadata"]["namespace"].as_str().unwrap().to_owned());
            assert!(is_selected(&monitor["selector"], &template["metadata"]), "{}", name(object));
            let job = monitor["jobLabel"].as_str().unwrap();
            assert_eq!(template["metadata"]["labels"][job], plain["job_name"], "{}", name(object));
        }
    }
    let set = |list: &Value| -> BTreeSet<String> { serde_json::from_value(list.clone()).unwrap() };
    assert_eq!(set(&monitor["namespaceSelector"]["matchNames"]), namespaces);
    assert_eq!(pods_found(&plain["kubernetes_sd_configs"]).namespaces.names, namespaces);
    assert_eq!(monitor["podMetricsEndpoints"][0]["port"], "metrics");
    let nodes = |relabelled: &Value, key: &str| relabelled.as_array().unwrap().iter().any(|r| r[key] == "node");
    assert!(nodes(&monitor["podMetricsEndpoints"][0]["relabelings"], "targetLabel"));
    assert!(nodes(&plain["relabel_configs"], "target_label"));
}

fn pods_found(list: &Value) -> KubernetesSd {
    let [found] = serde_json::from_value::<[KubernetesSd; 1]>(list.clone()).unwrap();
    found
}

const SCRAPE: &str = "manifests/prometheus/scrape.yaml";

/// The whole file, discovery of pods included.
#[test]
fn prometheus_3_reads_the_plain_scrape_configuration() {
    let Some(program) = release_3("promtool") else { return };
    let mut command = Command::new(program);
    command.args(["check", "config"]).arg(root().join(SCRAPE));
    let ended = process::run(command, SOON);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}

/// Debian's Prometheus is built without the discovery of pods: that part has a type of ours, the rest is Prometheus' to check.
#[test]
fn prometheus_reads_the_plain_scrape_configuration() {
    let mut scrape: Value = serde_saphyr::from_str(&read(SCRAPE)).unwrap();
    let job = scrape["scrape_configs"][0].as_object_mut().unwrap();
    let found = pods_found(&job.remove("kubernetes_sd_configs").unwrap());
    assert_eq!((found.role.as_str(), found.selectors.len(), found.selectors[0].role.as_str()), ("pod", 1, "pod"));
    assert_eq!(found.selectors[0].label, "app.kubernetes.io/name=segprobe");
    job.insert("static_configs".into(), serde_json::json!([{"targets": ["127.0.0.1:11450"]}]));
    let directory = directory();
    let path = directory.path().join("prometheus.yml");
    fs::write(&path, scrape.to_string()).unwrap();
    promtool(&["check", "config"], &[path]);
}
