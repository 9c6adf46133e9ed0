//! A pod, and how each runtime tells of it.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use serde_json::{Value, json};

use super::messages::{
    Container, EXITED, Ip, LinuxStatus, Metadata, NODE, NOT_READY, NamespaceOptions, Namespaces, NetworkStatus,
    PodSandbox, PodSandboxStatus, PodSandboxStatusResponse, READY, RUNNING,
};

/// The shape of the verbose status: containerd's `SandboxInfo` and CRI-O's `createSandboxInfo`, with their JSON names.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// 1.6, and 1.7 as it comes: `pkg/cri/server/sandbox_status.go`.
    Containerd16,
    /// 1.7 with `ENABLE_CRI_SANDBOXES`: `pkg/cri/sbserver/podsandbox/sandbox_status.go`.
    Containerd17Sbserver,
    /// 2.0 to 2.2: `internal/cri/types/sandbox_info.go`.
    Containerd20,
    /// `internal/cri/server/podsandbox/types/sandbox_info.go`.
    Containerd23,
    /// The sandbox is no process, or its shim is dead: `toDeletedCRISandboxInfo`. Without pid and spec.
    DeadShim,
    /// An infra container is kept.
    CrioWithPid,
    /// As it comes (`drop_infra_ctr`): without pid.
    CrioSpoofed,
    /// This text, whatever it is.
    Text(String),
    /// No verbose status.
    Nothing,
}

/// A pod sandbox of a [`FakeCri`](super::FakeCri).
#[derive(Clone, Debug)]
pub struct FakePod {
    pub id: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    /// Nanoseconds since the epoch.
    pub created: i64,
    /// None: the runtime tells no path.
    pub netns: Option<PathBuf>,
    /// 0: none.
    pub pid: u32,
    pub host_network: bool,
    pub ready: bool,
    pub running: bool,
    pub runtime_handler: String,
    pub runtime_type: String,
    pub ips: Vec<String>,
    pub dns_servers: Vec<String>,
    pub dns_searches: Vec<String>,
    pub closed: bool,
    pub shape: Shape,
}

