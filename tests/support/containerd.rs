//! A Kubernetes node without Kubernetes: the real containerd and runc with the real CNI bridge, in namespaces of its own, told
//! what a kubelet tells them. Policies are real too: rules in the bridge's forwarding path, by the pods' addresses.
//!
//! ```text
//! let node = Node::start();
//! let (web, ledger) = (node.run_pod(PodSpec::new("web", "web-1")), node.run_pod(PodSpec::new("payments", "ledger-1")));
//! let listener = node.listen(&ledger, 5432);
//! node.deny(&[&web], &[&ledger]);
//! let agent = node.inside(|| Command::new(SEGPROBE).arg("agent").spawn());
//! node.in_network_of(&web, || TcpStream::connect(listener.address));
//! ```

#[path = "containerd/cri.rs"]
pub mod cri;
#[path = "containerd/image.rs"]
mod image;
#[path = "containerd/listener.rs"]
mod listener;
#[path = "containerd/machine.rs"]
mod machine;
#[path = "containerd/pod.rs"]
mod pod;

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use cri::{Cri, message};
pub use listener::Listener;
pub use pod::{NODE_IP, Pod, PodSpec};

/// Where containerd listens, as those inside the node see it.
pub const SOCKET: &str = "/run/containerd/containerd.sock";

/// No step takes longer unless it hangs.
const SOON: Duration = Duration::from_secs(300);
/// Pods that are started at a time.
const AT_ONCE: usize = 8;
const LOG: &str = "/run/node/containerd.log";

const CONFIG: &str = r#"
version = 2
root = "/run/node/containerd"
state = "/run/containerd"
# A memory file system has nothing to offer to these, and nobody asks for them.
disabled_plugins = [
    "io.containerd.internal.v1.restart", "io.containerd.monitor.v1.cgroups", "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "/run/node/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$image"
# Containers may have neither: a lower score needs CAP_SYS_RESOURCE, a profile its own kernel module.
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$plugins"
conf_dir = "/run/node/cni"
"#;

const NETWORK: &str = r#"{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": true,
    "ipam": {
      "type": "host-local",
      "ranges": [[{"subnet": "10.86.0.0/16"}]],
      "routes": [{"dst": "0.0.0.0/0"}],
      "dataDir": "/run/node/ipam"
    }
  }]
}"#;

/// Pairs of addresses, from and to, between which no connection may start. Answers pass, as with a NetworkPolicy. In the
/// bridge's own family and ahead of br_netfilter: packets between the bridge's ports come by there whether or not that is
/// loaded. (Where it is, it takes them at priority -1, shows them to the IP rules, and goes on after priority 0.)
const POLICY: &str = "
table bridge segmentation {
    set denied { type ipv4_addr . ipv4_addr; }
    chain forward {
        type filter hook forward priority -200;
        ip saddr . ip daddr @denied tcp flags & (syn | ack) == syn drop
        ip saddr . ip daddr @denied meta l4proto != tcp drop
    }
}";

/// What a node needs and does not find here; none where it can be started.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".into());
    }
    let programs = ["containerd", "containerd-shim-runc-v2", "runc", "ctr", "nft", "ip", "unshare", "tar", "cc"];
    let in_path = |program: &&str| {
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|d| d.join(program).is_file()))
    };
    let mut absent = programs.into_iter().filter(|p| !in_path(p)).map(str::to_owned).collect::<Vec<_>>();
    if plugins().is_none() {
        absent.push("the CNI plugins bridge, host-local and loopback".into());
    }
    (!absent.is_empty()).then(|| format!("not installed: {}", absent.join(", ")))
}

/// Where Debian and everybody else put the CNI plugins.
fn plugins() -> Option<&'static str> {
    let complete = |directory: &&str| {
        ["bridge", "host-local", "loopback"].iter().all(|plugin| Path::new(directory).join(plugin).is_file())
    };
    ["/usr/lib/cni", "/opt/cni/bin"].into_iter().find(complete)
}

