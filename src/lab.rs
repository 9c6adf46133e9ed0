//! The demo's embedded lab: a cluster in miniature on loopback addresses, in a network namespace of its own.
//!
//! A NetworkPolicy is a classic BPF filter on the listening socket that drops every packet except the witness's: silence
//! without root and without a firewall. Linux wants CAP_NET_ADMIN for it, which a user namespace of one's own gives.

mod dns;
mod namespace;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use nix::libc;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::net::TcpListener;

pub use namespace::{Entered, enter};

use crate::model::{Reason, Verdict};

/// The lab's addresses are in 127.86.0.0/16, in a namespace of its own or on the machine's loopback interface.
const WITNESS: Ipv4Addr = Ipv4Addr::new(127, 86, 9, 9);
const OLD_DNS: Ipv4Addr = Ipv4Addr::new(127, 86, 0, 53);
const SPLIT_DNS: Ipv4Addr = Ipv4Addr::new(127, 86, 0, 54);
const DNS_PORT: u16 = 10053;

/// How a server of the lab treats those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// Everybody may: no policy, or its enforcer is dead.
    Open,
    /// Only the witness may; the others hear nothing.
    Segmented,
    /// Nobody hears anything: the pod hangs.
    Dead,
}

/// `(last two octets, port, policy)`.
const SERVERS: &[((u8, u8), u16, Policy)] = &[
    ((0, 10), 8443, Policy::Open),
    ((0, 20), 8200, Policy::Segmented),
    ((1, 1), 5432, Policy::Segmented),
    ((1, 2), 5432, Policy::Segmented),
    ((1, 3), 8200, Policy::Segmented),
    ((1, 4), 8080, Policy::Open),
    ((1, 5), 9000, Policy::Segmented),
    ((1, 6), 9000, Policy::Open),
    ((1, 7), 7000, Policy::Dead),
];

/// A running lab. Its servers live as long as the runtime.
#[derive(Debug)]
pub struct Lab {
    /// Configuration that tests it.
    pub config: String,
    /// What must come out, by target, or by technique and server.
    pub expected: Vec<(&'static str, Verdict)>,
    /// True where silence cannot be made here, so that only what answers is shown.
    pub only_open: bool,
}

/// Starts the lab's servers in the namespace that the process is in.
///
/// # Errors
/// An address is taken, or the system refuses something else.
pub async fn start() -> io::Result<Lab> {
    let mut only_open = false;
    for ((c, d), port, policy) in SERVERS {
        match listen(SocketAddr::from(([127, 86, *c, *d], *port)), *policy) {
            Ok(listener) => {
                tokio::spawn(accept(listener));
            }
            Err(e) if *policy != Policy::Open && e.raw_os_error() == Some(libc::EPERM) => only_open = true,
            Err(e) => return Err(e),
        }
    }
    dns::serve(SocketAddr::from((OLD_DNS, DNS_PORT)), dns::Kind::Old).await?;
    dns::serve(SocketAddr::from((SPLIT_DNS, DNS_PORT)), dns::Kind::Split).await?;
    Ok(Lab { config: config(only_open), expected: expected(only_open), only_open })
}

fn listen(address: SocketAddr, policy: Policy) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    match policy {
        Policy::Open => {}
        Policy::Segmented => socket.attach_filter(&only_from(WITNESS))?,
        Policy::Dead => socket.attach_filter(&[ret(0)])?,
    }
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

/// Load the IPv4 source address, keep the packet where it is `source`, drop it otherwise.
fn only_from(source: Ipv4Addr) -> [SockFilter; 4] {
    // The filter of a TCP socket starts at the TCP header; SKF_NET_OFF leads back to the IP header (linux/filter.h).
    const SKF_NET_OFF: u32 = 0xfff0_0000;
    const SOURCE_OFFSET: u32 = 12;
    [
        filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, SKF_NET_OFF + SOURCE_OFFSET),
        filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::from(source)),
        ret(u32::MAX),
        ret(0),
    ]
}