impl FakePod {
    /// One that runs on containerd, with a label `app` of its own name. Its network namespace must be given.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            id: format!("sandbox-of-{namespace}-{name}"),
            namespace: namespace.into(),
            name: name.into(),
            uid: format!("uid-of-{namespace}-{name}"),
            labels: BTreeMap::from([("app".into(), name.into())]),
            created: 1_790_000_000_000_000_000,
            netns: None,
            pid: 0,
            host_network: false,
            ready: true,
            running: true,
            runtime_handler: String::new(),
            runtime_type: "io.containerd.runc.v2".into(),
            ips: Vec::new(),
            dns_servers: vec!["10.96.0.10".into()],
            dns_searches: vec![format!("{namespace}.svc.cluster.local"), "svc.cluster.local".into()],
            closed: false,
            shape: Shape::Containerd23,
        }
    }

    pub(super) fn listed(&self) -> PodSandbox {
        PodSandbox {
            id: self.id.clone(),
            metadata: Some(self.metadata()),
            state: if self.ready { READY } else { NOT_READY },
            created_at: self.created,
            labels: self.all_labels(),
            annotations: HashMap::from([("kubernetes.io/config.seen".into(), "2026-01-01T00:00:00Z".into())]),
            // CRI-O leaves it empty.
            runtime_handler: if self.is_crio() { String::new() } else { self.runtime_handler.clone() },
        }
    }

    pub(super) fn status(&self) -> PodSandboxStatusResponse {
        let network = if self.host_network { NODE } else { 0 };
        let mut ips = self.ips.iter().cloned();
        let network_status =
            NetworkStatus { ip: ips.next().unwrap_or_default(), additional_ips: ips.map(|ip| Ip { ip }).collect() };
        let status = PodSandboxStatus {
            id: self.id.clone(),
            metadata: Some(self.metadata()),
            state: if self.ready { READY } else { NOT_READY },
            created_at: self.created,
            network: Some(network_status),
            linux: Some(LinuxStatus {
                namespaces: Some(Namespaces { options: Some(NamespaceOptions { network, pid: 1, ipc: 0 }) }),
            }),
            labels: self.all_labels(),
            annotations: HashMap::new(),
            runtime_handler: if self.is_crio() { String::new() } else { self.runtime_handler.clone() },
        };
        let info = self.info().map(|info| ("info".to_owned(), info)).into_iter().collect();
        PodSandboxStatusResponse { status: Some(status), info, timestamp: 0 }
    }

    /// One that ended, and one that runs where the pod does.
    pub(super) fn containers(&self) -> Vec<Container> {
        let states = [EXITED].into_iter().chain(self.running.then_some(RUNNING));
        let container = |state| Container {
            id: format!("{}-{state}", self.id),
            pod_sandbox_id: self.id.clone(),
            image_ref: "sha256:0".into(),
            state,
            created_at: self.created,
            labels: HashMap::new(),
        };
        states.map(container).collect()
    }

    fn is_crio(&self) -> bool {
        matches!(self.shape, Shape::CrioWithPid | Shape::CrioSpoofed)
    }

    fn metadata(&self) -> Metadata {
        Metadata { name: self.name.clone(), uid: self.uid.clone(), namespace: self.namespace.clone(), attempt: 0 }
    }

    /// The kubelet's are added.
    fn all_labels(&self) -> HashMap<String, String> {
        let mut labels: HashMap<String, String> = self.labels.clone().into_iter().collect();
        for (key, value) in [("name", &self.name), ("namespace", &self.namespace), ("uid", &self.uid)] {
            labels.insert(format!("io.kubernetes.pod.{key}"), value.clone());
        }
        labels
    }

    fn info(&self) -> Option<String> {
        let info = match &self.shape {
            Shape::Nothing => return None,
            Shape::Text(text) => return Some(text.clone()),
            Shape::CrioSpoofed => json!({"runtimeSpec": self.spec()}),
            Shape::CrioWithPid => {
                json!({"image": "registry.k8s.io/pause:3.10", "pid": self.pid, "runtimeSpec": self.spec()})
            }
            shape => self.containerd(shape),
        };
        Some(info.to_string())
    }

    fn containerd(&self, shape: &Shape) -> Value {
        let dead = *shape == Shape::DeadShim;
        let mut info = json!({
            "pid": if dead { 0 } else { self.pid },
            "processStatus": if dead { "deleted" } else { "running" },
            "netNamespaceClosed": self.closed,
            "image": if dead { "" } else { "registry.k8s.io/pause:3.10" },
            "snapshotKey": "", "snapshotter": "overlayfs",
            "runtimeType": if dead { "" } else { &*self.runtime_type },
            "runtimeOptions": {"systemd_cgroup": true},
            "config": self.config(),
            "runtimeSpec": if dead { Value::Null } else { self.spec() },
            "cniResult": null,
        });
        if *shape == Shape::Containerd16 {
            info["runtimeHandler"] = json!(self.runtime_handler);
        } else {
            info["sandboxMetadata"] = json!({"Version": "v1", "Metadata": {
                "ID": self.id, "Name": self.name, "Config": self.config(),
                "NetNSPath": self.netns, "IP": "", "AdditionalIPs": null,
                "RuntimeHandler": self.runtime_handler, "CNIResult": null, "ProcessLabel": "",
            }});
        }
        info
    }

    /// `PodSandboxConfig`, whose JSON names come of the protobuf tags; what is empty is left out.
    fn config(&self) -> Value {
        let mut options = json!({"pid": 1});
        if self.host_network {
            options["network"] = json!(NODE);
        }
        json!({
            "metadata": {"name": self.name, "uid": self.uid, "namespace": self.namespace},
            "log_directory": "/var/log/pods/x",
            "dns_config": {"servers": self.dns_servers, "searches": self.dns_searches, "options": ["ndots:5"]},
            "labels": self.labels,
            "linux": {"security_context": {"namespace_options": options}},
        })
    }

    /// An OCI runtime specification.
    fn spec(&self) -> Value {
        let mut namespaces =
            vec![json!({"type": "pid"}), json!({"type": "ipc"}), json!({"type": "uts"}), json!({"type": "mount"})];
        if !self.host_network {
            namespaces.push(match &self.netns {
                Some(path) => json!({"type": "network", "path": path}),
                None => json!({"type": "network"}),
            });
        }
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "process": {"args": ["/pause"], "cwd": "/"},
            "root": {"path": "rootfs", "readonly": true},
            "linux": {"namespaces": namespaces, "cgroupsPath": "/kubepods/x"},
        });
        if self.is_crio() {
            spec["annotations"] = json!({
                "io.container.manager": "cri-o",
                "io.kubernetes.cri-o.RuntimeHandler": self.runtime_handler,
            });
        }
        spec
    }
}
