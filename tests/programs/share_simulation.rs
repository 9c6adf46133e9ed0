//! What a cluster's agents do that share targets, over days, in a few seconds: each node decides by the engine's own functions
//! what is due, while nodes come and go, lists lag and clocks differ. `docs/scale.md` has the table of what came out.

use std::{env, fs, path::Path, sync::Arc, thread};

use segprobe::{
    model::Verdict,
    plan::share::{Members, PerSweep, Share, Slot, hash, score, turn},
    sweep::shares::Memory,
};

/// Seconds.
const INTERVAL: f64 = 30.0;
const LEAST: u32 = 3;
/// Of the nodes so many go in a round, and as many come.
const CHURN: f64 = 0.01;
/// A node knows of others after this time at the latest, in seconds: discovery, the kubelet, the agent's look at its files.
const LAG: f64 = 120.0;
/// Clocks differ from the right time by so much at most, in seconds.
const SKEW: f64 = 1.0;
/// Connects of one probe.
const ATTEMPTS: f64 = 2.0;
/// Any large number: what time it is at the start.
const FIRST_EPOCH: f64 = 60_000_000.0;

/// Chance that is the same in every run (xorshift64*).
struct Chance(u64);

impl Chance {
    fn new(of: &str, number: usize) -> Self {
        Self(hash(of.bytes().chain(number.to_be_bytes())) | 1)
    }

    /// From 0 up to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A node and its life, in seconds.
#[derive(Clone, Copy)]
struct Node {
    hash: u64,
    born: f64,
    dies: f64,
}

/// The list of nodes since a moment, and what they are to each target: the scores, in order.
struct Version {
    since: f64,
    members: Vec<u64>,
    orders: Vec<Vec<u64>>,
}

struct Cluster {
    nodes: Vec<Node>,
    versions: Vec<Version>,
    targets: Vec<u64>,
    /// Seconds.
    length: f64,
}

fn name(number: usize) -> u64 {
    hash(format!("node-{number}").bytes())
}

impl Cluster {
    fn new(count: usize, targets: usize, rounds: f64, churn: f64) -> Self {
        let targets: Vec<u64> = (0..targets).map(|i| hash(format!("target-{i}").bytes())).collect();
        let round = f64::from(sweeps(count)) * INTERVAL;
        let length = rounds * round;
        let mut nodes: Vec<Node> = (0..count).map(|i| Node { hash: name(i), born: 0.0, dies: length }).collect();
        let version = |nodes: &[Node], since: f64| {
            let mut members: Vec<u64> =
                nodes.iter().filter(|n| n.born <= since && n.dies > since).map(|n| n.hash).collect();
            members.sort_unstable();
            let order = |target: &u64| {
                let mut scores: Vec<u64> = members.iter().map(|node| score(*target, *node)).collect();
                scores.sort_unstable();
                scores
            };
            Version { since, orders: targets.iter().map(order).collect(), members }
        };
        let mut versions = vec![version(&nodes, 0.0)];
        let mut chance = Chance::new("churn", count);
        let changes = (churn * count as f64 * rounds) as usize;
        for change in 0..changes {
            let at = length * (change as f64 + chance.next()) / changes as f64;
            let alive: Vec<usize> = (0..nodes.len()).filter(|i| nodes[*i].dies == length).collect();
            let gone = alive[(chance.next() * alive.len() as f64) as usize];
            nodes[gone].dies = at;
            nodes.push(Node { hash: name(nodes.len()), born: at, dies: length });
            versions.push(version(&nodes, at));
        }
        Self { nodes, versions, targets, length }
    }
}

fn sweeps(nodes: usize) -> u32 {
    PerSweep::AtLeast(LEAST).sweeps(nodes as u32)
}

/// What was seen, of some nodes or of all.
#[derive(Default)]
struct Seen {
    /// Of each target when it was probed, in seconds.
    visits: Vec<Vec<f64>>,
    /// Of each target and interval how many nodes had their turn.
    turns: Vec<Vec<u16>>,
    /// Seconds between two probes of one pair, or from a node's start to the first.
    pairs: Vec<f64>,
    /// Seconds between two sweeps of one node that probe any target.
    any: Vec<f64>,
    /// The most that was due in one sweep, and all.
    most: usize,
    all: usize,
    sweeps: usize,
}

/// One node's life: sweeps from a random phase on and with jitter, as the schedule has them.
fn live(cluster: &Cluster, number: usize, seen: &mut Seen) {
    let node = cluster.nodes[number];
    let mut chance = Chance::new("node", number);
    let skew = SKEW * (2.0 * chance.next() - 1.0);
    let lag = LAG * chance.next();
    let mut now = node.born + if node.born > 0.0 { 3.0 } else { INTERVAL } * chance.next();
    let mut known = usize::MAX;
    let mut share = Arc::new(Share::default());
    let mut memory = Memory::default();
    let mut last = vec![node.born; cluster.targets.len()];
    let (mut last_any, mut last_epoch) = (node.born, 0);
    while now < node.dies {
        let version = cluster.versions.partition_point(|v| v.since <= now - lag).max(1) - 1;
        if version != known {
            known = version;
            share = Arc::new(share_of(cluster, &cluster.versions[version], node.hash));
        }
        let epoch = (FIRST_EPOCH + (now + skew) / INTERVAL) as u64;
        let due = memory.due(&share, epoch);
        let passed = if last_epoch == 0 { 1 } else { epoch - last_epoch };
        for slot in due.slots() {
            let slot = *slot as usize;
            seen.visits[slot].push(now);
            seen.pairs.push(now - last[slot]);
            last[slot] = now;
            let sweeps = u64::from(share.sweeps);
            let ago = (epoch + sweeps - u64::from(share.slots()[slot].turn)) % sweeps;
            // Not what is made up for.
            if ago < passed {
                let turn = (epoch - ago) as usize - FIRST_EPOCH as usize;
                if let Some(count) = seen.turns[slot].get_mut(turn) {
                    *count += 1;
                }
            }
        }
        if !due.slots().is_empty() {
            seen.any.push(now - last_any);
            last_any = now;
        }
        seen.most = seen.most.max(due.slots().len());
        seen.all += due.slots().len();
        seen.sweeps += 1;
        memory.done(&due, &vec![Some(Verdict::Pass); due.slots().len()]);
        last_epoch = epoch;
        now += INTERVAL * (1.0 + chance.next() / 20.0);
    }
    // What nobody lives to see is no wait; what was not seen in the end is one.
    if node.dies == cluster.length {
        seen.pairs.extend(last.iter().map(|last| cluster.length - last));
    }
}

/// A node's share as it knows the others: itself among them, listed or not. The engine's [`Members`] come to the same, and look at
/// all nodes for each target, which is too much for all nodes at once.
fn share_of(cluster: &Cluster, version: &Version, own: u64) -> Share {
    let is_listed = version.members.binary_search(&own).is_ok();
    let nodes = (version.members.len() + usize::from(!is_listed)) as u32;
    let sweeps = PerSweep::AtLeast(LEAST).sweeps(nodes);
    let slot = |(target, order): (&u64, &Vec<u64>)| {
        let own = score(*target, own);
        let rank = order.partition_point(|score| *score < own) as u32;
        Slot { key: *target, turn: turn(rank, nodes, sweeps) }
    };
    Share::of_slots(nodes, sweeps, cluster.targets.iter().zip(&version.orders).map(slot).collect())
}

/// That they do, for some nodes, the last of which is not in the first list.
fn assert_as_the_engine_has_it(cluster: &Cluster, count: usize) {
    let text = |number: usize| -> Arc<str> { format!("node-{number}").into() };
    let names: Vec<Arc<str>> = (0..count).map(text).collect();
    for number in (0..count).step_by(count.div_ceil(5)).chain([count]) {
        let members = Members::new(&names, &text(number));
        let share = share_of(cluster, &cluster.versions[0], name(number));
        assert_eq!(members.count(), share.nodes);
        for slot in share.slots() {
            assert_eq!(slot.turn, members.turn(slot.key, share.sweeps), "node {number} of {count}");
        }
    }
}

impl Seen {
    fn new(cluster: &Cluster) -> Self {
        let (targets, intervals) = (cluster.targets.len(), (cluster.length / INTERVAL) as usize);
        Self { visits: vec![Vec::new(); targets], turns: vec![vec![0; intervals]; targets], ..Self::default() }
    }

