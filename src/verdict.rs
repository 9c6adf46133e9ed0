//! The rules: from what was seen to what it means. Pure: no clock, no I/O, no async. Read [`judge_attempt`] from top to
//! bottom: it is the truth table of the documentation, row by row.

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{AddressKind, ClosedRule, Expect, Family, NegativeControl, Reason, Verdict},
    observation::{
        AddressSeen, ControlReply, ControlRound, DnsSeen, NodeSeen, Round, TcpOutcome, TransportSeen, WitnessSaw,
        WitnessSeen,
    },
};

/// What a boundary asks of its TCP checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpRule {
    /// What is promised.
    pub expect: Expect,
    /// What an unexplained RST of an endpoint means.
    pub closed: ClosedRule,
}

/// What is known of a vantage around one address's attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Around {
    /// The positive control of the same family was reached before and after.
    pub vantage_proven: bool,
    /// A control of the sweep lost packets.
    pub lossy: bool,
    /// The negative control for this port and range answered; or there is none, and a sidecar listens in the vantage.
    pub captured: bool,
    /// The pod that the sockets stood in died before the sweep was over.
    pub gone: bool,
}

/// What the witness says of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// Open before and after.
    Open,
    /// Not open, neither before nor after: from a vantage that is known to be allowed.
    NotOpen,
    /// It contradicted itself or could not measure.
    Unclear,
    /// There is none, or it cannot be trusted.
    None,
}

/// One attempt at one address.
pub fn judge_attempt(
    rule: TcpRule,
    kind: AddressKind,
    outcome: TcpOutcome,
    around: Around,
    witness: Witness,
) -> Reason {
    use TcpOutcome::*;
    match rule.expect {
        Expect::Blocked => match outcome {
            Open if around.captured => Reason::Captured,
            Open => Reason::Reached,
            _ if around.gone => Reason::VantageGone,
            Unresolved => Reason::Unresolved,
            Error => Reason::LocalError,
            _ if !around.vantage_proven => Reason::VantageOffline,
            Unreachable => Reason::Unreachable,
            Closed => match (kind, witness, rule.closed) {
                (AddressKind::Virtual, _, _) => Reason::NoBackend,
                (AddressKind::Endpoint, Witness::Open, _) => Reason::Blocked,
                (AddressKind::Endpoint, Witness::NotOpen, _) => Reason::HostAnswered,
                (AddressKind::Endpoint, Witness::Unclear, _) => Reason::WitnessUnclear,
                (AddressKind::Endpoint, Witness::None, ClosedRule::Fail) => Reason::HostAnswered,
                (AddressKind::Endpoint, Witness::None, ClosedRule::Inconclusive) => Reason::ClosedAmbiguous,
                (AddressKind::Endpoint, Witness::None, ClosedRule::Unverified) => Reason::ClosedUnwitnessed,
            },
            Refused => match (kind, witness) {
                (AddressKind::Endpoint, Witness::Open) => Reason::Blocked,
                _ => Reason::RefusedAmbiguous,
            },
            Filtered if around.lossy => Reason::Lossy,
            Filtered | Rejected => match (kind, witness) {
                (AddressKind::Virtual, _) => Reason::VirtualAddress,
                (AddressKind::Endpoint, Witness::Open) => Reason::Blocked,
                (AddressKind::Endpoint, Witness::NotOpen) => Reason::TargetDown,
                (AddressKind::Endpoint, Witness::Unclear) => Reason::WitnessUnclear,
                (AddressKind::Endpoint, Witness::None) => Reason::NoWitness,
            },
        },
        Expect::Open => match outcome {
            Open if around.captured => Reason::Captured,
            Open => Reason::Reachable,
            _ if around.gone => Reason::VantageGone,
            Error => Reason::LocalError,
            _ if !around.vantage_proven => Reason::VantageOffline,
            Filtered if around.lossy => Reason::Lossy,
            _ => Reason::NotReached,
        },
    }
}

/// One address: where `blocked` is expected the worst of its attempts, so that their order never matters; where `open` is
/// expected the best, because reached once is reached.
pub fn judge_address(rule: TcpRule, seen: &AddressSeen, around: Around, witness: Witness) -> Reason {
    let each = seen.attempts.iter().map(|a| judge_attempt(rule, seen.kind, a.outcome, around, witness));
    match rule.expect {
        Expect::Blocked => each.min(),
        Expect::Open => each.max(),
    }
    .unwrap_or(Reason::Pending)
}

