//! The discovery: its rights are those of the table in docs/discovery.md, and it writes to where the agents are.

use std::{collections::BTreeSet, path::Path};

use segprobe::discovery::{settings, write::config_map};
use serde_json::{Value, json};

use super::{WORKLOADS, is_kind, name, read, rendered};
use crate::support::have;

const DISCOVERY: &str = "manifests/overlays/discovery";

fn one<'a>(objects: &'a [Value], kind: &str, named: &str) -> &'a Value {
    let mut found = objects.iter().filter(|o| is_kind(o, kind) && o["metadata"]["name"] == named);
    let one = found.next().unwrap_or_else(|| panic!("no {kind} {named}"));
    assert!(found.next().is_none(), "two of {kind} {named}");
    one
}

/// The account that the discovery's pod runs as, as a subject.
fn account(objects: &[Value]) -> Value {
    let deployment = one(objects, "Deployment", "segprobe-discover");
    let pod = &deployment["spec"]["template"]["spec"];
    json!([{"kind": "ServiceAccount", "name": pod["serviceAccountName"], "namespace": deployment["metadata"]["namespace"]}])
}

#[test]
fn its_rights_are_the_documented_ones() {
    if !have("kubectl") {
        return;
    }
    let objects = rendered(DISCOVERY);
    let role = one(&objects, "ClusterRole", "segprobe-discover");
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        assert_eq!(rule["verbs"], json!(["list", "watch"]));
        for resource in rule["resources"].as_array().unwrap() {
            rights.insert(format!("{}/{}", rule["apiGroups"][0].as_str().unwrap(), resource.as_str().unwrap()));
        }
    }
    let expected = [
        "/namespaces",
        "/nodes",
        "/pods",
        "/services",
        "discovery.k8s.io/endpointslices",
        "networking.k8s.io/servicecidrs",
    ];
    assert_eq!(Vec::from_iter(rights), expected);
    let binding = one(&objects, "ClusterRoleBinding", "segprobe-discover");
    assert_eq!((&binding["roleRef"]["name"], &binding["subjects"]), (&role["metadata"]["name"], &account(&objects)));
    // Nothing else gives it any.
    assert_eq!(objects.iter().filter(|o| o["kind"].as_str().unwrap().contains("Role")).count(), 2);
    let documented = read("docs/discovery.md");
    for resource in ["namespaces", "nodes", "pods", "services", "endpointslices", "servicecidrs", "configmaps"] {
        assert!(documented.contains(&format!("| `{resource}` |")), "docs/discovery.md has no row for {resource}");
    }
}

#[test]
fn it_may_patch_eight_config_maps_of_each_agents_namespace() {
    if !have("kubectl") {
        return;
    }
    let subject = account(&rendered(DISCOVERY));
    let names: Vec<String> = (0..8).map(config_map).collect();
    let mut namespaces = BTreeSet::new();
    for directory in &WORKLOADS[..3] {
        let objects = rendered(directory);
        let role = one(&objects, "Role", "segprobe-discover");
        let rules =
            json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": names, "verbs": ["patch"]}]);
        assert_eq!(role["rules"], rules, "{directory}");
        let binding = one(&objects, "RoleBinding", "segprobe-discover");
        assert_eq!((&binding["roleRef"]["kind"], &binding["subjects"]), (&json!("Role"), &subject), "{directory}");
        let namespace = role["metadata"]["namespace"].as_str().unwrap();
        for map in names.iter().map(|name| one(&objects, "ConfigMap", name)) {
            assert_eq!(
                (&map["metadata"]["namespace"], &map["data"]),
                (&json!(namespace), &Value::Null),
                "{}",
                name(map)
            );
        }
        namespaces.insert(namespace.to_owned());
    }
    let file = read("manifests/overlays/discovery/discover.yaml");
    let settings = settings::parse(Path::new("discover.yaml"), &file).unwrap();
    assert_eq!(settings.into, Vec::from_iter(namespaces), "it writes to where agents are");
    // What is commented out is right, too.
    let all: Vec<&str> = file
        .lines()
        .map(|l| l.strip_prefix("# ").filter(|l| l.contains(": ") || l.ends_with(':')).unwrap_or(l))
        .collect();
    let all = all
        .iter()
        .filter(|l| !l.starts_with("Infra") && !l.starts_with("Which"))
        .copied()
        .collect::<Vec<_>>()
        .join("\n");
    assert!(settings::parse(Path::new("discover.yaml"), &all).unwrap().presets.is_some(), "{all}");
}
