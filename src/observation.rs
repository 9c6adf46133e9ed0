//! What a probe can see, typed and with its evidence. An observation knows nothing of expectations.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use serde::Serialize;

use crate::model::{AddressKind, words};

words! {
    /// The state that a TCP connect showed, in nmap's sense.
    TcpOutcome {
        /// SYN-ACK.
        Open = "open",
        /// RST.
        Closed = "closed",
        /// Refused, where the kernel gives no ICMP detail: RST or ICMP, nobody knows.
        Refused = "refused",
        /// ICMP says that somebody forbids it.
        Rejected = "rejected",
        /// ICMP or the own routing table says that there is no way.
        Unreachable = "unreachable",
        /// Nothing came back within the time-out.
        Filtered = "filtered",
        /// The name has no address from here.
        Unresolved = "unresolved",
        /// Anything local: no descriptors, no ports, no permission.
        Error = "error",
    }
}

/// The ICMP error that the kernel queued for a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Icmp {
    /// ICMP (IPv4) or ICMPv6 type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Who sent it. A hint only: behind DNAT it is the ClusterIP.
    pub offender: Option<IpAddr>,
}

/// One connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TcpSeen {
    /// What it showed.
    pub outcome: TcpOutcome,
    /// ICMP detail, where there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// The operating system's error number, where there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// Microseconds from the connect to its end.
    pub elapsed_us: u32,
}

impl TcpSeen {
    /// A local failure: nothing was seen of the network.
    pub const fn error(errno: Option<i32>) -> Self {
        Self { outcome: TcpOutcome::Error, icmp: None, errno, elapsed_us: 0 }
    }

    /// True when the answer took so long that a packet must have been sent twice, or never came. Source: the kernel's
    /// first SYN retransmission is at 1 s.
    pub const fn lost_a_packet(&self) -> bool {
        matches!(self.outcome, TcpOutcome::Filtered) || self.elapsed_us >= 900_000
    }
}

/// What was seen of one address of a target in one sweep.
#[derive(Clone, Debug)]
pub struct AddressSeen {
    /// The address that was probed; none where the name gave none.
    pub address: Option<SocketAddr>,
    /// Who answers there.
    pub kind: AddressKind,
    /// False where the target no longer has the address, and it is probed only because its finding is open.
    pub listed: bool,
    /// The attempts, in order; never empty.
    pub attempts: Box<[TcpSeen]>,
    /// The witness's connects before and after the attempts, where there is a witness.
    pub witness: Option<Box<WitnessSeen>>,
    /// When the first attempt began.
    pub started: Instant,
    /// When the last attempt ended.
    pub ended: Instant,
}

/// What a vantage that may reach the target saw of it.
#[derive(Clone, Debug, Serialize)]
pub struct WitnessSeen {
    /// Who spoke: a stable name for people.
    pub name: Arc<str>,
    /// Before the attempts.
    pub before: TcpSeen,
    /// After them; absent where an attempt was open, so that nothing is left to prove.
    pub after: Option<TcpSeen>,
}

/// One connect of a control.
#[derive(Clone, Debug)]
pub struct ControlSeen {
    /// The address that was tried.
    pub address: SocketAddr,
    /// What it showed.
    pub seen: TcpSeen,
}

/// One round of all TCP controls of one vantage.
#[derive(Clone, Debug)]
pub struct ControlRound {
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
    /// Connects to what this vantage may reach.
    pub positive: Vec<ControlSeen>,
    /// Connects to what nobody has.
    pub negative: Vec<ControlSeen>,
}

