//! The documents: their links lead to files of the repository, and their commands ask where the manifests put things.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files in and below a folder that are named so, in order.
fn files(folder: &Path, is_named: fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let found = paths.into_iter().flat_map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() { files(&path, is_named) } else { Vec::from_iter(is_named(name).then_some(path)) }
    });
    found.collect()
}

fn documents() -> Vec<PathBuf> {
    let mut documents = files(&root().join("docs"), |name| name.ends_with(".md"));
    documents.extend(files(&root().join("manifests"), |name| name == "README.md"));
    documents.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    documents
}

#[test]
fn relative_links_lead_to_files() {
    let mut followed = 0;
    for document in documents() {
        let text = read(&document);
        let targets = text.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0);
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = document.parent().unwrap().join(target.split('#').next().unwrap());
            assert!(file.exists(), "{} links to {target}, which is not there", document.display());
            followed += 1;
        }
    }
    assert!(followed > 50, "{followed} links");
}

/// Of every cluster, and in no manifest of ours.
const OF_KUBERNETES: [(&str, &str); 3] =
    [("kube-node-lease", ""), ("kube-system", ""), ("kube-system", "k8s-app=kube-dns")];

/// Each namespace of the manifests alone, and with each label (`key`, `key=value`) that stands in it.
fn places() -> BTreeSet<(String, String)> {
    let mut places = BTreeSet::from(OF_KUBERNETES.map(|(namespace, label)| (namespace.to_owned(), label.to_owned())));
    for kustomization in files(&root().join("manifests"), |name| name == "kustomization.yaml") {
        let over = yaml(&kustomization).remove(0)["namespace"].as_str().map(str::to_owned);
        for object in objects(&kustomization) {
            let metadata = &object["metadata"];
            let own = if object["kind"] == "Namespace" { &metadata["name"] } else { &metadata["namespace"] };
            let Some(namespace) = over.as_deref().or(own.as_str()) else { continue };
            places.insert((namespace.to_owned(), String::new()));
            for labels in [&metadata["labels"], &object["spec"]["template"]["metadata"]["labels"]] {
                for (key, value) in labels.as_object().into_iter().flatten() {
                    places.insert((namespace.to_owned(), key.clone()));
                    places.insert((namespace.to_owned(), format!("{key}={}", value.as_str().unwrap())));
                }
            }
        }
    }
    places
}

fn yaml(file: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(file)).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// Everything that a kustomization is made of, those that it builds on included.
fn objects(kustomization: &Path) -> Vec<Value> {
    let parts = yaml(kustomization).remove(0);
    let lists = ["bases", "resources", "patchesStrategicMerge"].map(|list| parts[list].as_array().cloned());
    let paths = lists.into_iter().flatten().flatten();
    let made = paths.flat_map(|path| {
        let path = kustomization.parent().unwrap().join(path.as_str().unwrap());
        if path.is_dir() { objects(&path.join("kustomization.yaml")) } else { yaml(&path) }
    });
    made.collect()
}

/// What a command of kubectl asks for: its namespace and the labels of its selector, where it names them.
fn asked(command: &str) -> (Option<&str>, Vec<String>) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let after = |option: &str| words.windows(2).find(|pair| pair[0] == option).map(|pair| pair[1]);
    let selector = after("-l").into_iter().flat_map(|selector| selector.split(','));
    (after("-n").filter(|namespace| !namespace.starts_with('$')), selector.map(|l| l.replace("!=", "=")).collect())
}

/// Whoever is woken at night types them as they are.
#[test]
fn commands_ask_where_the_manifests_put_things() {
    let places = places();
    let mut asking = 0;
    for document in documents() {
        let text = read(&document);
        let commands =
            text.split("kubectl ").skip(1).map(|rest| rest.split(['\n', '|', ';', ')', '`', '#']).next().unwrap());
        for command in commands {
            let (namespace, labels) = asked(command);
            asking += usize::from(namespace.is_some());
            for label in labels.iter().map(String::as_str).chain([""]) {
                let stands = places.iter().any(|(at, stands)| stands == label && namespace.is_none_or(|n| n == at));
                assert!(stands, "{}: no manifest has this namespace and label: kubectl {command}", document.display());
            }
        }
    }
    assert!(asking > 10, "{asking} commands with a namespace");
}

#[test]
fn a_command_asks_for_its_namespace_and_labels() {
    let labels = vec!["a=b".to_owned(), "c=d".to_owned()];
    assert_eq!(asked("get pods -n web -l a=b,c!=d -o wide"), (Some("web"), labels));
    assert_eq!(asked("-n $NS get pods"), (None, vec![]));
}
