//! What the workloads may do: Pod Security "restricted" field by field where it is promised, and beyond it exactly what the pod
//! vantage needs.
//!
//! Source: Kubernetes' Pod Security Standards, "restricted" with "baseline" in it, v1.33.

use serde_json::{Value, json};

use super::{WORKLOADS, name, rendered, templates};
use crate::support::have;

/// Everything in a pod that the standard "restricted" forbids, one line each.
fn beyond_restricted(pod: &Value) -> Vec<String> {
    let mut beyond = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            beyond.push(what);
        }
    };
    let absent_or = |value: &Value, allowed: &[Value]| value.is_null() || allowed.contains(value);
    let no = [json!(false)];
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        must(absent_or(&pod[field], &no), format!("{field}: {}", pod[field]));
    }
    let of_pod = &pod["securityContext"];
    must(absent_or(&of_pod["sysctls"], &[json!([])]), "sysctls".into());
    must(absent_or(&of_pod["windowsOptions"], &[]), "windowsOptions".into());
    let allowed_volumes =
        ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        for kind in kinds {
            must(allowed_volumes.contains(&&**kind), format!("volume {}: {kind}", volume["name"]));
        }
    }
    let containers = ["containers", "initContainers", "ephemeralContainers"];
    for container in containers.iter().flat_map(|list| pod[list].as_array().into_iter().flatten()) {
        let own = &container["securityContext"];
        // A container's own field goes before the pod's.
        let effective = |field: &str| if own[field].is_null() { of_pod[field].clone() } else { own[field].clone() };
        must(absent_or(&own["privileged"], &no), "privileged".into());
        must(own["allowPrivilegeEscalation"] == no[0], "allowPrivilegeEscalation".into());
        must(effective("runAsNonRoot") == json!(true), "runAsNonRoot".into());
        must(effective("runAsUser").as_u64() != Some(0), "runAsUser: 0".into());
        must(absent_or(&own["procMount"], &[json!("Default")]), "procMount".into());
        let seccomp = effective("seccompProfile");
        must(["RuntimeDefault", "Localhost"].iter().any(|t| seccomp["type"] == **t), "seccompProfile".into());
        let se_linux = effective("seLinuxOptions");
        let types = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"].map(|t| json!(t));
        must(absent_or(&se_linux["type"], &types), format!("seLinuxOptions.type: {}", se_linux["type"]));
        let drops_all = own["capabilities"]["drop"].as_array().is_some_and(|list| list.contains(&json!("ALL")));
        must(drops_all, "capabilities.drop without ALL".into());
        for added in own["capabilities"]["add"].as_array().into_iter().flatten() {
            must(added == "NET_BIND_SERVICE", format!("capabilities.add: {added}"));
        }
        for port in container["ports"].as_array().into_iter().flatten() {
            must(absent_or(&port["hostPort"], &[json!(0)]), format!("hostPort: {}", port["hostPort"]));
        }
    }
    beyond
}

fn pod(spec: &Value) -> Value {
    let mut pod = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "x", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    });
    for (key, value) in spec.as_object().unwrap() {
        let place =
            pod.pointer_mut(&key.rsplit_once('/').map_or(String::new(), |(place, _)| place.to_owned())).unwrap();
        place[key.rsplit('/').next().unwrap()] = value.clone();
    }
    pod
}