words! {
    /// What a DNS message, or its absence, says.
    ReplyClass {
        /// NOERROR with records of the type that was asked for.
        Answered = "answered",
        /// NOERROR without such records, and the zone's SOA: the name exists.
        Nodata = "nodata",
        /// NXDOMAIN with the zone's SOA: not there, or hidden by configuration.
        Nxdomain = "nxdomain",
        /// REFUSED.
        Refused = "refused",
        /// A negative answer without SOA: somebody in between denies it.
        Blocked = "blocked",
        /// A negative answer that is not the zone's own: it was forwarded.
        Forwarded = "forwarded",
        /// SERVFAIL and the other error codes.
        Servfail = "servfail",
        /// Not a DNS message, or not an answer to the question.
        Malformed = "malformed",
        /// No reply to any attempt.
        Silent = "silent",
        /// The server's port answered that nobody listens, or somebody rejected the query.
        NoListener = "no-listener",
        /// The agent's own machine failed.
        Error = "error",
    }
}

/// Number of [`ReplyClass`] values, for counters indexed by class.
pub const REPLY_CLASSES: usize = ReplyClass::ALL.len();

/// What a DNS technique saw of one server in one sweep.
#[derive(Clone, Debug, Default)]
pub struct DnsSeen {
    /// Disclosed names by namespace. Bounded: see [`Disclosed`].
    pub names: Disclosed,
    /// Addresses that were disclosed without a name, by namespace.
    pub addresses: Disclosed,
    /// Final replies by class.
    pub replies: [u32; REPLY_CLASSES],
    /// Queries put on the wire, repeats included.
    pub sent: u32,
    /// Queries that got an answer.
    pub answered: u32,
    /// Repeats among the sent.
    pub retried: u32,
    /// Questions without an answer after all attempts.
    pub lost: u32,
    /// Answers that were cut and could not be fetched whole.
    pub cut: u32,
    /// The server's positive control before and after.
    pub control: [ControlReply; 2],
    /// The technique's self-check found what it may find.
    pub self_check: bool,
    /// A name that nobody has was answered: this server answers everything.
    pub captured: bool,
    /// Extended DNS errors (RFC 8914) seen, by info code.
    pub extended_errors: BTreeMap<u16, u32>,
    /// Owner of the first SOA in a negative answer.
    pub soa: Option<Box<str>>,
}

/// How the server's positive control was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlReply {
    /// With the record that was asked for.
    Answered,
    /// With a refusal: the server is there and says no to everything.
    Refused,
    /// Not at all, or with an error.
    #[default]
    Failed,
}

impl DnsSeen {
    /// Replies of one class.
    pub const fn count(&self, class: ReplyClass) -> u32 {
        self.replies[class as usize]
    }
}

/// What was disclosed, by namespace. Counts are exact up to [`Disclosed::MOST_NAMES`] distinct names per namespace and
/// [`Disclosed::MOST_NAMESPACES`] namespaces: what a hostile server sends past that is counted as `overflow`, not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disclosed {
    by_namespace: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
    names: usize,
    overflow: u64,
}

impl Disclosed {
    /// Distinct names kept in one sweep of one technique and server.
    pub const MOST_NAMES: usize = 20_000;
    /// Distinct namespaces kept.
    pub const MOST_NAMESPACES: usize = 1_000;

    /// Adds a name or an address, or counts it as overflow where the bounds are reached.
    pub fn add(&mut self, namespace: &str, name: &str) {
        if self.by_namespace.get(namespace).is_some_and(|names| names.contains(name)) {
            return;
        }
        let new_namespace = !self.by_namespace.contains_key(namespace);
        if self.names >= Self::MOST_NAMES || (new_namespace && self.by_namespace.len() >= Self::MOST_NAMESPACES) {
            self.overflow += 1;
            return;
        }
        self.by_namespace.entry(namespace.into()).or_default().insert(name.into());
        self.names += 1;
    }

    /// Namespaces with their names, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, impl ExactSizeIterator<Item = &str>)> {
        self.by_namespace.iter().map(|(ns, names)| (&**ns, names.iter().map(|n| &**n)))
    }

    /// Number of distinct names disclosed of one namespace.
    pub fn count(&self, namespace: &str) -> usize {
        self.by_namespace.get(namespace).map_or(0, BTreeSet::len)
    }

    /// Names past the bounds.
    pub const fn overflow(&self) -> u64 {
        self.overflow
    }
}
