//! The words of segprobe as types: what is asked, of whom, from where, and what may come out.
//!
//! Every word that a user can see (a label's value, a JSON string) is written once, in the `words!` lists below.

use std::{fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares an enum whose variants each have one stable word, used in labels, JSON, tables and logs.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable word that users see.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl ::schemars::JsonSchema for $name {
            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                ::schemars::json_schema!({"type": "string", "enum": Self::ALL})
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What a check concludes. Ordered from worst to best: a check is as bad as its worst address.
    Verdict {
        /// It was reached, or enumerated: seen once is enough.
        Fail = "fail",
        /// Nothing is known, and the reason says why.
        Inconclusive = "inconclusive",
        /// It was not reached from a vantage that was proven good, but nobody proved the target alive.
        Unverified = "unverified",
        /// It was not reached, the vantage was proven good and a witness proved the target alive.
        Pass = "pass",
    }
}

words! {
    /// Why a verdict is what it is. Closed list; every reason belongs to exactly one verdict ([`Reason::verdict`]) and the
    /// order is from worst to best, so that the worst of several is their minimum.
    Reason {
        // --- fail ---
        /// The connection was accepted.
        Reached = "reached",
        /// The target's own host answered with RST: the path is open although nobody listens.
        HostAnswered = "host-answered",
        /// Names of the protected zone were disclosed.
        Disclosed = "disclosed",
        /// Pods of both zones run on this node.
        CoResident = "co-resident",
        /// A finding is still open: it was not reached now, but not yet often enough in a row to be closed.
        FindingOpen = "finding-open",
        /// Expected open, and not reached from a vantage that was proven good.
        NotReached = "not-reached",
        // --- inconclusive ---
        /// The result is older than three of its own rounds: the agent is not measuring.
        Stale = "stale",
        /// Not probed yet.
        Pending = "pending",
        /// The vantage accepts connections to an address that nobody has: a proxy answers for everybody.
        Captured = "captured",
        /// Reached at an address that discovery found, and no heartbeat newer than that still lists it: addresses are used again.
        UnconfirmedAddress = "unconfirmed-address",
        /// The container runtime does not say which pods run on this node.
        RuntimeUnreadable = "runtime-unreadable",
        /// The pod's runtime hides its network namespace: Kata, gVisor.
        VantageUnsupported = "vantage-unsupported",
        /// The pod's network namespace could not be entered: a mount, a capability or a security module.
        VantageClosed = "vantage-closed",
        /// The pod that the sockets stood in died meanwhile.
        VantageGone = "vantage-gone",
        /// The positive control of this family and transport was not reached before and after.
        VantageOffline = "vantage-offline",
        /// The controls lost packets, so silence proves nothing.
        Lossy = "lossy",
        /// The witness, which may reach the target, could not either.
        TargetDown = "target-down",
        /// The witness contradicted itself or could not measure.
        WitnessUnclear = "witness-unclear",
        /// A virtual address answered with RST: a dead backend, OVN and IPVS look the same.
        NoBackend = "no-backend",
        /// An endpoint answered with RST, nobody vouches for it, and the boundary's `closed` setting is `inconclusive`.
        ClosedAmbiguous = "closed-ambiguous",
        /// Connection refused on a kernel that does not tell RST from ICMP.
        RefusedAmbiguous = "refused-ambiguous",
        /// No route to the target, or its host did not answer for it.
        Unreachable = "unreachable",
        /// The target's name has no address from here.
        Unresolved = "unresolved",
        /// The agent's own machine failed: descriptors, ports, permissions.
        LocalError = "local-error",
        /// The DNS server's positive control was not answered.
        ControlFailed = "control-failed",
        /// DNS queries were lost after all retries.
        LostQueries = "lost-queries",
        /// The DNS server answered with SERVFAIL or with something malformed.
        ServerError = "server-error",
        /// A DNS answer was cut and could not be fetched whole.
        Cut = "cut",
        /// The DNS server denied a question and a moment later did not: overload, or replicas that differ.
        Unsteady = "unsteady",
        // --- unverified ---
        /// Blocked, from a good vantage, but no witness vouches for the target.
        NoWitness = "no-witness",
        /// Blocked, but a virtual address has many ends: it can fail, it never verifies.
        VirtualAddress = "virtual-address",
        /// An endpoint answered with RST, nobody vouches for it, and the boundary's `closed` setting is `unverified`.
        ClosedUnwitnessed = "closed-unwitnessed",
        /// Nothing was disclosed, but the technique did not find what it may find either.
        NoSelfCheck = "no-self-check",
        /// Nothing was disclosed yet, but not every question was asked yet.
        NotCovered = "not-covered",
        // --- pass ---
        /// Blocked, and a witness reached it before and after.
        Blocked = "blocked",
        /// Nothing disclosed, nothing lost, and the technique found what it may find.
        NothingDisclosed = "nothing-disclosed",
        /// Expected open, and reached.
        Reachable = "reachable",
        /// No two pods of the two zones run on this node.
        Apart = "apart",
    }
}

impl Reason {
    /// The one verdict that this reason stands for.
    pub const fn verdict(self) -> Verdict {
        use Reason::*;
        match self {
            Reached | HostAnswered | Disclosed | CoResident | FindingOpen | NotReached => Verdict::Fail,
            Stale | Pending | Captured | UnconfirmedAddress | RuntimeUnreadable | VantageUnsupported
            | VantageClosed | VantageGone | VantageOffline | Lossy | TargetDown | WitnessUnclear | NoBackend
            | ClosedAmbiguous | RefusedAmbiguous | Unreachable | Unresolved | LocalError | ControlFailed
            | LostQueries | ServerError | Cut | Unsteady => Verdict::Inconclusive,
            NoWitness | VirtualAddress | ClosedUnwitnessed | NoSelfCheck | NotCovered => Verdict::Unverified,
            Blocked | NothingDisclosed | Reachable | Apart => Verdict::Pass,
        }
    }

    /// One sentence for people.
    pub const fn explain(self) -> &'static str {
        use Reason::*;
        match self {
            Reached => "the connection was accepted",
            HostAnswered => "the target's host answered with RST: the path is open",
            Disclosed => "the server tells of the protected zone",
            CoResident => "pods of both zones run on this node",
            FindingOpen => "not reached now, but the finding is not closed yet",
            NotReached => "expected open, and not reached",
            Stale => "the last result is too old",
            Pending => "not probed yet",
            Captured => {
                "a proxy answers for everybody: the vantage connects to an address that nobody has, or a sidecar listens"
            }
            UnconfirmedAddress => "reached, and discovery has not said since that the target still has the address",
            RuntimeUnreadable => "the container runtime does not say which pods run on this node",
            VantageUnsupported => "the pod's runtime hides its network: nothing can be probed from inside",
            VantageClosed => "the pod's network namespace could not be entered: see the log, or `segprobe vantages`",
            VantageGone => "the pod that was probed from died meanwhile",
            VantageOffline => "the vantage could not reach its own controls",
            Lossy => "the vantage loses packets: silence proves nothing",
            TargetDown => "the witness could not reach it either",
            WitnessUnclear => "the witness contradicted itself or could not measure",
            NoBackend => "a virtual address answered with RST: perhaps a dead backend",
            ClosedAmbiguous => "RST, and nobody vouches for the target",
            RefusedAmbiguous => "refused, and this kernel does not say by whom",
            Unreachable => "no route, or the target's host is gone",
            Unresolved => "the name has no address from here",
            LocalError => "the agent's own machine failed",
            ControlFailed => "the DNS server did not answer its control questions",
            LostQueries => "DNS queries stayed without an answer",
            ServerError => "the DNS server answered with errors",
            Cut => "a DNS answer was cut",
            Unsteady => "the DNS server denied a question, and a moment later did not",
            NoWitness => "not reached, but nobody proved the target alive",
            VirtualAddress => "not reached, but a virtual address can never prove it",
            ClosedUnwitnessed => "RST, and nobody vouches for the target",
            NoSelfCheck => "nothing disclosed, but the technique did not find what it may find either",
            NotCovered => "nothing disclosed yet, but not everything was asked yet",
            Blocked => "not reached, while a witness reached it before and after",
            NothingDisclosed => "the technique found only what it may find",
            Reachable => "reached, as expected",
            Apart => "no pods of the two zones run together on this node",
        }
    }
}

