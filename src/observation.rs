//! What a probe can see, typed and with its evidence. An observation knows nothing of expectations.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::model::{AddressKind, PodName, WitnessKind, words};

words! {
    /// The state that a TCP connect, or a DNS query over UDP, showed, in nmap's sense.
    TcpOutcome {
        /// SYN-ACK, or any reply to the query.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Icmp {
    /// ICMP (IPv4) or ICMPv6 type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Its code.
    pub code: u8,
    /// Who sent it. A hint only: behind DNAT it is the ClusterIP.
    pub offender: Option<IpAddr>,
}

/// One connect, or one DNS query over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
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
    /// The pod that the attempts were made from; none for the agent's own network.
    pub from: Option<Arc<PodName>>,
    /// False where the target no longer has the address, and it is probed only because its finding is open.
    pub listed: bool,
    /// The attempts, in order; empty only where no socket could be made at all.
    pub attempts: Box<[TcpSeen]>,
    /// It was open while the pod or the target was new, and then no more: an enforcer that admits everything for a moment.
    /// Milliseconds from the start of the newer of the two until it was first seen not open.
    pub startup: Option<NonZeroU32>,
    /// A port on which a known sidecar listens, where the attempts were made from.
    pub sidecar: Option<u16>,
    /// The witness's connects before and after the attempts, where there is a witness.
    pub witness: Option<Box<WitnessSeen>>,
    /// When the first attempt began.
    pub started: Instant,
    /// When the last attempt ended.
    pub ended: Instant,
}

/// What a witness saw of the target.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct WitnessSeen {
    /// What kind of witness spoke.
    pub by: WitnessKind,
    /// Who spoke, for people: a pod's name, `this node`, source addresses.
    pub name: Arc<str>,
    /// Before the attempts.
    pub before: WitnessSaw,
    /// After them; absent where an attempt was open, so that nothing is left to prove.
    pub after: Option<WitnessSaw>,
}

/// One look of a witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum WitnessSaw {
    /// A connect, from a vantage that may reach the target.
    Connect(TcpSeen),
    /// A look into the listener table of the target's own network namespace.
    Listener {
        /// Whether the port is listened on, at the target's address; none where it cannot be told.
        listening: Option<bool>,
    },
}

impl WitnessSaw {
    /// True where somebody accepts connections there, none where nothing was seen.
    pub const fn is_alive(self) -> Option<bool> {
        match self {
            Self::Listener { listening } => listening,
            Self::Connect(TcpSeen { outcome: TcpOutcome::Error | TcpOutcome::Unresolved, .. }) => None,
            Self::Connect(seen) => Some(matches!(seen.outcome, TcpOutcome::Open)),
        }
    }
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

/// Pods of the two zones of a boundary on this node; none where the container runtime does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSeen {
    /// Names of pods of the zone that the boundary starts from: some of them, and how many there are.
    pub from: Option<(Vec<Arc<str>>, usize)>,
    /// The same of the zone that is protected.
    pub to: Option<(Vec<Arc<str>>, usize)>,
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
    /// Over each [`Transport`](crate::model::Transport), in their order.
    pub over: [TransportSeen; 2],
    /// Each list of questions, and how far it was asked.
    pub lists: Vec<Rotation>,
    /// What was disclosed only when denied questions were asked again.
    pub beside: Disclosures,
    /// A name that nobody has was answered: this server answers everything.
    pub captured: bool,
    /// Questions that were denied, and a moment later were not.
    pub unsteady: u32,
    /// Replies with the AA flag.
    pub authoritative: u32,
    /// Extended DNS errors (RFC 8914) seen, by info code.
    pub extended_errors: BTreeMap<u16, u32>,
    /// Owner of the first SOA in a negative answer.
    pub soa: Option<Box<str>>,
}

/// What was seen over one transport in one sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransportSeen {
    /// The technique asks over this transport.
    pub used: bool,
    /// The technique's questions by the class of their final reply; controls and self-check excluded.
    pub replies: [u32; REPLY_CLASSES],
    /// Queries put on the wire, repeats, self-check and controls included.
    pub sent: u32,
    /// Those of them that got a reply.
    pub answered: u32,
    /// Those of them that were repeats.
    pub retried: u32,
    /// The server's positive control before and after.
    pub control: [ControlReply; 2],
    /// The technique found over this transport what it may find.
    pub self_check: bool,
}

/// How the server's positive control was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ControlReply {
    /// With the record that was asked for.
    Answered,
    /// With a refusal: the server is there and says no to everything.
    Refused,
    /// Nobody listens there, or somebody rejects the query.
    NoListener,
    /// Not at all.
    #[default]
    Silent,
    /// With an error, or with something unreadable.
    Failed,
}

