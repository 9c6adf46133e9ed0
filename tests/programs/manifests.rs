//! The manifests: every kubectl renders them, every object is one that Kubernetes knows to its last field, and names, labels,
//! ports, privileges and configurations agree with each other, with the image and with the program.

mod custom;
mod decode;
mod discovery;
mod image;
mod install;
mod knobs;
mod privileges;
mod wiring;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::support::{SOON, have, process, skip};

/// What a user applies, and what its objects' names, labels and references are held to.
const KUSTOMIZATIONS: [&str; 8] = [
    "manifests/base",
    "manifests/overlays/pods",
    "manifests/overlays/witness",
    "manifests/overlays/discovery",
    "manifests/overlays/prometheus-operator",
    "manifests/overlays/grafana",
    "manifests/example/workloads",
    "manifests/example",
];
/// Those with an agent, and the discovery.
const WORKLOADS: [&str; 4] =
    ["manifests/base", "manifests/overlays/pods", "manifests/overlays/witness", "manifests/overlays/discovery"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The documents of a YAML text, as kubectl reads them.
fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").filter(|part| part.lines().any(|l| !l.is_empty() && !l.starts_with('#')));
    parts.map(|part| serde_saphyr::from_str(part).unwrap_or_else(|e| panic!("{e}\n{part}"))).collect()
}

fn kustomize(kubectl: &Path, directory: &str) -> String {
    kustomize_at(kubectl, &root().join(directory))
}

fn kustomize_at(kubectl: &Path, directory: &Path) -> String {
    let mut command = Command::new(kubectl);
    command.arg("kustomize").arg(directory);
    let ended = process::run(command, SOON);
    assert_eq!(ended.code, Some(0), "{} kustomize {}: {}", kubectl.display(), directory.display(), ended.stderr);
    ended.stdout
}

/// The oldest kubectl that must render the manifests, 1.20.
fn oldest_kubectl() -> Option<PathBuf> {
    let named = std::env::var_os("KUBECTL_OLDEST").map(PathBuf::from);
    if named.is_none() {
        skip("KUBECTL_OLDEST does not name a kubectl 1.20");
    }
    named
}

/// The installed one, and the oldest.
fn kubectls() -> impl Iterator<Item = PathBuf> {
    [PathBuf::from("kubectl")].into_iter().chain(oldest_kubectl())
}

/// The objects of a kustomization; none where kubectl is absent, which was said.
fn rendered(directory: &str) -> Vec<Value> {
    let objects = documents(&kustomize(Path::new("kubectl"), directory));
    assert!(!objects.is_empty(), "{directory} has no objects");
    objects
}

/// A name for messages.
fn name(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    format!("{} {}/{}", text(&object["kind"]), text(&metadata["namespace"]), text(&metadata["name"]))
}

fn is_kind(object: &Value, kind: &str) -> bool {
    object["kind"] == kind
}

/// The pod templates of DaemonSets and Deployments, with their objects.
fn templates(objects: &[Value]) -> Vec<(&Value, &Value)> {
    let is_workload = |o: &&Value| is_kind(o, "DaemonSet") || is_kind(o, "Deployment");
    objects.iter().filter(is_workload).map(|o| (o, &o["spec"]["template"])).collect()
}

/// kubectl 1.20 has kustomize 2.0, newer ones 4 and 5: what each makes of the same files must be the same, but for the hashes of generated
/// names, which version 4 computes otherwise.
#[test]
fn the_oldest_and_the_newest_kubectl_render_the_same() {
    if !have("kubectl") {
        return;
    }
    let Some(oldest) = oldest_kubectl() else { return };
    for directory in KUSTOMIZATIONS {
        let canonical = |kubectl: &Path| {
            let text = without_hashes(&kustomize(kubectl, directory));
            let mut objects = documents(&text);
            objects.iter_mut().for_each(drop_empty);
            objects.sort_by_key(name);
            objects
        };
        let (old, new) = (canonical(&oldest), canonical(Path::new("kubectl")));
        assert_eq!(old.len(), new.len(), "{directory}");
        for (old, new) in old.iter().zip(&new) {
            assert_eq!(old, new, "{directory}: {}", name(new));
        }
    }
}

/// Names of generated ConfigMaps without the ten characters of their hash.
fn without_hashes(text: &str) -> String {
    let is_hash = |word: &str| word.len() == 10 && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let line = |line: &str| match line.rsplit_once('-') {
        Some((start, hash)) if start.contains("name: segprobe-config") && is_hash(hash) => start.to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// kustomize 2 writes empty mappings where later ones write nothing.
fn drop_empty(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.values_mut().for_each(drop_empty);
        fields.retain(|_, v| !v.as_object().is_some_and(serde_json::Map::is_empty) && !v.is_null());
    } else if let Value::Array(list) = value {
        list.iter_mut().for_each(drop_empty);
    }
}

#[test]
fn hashes_are_cut_off_generated_names_alone() {
    assert_eq!(without_hashes("name: segprobe-config-k76c95ct42"), "name: segprobe-config");
    assert_eq!(without_hashes("name: segprobe-config-pods-k76c95ct42"), "name: segprobe-config-pods");
    assert_eq!(
        without_hashes("name: segprobe-k76c95ct42\nname: segprobe-config"),
        "name: segprobe-k76c95ct42\nname: segprobe-config"
    );
}
