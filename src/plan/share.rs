//! Which node probes which address in which sweep, where the nodes of a cluster share the targets. Each node computes it alone,
//! from the names of the nodes and the clock. Pure.
//!
//! For each address all nodes have an order of their own (rendezvous hashing), and the order is cut into as many turns as a
//! round has sweeps. In the epoch `e` (the wall clock divided by the interval) the nodes of turn `e mod sweeps` probe the
//! address. So each sweep has its nodes, each node has its turn in every round, and where a node comes or goes the others
//! move by one place at most.

use std::{net::IpAddr, ops::Range, sync::Arc, time::Duration};

use super::{NotTested, Question};
use crate::{
    config::{Address, Boundary, ShareConfig, ShareOf},
    model::Transport,
};

/// Sweeps of a round in which something that was passed over is made up for: nodes that come and go move the turns.
const SLACK: u32 = 8;

/// A boundary's addresses, and when it is this node's turn to probe each of them.
#[derive(Debug, Default)]
pub struct Share {
    /// Nodes that share the addresses, this one among them. 0 where none is listed: then nothing is probed.
    pub nodes: u32,
    /// Sweeps of a round: in each round each node probes each address once.
    pub sweeps: u32,
    /// False where this node takes part although it is not in the list.
    pub is_listed: bool,
    /// Of each check its first slot; and the end of all.
    first: Box<[u32]>,
    slots: Box<[Slot]>,
}

/// What is probed together: one address; all of a check where one of them is a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The same on every node, whatever is planned beside it.
    pub key: u64,
    /// It is due in the epochs that leave this remainder when they are divided by the sweeps of a round.
    pub turn: u32,
}

impl Share {
    /// The share of what one boundary asks. `keys` are of each check, in their order; one without any is asked in every sweep.
    /// `connects` is what one node sends to an address in one sweep at most.
    pub(super) fn new(
        config: &ShareConfig,
        boundary: &Boundary,
        connects: u32,
        keys: impl ExactSizeIterator<Item = Vec<u64>>,
    ) -> Self {
        let members = Members::new(&config.nodes, &config.own);
        let per_sweep = match config.of {
            ShareOf::NodesPerSweep(least) => PerSweep::AtLeast(least),
            ShareOf::ConnectsPerSecond(budget) => {
                let most = budget * boundary.interval.as_secs_f64() / f64::from(connects);
                // Rounds down, and takes what is no number of nodes for one.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates by definition")]
                PerSweep::AtMost(most as u32)
            }
        };
        let (nodes, sweeps) = (members.count(), per_sweep.sweeps(members.count()));
        let mut share = Self { nodes, sweeps, is_listed: members.is_listed, ..Self::default() };
        // Where everything is due in every sweep nobody asks for turns.
        if share.is_partial() {
            let mut first = Vec::with_capacity(keys.len() + 1);
            let mut slots = Vec::new();
            for keys in keys {
                first.push(slot_number(slots.len()));
                slots.extend(keys.into_iter().map(|key| Slot { key, turn: members.turn(key, sweeps) }));
            }
            first.push(slot_number(slots.len()));
            (share.first, share.slots) = (first.into(), slots.into());
        }
        share
    }

    /// The same of slots that are known: one check, each address by itself.
    pub fn of_slots(nodes: u32, sweeps: u32, slots: Box<[Slot]>) -> Self {
        Self { nodes, sweeps, is_listed: true, first: [0, slot_number(slots.len())].into(), slots }
    }

    /// False where every address is probed in every sweep.
    pub const fn is_partial(&self) -> bool {
        self.sweeps > 1 || self.nodes == 0
    }

    /// What is probed together, in the order of the checks.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slots of one check, by its index.
    pub fn of_check(&self, check: usize) -> Range<usize> {
        let at = |index: usize| self.first.get(index).map_or(0, |first| *first as usize);
        at(check)..at(check + 1).max(at(check))
    }

