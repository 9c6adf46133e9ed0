//! Pods as a container runtime tells of them: every shape, what is asked again, and runtimes that come and go.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use segprobe::inventory::cri::{Client, CriError, Network, PodDns, Sandbox, Version};

use crate::{
    fake_cri::{FakeCri, FakePod, Method, Misbehaviour, Shape},
    support::{SOON, as_plain_user, process},
};

const SHAPES: [Shape; 7] = [
    Shape::Containerd16,
    Shape::Containerd17Sbserver,
    Shape::Containerd20,
    Shape::Containerd23,
    Shape::DeadShim,
    Shape::CrioWithPid,
    Shape::CrioSpoofed,
];

fn pod(name: &str) -> FakePod {
    FakePod {
        netns: Some(format!("/var/run/netns/{name}").into()),
        ips: vec!["10.244.0.7".into(), "fd00::7".into()],
        ..FakePod::new("shop", name)
    }
}

async fn only(runtime: &FakeCri) -> Arc<Sandbox> {
    let mut sandboxes = Client::new(&runtime.socket()).list().await.unwrap();
    assert_eq!(sandboxes.len(), 1, "{sandboxes:?}");
    sandboxes.remove(0)
}

fn names(sandboxes: &[Arc<Sandbox>]) -> Vec<&str> {
    sandboxes.iter().map(|sandbox| &*sandbox.name).collect()
}

#[tokio::test]
async fn every_runtime_tells_of_a_pod_in_its_own_shape() {
    for shape in SHAPES {
        let of_crio = matches!(shape, Shape::CrioWithPid | Shape::CrioSpoofed);
        let runtime = FakeCri::start(vec![FakePod { pid: 4711, shape: shape.clone(), ..pod("cart-0") }]);
        let dns = PodDns {
            servers: Box::new(["10.96.0.10".parse().unwrap()]),
            searches: Box::new(["shop.svc.cluster.local".into(), "svc.cluster.local".into()]),
        };
        let expected = Sandbox {
            id: "sandbox-of-shop-cart-0".into(),
            uid: "uid-of-shop-cart-0".into(),
            namespace: "shop".into(),
            name: "cart-0".into(),
            labels: Some(BTreeMap::from([("app".into(), "cart-0".into())])),
            created: "2026-09-21T14:13:20Z".parse().unwrap(),
            ready: true,
            running: true,
            network: Network::Pod("/var/run/netns/cart-0".into()),
            addresses: ["10.244.0.7", "fd00::7"].map(|ip| ip.parse::<IpAddr>().unwrap()).into(),
            dns: if of_crio { PodDns::default() } else { dns },
        };
        assert_eq!(*only(&runtime).await, expected, "{shape:?}");
    }
}

#[tokio::test]
async fn a_pod_in_the_hosts_network_is_told_as_such() {
    for shape in SHAPES {
        let host = FakePod {
            host_network: true,
            netns: None,
            ips: vec![],
            pid: 4711,
            shape: shape.clone(),
            ..pod("node-exporter")
        };
        let runtime = FakeCri::start(vec![host]);
        assert_eq!(only(&runtime).await.network, Network::Host, "{shape:?}");
    }
}

#[tokio::test]
async fn without_a_path_the_process_tells() {
    let with_pid = |pid, shape| FakePod { netns: None, pid, shape, ..pod("cart-0") };
    for shape in [Shape::Containerd16, Shape::Containerd23, Shape::CrioWithPid] {
        let runtime = FakeCri::start(vec![with_pid(4711, shape.clone())]);
        assert_eq!(only(&runtime).await.network, Network::Pod("/proc/4711/ns/net".into()), "{shape:?}");
    }
    for shape in [Shape::Containerd16, Shape::CrioSpoofed, Shape::DeadShim] {
        let runtime = FakeCri::start(vec![with_pid(0, shape.clone())]);
        let why = "the runtime tells neither a network namespace nor a process";
        assert_eq!(only(&runtime).await.network, Network::Unknown(why.into()), "{shape:?}");
    }
}

#[tokio::test]
async fn a_runtime_that_hides_the_network_is_recognised() {
    let handler = |name: &str, shape| FakePod { runtime_handler: name.into(), shape, ..pod("cart-0") };
    let of_type = |name: &str| FakePod { runtime_type: name.into(), ..pod("cart-0") };
    for (hidden, by) in [
        (handler("kata-qemu", Shape::Containerd16), "kata-qemu"),
        (handler("gVisor", Shape::Containerd23), "gVisor"),
        (handler("kata", Shape::CrioSpoofed), "kata"),
        (of_type("io.containerd.runsc.v1"), "io.containerd.runsc.v1"),
        (of_type("io.containerd.Kata.v2"), "io.containerd.Kata.v2"),
    ] {
        let runtime = FakeCri::start(vec![hidden]);
        assert_eq!(only(&runtime).await.network, Network::Hidden(by.into()));
    }
    let runtime = FakeCri::start(vec![FakePod { closed: true, ..pod("cart-0") }]);
    assert!(matches!(&only(&runtime).await.network, Network::Unknown(why) if why.contains("closed")));
}