impl TransportSeen {
    /// Replies of one class.
    pub const fn count(&self, class: ReplyClass) -> u32 {
        self.replies[class as usize]
    }
}

impl DnsSeen {
    /// Replies of one class over both transports.
    pub fn count(&self, class: ReplyClass) -> u32 {
        self.over.iter().map(|over| over.count(class)).sum()
    }

    /// The rounds that count: those under way or completed now, and the ones before where those are not complete.
    pub fn rounds(&self) -> impl Iterator<Item = &Round> {
        self.lists.iter().flat_map(|list| list.previous.as_deref().into_iter().chain([&list.round]))
    }

    /// Everything that was disclosed in them.
    pub fn disclosures(&self) -> impl Iterator<Item = &Disclosures> {
        self.rounds().map(|round| &round.disclosed).chain([&self.beside])
    }

    /// Distinct names disclosed of each namespace.
    pub fn names(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        by_namespace(self.disclosures().map(|d| &d.names))
    }

    /// Distinct addresses, of each namespace, that were disclosed without a name.
    pub fn addresses(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        by_namespace(self.disclosures().map(|d| &d.addresses))
    }

    /// What was disclosed past the bounds of [`Disclosed`].
    pub fn overflow(&self) -> u64 {
        self.disclosures().map(|d| d.names.overflow() + d.addresses.overflow()).sum()
    }

    /// True when anything of the namespace was disclosed.
    pub fn discloses(&self, namespace: &str) -> bool {
        self.disclosures().any(|d| d.names.count(namespace) + d.addresses.count(namespace) > 0)
    }

    /// When the last clean round over everything ended: the oldest of the lists'.
    pub fn covered(&self) -> Option<Timestamp> {
        let each = self.lists.iter().filter(|list| list.total > 0).map(|list| list.covered);
        each.min_by_key(|covered| covered.unwrap_or(Timestamp::MIN)).flatten()
    }

    /// True when this sweep completed a round over everything.
    pub fn is_complete(&self) -> bool {
        self.lists.iter().all(Rotation::is_complete)
    }

    /// Questions asked in the rounds under way, and all that are in them.
    pub fn progress(&self) -> (u64, u64) {
        self.lists.iter().fold((0, 0), |(asked, total), list| (asked + list.round.asked, total + list.total))
    }
}

fn by_namespace<'a>(parts: impl Iterator<Item = &'a Disclosed>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (namespace, names) in parts.flat_map(Disclosed::iter) {
        all.entry(namespace).or_default().extend(names);
    }
    all
}

/// A list of questions that is asked over and over, in one sweep or, where it is long, in slices over several.
///
/// What a round disclosed counts until the next round has asked all of it again.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    /// Tells two lists apart: another list begins anew.
    pub fingerprint: u64,
    /// Questions in the list.
    pub total: u64,
    /// The question that comes next.
    pub next: u64,
    /// The round under way, or the one that this sweep completed.
    pub round: Round,
    /// The round before, while the one under way is not complete.
    pub previous: Option<Arc<Round>>,
    /// When the last clean round ended: everything asked, nothing lost.
    pub covered: Option<Timestamp>,
}

impl Rotation {
    /// True when the round has asked everything.
    pub const fn is_complete(&self) -> bool {
        self.round.asked >= self.total
    }

    /// The rotation as the next sweep goes on with it: in the round under way, or in a new one.
    #[must_use]
    pub fn go_on(&self) -> Self {
        let mut next = self.clone();
        if self.is_complete() {
            next.previous = Some(Arc::new(std::mem::take(&mut next.round)));
        }
        next
    }

    /// Notes that a round may be complete now.
    pub fn settle(&mut self, now: Timestamp) {
        if self.is_complete() {
            self.previous = None;
            if self.round.is_clean() {
                self.covered = Some(now);
            }
        }
    }
}

/// One pass over all questions of a list.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Questions asked so far.
    pub asked: u64,
    /// What they disclosed.
    pub disclosed: Disclosures,
    /// Questions that stayed without an answer.
    pub lost: u32,
    /// Questions that were answered with an error, or with something malformed.
    pub broken: u32,
    /// Answers that were cut and could not be fetched whole.
    pub cut: u32,
}

impl Round {
    const fn is_clean(&self) -> bool {
        self.lost == 0 && self.broken == 0 && self.cut == 0
    }
}

/// Names, and addresses without a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disclosures {
    /// Names by namespace.
    pub names: Disclosed,
    /// Addresses that were told without a name, by namespace.
    pub addresses: Disclosed,
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