    /// What of it is not tested by this node in each sweep, or not at all.
    pub(super) fn not_tested(&self, boundary: &Boundary) -> Vec<NotTested> {
        let note = |what: String, why: String| NotTested { boundary: boundary.name.clone(), what, why };
        let mut notes = Vec::new();
        let dns = if boundary.techniques.is_empty() {
            ""
        } else {
            " and what DNS servers that are listed by address tell of it"
        };
        if self.nodes == 0 {
            let why = "`share` is configured, and no node is listed, neither in a target file nor in share.nodes: how many \
                       agents there are is not known, and all of them at once could be too many";
            notes.push(note(format!("what can be reached in zone `{}`{dns}", boundary.to), why.into()));
        } else if self.is_partial() {
            // Without the number of nodes: it changes often, and this is told again whenever it changes.
            let round = boundary.interval * self.sweeps;
            let why = format!(
                "the nodes share them: this one probes each within {} sweeps, that is {}",
                self.sweeps,
                in_words(round)
            );
            notes.push(note(
                format!("in each sweep more than a share of the addresses of zone `{}`{dns}", boundary.to),
                why,
            ));
        }
        if self.nodes > 0 && !self.is_listed {
            let why = "its name is in no list of nodes: it takes a share as if it were, of which the others know nothing; \
                       is --node.name right?";
            notes.push(note("that this node is one of those that share the targets".into(), why.into()));
        }
        notes
    }

    /// Sweeps after which an address that was not probed is made up for, whatever moved its turn: a round and an eighth.
    pub const fn within(&self) -> u32 {
        self.sweeps + self.sweeps / SLACK + 1
    }

    /// Sweeps within which this node probes each address; 0 where it probes none.
    pub const fn within_sweeps(&self) -> u32 {
        if self.nodes == 0 { 0 } else { self.sweeps }
    }

    /// Nodes that probe an address in one sweep: the least and the most.
    pub fn nodes_per_sweep(&self) -> (u32, u32) {
        let sweeps = self.sweeps.max(1);
        (self.nodes / sweeps, self.nodes.div_ceil(sweeps))
    }
}

/// A time for people: `90 s`, `12.8 h`.
pub fn in_words(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match () {
        () if seconds < 10.0 && time.subsec_nanos() > 0 => format!("{seconds:.1} s"),
        () if seconds < 600.0 => format!("{seconds:.0} s"),
        () if seconds < 3.0 * 3600.0 => format!("{:.0} min", seconds / 60.0),
        () => format!("{:.1} h", seconds / 3600.0),
    }
}

/// There are fewer than half a million of them.
fn slot_number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What is due in one sweep.
#[derive(Clone, Debug)]
pub struct Due {
    share: Arc<Share>,
    epoch: u64,
    /// In order.
    slots: Box<[u32]>,
}

impl Due {
    /// These slots of a share, in order, in an epoch.
    pub fn new(share: Arc<Share>, epoch: u64, slots: Box<[u32]>) -> Self {
        Self { share, epoch, slots }
    }

    /// Whether an address of a check is due, both by their index. What nobody shares is always due.
    pub fn has(&self, check: usize, address: usize) -> bool {
        let of_check = self.share.of_check(check);
        let Some(last) = of_check.clone().last() else { return true };
        let slot = slot_number((of_check.start + address).min(last));
        self.slots.binary_search(&slot).is_ok()
    }

    /// What is shared.
    pub const fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// When.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The slots that are due, in order.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }
}

/// How many nodes are to probe an address in one sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerSweep {
    /// So many or more.
    AtLeast(u32),
    /// So many or fewer, but one.
    AtMost(u32),
}

