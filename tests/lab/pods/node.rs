//! A node with pods: each in a network namespace of its own behind the node's, and a container runtime that tells of them.
//!
//! A pod's namespace has a path that can vanish or lead elsewhere, as a runtime's mounts do: a symbolic link.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    engine::PORT,
    fake_cri::{FakeCri, FakePod},
    network::{Hook, Namespace},
    servers::{Servers, Temper},
};

/// The node's address on every link to a pod.
const NODE: &str = "169.254.1.1";

/// Nobody has it, and the node knows.
pub const NOBODY: &str = "10.244.9.9";

/// What every pod may reach.
pub const CONTROL: &str = "10.96.0.10";

pub struct Node {
    /// The node's own network. It forwards between its pods and all else.
    pub host: Namespace,
    pub runtime: FakeCri,
    paths: TempDir,
    links: AtomicU32,
}

/// A pod of the node.
pub struct Pod {
    pub namespace: Namespace,
    /// Of its sandbox.
    pub id: String,
    /// Where the runtime says that its namespace is.
    pub path: PathBuf,
    link: String,
}

/// A low pod of the identity `app=<app>`.
pub fn low(name: &str, app: &str) -> FakePod {
    FakePod { labels: [("app".into(), app.into())].into(), ..FakePod::new("web", name) }
}

pub fn high(name: &str) -> FakePod {
    FakePod::new("payments", name)
}

/// One that came to be just now.
pub fn newborn(pod: FakePod) -> FakePod {
    let now = jiff::Timestamp::now().as_nanosecond();
    FakePod { created: now.try_into().expect("this century"), ..pod }
}

pub fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

impl Node {
    /// Without pods.
    pub fn new() -> Result<Self, String> {
        let host = Namespace::new()?;
        host.sysctl("ipv4/ip_forward", "1")?;
        host.sysctl("ipv4/icmp_ratelimit", "0")?;
        host.ip(&format!("link set lo up\nroute add unreachable {NOBODY}\n"))?;
        let paths = tempfile::Builder::new().prefix("segprobe-lab-").tempdir().map_err(|e| e.to_string())?;
        Ok(Self { host, runtime: FakeCri::start(Vec::new()), paths, links: AtomicU32::new(0) })
    }

    /// A network with these addresses behind a link of the node, and the link's name. It is no pod of this node: whoever is
    /// elsewhere.
    pub fn attach(&self, addresses: &[&str]) -> Result<(Namespace, String), String> {
        let namespace = Namespace::new()?;
        let number = self.links.fetch_add(1, Ordering::Relaxed);
        let link = format!("pod{number}");
        // About the index see `Network::new`.
        self.host.ip(&format!(
            "link add name {link} index {} type veth peer name eth0 netns {}\naddr add {NODE}/32 dev {link}\n\
             link set {link} up\n{}",
            1000 + number,
            namespace.path(),
            each(addresses, |address| format!("route add {address}/32 dev {link}\n"))
        ))?;
        namespace.ip(&format!(
            "link set lo up\n{}link set eth0 up\nroute add {NODE} dev eth0 scope link\nroute add default via {NODE}\n",
            each(addresses, |address| format!("addr add {address}/32 dev eth0\n"))
        ))?;
        warm_up(&namespace)?;
        Ok((namespace, link))
    }

    /// The network where everybody's control is.
    pub fn controls(&self) -> Result<(Namespace, Servers), String> {
        self.server(CONTROL, 53)
    }

    /// A network elsewhere with an open port.
    pub fn server(&self, address: &str, port: u16) -> Result<(Namespace, Servers), String> {
        let (namespace, _) = self.attach(&[address])?;
        let servers = Servers::start(&namespace, vec![(at(address, port), Temper::Open)], None);
        Ok((namespace, servers))
    }

    /// A pod that the runtime tells of.
    pub fn pod(&self, pod: FakePod, address: &str) -> Result<Pod, String> {
        let (namespace, link) = self.attach(&[address])?;
        let path = self.lead(&pod.id, &namespace.path());
        let id = pod.id.clone();
        self.tell(FakePod { netns: Some(path.clone()), ips: vec![address.into()], ..pod });
        Ok(Pod { namespace, id, path, link })
    }

    /// The runtime tells of this pod, too.
    pub fn tell(&self, pod: FakePod) {
        self.runtime.change(|pods| pods.push(pod));
    }

    /// Changes what the runtime tells of one pod.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut FakePod)) {
        self.runtime.change(|pods| change(pods.iter_mut().find(|pod| pod.id == id).expect("it is known")));
    }

    /// The runtime tells of it no more.
    pub fn forget(&self, id: &str) {
        self.runtime.change(|pods| pods.retain(|pod| pod.id != id));
    }

    /// Makes a path that leads to a namespace, or makes it lead there from now on.
    pub fn lead(&self, name: &str, namespace: &str) -> PathBuf {
        let (path, new) = (self.paths.path().join(name), self.paths.path().join(format!("{name}-new")));
        symlink(namespace, &new).and_then(|()| fs::rename(&new, &path)).expect("a link");
        path
    }

    /// Takes the pod's cable away.
    pub fn cut(&self, pod: &Pod) -> Result<(), String> {
        self.host.ip(&format!("link del {}\n", pod.link))
    }

    /// The only rules for what the node forwards.
    pub fn policy(&self, rules: &[&str]) -> Result<(), String> {
        self.host.rules(Hook::Forward, &rules.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>())
    }
}

impl Pod {
    /// Listens on its address's port 5432, or another.
    pub fn listens(&self, port: u16) -> Servers {
        Servers::start(&self.namespace, vec![(at("0.0.0.0", port), Temper::Open)], None)
    }

    pub fn listens_at(&self, address: &str) -> Servers {
        Servers::start(&self.namespace, vec![(at(address, PORT), Temper::Open)], None)
    }
}

fn each(addresses: &[&str], line: impl Fn(&str) -> String) -> String {
    addresses.iter().map(|address| line(address)).collect()
}

/// Waits until the link carries and both ends know each other: a first packet that is lost looks like a lossy network.
fn warm_up(namespace: &Namespace) -> Result<(), String> {
    const DISCARD: u16 = 9;
    let give_up = Instant::now() + Duration::from_secs(60);
    let node = SocketAddr::new(NODE.parse::<IpAddr>().expect("an address"), DISCARD);
    let refused = || {
        let seen = TcpStream::connect_timeout(&node, Duration::from_millis(200));
        seen.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    };
    while !namespace.run(refused) {
        if Instant::now() > give_up {
            return Err("a pod does not reach its node".into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
