//! The node itself: that pods, policies and the runtime's absences are what the scenarios take them for, and that nothing is
//! left of it.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead, BufReader, ErrorKind},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use libtest_mimic::Trial;

use crate::{
    containerd::{
        NODE_IP, Node, Pod, PodSpec, SOCKET,
        cri::message::{Empty, ListContainersResponse, PodSandboxStatusRequest, PodSandboxStatusResponse},
    },
    support::{SOON, Start, wait_for},
    trial,
};

/// Makes the test program start a node and hold it until it is killed.
pub const HOLD: &str = "SEGPROBE_TEST_HOLD_A_NODE";

const READY: i32 = 0;
const NOT_READY: i32 = 1;
const RUNNING: i32 = 1;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("harness::policies-hold-for-the-pairs-they-name", policies_hold_for_the_pairs_they_name),
        trial("harness::pods-are-as-a-kubelet-makes-them", pods_are_as_a_kubelet_makes_them),
        trial("harness::pods-stop-and-go", pods_stop_and_go),
        trial("harness::a-host-network-pod-is-the-node", a_host_network_pod_is_the_node),
        trial("harness::pods-outlive-containerd", pods_outlive_containerd),
        trial("harness::programs-run-inside", programs_run_inside),
        trial("harness::the-agent-runs-in-a-network", the_agent_runs_in_a_network),
        trial("harness::many-pods-start-together", many_pods_start_together),
        trial("harness::nothing-stays-behind", nothing_stays_behind),
        trial("harness::nothing-stays-behind-a-killed-test", nothing_stays_behind_a_killed_test),
    ]
}

/// Whether a pod reaches an address: a SYN without an answer for this long was dropped, because the path has no delay.
fn reaches(node: &Node, from: &Pod, to: SocketAddr) -> bool {
    match node.in_network_of(from, || TcpStream::connect_timeout(&to, Duration::from_millis(500))) {
        Ok(_) => true,
        Err(e) if e.kind() == ErrorKind::TimedOut => false,
        Err(e) => panic!("{to}: {e}"),
    }
}

fn policies_hold_for_the_pairs_they_name() {
    let node = Node::start();
    let [web, batch, ledger] = [("web", "web-1"), ("batch", "batch-1"), ("payments", "ledger-1")]
        .map(|(namespace, name)| node.run_pod(&PodSpec::new(namespace, name)));
    let [at_web, at_ledger] = [&web, &ledger].map(|pod| node.listen(pod, 5432));
    let from_web = || reaches(&node, &web, at_ledger.address);

    assert!(from_web(), "without a policy");
    node.deny(&[&web], &[&ledger]);
    assert!(!from_web(), "with one");
    assert!(reaches(&node, &batch, at_ledger.address), "another pod");
    assert!(reaches(&node, &ledger, at_web.address), "the other way round");
    assert!(node.inside(|| TcpStream::connect(at_ledger.address)).is_ok(), "the node itself reaches its own pods");
    node.allow(&[&web], &[&ledger]);
    assert!(from_web(), "without it again");
    drop(at_web);
    wait_for("four connections", SOON, || (at_ledger.accepted() == 4).then_some(()));
}

fn pods_are_as_a_kubelet_makes_them() {
    let node = Node::start();
    let spec = PodSpec { containers: 2, ..PodSpec::new("web", "web-1").label("app", "web") };
    let pod = node.run_pod(&spec);
    node.run_pod(&PodSpec { containers: 0, ..PodSpec::new("web", "empty") });

    let answer: ListContainersResponse = node.cri().call("ListContainers", Empty {}).unwrap();
    assert_eq!(answer.containers.len(), 2);
    for container in answer.containers {
        assert_eq!((&container.pod_sandbox_id, container.state), (&pod.id, RUNNING));
        assert_eq!(container.labels["io.kubernetes.pod.uid"], pod.uid);
    }
    let status = node.status(&pod.id);
    let info: serde_json::Value = serde_json::from_str(&status.info["info"]).unwrap();
    assert_eq!(status.status.unwrap().state, READY);
    assert_eq!(info["config"]["labels"]["app"], "web");
    assert_eq!(info["config"]["labels"]["io.kubernetes.pod.namespace"], "web");
    assert_eq!(info["config"]["dns_config"]["servers"][0], spec.dns_servers[0].as_str());
}