#[tokio::test]
async fn what_was_told_is_not_asked_again() {
    let runtime = FakeCri::start(vec![pod("b"), pod("a"), FakePod { host_network: true, ..pod("c") }]);
    let mut client = Client::new(&runtime.socket());
    let first = client.list().await.unwrap();
    assert_eq!(names(&first), ["a", "b", "c"]);
    let second = client.list().await.unwrap();
    assert!(first.iter().zip(&second).all(|(first, second)| Arc::ptr_eq(first, second)));
    assert_eq!(runtime.calls(Method::PodSandboxStatus), 3);
    assert_eq!((runtime.calls(Method::ListPodSandbox), runtime.calls(Method::ListContainers)), (2, 2));
    assert_eq!(runtime.connections(), 1);

    // One changes: the others are the same.
    runtime.change(|pods| pods[0].ready = false);
    let third = client.list().await.unwrap();
    assert!(Arc::ptr_eq(&third[0], &first[0]) && third[1] != first[1]);
    runtime.change(|pods| pods[0].ready = true);
    assert_eq!(client.list().await.unwrap(), first);
    assert_eq!(runtime.calls(Method::PodSandboxStatus), 4);
}

/// It is as good a vantage and as much a neighbour between two crashes of its containers.
#[tokio::test]
async fn one_whose_containers_crash_runs_while_its_sandbox_is_ready() {
    let runtime = FakeCri::start(vec![FakePod { running: false, ..pod("a") }]);
    let mut client = Client::new(&runtime.socket());
    let mut seen = async |ready, running| {
        runtime.change(|pods| (pods[0].ready, pods[0].running) = (ready, running));
        let sandbox = client.list().await.unwrap().remove(0);
        (sandbox.ready, sandbox.running)
    };
    assert_eq!(seen(true, false).await, (true, false), "none has run yet");
    assert_eq!(seen(true, true).await, (true, true));
    for _ in 0..2 {
        assert_eq!(seen(true, false).await, (true, true));
    }
    assert_eq!(seen(false, false).await, (false, false));
    assert_eq!(seen(false, true).await, (false, true), "its containers end after it");
    assert_eq!(seen(true, false).await, (true, false), "what ran before it ended does not count");
    assert_eq!(seen(true, true).await, (true, true));
    // One id, another pod.
    runtime.change(|pods| pods[0].uid = "another".into());
    assert_eq!(seen(true, false).await, (true, false));
    assert_eq!(seen(true, true).await, (true, true));
    runtime.change(|pods| pods[0].created += 1);
    assert_eq!(seen(true, false).await, (true, false));
}