/// A running node. Everything in it ends when it is dropped.
pub struct Node {
    // In the order in which they end: first the daemon, so that it does not mourn its containers.
    containerd: Mutex<Option<Child>>,
    cri: Cri,
    machine: machine::Machine,
}

impl Node {
    /// Starts a node without pods.
    pub fn start() -> Self {
        static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
        let machine = machine::Machine::start();
        let config = CONFIG.replace("$image", image::IMAGE).replace("$plugins", plugins().expect("CNI plugins"));
        machine.write("/run/node/config.toml", &config);
        machine.write("/run/node/cni/10-pods.conflist", NETWORK);
        let node = Self { containerd: Mutex::new(None), cri: Cri::new(machine.outer(SOCKET)), machine };
        node.nft(POLICY);
        node.start_containerd();
        let image = IMAGE.get_or_init(image::build);
        node.inside(|| feed(Command::new("ctr").args(["-a", SOCKET, "-n", "k8s.io", "images", "import", "-"]), image));
        node
    }

    /// Starts containerd and waits until it and its network are ready.
    pub fn start_containerd(&self) {
        let mut containerd = self.containerd.lock().unwrap();
        assert!(containerd.is_none(), "containerd runs already");
        let child = self.inside(|| {
            let log = File::options().create(true).append(true).open(LOG).unwrap();
            let mut command = Command::new("containerd");
            command.args(["--config", "/run/node/config.toml"]).stdin(Stdio::null());
            command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
        });
        let child = containerd.insert(child);
        let began = Instant::now();
        while !self.cri.is_ready() {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none() && began.elapsed() < SOON, "containerd is not ready ({ended:?}):\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops containerd; its containers run on.
    pub fn stop_containerd(&self) {
        let mut child = self.containerd.lock().unwrap().take().expect("containerd runs");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        child.wait().unwrap();
    }

    /// What containerd has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path(LOG)).unwrap_or_default()
    }

    /// A path inside the node as the test sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.machine.outer(inside)
    }

    /// The name of the cgroup, in every hierarchy's root, that holds the node's pods.
    pub fn cgroup(&self) -> &str {
        self.machine.cgroup()
    }

    /// Calls the runtime; for what the methods here do not do.
    pub fn cri(&self) -> &Cri {
        &self.cri
    }

    /// Runs a pod: its sandbox, and its containers.
    pub fn run_pod(&self, spec: &PodSpec) -> Pod {
        let pod::Description { sandbox, containers } = spec.describe(self.machine.cgroup());
        let config = Some(sandbox.clone());
        let started: message::RunPodSandboxResponse =
            self.call("RunPodSandbox", message::RunPodSandboxRequest { config });
        let id = started.pod_sandbox_id;
        for config in containers {
            let created: message::CreateContainerResponse = self.call(
                "CreateContainer",
                message::CreateContainerRequest {
                    pod_sandbox_id: id.clone(),
                    config: Some(config),
                    sandbox_config: Some(sandbox.clone()),
                },
            );
            let start = message::StartContainerRequest { container_id: created.container_id };
            let _: message::Empty = self.call("StartContainer", start);
        }
        let status = self.status(&id);
        let ip = status.status.and_then(|s| s.network).map(|n| n.ip).filter(|ip| !ip.is_empty());
        let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().unwrap();
        let network = namespaces.iter().find(|n| n["type"] == "network").and_then(|n| n["path"].as_str());
        assert_eq!(network.is_none(), spec.host_network, "{info:#}");
        let metadata = sandbox.metadata.unwrap();
        Pod {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            id,
            ip: ip.map_or(NODE_IP, |ip| ip.parse().unwrap()),
            netns: network.map(str::to_owned),
        }
    }