    /// Some nodes, half of them at a time.
    fn of(cluster: &Cluster, numbers: impl Iterator<Item = usize>) -> Self {
        let numbers: Vec<usize> = numbers.collect();
        let halves: Vec<Self> = thread::scope(|scope| {
            let half = |part: usize| {
                let numbers = &numbers;
                scope.spawn(move || {
                    let mut seen = Self::new(cluster);
                    numbers.iter().skip(part).step_by(2).for_each(|number| live(cluster, *number, &mut seen));
                    seen
                })
            };
            [half(0), half(1)].map(|half| half.join().unwrap()).into()
        });
        halves.into_iter().reduce(Self::and).unwrap()
    }

    fn and(mut self, other: Self) -> Self {
        self.visits.iter_mut().zip(other.visits).for_each(|(all, more)| all.extend(more));
        for (all, more) in self.turns.iter_mut().zip(other.turns) {
            all.iter_mut().zip(more).for_each(|(all, more)| *all += more);
        }
        self.pairs.extend(other.pairs);
        self.any.extend(other.any);
        self.most = self.most.max(other.most);
        self.all += other.all;
        self.sweeps += other.sweeps;
        self
    }
}

/// The half, 99 of 100 and all of what happens at any moment wait at most so long, in seconds, for what comes after such gaps.
fn waits(mut gaps: Vec<f64>) -> [f64; 3] {
    gaps.sort_by(f64::total_cmp);
    let all: f64 = gaps.iter().sum();
    let longest = *gaps.last().unwrap();
    // The part of all moments that wait longer.
    let beyond = |wait: f64| gaps.iter().rev().take_while(|gap| **gap > wait).map(|gap| gap - wait).sum::<f64>() / all;
    let within = |part: f64| {
        let (mut low, mut high) = (0.0, longest);
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            if beyond(middle) > 1.0 - part { low = middle } else { high = middle }
        }
        high
    };
    [within(0.5), within(0.99), longest]
}