words! {
    /// What a boundary promises.
    Expect {
        /// Nothing gets across.
        Blocked = "blocked",
        /// The way is open: the witness's side of a boundary, or an allowed flow.
        Open = "open",
    }
}

words! {
    /// Who answers at an address.
    AddressKind {
        /// One pod's or host's own address.
        Endpoint = "endpoint",
        /// ClusterIP, NodePort, load balancer or unknown: who answers may change from connect to connect.
        Virtual = "virtual",
    }
}

words! {
    /// How a target was addressed.
    Via {
        /// By its ClusterIP or its name.
        Service = "service",
        /// By the addresses of its pods.
        Endpoint = "endpoint",
        /// By a port of a node.
        Nodeport = "nodeport",
        /// By a load balancer's or any other external address.
        External = "external",
    }
}

words! {
    /// What carries a probe.
    Transport {
        /// UDP.
        Udp = "udp",
        /// TCP.
        Tcp = "tcp",
    }
}

impl Transport {
    /// Both, in the order of their indices.
    pub const BOTH: [Self; 2] = [Self::Udp, Self::Tcp];
}

words! {
    /// What kind of question a check asks.
    CheckKind {
        /// A TCP connect.
        TcpConnect = "tcp-connect",
        /// A DNS query over UDP to a server that nothing may reach.
        DnsQuery = "dns-query",
        /// DNS: SRV and A wildcards over services and namespaces.
        SrvWildcard = "srv-wildcard",
        /// DNS: the known services of the zone, by name.
        ServiceLookup = "service-lookup",
        /// DNS: which namespaces exist.
        NamespaceOracle = "namespace-oracle",
        /// DNS: which pods live where.
        PodOracle = "pod-oracle",
        /// DNS: a copy of whole zones (AXFR).
        ZoneTransfer = "zone-transfer",
        /// DNS: the names of addresses (PTR).
        ReverseSweep = "reverse-sweep",
        /// Whether pods of both zones run on this node.
        NodeCoResidency = "node-co-residency",
    }
}