/// The clocks of two nodes may differ by this much, and an address may be used again this long before the API says so.
pub const CONFIRMED_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// A failure at an address that discovery found. The pod may have been gone, and the address another's: it counts when discovery
/// has seen since, at `heartbeat`, that the API still says whose it is. `reason` comes from an address that is still listed.
pub fn confirm(reason: Reason, observed: Timestamp, heartbeat: Timestamp) -> Reason {
    match reason.verdict() {
        Verdict::Fail if heartbeat < observed.saturating_add(CONFIRMED_AFTER).unwrap_or(Timestamp::MAX) => {
            Reason::UnconfirmedAddress
        }
        _ => reason,
    }
}

/// A check: its worst address. A check without any address was not resolved.
pub fn judge_check(addresses: impl IntoIterator<Item = Reason>) -> Reason {
    addresses.into_iter().min().unwrap_or(Reason::Unresolved)
}

/// What a witness's connects say, given what its own vantage is worth.
pub fn judge_witness(witness: Option<&WitnessSeen>, captured: bool) -> Witness {
    let Some(witness) = witness else {
        return Witness::None;
    };
    if captured {
        return Witness::None;
    }
    match (witness.before.is_alive(), witness.after.map(WitnessSaw::is_alive)) {
        (Some(true), Some(Some(true))) => Witness::Open,
        (Some(false), Some(Some(false))) => Witness::NotOpen,
        _ => Witness::Unclear,
    }
}

/// What is known of the place that a vantage stands in, beside its controls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaceSeen {
    /// A known sidecar listens there: it may accept every connection in the target's stead.
    pub sidecar: bool,
    /// It did not exist any more when the sweep was over.
    pub gone: bool,
}

/// The rounds of controls of one vantage in one sweep, digested for [`Controls::around`].
#[derive(Clone, Debug, Default)]
pub struct Controls {
    rounds: Vec<Moment>,
    lossy: [bool; 2],
    captured: BTreeSet<(IpNet, u16)>,
    /// Ranges and ports that negative controls speak for, where a sidecar listens: it is believed to capture all others.
    uncovered: Option<BTreeSet<(IpNet, u16)>>,
    gone: bool,
}

#[derive(Clone, Debug)]
struct Moment {
    started: Instant,
    ended: Instant,
    reached: [bool; 2],
}

const fn index(family: Family) -> usize {
    family as usize
}

impl Controls {
    /// Digests rounds in the order of their time. `connects_lost` tells of each family whether other timed connects of the
    /// sweep, known to reach an open port, showed a lost packet; `place` what is known of the vantage's place itself.
    pub fn digest(
        rounds: &[ControlRound],
        negative: &[NegativeControl],
        connects_lost: [bool; 2],
        place: PlaceSeen,
    ) -> Self {
        let mut controls = Self { lossy: connects_lost, gone: place.gone, ..Self::default() };
        if place.sidecar {
            let covered = negative.iter().flat_map(|n| n.ports.iter().map(|port| (n.range, *port)));
            controls.uncovered = Some(covered.collect());
        }
        for round in rounds {
            for control in &round.positive {
                controls.lossy[index(Family::of(control.address.ip()))] |= control.seen.lost_a_packet();
            }
            for answered in round.negative.iter().filter(|c| c.seen.outcome == TcpOutcome::Open) {
                let speaks = |n: &&NegativeControl| {
                    n.address == answered.address.ip() && n.ports.contains(&answered.address.port())
                };
                for control in negative.iter().filter(speaks) {
                    controls.captured.insert((control.range, answered.address.port()));
                }
            }
        }
        // A positive control that a proxy would answer as well proves nothing.
        controls.rounds = rounds
            .iter()
            .map(|round| Moment {
                started: round.started,
                ended: round.ended,
                reached: [Family::V4, Family::V6].map(|family| {
                    round.positive.iter().any(|c| {
                        Family::of(c.address.ip()) == family
                            && c.seen.outcome == TcpOutcome::Open
                            && !controls.is_captured(c.address)
                    })
                }),
            })
            .collect();
        controls
    }

    /// What is known around attempts at `address` between `started` and `ended`: every round from the last that ended
    /// before them to the first that began after them must have reached something.
    pub fn around(&self, address: SocketAddr, started: Instant, ended: Instant) -> Around {
        let family = index(Family::of(address.ip()));
        let first = self.rounds.iter().rposition(|r| r.ended <= started);
        let last = self.rounds.iter().position(|r| r.started >= ended);
        let vantage_proven = match (first, last) {
            (Some(first), Some(last)) if first <= last => {
                self.rounds[first..=last].iter().all(|round| round.reached[family])
            }
            _ => false,
        };
        let captured = self.is_captured(address);
        Around { vantage_proven, lossy: self.lossy[family], captured, gone: self.gone }
    }