#[test]
fn each_rule_of_restricted_is_looked_at() {
    assert_eq!(beyond_restricted(&pod(&json!({}))), Vec::<String>::new());
    let cases = [
        ("/hostNetwork", json!(true)),
        ("/hostPID", json!(true)),
        ("/hostIPC", json!(true)),
        ("/volumes", json!([{"name": "x", "hostPath": {"path": "/"}}])),
        ("/securityContext/runAsNonRoot", json!(false)),
        ("/securityContext/runAsUser", json!(0)),
        ("/securityContext/seccompProfile", json!({"type": "Unconfined"})),
        ("/securityContext/seLinuxOptions", json!({"type": "spc_t"})),
        ("/securityContext/sysctls", json!([{"name": "a", "value": "b"}])),
        ("/containers/0/securityContext/privileged", json!(true)),
        ("/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
        ("/containers/0/securityContext/procMount", json!("Unmasked")),
        ("/containers/0/securityContext/capabilities", json!({"drop": ["NET_RAW"]})),
        ("/containers/0/securityContext/capabilities", json!({"drop": ["ALL"], "add": ["NET_RAW"]})),
        ("/containers/0/ports", json!([{"containerPort": 1, "hostPort": 1}])),
    ];
    for (field, value) in cases {
        assert_eq!(beyond_restricted(&pod(&json!({ field: value }))).len(), 1, "{field}: {value}");
    }
}

#[test]
fn workloads_have_no_privilege_but_those_of_the_pod_vantage() {
    if !have("kubectl") {
        return;
    }
    for directory in WORKLOADS {
        let objects = rendered(directory);
        let templates = templates(&objects);
        assert_eq!(templates.len(), 1, "{directory}");
        let (object, template) = templates[0];
        let (pod, expected): (&Value, &[&str]) = match directory {
            "manifests/overlays/pods" => (
                &template["spec"],
                &[
                    "volume \"cri\": hostPath",
                    "volume \"netns\": hostPath",
                    "runAsNonRoot",
                    "runAsUser: 0",
                    "seLinuxOptions.type: \"spc_t\"",
                    "capabilities.add: \"SYS_ADMIN\"",
                ],
            ),
            _ => (&template["spec"], &[]),
        };
        assert_eq!(beyond_restricted(pod), expected, "{}", name(object));

        // Stricter than "restricted": nothing to write to, and no credentials but the discovery's.
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{directory}");
        let mounts = container["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().all(|mount| mount["readOnly"] == true), "{directory}: a mount can be written to");
        assert_eq!(pod["automountServiceAccountToken"], directory.ends_with("discovery"), "{directory}");
        assert!(container["resources"]["requests"]["memory"].is_string(), "{directory}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{directory}");
        // A quota of CPU would stop the sweeps with whatever else the process does.
        let agent = object["kind"] == "DaemonSet";
        assert!(!agent || container["resources"]["limits"]["cpu"].is_null(), "{directory}");

        // The namespace admits exactly that.
        let level = if expected.is_empty() { "restricted" } else { "privileged" };
        let namespace = objects
            .iter()
            .find(|o| o["kind"] == "Namespace" && o["metadata"]["name"] == object["metadata"]["namespace"]);
        let labels = &namespace.unwrap_or_else(|| panic!("{directory}: no Namespace"))["metadata"]["labels"];
        for mode in ["enforce", "audit", "warn"] {
            assert_eq!(labels[format!("pod-security.kubernetes.io/{mode}")], level, "{directory}: {mode}");
        }
    }
}

/// The runtime's paths are the node's directories, and a namespace that is made later shows.
#[test]
fn host_paths_are_the_two_that_are_documented() {
    if !have("kubectl") {
        return;
    }
    let objects = rendered("manifests/overlays/pods");
    let pod = &templates(&objects)[0].1["spec"];
    let volumes = pod["volumes"].as_array().unwrap();
    let paths: Vec<_> = volumes.iter().filter(|v| !v["hostPath"].is_null()).map(|v| &v["hostPath"]).collect();
    let expected = [
        // A runtime that is not there is an error that is told at once.
        &json!({"path": "/run/containerd", "type": "Directory"}),
        // A node that has run no pod yet has none.
        &json!({"path": "/var/run/netns", "type": "DirectoryOrCreate"}),
    ];
    assert_eq!(paths, expected);
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    let netns = mounts.iter().find(|m| m["name"] == "netns").unwrap();
    assert_eq!(netns["mountPropagation"], "HostToContainer");
}