    /// Runs many pods, several at a time, and gives them in the same order.
    pub fn run_pods(&self, specs: &[PodSpec]) -> Vec<Pod> {
        let (next, pods) = (AtomicUsize::new(0), specs.iter().map(|_| OnceLock::new()).collect::<Vec<_>>());
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some((spec, pod)) =
                        Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((specs.get(i)?, &pods[i])))
                    {
                        pod.set(self.run_pod(spec)).unwrap();
                    }
                });
            }
        });
        pods.into_iter().map(|pod| pod.into_inner().expect("it was run")).collect()
    }

    /// Stops a pod: its containers end and its network goes; the sandbox stays known, not ready.
    pub fn stop_pod(&self, pod: &Pod) {
        let _: message::Empty =
            self.call("StopPodSandbox", message::PodSandboxRequest { pod_sandbox_id: pod.id.clone() });
    }

    /// Stops a pod and removes it.
    pub fn remove_pod(&self, pod: &Pod) {
        self.stop_pod(pod);
        let _: message::Empty =
            self.call("RemovePodSandbox", message::PodSandboxRequest { pod_sandbox_id: pod.id.clone() });
    }

    /// A sandbox's status with all details.
    pub fn status(&self, id: &str) -> message::PodSandboxStatusResponse {
        self.call("PodSandboxStatus", message::PodSandboxStatusRequest { pod_sandbox_id: id.into(), verbose: true })
    }

    /// Listens on a port of the pod's address.
    pub fn listen(&self, pod: &Pod, port: u16) -> Listener {
        Listener::serve(self.in_network_of(pod, || TcpListener::bind((pod.ip, port)).unwrap()))
    }

    /// Runs `work` as a privileged pod with the host's network, mounts and processes would run: on a thread that has
    /// entered the node. Processes that it starts are the test's own children, which it must wait for before the node is
    /// dropped; threads it cannot start.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.machine.inside(None, work)
    }

    /// As [`Node::inside`], but with the pod's network.
    pub fn inside_with_network_of<T: Send>(&self, pod: &Pod, work: impl FnOnce() -> T + Send) -> T {
        self.machine.inside(pod.netns.as_deref(), work)
    }

    /// Runs `work` on a thread that is in the pod's network, and otherwise in the test.
    pub fn in_network_of<T: Send>(&self, pod: &Pod, work: impl FnOnce() -> T + Send) -> T {
        self.machine.in_network(pod.netns.as_deref(), work)
    }

    /// A policy for every pair: no connection from one to the other can start.
    pub fn deny(&self, from: &[&Pod], to: &[&Pod]) {
        self.pairs("add", from, to);
    }

    /// Takes the policies of these pairs away.
    pub fn allow(&self, from: &[&Pod], to: &[&Pod]) {
        self.pairs("delete", from, to);
    }

    fn pairs(&self, what: &str, from: &[&Pod], to: &[&Pod]) {
        let mut commands = String::new();
        for (from, to) in from.iter().flat_map(|from| to.iter().map(move |to| (from.ip, to.ip))) {
            writeln!(commands, "{what} element bridge segmentation denied {{ {from} . {to} }}").unwrap();
        }
        self.nft(&commands);
    }

    /// Runs `nft` on a text, in the node.
    pub fn nft(&self, rules: &str) {
        self.inside(|| feed(Command::new("nft").args(["-f", "-"]), rules.as_bytes()));
    }

    /// Runs `nft` on a text, in a pod's network.
    pub fn nft_in(&self, pod: &Pod, rules: &str) {
        self.inside_with_network_of(pod, || feed(Command::new("nft").args(["-f", "-"]), rules.as_bytes()));
    }

    fn call<R: prost::Message + Default + 'static>(&self, method: &str, request: impl prost::Message + 'static) -> R {
        self.cri.call(method, request).unwrap_or_else(|e| panic!("{method}: {e}\n{}", self.log()))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The lock is poisoned where the start failed.
        let containerd = self.containerd.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = containerd {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a command and gives its output.
fn run(command: &mut Command) -> Vec<u8> {
    feed(command, &[])
}

/// Runs a command on an input and gives its output.
fn feed(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Where it ends early its message says more than the broken pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