fn pods_stop_and_go() {
    let node = Node::start();
    let pod = node.run_pod(&PodSpec::new("web", "web-1"));
    let netns = node.path(pod.netns.as_deref().unwrap());
    assert!(netns.exists());

    node.stop_pod(&pod);
    assert_eq!(node.status(&pod.id).status.unwrap().state, NOT_READY);
    assert!(!netns.exists());

    node.remove_pod(&pod);
    let zombies =
        || node.inside(|| fs::read_dir("/proc").unwrap().filter(|e| is_zombie(&e.as_ref().unwrap().path())).count());
    wait_for("its processes are reaped", SOON, || (zombies() == 0).then_some(()));
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.id, verbose: false };
    let answer = node.cri().call::<PodSandboxStatusResponse>("PodSandboxStatus", request);
    assert_eq!(answer.unwrap_err().code(), tonic::Code::NotFound);
}

/// Of a process's directory in proc.
fn is_zombie(process: &Path) -> bool {
    fs::read_to_string(process.join("status")).is_ok_and(|status| status.contains("\nState:\tZ"))
}

fn a_host_network_pod_is_the_node() {
    let node = Node::start();
    let agent = node.run_pod(&PodSpec { host_network: true, ..PodSpec::new("kube-system", "proxy-1") });
    let web = node.run_pod(&PodSpec::new("web", "web-1"));
    assert_eq!((agent.ip, &agent.netns), (NODE_IP, &None));
    let listener = node.listen(&agent, 10250);
    assert!(node.inside(|| TcpStream::connect(listener.address)).is_ok());
    assert!(reaches(&node, &web, listener.address));
}

fn pods_outlive_containerd() {
    let node = Node::start();
    let [web, ledger] = ["web-1", "ledger-1"].map(|name| node.run_pod(&PodSpec::new("web", name)));
    let listener = node.listen(&ledger, 5432);

    node.stop_containerd();
    let refused = node.inside(|| UnixStream::connect(SOCKET)).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound), "{refused}");
    assert!(reaches(&node, &web, listener.address));

    node.start_containerd();
    assert_eq!(node.status(&web.id).status.unwrap().state, READY);
    assert!(reaches(&node, &web, listener.address));
    assert!(reaches(&node, &node.run_pod(&PodSpec::new("web", "web-2")), listener.address));
}

