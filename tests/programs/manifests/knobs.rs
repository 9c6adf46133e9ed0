//! Each file in `manifests/knobs` is a patch that a user names in a kustomization: it applies, to what it says, and changes only that.

use std::{fs, os::unix::fs::symlink};

use serde_json::{Value, json};

use super::{documents, kubectls, kustomize_at, name, root};
use crate::support::{directory, have};

/// The patch, the kustomization it is for, and what differs then: the object, the field, and its new value.
type Knob = (&'static str, &'static str, &'static str, &'static str, Value);

fn knobs() -> Vec<Knob> {
    let daemon_set = "DaemonSet segprobe/segprobe";
    let pods = "DaemonSet segprobe-system/segprobe";
    vec![
        (
            "low-zone-labels",
            "base",
            "Namespace /segprobe",
            "/metadata/labels",
            json!({
                "app.kubernetes.io/name": "segprobe",
                "pci-scope": "out",
                "pod-security.kubernetes.io/audit": "restricted",
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
                "security-zone": "low",
            }),
        ),
        ("policy-labels", "base", daemon_set, "/spec/template/metadata/labels/network-tier", json!("front")),
        ("untainted-nodes", "base", daemon_set, "/spec/template/spec/tolerations", Value::Null),
        ("resources", "base", daemon_set, "/spec/template/spec/containers/0/resources/limits/memory", json!("192Mi")),
        ("log", "base", daemon_set, "/spec/template/spec/containers/0/args/2", json!("--log.format=json")),
        (
            "web-config",
            "base",
            daemon_set,
            "/spec/template/spec/containers/0/livenessProbe/httpGet",
            json!({"path": "/-/healthy", "port": "metrics", "scheme": "HTTPS"}),
        ),
        (
            "web-config-scrape",
            "overlays/prometheus-operator",
            "PodMonitor monitoring/segprobe",
            "/spec/podMetricsEndpoints/0/scheme",
            json!("https"),
        ),
        ("priority", "base", daemon_set, "/spec/template/spec/priorityClassName", json!("system-node-critical")),
        prometheus("base", "NetworkPolicy segprobe/segprobe"),
        prometheus("overlays/pods", "NetworkPolicy segprobe-system/segprobe"),
        prometheus("overlays/witness", "NetworkPolicy segprobe-witness/segprobe"),
        prometheus("overlays/discovery", "NetworkPolicy segprobe-discover/segprobe-discover"),
        ("pods-cri-o", "overlays/pods", pods, "/spec/template/spec/volumes/0/hostPath/path", json!("/run/crio")),
        ("pods-node-witness", "overlays/pods", pods, "/spec/template/spec/hostNetwork", json!(true)),
    ]
}

/// One copy for each part.
fn prometheus(part: &'static str, policy: &'static str) -> Knob {
    let from = json!([{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}},
        "podSelector": {"matchLabels": {"app": "prometheus"}},
    }]);
    ("prometheus", part, policy, "/spec/ingress/0/from", from)
}

#[test]
fn every_knob_turns() {
    if !have("kubectl") {
        return;
    }
    let files =
        fs::read_dir(root().join("manifests/knobs")).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = files.map(|f| f.trim_end_matches(".yaml").to_owned()).collect();
    files.sort_unstable();
    let mut known: Vec<_> = knobs().iter().map(|k| k.0.to_owned()).collect();
    known.sort_unstable();
    known.dedup();
    assert_eq!(files, known, "knobs without a test, or tests without a knob");

    let kubectls: Vec<_> = kubectls().collect();
    for (knob, base, object, field, expected) in knobs() {
        let directory = directory();
        let at = directory.path();
        let text = fs::read_to_string(root().join(format!("manifests/knobs/{knob}.yaml"))).unwrap();
        let (namespace, of) = object.split_once(' ').and_then(|(_, name)| name.split_once('/')).unwrap();
        // As its comment tells to do for each part.
        let text =
            text.replace("name: segprobe\n  namespace: segprobe\n", &format!("name: {of}\n  namespace: {namespace}\n"));
        fs::write(at.join("knob.yaml"), text).unwrap();
        // kustomize wants relative paths.
        symlink(root().join("manifests"), at.join("manifests")).unwrap();
        fs::write(
            at.join("kustomization.yaml"),
            format!("bases: [manifests/{base}]\npatchesStrategicMerge: [knob.yaml]\n"),
        )
        .unwrap();
        for kubectl in &kubectls {
            let plain = documents(&kustomize_at(kubectl, &root().join("manifests").join(base)));
            let turned = documents(&kustomize_at(kubectl, at));
            assert_eq!(turned.len(), plain.len(), "{knob}");
            for was in &plain {
                let is = turned
                    .iter()
                    .find(|o| name(o) == name(was))
                    .unwrap_or_else(|| panic!("{knob}: {} is gone", name(was)));
                let value = |object: &Value| object.pointer(field).cloned().unwrap_or_default();
                if name(was) == object {
                    assert_ne!(value(was), expected, "{knob}: it is so without the knob");
                    assert_eq!(value(is), expected, "{knob}: {field} of {object}");
                } else {
                    assert_eq!(is, was, "{knob}: {}", name(was));
                }
            }
        }
    }
}
