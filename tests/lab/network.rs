//! The lab's network: client -- router -- server, three namespaces that are gone when their last descriptor is.
//!
//! No name, no file, no mount: a namespace is a descriptor, and what must happen in it happens on a thread that has
//! entered it and ends there. Programs (`ip`, `nft`) are started from such threads and so live in it too.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};
use segprobe::model::Family;

/// A network namespace.
pub struct Namespace {
    file: File,
}

impl Namespace {
    pub fn new() -> Result<Self, String> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        };
        let file =
            thread::spawn(make).join().expect("it does not panic").map_err(|e| format!("a network namespace: {e}"))?;
        Ok(Self { file })
    }

    /// Runs `work` on a thread of its own in the namespace and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            setns(&self.file, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            work()
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Starts `work` on a thread of its own in the namespace.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let file = self.file.try_clone().expect("a descriptor");
        thread::spawn(move || {
            setns(&file, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            drop(file);
            work()
        })
    }

    /// Runs `ip` on several commands, one a line.
    pub fn ip(&self, batch: &str) -> Result<(), String> {
        self.run(|| feed(Command::new("ip").args(["-batch", "-"]), batch)).map(drop)
    }

    /// Runs `nft` on a text.
    pub fn nft(&self, rules: &str) -> Result<(), String> {
        self.run(|| feed(Command::new("nft").args(["-f", "-"]), rules)).map(drop)
    }

    /// Makes these rules the only ones of a hook.
    pub fn rules(&self, hook: Hook, rules: &[String]) -> Result<(), String> {
        self.nft(&hook.chain(rules))
    }

    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), String> {
        let path = format!("/proc/sys/net/{name}");
        self.run(|| fs::write(&path, value)).map_err(|e| format!("{path}: {e}"))
    }

    /// Whether a socket here has sent a SYN to an IPv4 address and waits for an answer.
    pub fn is_connecting_to(&self, address: SocketAddr) -> bool {
        const SYN_SENT: &str = "02";
        let IpAddr::V4(ip) = address.ip() else { panic!("{address} is not IPv4") };
        // As the kernel prints it: the address as a number of this machine's byte order.
        let peer = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
        let sockets = self.run(|| fs::read_to_string("/proc/thread-self/net/tcp")).expect("its sockets");
        let columns = sockets.lines().map(|line| line.split_whitespace().skip(2));
        columns.into_iter().any(|mut of| of.next() == Some(peer.as_str()) && of.next() == Some(SYN_SENT))
    }

    /// One of the kernel's counters of TCP here, as `ActiveOpens` or `PassiveOpens`.
    pub fn tcp_counter(&self, name: &str) -> u32 {
        let snmp = self.run(|| fs::read_to_string("/proc/thread-self/net/snmp")).expect("its counters");
        let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp:"));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let index = names.split_whitespace().position(|of| of == name).expect("the counter");
        values.split_whitespace().nth(index).expect("its value").parse().expect("a number")
    }

    /// Leads to the namespace; `ip` takes it for its name.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd())
    }
}

/// Runs a program on a text and gives what it prints.
fn feed(command: &mut Command, input: &str) -> Result<Vec<u8>, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut run = || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().expect("it is piped").write_all(input.as_bytes())?;
        child.wait_with_output()
    };
    let output = run().map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("{program}: {}\n{input}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Where the rules of a scenario sit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    Input,
    Forward,
    Output,
    NatPrerouting,
    NatOutput,
}

impl Hook {
    fn chain(self, rules: &[String]) -> String {
        let (name, at) = match self {
            Self::Input => ("in", "filter hook input priority 0"),
            Self::Forward => ("forward", "filter hook forward priority 0"),
            Self::Output => ("out", "filter hook output priority 0"),
            Self::NatPrerouting => ("nat-prerouting", "nat hook prerouting priority -100"),
            Self::NatOutput => ("nat-output", "nat hook output priority -100"),
        };
        let chain =
            format!("add table inet lab\nadd chain inet lab {name} {{ type {at}; }}\nflush chain inet lab {name}\n");
        rules.iter().fold(chain, |text, rule| format!("{text}add rule inet lab {name} {rule}\n"))
    }
}

