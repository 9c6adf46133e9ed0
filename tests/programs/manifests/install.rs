//! What `docs/install.md` tells a user to write renders, with every kubectl: the whole installation with one image and one configuration of
//! the user's own.

use std::{fs, process::Command};

use super::{documents, is_kind, kubectls, kustomize_at, read, root, templates};
use crate::support::{directory, have};

/// The YAML blocks of the page.
fn blocks() -> Vec<String> {
    let page = read("docs/install.md");
    page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_installation_that_is_told_renders() {
    if !have("kubectl") {
        return;
    }
    let [installation, agent] = &blocks()[..] else { panic!("docs/install.md has other blocks of YAML") };
    let directory = directory();
    let at = directory.path();
    // Copies, because kustomize takes no file from outside of its folder.
    for folder in ["segprobe", "agent"] {
        fs::create_dir(at.join(folder)).unwrap();
    }
    for part in ["manifests", "dashboards"] {
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(root().join(part)).arg(at.join("segprobe"));
        assert!(copy.status().unwrap().success());
    }
    fs::write(at.join("kustomization.yaml"), installation).unwrap();
    fs::write(at.join("agent/kustomization.yaml"), agent).unwrap();
    fs::write(at.join("agent/segprobe.yaml"), "of: mine\n").unwrap();
    fs::copy(root().join("manifests/knobs/untainted-nodes.yaml"), at.join("agent/untainted-nodes.yaml")).unwrap();
    for kubectl in kubectls() {
        let objects = documents(&kustomize_at(&kubectl, at));
        let templates = templates(&objects);
        assert_eq!(templates.len(), 3, "the agent, the discovery, the witness");
        for (_, template) in &templates {
            assert_eq!(template["spec"]["containers"][0]["image"], "REGISTRY/segprobe:0.1.0");
        }
        let mine: Vec<_> = objects.iter().filter(|o| o["data"]["segprobe.yaml"] == "of: mine\n").collect();
        assert_eq!(mine.len(), 1, "one configuration is the user's");
        assert_eq!(mine[0]["metadata"]["namespace"], "segprobe");
        let agent = templates.iter().find(|(o, _)| o["metadata"]["namespace"] == "segprobe").unwrap().1;
        let config = agent["spec"]["volumes"].as_array().unwrap().iter().find(|v| v["name"] == "config").unwrap();
        assert_eq!(config["configMap"]["name"], mine[0]["metadata"]["name"], "and the agent reads it");
        assert!(agent["spec"]["tolerations"].is_null(), "the knob is turned");
        for kind in ["PodMonitor", "PrometheusRule"] {
            assert_eq!(objects.iter().filter(|o| is_kind(o, kind)).count(), 1, "{kind}");
        }
    }
}