fn ret(bytes: u32) -> SockFilter {
    filter(libc::BPF_RET | libc::BPF_K, 0, 0, bytes)
}

fn filter(code: u32, if_true: u8, if_false: u8, operand: u32) -> SockFilter {
    // The kernel's codes are 16 bit wide; libc declares them wider.
    SockFilter::new(u16::try_from(code).unwrap_or_default(), if_true, if_false, operand)
}

async fn accept(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        drop(stream);
    }
}

/// The services that the lab's DNS servers know: `(namespace, service, last two octets, port)`.
const SERVICES: &[(&str, &str, (u8, u8), u16)] = &[
    ("default", "kubernetes", (0, 10), 8443),
    ("storefront", "web", (0, 10), 8443),
    ("payments", "ledger", (1, 1), 5432),
    ("payments", "vault", (0, 20), 8200),
    ("payments", "admin", (1, 4), 8080),
    ("payments", "reports", (1, 5), 9000),
    ("payments", "batch", (1, 7), 7000),
];

fn config(only_open: bool) -> String {
    let segmented = "
  - {zone: high, namespace: payments, service: ledger, endpoints: [127.86.1.1, 127.86.1.2], ports: [5432]}
  - {zone: high, namespace: payments, service: vault, cluster_ip: 127.86.0.20, endpoints: [127.86.1.3], ports: [8200]}
  - {zone: high, namespace: payments, service: batch, endpoints: [127.86.1.7], ports: [7000]}";
    let reports = if only_open { "[127.86.1.6]" } else { "[127.86.1.5, 127.86.1.6]" };
    let segmented = if only_open { "" } else { segmented };
    format!(
        "
zones:
  low: {{namespaces: [storefront]}}
  high: {{namespaces: [payments]}}
boundaries:
  - name: low-to-high
    from: low
    to: high
    interval: 15s
    tcp: {{timeout: 2s, attempts: 1}}
    dns: {{srv-wildcard: judge, reverse-sweep: judge, service-lookup: report, namespace-oracle: report, pod-oracle: report}}
vantage: {{namespace: storefront, identity: web}}
witnesses:
  - {{zone: high, source: {WITNESS}}}
targets:
  - {{zone: high, namespace: payments, service: admin, endpoints: [127.86.1.4], ports: [8080]}}
  - {{zone: high, namespace: payments, service: reports, endpoints: {reports}, ports: [9000]}}{segmented}
controls:
  positive: [{{tcp: '127.86.0.10:8443'}}]
  negative: [{{tcp: 127.86.255.254, ports: [5432, 7000, 8080, 8200, 9000], range: 127.86.0.0/16}}]
dns:
  zone: cluster.local
  resolver: {SPLIT_DNS}:{DNS_PORT}
  servers: [{{name: cluster-dns, address: '{OLD_DNS}:{DNS_PORT}'}}, {{name: split-dns, address: '{SPLIT_DNS}:{DNS_PORT}'}}]
  queries_per_second: 500
"
    )
}

fn expected(only_open: bool) -> Vec<(&'static str, Verdict)> {
    let mut expected = vec![
        ("admin:8080", Reason::Reached),
        ("reports:9000", Reason::Reached),
        ("srv-wildcard at cluster-dns", Reason::Disclosed),
        ("reverse-sweep at cluster-dns", Reason::Disclosed),
        ("srv-wildcard at split-dns", Reason::NothingDisclosed),
        // It hides names, and tells what addresses are called.
        ("reverse-sweep at split-dns", Reason::Disclosed),
    ];
    if !only_open {
        expected.extend([
            ("ledger:5432", Reason::Blocked),
            // The worst of its two ways.
            ("vault:8200", Reason::VirtualAddress),
            ("batch:7000", Reason::TargetDown),
        ]);
    }
    expected.into_iter().map(|(target, reason)| (target, reason.verdict())).collect()
}