fn programs_run_inside() {
    let node = Node::start();
    let web = node.run_pod(&PodSpec::new("web", "web-1"));
    let shell = |script: &str| {
        let output = Command::new("sh").args(["-euc", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let inside = node.inside(|| shell(&format!("test -S {SOCKET}; test -e /proc/self/ns/net; ip -brief link")));
    assert!(inside.contains("cni0"), "the node's network: {inside}");
    let in_pod = node.inside_with_network_of(&web, || shell(&format!("test -S {SOCKET}; ip -brief address")));
    assert!(in_pod.contains(&format!("{}/16", web.ip)) && !in_pod.contains("cni0"), "the pod's: {in_pod}");

    let mut child = node.inside(|| Command::new("sleep").arg("1000").spawn().unwrap());
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
}

fn the_agent_runs_in_a_network() {
    let node = Node::start();
    let [web, open, denied] = ["web-1", "admin-1", "ledger-1"].map(|name| node.run_pod(&PodSpec::new("web", name)));
    let _listeners = [&open, &denied].map(|pod| node.listen(pod, 5432));
    node.deny(&[&web], &[&denied]);
    let (open, denied) = (open.ip, denied.ip);
    let config = format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries: [{{name: b, from: low, to: high, interval: 1m, tcp: {{attempts: 1}}, dns: off}}]
vantage: {{namespace: web, identity: own}}
controls: {{positive: [{{tcp: '{open}:5432'}}]}}
targets:
  - {{zone: high, namespace: payments, service: admin, endpoints: [{open}], ports: [5432]}}
  - {{zone: high, namespace: payments, service: ledger, endpoints: [{denied}], ports: [5432]}}
"
    );
    let in_pod = Start { network: Some(&web), ..Start::on(&node) }.agent(&config);
    in_pod.wait_for_verdicts(&[("admin:5432", "fail"), ("ledger:5432", "unverified")]);
    drop(in_pod);
    // The policy is about the pod, not about its node.
    Start::on(&node).agent(&config).wait_for_verdicts(&[("admin:5432", "fail"), ("ledger:5432", "fail")]);
}

fn many_pods_start_together() {
    let node = Node::start();
    let specs: Vec<_> =
        (0..12).map(|i| PodSpec { containers: 0, ..PodSpec::new("web", &format!("web-{i}")) }).collect();
    let pods = node.run_pods(&specs);
    assert!(pods.iter().map(|pod| &pod.name).eq(specs.iter().map(|spec| &spec.name)));
    assert_eq!(pods.iter().map(|pod| pod.ip).collect::<HashSet<_>>().len(), specs.len());
}

fn nothing_stays_behind() {
    // A machine may have any of these of its own: what counts is that the node changes none of them.
    let outside = || {
        let paths = ["/sys/class/net/cni0", "/var/lib/cni", "/run/node", "/run/containerd", "/run/netns"];
        paths.map(|path| (path, Path::new(path).exists()))
    };
    let before = outside();
    let node = Node::start();
    let pod = node.run_pod(&PodSpec::new("web", "web-1"));
    let cgroup = node.cgroup().to_owned();
    assert!(!cgroups(&cgroup).is_empty(), "the pod has cgroups");
    drop(node);
    wait_for("its cgroups are gone", SOON, || cgroups(&cgroup).is_empty().then_some(()));
    assert_eq!(outside(), before);
    for directory in ["/var/lib/cni", "/var/lib/containerd", "/run/containerd", "/run/netns"] {
        assert_eq!(named(Path::new(directory), &pod.id), None, "a file of the pod");
    }
}

/// A file or directory with this in its name, at any depth.
fn named(directory: &Path, text: &str) -> Option<PathBuf> {
    // An entry that cannot be read, or is gone by now, is not the node's.
    fs::read_dir(directory).into_iter().flatten().flatten().find_map(|entry| {
        let is_it = entry.file_name().to_string_lossy().contains(text);
        let is_directory = || entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_it { Some(entry.path()) } else { is_directory().then(|| named(&entry.path(), text)).flatten() }
    })
}

fn nothing_stays_behind_a_killed_test() {
    let mut test = Command::new(std::env::current_exe().unwrap());
    let mut test = test.env(HOLD, "1").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(test.stdout.take().unwrap()).lines();
    let [cgroup, pid] = [lines.next(), lines.next()].map(|line| line.expect("a node is held").unwrap());
    assert!(!cgroups(&cgroup).is_empty() && Path::new(&pid).exists());
    test.kill().unwrap();
    test.wait().unwrap();

    let gone = || cgroups(&cgroup).is_empty() && !Path::new(&pid).exists();
    wait_for("everything is gone", SOON, || gone().then_some(()));
}

/// Starts a node with a pod, says what it is called and where its first process is, and waits to be killed.
pub fn hold_a_node() -> ! {
    let node = Node::start();
    node.run_pod(&PodSpec::new("web", "web-1"));
    println!("{}\n{}", node.cgroup(), node.path("/").parent().unwrap().display());
    loop {
        thread::park();
    }
}

/// The cgroups of that name, in all hierarchies.
fn cgroups(name: &str) -> Vec<String> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).chain([root.to_owned()]);
    hierarchies.map(|path| path.join(name)).filter(|path| path.exists()).map(|p| p.display().to_string()).collect()
}