fn gaps(visits: &[Vec<f64>]) -> Vec<f64> {
    let of_target = |visits: &Vec<f64>| {
        let mut visits = visits.clone();
        visits.sort_by(f64::total_cmp);
        visits.windows(2).map(|two| two[1] - two[0]).collect::<Vec<_>>()
    };
    visits.iter().flat_map(of_target).collect()
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}

fn times(seconds: [f64; 3]) -> String {
    seconds.map(time).join(", ")
}

/// One line of the table. What is promised is asserted.
fn row(count: usize, rounds: f64) -> String {
    let round = f64::from(sweeps(count));
    let cluster = Cluster::new(count, 3, rounds, CHURN);
    assert_as_the_engine_has_it(&cluster, count);
    let seen = Seen::of(&cluster, 0..cluster.nodes.len());

    // Each sweep of each target, but for the first ones and the last, which are not whole.
    let whole = |of: &[u16]| of[3..of.len() - 3].to_vec();
    let turns: Vec<u16> = seen.turns.iter().flat_map(|of| whole(of)).collect();
    let short = turns.iter().filter(|nodes| u32::from(**nodes) < LEAST).count() as f64 / turns.len() as f64;
    let fewest = *turns.iter().min().unwrap();
    assert!(fewest >= 1, "a sweep without a node");
    assert!(short < 0.05, "{count}: in {:.1} % of the sweeps fewer than {LEAST} nodes", 100.0 * short);

    let mut load = vec![vec![0_u32; (cluster.length / INTERVAL) as usize + 1]; cluster.targets.len()];
    for (load, visits) in load.iter_mut().zip(&seen.visits) {
        visits.iter().for_each(|at| load[(at / INTERVAL) as usize] += 1);
    }
    let load: Vec<u32> = load.into_iter().flat_map(|of| of[1..of.len() - 2].to_vec()).collect();
    let mean = f64::from(load.iter().sum::<u32>()) / load.len() as f64;
    let most = *load.iter().max().unwrap();
    assert!(mean < f64::from(LEAST) * 1.25 * 1.1, "{count}: {mean} nodes on average");
    assert!(most <= 4 * LEAST, "{count}: {most} nodes in one interval");

    let pair = waits(seen.pairs);
    let promised = (round + (round / 8.0).floor() + 1.0 + 2.0) * INTERVAL * 1.05;
    assert!(pair[2] <= promised, "{count}: a pair waited {} s, promised are {promised} s", pair[2]);
    let ingress = waits(gaps(&seen.visits));
    assert!(ingress[2] < 3.0 * INTERVAL, "{count}: nobody came to a target for {} s", ingress[2]);

    // Any of a thousand targets shows that one node's own enforcer is dead.
    let many = Cluster::new(count, 1_000, 1.0_f64.max(40.0 / round), 0.0);
    let few = Seen::of(&many, (0..count).step_by(count.div_ceil(10)));
    let egress = waits(few.any);
    let due = few.all as f64 / few.sweeps as f64;

    format!(
        "| {count} | {round} sweeps, {} | {mean:.1}; {fewest} to {most}, {:.1} % | {:.2} | {due:.1}; {} | {} | {} | {} |\n",
        time(round * INTERVAL),
        100.0 * short,
        mean * ATTEMPTS / INTERVAL,
        few.most,
        times(egress),
        times(ingress),
        times(pair),
    )
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scale.md");
const BEGIN: &str =
    "<!-- Made by `UPDATE_DOCS=1 cargo test --test programs share_simulation`; a test compares it. -->\n";
const END: &str = "<!-- end -->\n";

#[test]
fn what_sharing_does_to_targets_and_to_the_time_until_a_breach_is_seen() {
    let mut table = "| nodes | a round | nodes at a target in a sweep: mean; fewest to most, below 3 | connects a second at a target | \
                     of 1,000 targets a node has in a sweep: mean; most | one node reaches all | one target open to all | \
                     one node reaches one target |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (count, rounds) in [(10, 400.0), (500, 8.0), (5_000, 2.2)] {
        table += &row(count, rounds);
    }
    println!("{table}");
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the table's beginning");
    let (committed, after) = rest.split_once(END).expect("the table's end");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(Path::new(DOCUMENT), [before, BEGIN, &table, END, after].concat()).unwrap();
    } else {
        assert!(committed == table, "docs/scale.md is not what was found:\n{table}");
    }
}