#[tokio::test]
async fn what_is_not_known_is_asked_again() {
    let runtime = FakeCri::start(vec![FakePod { shape: Shape::Nothing, ..pod("a") }, pod("b")]);
    let mut client = Client::new(&runtime.socket());
    assert!(matches!(&client.list().await.unwrap()[0].network, Network::Unknown(why) if why.contains("verbose")));
    runtime.change(|pods| pods[0].shape = Shape::Text(r#"{"pid": "#.into()));
    assert!(matches!(&client.list().await.unwrap()[0].network, Network::Unknown(why) if why.contains("JSON")));
    assert_eq!(runtime.calls(Method::PodSandboxStatus), 3);
    runtime.change(|pods| pods[0].shape = Shape::Containerd23);
    let expected = Network::Pod("/var/run/netns/a".into());
    for _ in 0..2 {
        assert_eq!(client.list().await.unwrap()[0].network, expected);
    }
    assert_eq!(runtime.calls(Method::PodSandboxStatus), 4);
}

#[tokio::test]
async fn pods_come_and_go() {
    let runtime = FakeCri::start(vec![pod("a"), pod("b")]);
    let mut client = Client::new(&runtime.socket());
    let before = client.list().await.unwrap();
    // One leaves, one comes, and one is made anew under its old name while its old sandbox is still there.
    runtime.change(|pods| {
        pods[0].ready = false;
        pods[1] = pod("c");
        let path = Some(PathBuf::from("/var/run/netns/other"));
        pods.push(FakePod { id: "other".into(), created: pods[0].created + 1, netns: path, ..pod("a") });
    });
    let after = client.list().await.unwrap();
    assert_eq!(names(&after), ["a", "a", "c"]);
    assert_eq!(after.iter().map(|sandbox| sandbox.ready).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!((&*after[0].id, &*after[1].id), (&*before[0].id, "other"));
    assert_eq!(after[0].network, Network::Unknown("it is not ready".into()));
    assert_eq!(after[1].network, Network::Pod("/var/run/netns/other".into()));
    assert_eq!(runtime.calls(Method::PodSandboxStatus), 4);
    // A sandbox that is not ready is not asked about.
    client.list().await.unwrap();
    assert_eq!(runtime.calls(Method::PodSandboxStatus), 4);
    // One id, another pod: it is asked about.
    runtime.change(|pods| pods[1].uid = "another".into());
    assert_eq!(&*client.list().await.unwrap()[2].uid, "another");
    assert_eq!(runtime.calls(Method::PodSandboxStatus), 5);
}

#[tokio::test]
async fn one_that_vanishes_in_between_is_left_out() {
    let runtime = FakeCri::start(vec![pod("a")]);
    let mut client = Client::new(&runtime.socket());
    client.list().await.unwrap();
    runtime.change(|pods| pods.push(pod("b")));
    runtime.misbehave(Method::PodSandboxStatus, Misbehaviour::Error(5, "not found"));
    assert_eq!(names(&client.list().await.unwrap()), ["a"]);
    runtime.misbehave(Method::PodSandboxStatus, Misbehaviour::Error(13, "task is\nlocked"));
    let sandboxes = client.list().await.unwrap();
    assert_eq!(sandboxes[0].network, Network::Pod("/var/run/netns/a".into()));
    assert!(
        matches!(&sandboxes[1].network, Network::Unknown(why) if why.contains("the runtime says Internal: task is locked"))
    );
    runtime.behave();
    assert_eq!(client.list().await.unwrap()[1].network, Network::Pod("/var/run/netns/b".into()));
}

#[tokio::test]
async fn a_restarted_runtime_is_asked_on() {
    let mut runtime = FakeCri::start(vec![pod("a")]);
    let socket = runtime.socket();
    let mut client = Client::new(&socket);
    let before = client.list().await.unwrap();
    for _ in 0..5 {
        runtime.restart();
        let after = client.list().await.unwrap();
        assert!(Arc::ptr_eq(&before[0], &after[0]));
    }
    assert_eq!(runtime.calls(Method::PodSandboxStatus), 1);

    runtime.stop();
    for _ in 0..2 {
        let error = client.list().await.unwrap_err();
        assert_eq!(error, CriError::Refused { socket: socket.clone() });
    }
    std::fs::remove_file(&socket).unwrap();
    assert_eq!(client.list().await.unwrap_err(), CriError::Absent { socket: socket.clone() });
    runtime.resume();
    assert!(Arc::ptr_eq(&before[0], &client.list().await.unwrap()[0]));
}

#[tokio::test]
async fn the_runtime_has_a_name_and_a_version() {
    let runtime = FakeCri::start(vec![]);
    let mut client = Client::new(&runtime.socket());
    assert_eq!(client.version().await.unwrap(), Version { name: "fake".into(), version: "v0.0.1".into() });
    // Tasks may hold it, on whatever thread.
    assert_eq!(tokio::spawn(async move { client.list().await }).await.unwrap().unwrap(), []);
}

#[tokio::test]
async fn a_server_that_is_no_cri_is_told() {
    let runtime = FakeCri::start(vec![]);
    for method in [Method::ListPodSandbox, Method::Version] {
        runtime.misbehave(method, Misbehaviour::Error(12, "unknown service runtime.v1.RuntimeService"));
    }
    let mut client = Client::new(&runtime.socket());
    let error = client.list().await.unwrap_err();
    assert!(matches!(error, CriError::NotCri { operation: "ListPodSandbox", .. }), "{error:?}");
    assert!(matches!(client.version().await, Err(CriError::NotCri { operation: "Version", .. })));
    let text = error.to_string();
    assert!(text.contains("disabled_plugins") && text.contains("cri.sock") && !text.contains('\n'), "{text}");
}

/// Where the socket is that [`asks`] is to ask.
const SOCKET: &str = "SEGPROBE_TEST_CRI_SOCKET";

/// A client in a process of its own: what it was told, and the most memory that it took.
pub fn ask_apart(socket: &Path) -> process::Ended {
    let mut command = as_plain_user_if(socket);
    command.args(["--exact", "cri::asks", "--ignored", "--nocapture"]).env(SOCKET, socket);
    process::run(command, SOON)
}

/// The directory of a [`FakeCri`] is its owner's alone.
fn as_plain_user_if(socket: &Path) -> std::process::Command {
    let program = std::env::current_exe().unwrap();
    match socket.ends_with("denied.sock") {
        true => as_plain_user(&program),
        false => std::process::Command::new(program),
    }
}

#[tokio::test]
#[ignore = "the other half of `ask_apart`"]
async fn asks() {
    let socket = std::env::var_os(SOCKET).unwrap();
    let mut client = Client::new(Path::new(&socket));
    for _ in 0..3 {
        match client.list().await {
            Ok(sandboxes) => println!("TOLD {}", sandboxes.len()),
            Err(error) => println!("ERROR {error}"),
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM:")).unwrap());
}

#[test]
fn a_socket_of_others_is_told() {
    let runtime = FakeCri::start(vec![]);
    let denied = runtime.socket().with_file_name("denied.sock");
    std::fs::hard_link(runtime.socket(), &denied).unwrap();
    std::fs::set_permissions(&denied, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let ended = ask_apart(&denied);
    assert!(ended.stdout.contains("ERROR not allowed to connect to "), "{ended:?}");
    assert!(ended.stdout.contains("SELinux"), "{ended:?}");
}
