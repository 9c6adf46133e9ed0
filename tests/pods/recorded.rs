//! What containerd tells of a sandbox, kept in `tests/data/cri` for the tests that need no containerd.
//! `UPDATE_DATA=1 cargo test --test pods recorded` writes it anew.

use std::{fs, path::Path};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    containerd::{Node, PodSpec},
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![trial("recorded::containerd-tells-as-recorded", containerd_tells_as_recorded)]
}

fn containerd_tells_as_recorded() {
    let node = Node::start();
    let pod = node.run_pod(&PodSpec::new("web", "web-6d4b75cb6d-x2x7k").label("app", "web"));
    let host = node.run_pod(&PodSpec { host_network: true, ..PodSpec::new("kube-system", "proxy-7xk2p") });
    for (name, pod) in [("pod", &pod), ("host", &host)] {
        let info: Value = serde_json::from_str(&node.status(&pod.id).info["info"]).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/cri/containerd-1.6-{name}.json"));
        if std::env::var_os("UPDATE_DATA").is_some() {
            // Paths as on a node that is not a test's.
            let text = format!("{info:#}\n").replace(node.cgroup(), "kubepods").replace("/run/node/", "/var/lib/");
            fs::write(&path, text).unwrap();
        }
        let recorded: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(network(&info), network(&recorded), "{name}");
        assert!(info["pid"].as_u64() > Some(1) && recorded["pid"].as_u64() > Some(1), "{name}");
    }
}

/// The sandbox's network namespace, without what differs from pod to pod.
fn network(info: &Value) -> Option<String> {
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().unwrap();
    let path = namespaces.iter().find(|n| n["type"] == "network")?["path"].as_str()?;
    Some(path.split_once("cni-").unwrap_or((path, "")).0.to_owned())
}