/// Client, router, server.
pub struct Network {
    pub client: Namespace,
    pub router: Namespace,
    pub server: Namespace,
}

impl Network {
    pub fn new() -> Result<Self, String> {
        let network = Self { client: Namespace::new()?, router: Namespace::new()?, server: Namespace::new()? };
        for namespace in [&network.client, &network.router, &network.server] {
            // No waiting for duplicates of addresses, and every ICMP error is sent.
            for (name, value) in [
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/router_solicitations", "0"),
                ("ipv4/icmp_ratelimit", "0"),
                ("ipv6/icmp/ratelimit", "0"),
            ] {
                namespace.sysctl(name, value)?;
            }
        }
        network.router.sysctl("ipv4/ip_forward", "1")?;
        network.router.sysctl("ipv6/conf/all/forwarding", "1")?;
        let (client, server) = (network.client.path(), network.server.path());
        let both = |batch: &str| [Family::V4, Family::V6].map(|family| fill(batch, family)).concat();
        // The indexes differ from the peers' own: the kernel takes its time, up to a second, to notice the carrier of a link
        // whose peer has its index (linkwatch_urgent_event in net/core/link_watch.c).
        network.router.ip(&format!(
            "link set lo up\n\
             link add name clients index 101 type veth peer name eth0 netns {client}\n\
             link add name servers index 102 type veth peer name eth0 netns {server}\n\
             {}link set clients up\nlink set servers up\n{}",
            both("addr add $router$subnet_bits dev clients $nodad\naddr add $gateway$subnet_bits dev servers $nodad\n"),
            both("route add $farm via $server\nroute add unreachable $nobody\n"),
        ))?;
        network.client.ip(&format!(
            "link set lo up\n{}link set eth0 up\n{}",
            both("addr add $client$subnet_bits dev eth0 $nodad\naddr add $witness$subnet_bits dev eth0 $nodad\n"),
            both("route add $servers via $router src $client\nroute add $farm via $router src $client\n"),
        ))?;
        network.server.ip(&format!(
            "link set lo up\n{}link set eth0 up\n{}",
            both(
                "addr add $server$subnet_bits dev eth0 $nodad\naddr add $target$subnet_bits dev eth0 $nodad\n\
                 addr add $second$subnet_bits dev eth0 $nodad\n"
            ),
            both("route add default via $gateway\nroute add local $farm dev lo\n"),
        ))?;
        network.warm_up()?;
        Ok(network)
    }