    /// What is known around a name that gave no address: the vantage works where either family does.
    pub fn around_nowhere(&self) -> Around {
        let vantage_proven = Family::ALL.iter().any(|family| self.is_proven(*family));
        Around { vantage_proven, lossy: false, captured: false, gone: self.gone }
    }

    /// True when a negative control for this port and range answered, or there is none and a sidecar listens.
    pub fn is_captured(&self, address: SocketAddr) -> bool {
        let speaks = |(range, port): &(IpNet, u16)| *port == address.port() && range.contains(&address.ip());
        self.captured.iter().any(speaks) || self.uncovered.as_ref().is_some_and(|covered| !covered.iter().any(speaks))
    }

    /// True when the family's controls lost a packet.
    pub const fn is_lossy(&self, family: Family) -> bool {
        self.lossy[index(family)]
    }

    /// True when every round reached a positive control of the family.
    pub fn is_proven(&self, family: Family) -> bool {
        !self.rounds.is_empty() && self.rounds.iter().all(|r| r.reached[index(family)])
    }
}

/// A DNS technique against one server, where nothing of the namespaces in `protected` may be disclosed; `gone` where the pod
/// that asked died meanwhile.
pub fn judge_dns<'a>(seen: &DnsSeen, protected: impl IntoIterator<Item = &'a str>, gone: bool) -> Reason {
    let disclosed = protected.into_iter().any(|namespace| seen.discloses(namespace));
    let ways = seen.over.each_ref().map(|over| (way(over.control), over));
    // Over what the technique asks the server speaks; or nobody listens there, and the server is alive elsewhere.
    let used = || ways.iter().filter(|(_, over)| over.used).map(|(way, _)| *way);
    let speaks = ways.iter().any(|(way, _)| *way == Way::Answers);
    let measured = used().any(|way| way == Way::Answers) || (speaks && used().all(|way| way == Way::Closed));
    let sum = |of: fn(&Round) -> u32| seen.rounds().map(of).sum::<u32>();
    let proven = |(way, over): &(Way, &TransportSeen)| match way {
        _ if !over.used => true,
        Way::Answers => over.self_check && over.control == [ControlReply::Answered; 2],
        Way::Closed => true,
        Way::Silent | Way::Unsound => false,
    };
    if seen.captured {
        Reason::Captured
    } else if disclosed {
        Reason::Disclosed
    } else if gone {
        Reason::VantageGone
    } else if ways.iter().any(|(way, _)| *way == Way::Unsound) || !measured {
        Reason::ControlFailed
    } else if sum(|round| round.lost) > 0 {
        Reason::LostQueries
    } else if sum(|round| round.broken) > 0 {
        Reason::ServerError
    } else if sum(|round| round.cut) > 0 || seen.overflow() > 0 {
        Reason::Cut
    } else if seen.unsteady > 0 {
        Reason::Unsteady
    } else if seen.covered().is_none() {
        Reason::NotCovered
    } else if ways.iter().all(proven) {
        Reason::NothingDisclosed
    } else {
        Reason::NoSelfCheck
    }
}

/// Whether pods of both zones of a boundary run on this node.
pub fn judge_co_residency(seen: &NodeSeen) -> Reason {
    match (&seen.from, &seen.to) {
        (Some((_, 1..)), Some((_, 1..))) => Reason::CoResident,
        (Some(_), Some(_)) => Reason::Apart,
        _ => Reason::RuntimeUnreadable,
    }
}

/// What a server's controls say of one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The server speaks, be it to refuse.
    Answers,
    /// Nobody listens there: nothing can be told over it.
    Closed,
    /// Nothing comes back: blocked, or lost.
    Silent,
    /// It was there and is not, or the other way round; or it is broken.
    Unsound,
}

const fn way(control: [ControlReply; 2]) -> Way {
    use ControlReply::*;
    match control {
        [Answered | Refused, Answered | Refused] => Way::Answers,
        [NoListener, NoListener] => Way::Closed,
        [Silent, Silent] => Way::Silent,
        _ => Way::Unsound,
    }
}

#[cfg(test)]
mod tests;