words! {
    /// Where the sockets of the probes are born.
    VantageMode {
        /// In the agent's own network.
        Own = "own",
        /// In the network namespaces of the pods of this node.
        Pods = "pods",
    }
}

words! {
    /// Who vouches that a target is alive.
    WitnessKind {
        /// The listener table of the target pod's own network namespace: no packet is sent.
        Listening = "listening",
        /// The node's own network, for pods on this node.
        Node = "node",
        /// Another pod of the target's zone.
        Pod = "pod",
        /// Another source address of the agent.
        Source = "source",
    }
}

words! {
    /// Whether a check's verdict counts.
    Mode {
        /// A disclosure is a `fail`.
        Judge = "judge",
        /// Measured and shown; kept out of verdict metrics, findings and exit codes.
        Report = "report",
    }
}

words! {
    /// An address family.
    Family {
        /// IPv4.
        V4 = "ipv4",
        /// IPv6.
        V6 = "ipv6",
    }
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// What to conclude when an endpoint answers with RST and nobody vouches for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClosedRule {
    /// The host itself answered, so the path is open (default).
    #[default]
    Fail,
    /// It cannot be told from a policy that answers with RST.
    Inconclusive,
    /// The cluster's policies are known to answer with RST.
    Unverified,
}

/// A negative control: an address that nobody has, speaking for the targets of a range on its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegativeControl {
    /// The address that nobody has.
    pub address: IpAddr,
    /// The ports it is tried on.
    pub ports: Vec<u16>,
    /// The targets it speaks for.
    pub range: IpNet,
}

/// The workload identity that a vantage speaks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Identity {
    /// Kubernetes namespace, empty where unknown.
    pub namespace: Arc<str>,
    /// Stable, bounded name: never a pod's name or address.
    pub name: Arc<str>,
}

/// A pod that probes were sent from: for evidence, never for labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Its sandbox: another one after a restart of the pod.
    pub sandbox: Arc<str>,
    /// `namespace/name`.
    pub name: Arc<str>,
}

impl JsonSchema for PodName {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PodName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

impl Serialize for PodName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

/// The identity of a check: one question. Two checks never share it; it is also the identity of its series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId {
    /// Name of the boundary that is tested.
    pub boundary: Arc<str>,
    /// What is expected of it.
    pub expect: Expect,
    /// What is asked.
    pub kind: CheckKind,
    /// From where.
    pub source: Arc<Identity>,
    /// The target's Kubernetes namespace; empty for DNS, co-residency and targets outside of the cluster.
    pub target_namespace: Arc<str>,
    /// `service:port`, the DNS server's name, or for co-residency the zone's.
    pub target: Arc<str>,
    /// How the target is addressed; none for DNS and co-residency.
    pub via: Option<Via>,
}

impl CheckId {
    /// The `via` label's value: empty for DNS.
    pub fn via_str(&self) -> &'static str {
        self.via.map_or("", Via::as_str)
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.boundary, self.kind)?;
        if !self.target_namespace.is_empty() {
            write!(f, "{}/", self.target_namespace)?;
        }
        write!(f, "{}", self.target)?;
        match self.via {
            Some(via) => write!(f, " via {via}"),
            None => Ok(()),
        }
    }
}

/// Text in which nothing moves a terminal's cursor, hides or turns round: names and files may be hostile.
pub fn plain(text: &str) -> String {
    let harmless = |c: char| matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if harmless(c) { plain.push(c) } else { plain.extend(c.escape_debug()) }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_shows_what_would_hide() {
        assert_eq!(plain("ledger \"é\" 'x' \\ ×→ 東"), "ledger \"é\" 'x' \\ ×→ 東");
        assert_eq!(plain("a\u{1b}[31m\n\u{85}"), "a\\u{1b}[31m\\n\\u{85}");
        assert_eq!(plain("\u{202e}\u{200b}\u{61c}\u{2028}\u{feff}"), "\\u{202e}\\u{200b}\\u{61c}\\u{2028}\\u{feff}");
    }

    #[test]
    fn the_reference_lists_every_reason() {
        let reference = include_str!("../docs/metrics.md");
        for reason in Reason::ALL {
            let row = format!("| `{}` | `{reason}` | {} |", reason.verdict(), reason.explain());
            assert!(reference.contains(&row), "docs/metrics.md lacks the line {row}");
        }
    }

    #[test]
    fn reasons_are_ordered_as_their_verdicts() {
        assert!(Reason::ALL.windows(2).all(|w| w[0].verdict() <= w[1].verdict() && w[0] < w[1]));
    }

    #[test]
    fn words_are_unique_and_kebab_case() {
        let words: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        let mut unique = words.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), words.len());
        assert!(words.iter().all(|w| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
    }
}