impl PerSweep {
    /// Sweeps of a round of so many nodes. It has three significant bits (…, 8, 10, 12, 14, 16, 20, …), so that it stays what it
    /// is while single nodes come and go; what it is rounded by, up to a quarter, goes to the safe side.
    pub fn sweeps(self, nodes: u32) -> u32 {
        match self {
            Self::AtLeast(least) => round_down(nodes / least.max(1)),
            // No sweep may be without a node.
            Self::AtMost(0 | 1) => round_down(nodes),
            Self::AtMost(most) => round_up(nodes.div_ceil(most)),
        }
        .max(1)
    }
}

/// The nodes that share targets, as one of them sees them.
#[derive(Clone, Debug)]
pub struct Members {
    hashes: Vec<u64>,
    own: u64,
    /// False where the own name is not in the list.
    pub is_listed: bool,
}

impl Members {
    /// All whose names are listed, and `own` beside them. Nobody where nobody is listed: then nobody knows how many there are.
    pub fn new(names: &[Arc<str>], own: &str) -> Self {
        let mut hashes: Vec<u64> = names.iter().map(|name| hash(name.bytes())).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let own = hash(own.bytes());
        let place = hashes.binary_search(&own);
        if let (Err(place), false) = (place, hashes.is_empty()) {
            hashes.insert(place, own);
        }
        Self { hashes, own, is_listed: place.is_ok() }
    }

    /// How many they are.
    pub fn count(&self) -> u32 {
        slot_number(self.hashes.len())
    }

    /// The turn of the own node at a target, of so many.
    pub fn turn(&self, target: u64, sweeps: u32) -> u32 {
        turn(self.rank(target), self.count(), sweeps)
    }

    /// The place of the own node in the order of a target.
    pub fn rank(&self, target: u64) -> u32 {
        let own = score(target, self.own);
        slot_number(self.hashes.iter().filter(|node| score(target, **node) < own).count())
    }
}

/// The turn of a node by its place in the order of all: turns differ in size by one at most.
pub fn turn(rank: u32, nodes: u32, sweeps: u32) -> u32 {
    let turn = u64::from(rank) * u64::from(sweeps) / u64::from(nodes.max(1));
    u32::try_from(turn).unwrap_or(u32::MAX)
}

/// What the nodes are ordered by for a target.
pub const fn score(target: u64, node: u64) -> u64 {
    mix(target ^ node)
}

/// The keys of what a check asks: each address by itself; or a name, with all beside it; or a server.
pub(super) fn keys(question: &Question) -> Vec<u64> {
    match question {
        Question::Reach { transport, addresses, port, .. } => {
            let name = addresses.iter().find(|address| matches!(address, Address::Name(_)));
            let alone = addresses.iter().filter(|_| name.is_none());
            name.into_iter().chain(alone).map(|address| key(address, *port, *transport)).collect()
        }
        Question::Dns { server, .. } => vec![key(&Address::Ip(server.ip()), server.port(), Transport::Udp)],
        Question::CoResidency => Vec::new(),
    }
}

/// What tells an address and port from all others.
pub fn key(address: &Address, port: u16, transport: Transport) -> u64 {
    // As IP numbers them.
    let protocol = match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    };
    let end = port.to_be_bytes().into_iter().chain([protocol]);
    match address {
        Address::Ip(IpAddr::V4(ip)) => hash(ip.octets().into_iter().chain(end)),
        Address::Ip(IpAddr::V6(ip)) => hash(ip.octets().into_iter().chain(end)),
        Address::Name(name) => hash(name.bytes().chain(end)),
    }
}

/// FNV-1a and a finaliser, without a seed: every node and every version must come to the same.
pub fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014): every bit of the input moves every bit of the output.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The next lower number with three significant bits.
const fn round_down(number: u32) -> u32 {
    let spare = (u32::BITS - number.leading_zeros()).saturating_sub(3);
    number >> spare << spare
}

/// The next higher one.
const fn round_up(number: u32) -> u32 {
    let spare = (u32::BITS - number.leading_zeros()).saturating_sub(3);
    let low = number >> spare << spare;
    if low == number { number } else { low.saturating_add(1 << spare) }
}

#[cfg(test)]
mod tests;