    /// Waits until everybody knows everybody's link address: a first packet that is lost looks like a lossy network.
    fn warm_up(&self) -> Result<(), String> {
        const DISCARD: u16 = 9;
        let give_up = Instant::now() + Duration::from_secs(60);
        for (namespace, peers) in
            [(&self.client, ["$server", "$target", "$second"]), (&self.server, ["$client", "$witness", "$gateway"])]
        {
            for (peer, family) in peers.iter().flat_map(|peer| Family::ALL.iter().map(move |family| (*peer, *family))) {
                let address = SocketAddr::new(fill(peer, family).parse().expect("an address"), DISCARD);
                let refused = || {
                    TcpStream::connect_timeout(&address, Duration::from_millis(200)).unwrap_err().kind()
                        == io::ErrorKind::ConnectionRefused
                };
                while !namespace.run(refused) {
                    if Instant::now() > give_up {
                        return Err(format!("{address} does not answer"));
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        Ok(())
    }

    /// Makes the router note each connect of the low vantage to the target, before any rule of a scenario drops it.
    pub fn watch_attempts(&self, family: Family) -> Result<(), String> {
        // A SYN that is sent again has the same source port: it is the same connect.
        let rule = "$ip saddr $client tcp dport 5432 tcp flags & (syn | ack) == syn add @attempts { tcp sport }";
        self.router.nft(&format!(
            "table inet watch {{\n\
             set attempts {{ type inet_service; flags dynamic; size 65535; }}\n\
             chain seen {{ type filter hook prerouting priority -300; {}; }}\n}}",
            fill(rule, family)
        ))
    }

    /// Connects of the low vantage to the target that the router has seen so far.
    pub fn attempts(&self) -> Result<usize, String> {
        let list = || feed(Command::new("nft").args(["-j", "list", "set", "inet", "watch", "attempts"]), "");
        let listed = self.router.run(list)?;
        let listed: serde_json::Value = serde_json::from_slice(&listed).map_err(|e| format!("nft: {e}"))?;
        let sets = listed["nftables"].as_array().into_iter().flatten();
        Ok(sets.filter_map(|object| object["set"]["elem"].as_array()).map(Vec::len).sum())
    }

    /// As the kernel has it by default: one ICMP error a second to one address, after a burst of six.
    pub fn limit_icmp(&self) -> Result<(), String> {
        self.router.sysctl("ipv4/icmp_ratelimit", "1000")?;
        self.router.sysctl("ipv6/icmp/ratelimit", "1000")
    }
}

/// Writes the addresses of one family into a text: `$name` stands for the family's own, `$other_name` for the other's.
pub fn fill(text: &str, family: Family) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        let end = after.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        filled.push_str(before);
        filled.push_str(&match name.strip_prefix("other_") {
            None => word(name, family),
            Some(name) => word(name, if family == Family::V4 { Family::V6 } else { Family::V4 }),
        });
        rest = tail;
    }
    filled + rest
}

/// Addresses of the farm that `$many` lists.
const MANY: usize = 60;

fn word(name: &str, family: Family) -> String {
    let many = || match family {
        Family::V4 => (1..=MANY).map(|i| format!("203.0.113.{i}")).collect::<Vec<_>>().join(", "),
        Family::V6 => (1..=MANY).map(|i| format!("2001:db8:3::{i:x}")).collect::<Vec<_>>().join(", "),
    };
    let of = |v4: &str, v6: &str| if family == Family::V4 { v4.to_owned() } else { v6.to_owned() };
    match name {
        // What nft calls the family, and the length of a host's and of a subnet's prefix.
        "ip" => of("ip", "ip6"),
        "host_bits" => of("/32", "/128"),
        // IPv6 addresses are usable at once.
        "nodad" => of("", "nodad"),
        "subnet_bits" => of("/24", "/64"),
        "any" => of("0.0.0.0", "::"),
        // The low vantage; the witness, on the same machine; an address of their link that nobody has.
        "client" => of("192.0.2.2", "2001:db8:1::2"),
        "witness" => of("192.0.2.9", "2001:db8:1::9"),
        "absent" => of("192.0.2.77", "2001:db8:1::77"),
        "router" => of("192.0.2.1", "2001:db8:1::1"),
        "gateway" => of("198.51.100.1", "2001:db8:2::1"),
        // The control server, and two endpoints.
        "servers" => of("198.51.100.0/24", "2001:db8:2::/64"),
        "server" => of("198.51.100.2", "2001:db8:2::2"),
        "control" => of("198.51.100.2:53", "[2001:db8:2::2]:53"),
        "backup" => of("198.51.100.11:53", "[2001:db8:2::11]:53"),
        "target" => of("198.51.100.10", "2001:db8:2::10"),
        "second" => of("198.51.100.11", "2001:db8:2::11"),
        // Nobody has them: one for DNAT; one that the router knows to be nobody's, for negative controls.
        "virtual" => of("198.51.100.200", "2001:db8:2::200"),
        "nobody" => of("198.51.100.250", "2001:db8:2::250"),
        // A subnet of which the server has every address.
        "farm" => of("203.0.113.0/24", "2001:db8:3::/64"),
        "farmed" => of("203.0.113.1", "2001:db8:3::1"),
        "many" => many(),
        _ => panic!("no `${name}` in the lab"),
    }
}
