//! Pods as a kubelet describes them to the runtime, and as they then are.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    cri::message::{
        ContainerConfig, ContainerMetadata, DnsConfig, ImageSpec, LinuxContainerConfig, LinuxContainerSecurityContext,
        LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    },
    image::IMAGE,
};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct PodSpec {
    pub namespace: String,
    pub name: String,
    /// The pod's own labels, without the kubelet's.
    pub labels: Vec<(String, String)>,
    pub host_network: bool,
    /// Its name servers; nobody listens there unless a test does.
    pub dns_servers: Vec<String>,
    pub searches: Vec<String>,
    /// How many containers run in it; none leaves the sandbox alone.
    pub containers: usize,
}

impl PodSpec {
    /// A pod with a network of its own, one container and no labels.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            labels: Vec::new(),
            host_network: false,
            dns_servers: vec!["10.86.255.253".into()],
            searches: vec![
                format!("{namespace}.svc.cluster.local"),
                "svc.cluster.local".into(),
                "cluster.local".into(),
            ],
            containers: 1,
        }
    }

    /// With one more label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }
}

/// A sandbox that was started.
#[derive(Clone, Debug)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The sandbox's id in the runtime.
    pub id: String,
    /// Its own address, or the node's where it has no network of its own.
    pub ip: IpAddr,
    /// Where its network namespace is mounted inside the node; none where that is the node's own.
    pub netns: Option<String>,
}

/// What the runtime is told of a sandbox and of every container in it.
pub struct Description {
    pub sandbox: PodSandboxConfig,
    pub containers: Vec<ContainerConfig>,
}

/// The node's own address: a loopback one, so that there is no link to it but through the node.
pub const NODE_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 85, 0, 1));

impl PodSpec {
    /// As the kubelet does it: with its labels on the sandbox and on every container.
    pub fn describe(&self, cgroup: &str) -> Description {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let uid = format!("5e6d0b3a-0000-4000-8000-{:012x}", NEXT.fetch_add(1, Ordering::Relaxed));
        let network = if self.host_network { 2 } else { 0 };
        let kubelet = [("name", &self.name), ("namespace", &self.namespace), ("uid", &uid)]
            .map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.clone()));
        let sandbox = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: self.name.clone(),
                uid,
                namespace: self.namespace.clone(),
                attempt: 0,
            }),
            hostname: if self.host_network { String::new() } else { self.name.clone() },
            dns_config: Some(DnsConfig {
                servers: self.dns_servers.clone(),
                searches: self.searches.clone(),
                options: vec!["ndots:5".into()],
            }),
            labels: self.labels.iter().cloned().chain(kubelet.clone()).collect(),
            annotations: HashMap::from([("kubernetes.io/config.source".into(), "api".into())]),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{cgroup}"),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption { network, pid: 1 }),
                }),
            }),
        };
        let container = |index| {
            let name = format!("main-{index}");
            ContainerConfig {
                metadata: Some(ContainerMetadata { name: name.clone() }),
                image: Some(ImageSpec { image: IMAGE.into() }),
                labels: kubelet.iter().cloned().chain([("io.kubernetes.container.name".into(), name)]).collect(),
                linux: Some(LinuxContainerConfig {
                    security_context: Some(LinuxContainerSecurityContext {
                        namespace_options: Some(NamespaceOption { network, pid: 1 }),
                    }),
                }),
            }
        };
        Description { sandbox, containers: (0..self.containers).map(container).collect() }
    }
}
