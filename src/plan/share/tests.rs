//! Who probes what when: every address by enough nodes, every node at every address, and little moves when nodes come and go.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use proptest::prelude::*;

use super::*;
use crate::{
    config::parse,
    inventory::stands::Stand,
    plan::{Part, plan},
};

fn names(count: usize) -> Vec<Arc<str>> {
    (0..count).map(|i| format!("node-{i}").into()).collect()
}

/// The turn of each node at a target.
fn turns(names: &[Arc<str>], target: u64, sweeps: u32) -> HashMap<Arc<str>, u32> {
    names.iter().map(|name| (name.clone(), Members::new(names, name).turn(target, sweeps))).collect()
}

/// Nodes of different versions share the same targets: what they compute must never change.
#[test]
fn every_version_comes_to_the_same() {
    let v4 = key(&Address::Ip([10, 244, 1, 5].into()), 5432, Transport::Tcp);
    let v6 = key(&Address::Ip("2001:db8::5".parse().unwrap()), 5432, Transport::Tcp);
    let udp = key(&Address::Ip([10, 244, 1, 5].into()), 5432, Transport::Udp);
    let name = key(&Address::Name("pay.example.com.".into()), 443, Transport::Tcp);
    let node = hash("node-1".bytes());
    assert_eq!([v4, v6, udp, name], KEYS);
    assert_eq!((node, score(v4, node)), NODE);
    let ranks = ["node-0", "node-1", "node-2"].map(|own| Members::new(&names(3), own).rank(v4));
    assert_eq!(ranks, RANKS);
}

/// Computed apart from this code, by FNV-1a and splitmix64 as they are published.
const KEYS: [u64; 4] = [0x8c5b_c30b_dc07_88b2, 0x9081_86a3_6c81_cf31, 0x8595_2e78_31b8_2ef9, 0x8a59_d2af_287d_b50d];
const NODE: (u64, u64) = (0x1395_0d4e_f307_e655, 0x7b50_6dc7_b491_c882);
const RANKS: [u32; 3] = [2, 1, 0];

#[test]
fn rounds_are_rounded_to_the_safe_side() {
    for (nodes, least, sweeps) in [
        (0, 3, 1),
        (1, 1, 1),
        (1, 3, 1),
        (3, 3, 1),
        (5, 3, 1),
        (6, 3, 2),
        (10, 3, 3),
        (10, 1, 10),
        (11, 1, 10),
        (27, 3, 8),
        (29, 3, 8),
        (30, 3, 10),
        (500, 3, 160),
        (5_000, 3, 1_536),
        (5_000, 5_000, 1),
        (5_000, 9_999, 1),
        (u32::MAX, 1, 7 << 29),
    ] {
        assert_eq!(PerSweep::AtLeast(least).sweeps(nodes), sweeps, "{nodes} nodes, {least} or more");
    }
    for (nodes, most, sweeps) in [
        (0, 3, 1),
        (1, 30, 1),
        (30, 30, 1),
        (31, 30, 2),
        (500, 30, 20),
        (5_000, 30, 192),
        // One node's is the least.
        (5_000, 1, 4_096),
        (5_000, 0, 4_096),
        (10, 1, 10),
        (u32::MAX, 2, 1 << 31),
    ] {
        assert_eq!(PerSweep::AtMost(most).sweeps(nodes), sweeps, "{nodes} nodes, {most} or fewer");
    }
}

/// Where nobody is listed, nobody knows how many there are; who is not in a list that there is takes part.
#[test]
fn who_is_not_listed_takes_part() {
    let none = Members::new(&[], "node-0");
    assert_eq!((none.count(), none.is_listed), (0, false));
    let alone = Members::new(&names(1), "node-0");
    assert_eq!((alone.count(), alone.is_listed, alone.turn(7, 1)), (1, true, 0));
    let new = Members::new(&names(9), "node-9");
    assert_eq!((new.count(), new.is_listed), (10, false));
    let listed = Members::new(&names(10), "node-9");
    assert_eq!(
        (0..100).map(|t| new.turn(t, 3)).collect::<Vec<_>>(),
        (0..100).map(|t| listed.turn(t, 3)).collect::<Vec<_>>()
    );
    // The order of the list is nothing, and neither is a name that stands there twice.
    let mut mixed = names(10);
    mixed.reverse();
    mixed.push("node-3".into());
    let mixed = Members::new(&mixed, "node-9");
    assert_eq!((mixed.count(), mixed.rank(7)), (10, listed.rank(7)));
}

/// At one node of one, at few and at many: over the addresses each node has its part.
#[test]
fn nobody_has_much_more_than_his_part() {
    for (nodes, sweeps) in [(1, 1), (10, 3), (200, 64)] {
        let all = names(nodes);
        let targets = 20 * u64::from(sweeps);
        let mut least = u64::MAX;
        let mut most = 0;
        for own in all.iter().step_by(nodes.div_ceil(20)) {
            let members = Members::new(&all, own);
            let turns: Vec<u32> =
                (0..targets).map(|t| members.turn(hash(t.to_be_bytes().into_iter()), sweeps)).collect();
            for turn in 0..sweeps {
                let due = turns.iter().filter(|t| **t == turn).count() as u64;
                (least, most) = (least.min(due), most.max(due));
            }
        }
        // 20 on average; of a thousand such counts none is expected past five deviations.
        assert!(sweeps == 1 && least == 20 && most == 20 || least > 1 && most < 43, "{nodes}: {least} to {most}");
    }
}

proptest! {
    /// In each sweep each address is probed by enough nodes and not many more, and by each node once in a round.
    #[test]
    fn every_turn_has_its_nodes(count in 1usize..60, least in 1u32..70, target: u64) {
        let all = names(count);
        let nodes = u32::try_from(count).unwrap();
        for (per_sweep, bound) in [(PerSweep::AtLeast(least), least), (PerSweep::AtMost(least), least)] {
            let sweeps = per_sweep.sweeps(nodes);
            let turns = turns(&all, target, sweeps);
            let of_turn = |turn| u32::try_from(turns.values().filter(|t| **t == turn).count()).unwrap();
            let sizes: Vec<u32> = (0..sweeps).map(of_turn).collect();
            prop_assert_eq!(sizes.iter().sum::<u32>(), nodes, "each node has one turn");
            let (smallest, largest) = (*sizes.iter().min().unwrap(), *sizes.iter().max().unwrap());
            prop_assert!(smallest >= 1 && largest - smallest <= 1, "{:?}", sizes);
            let share = Share { nodes, sweeps, ..Share::default() };
            prop_assert_eq!(share.nodes_per_sweep(), (smallest, largest));
            match per_sweep {
                PerSweep::AtLeast(_) => {
                    prop_assert!(smallest >= bound.min(nodes), "{:?}", sizes);
                    let most = if nodes >= 4 * bound { (5 * bound).div_ceil(4) } else { 2 * bound - 1 };
                    prop_assert!(largest <= most, "{:?}", sizes);
                }
                PerSweep::AtMost(_) => prop_assert!(largest <= bound.max(2), "{:?}", sizes),
            }
        }
    }

    /// A node that goes moves each other by one turn at most, and few of them.
    #[test]
    fn little_moves(count in 2usize..60, gone in any::<prop::sample::Index>(), sweeps in 1u32..30, target: u64) {
        let all = names(count);
        let sweeps = sweeps.min(u32::try_from(count).unwrap() - 1);
        let mut rest = all.clone();
        rest.remove(gone.index(count));
        let (before, after) = (turns(&all, target, sweeps), turns(&rest, target, sweeps));
        let moved = rest.iter().filter(|name| before[*name] != after[*name]);
        let mut count = 0;
        for name in moved {
            prop_assert!(before[name].abs_diff(after[name]) == 1, "{} to {}", before[name], after[name]);
            count += 1;
        }
        prop_assert!(count < sweeps, "{} moved", count);
    }
}

const HEAD: &str = "
zones: {low: {namespaces: [web]}, high: {namespaces: [payments]}}
boundaries: [{name: b, from: low, to: high, dns: off, interval: 20s}]
controls: {positive: [{tcp: '127.0.0.53:53'}]}
dns: {resolver: 127.0.0.1:1}
targets:
- {zone: high, namespace: payments, service: ledger, cluster_ip: 127.1.0.1, endpoints: [127.2.0.1, 127.2.0.2], ports: [80, 443]}
- {zone: high, namespace: payments, service: pay, external: [127.4.0.1, lb.example], ports: [80]}
";

fn share(rest: &str, own: &str) -> Arc<Share> {
    let mut config = parse(Path::new("f.yaml"), &format!("{HEAD}{rest}")).unwrap();
    if let Some(share) = &mut config.share {
        share.own = own.into();
    }
    let plan = plan(&config, &[Stand::own(&config, &[], "web")]);
    plan.boundaries[0].share.clone().expect("it is shared")
}

#[test]
fn each_address_by_itself_and_a_name_with_all_of_its_check() {
    let share = share("share: {nodes_per_sweep: 1, nodes: [a, b, c, d]}\n", "b");
    assert_eq!((share.nodes, share.sweeps, share.is_listed), (4, 4, true));
    // Of each port the ClusterIP and two endpoints; and two external ones, of which one is a name.
    let checks: Vec<Range<usize>> = (0..6).map(|check| share.of_check(check)).collect();
    assert_eq!(checks, [0..1, 1..3, 3..4, 4..6, 6..7, 7..7]);
    assert_eq!(share.slots().iter().map(|slot| slot.key).collect::<BTreeSet<_>>().len(), 7);

    let due = Due::new(share, 0, [2, 6].into());
    let has = |check, count| (0..count).map(|address| due.has(check, address)).collect::<Vec<_>>();
    assert_eq!(
        [has(0, 1), has(1, 2), has(2, 1), has(3, 2), has(4, 2)].concat(),
        [false, false, true, false, false, false, true, true]
    );
    assert!(due.has(5, 0), "what nobody shares is always due");
}

#[test]
fn a_budget_is_of_all_connects_of_all_nodes() {
    let nodes = format!("nodes: [{}]", names(100).join(", "));
    // Two attempts; with a witness two more.
    for (budget, witnesses, sweeps) in [
        ("1", "", 10),
        ("0.5", "", 20),
        ("1", "witnesses: [{zone: high, source: 127.0.0.9}]\n", 20),
        ("1000", "", 1),
        ("0.001", "", 96),
    ] {
        let share = share(&format!("{witnesses}share: {{connects_per_second: {budget}, {nodes}}}\n"), "node-1");
        assert_eq!((share.nodes, share.sweeps), (100, sweeps), "{budget} {witnesses}");
    }
}

#[test]
fn what_is_not_tested_is_said() {
    for (nodes, own, expected) in [
        ("[]", "a", vec!["what can be reached in zone `high`"]),
        ("[a, b]", "a", vec!["in each sweep more than a share of the addresses of zone `high`"]),
        ("[a]", "a", vec![]),
        (
            "[a]",
            "c",
            vec![
                "in each sweep more than a share of the addresses of zone `high`",
                "that this node is one of those that share the targets",
            ],
        ),
    ] {
        let mut config =
            parse(Path::new("f.yaml"), &format!("{HEAD}share: {{nodes_per_sweep: 1, nodes: {nodes}}}\n")).unwrap();
        config.share.as_mut().unwrap().own = own.into();
        let plan = plan(&config, &[Stand::own(&config, &[], "web")]);
        let of_share = |gap: &&NotTested| gap.why.contains("share");
        let found: Vec<&str> = plan.not_tested.iter().filter(of_share).map(|gap| &*gap.what).collect();
        assert_eq!(found, expected, "{nodes} {own}");
    }
    let why = "the nodes share them: this one probes each within 2 sweeps, that is 40 s";
    let mut config =
        parse(Path::new("f.yaml"), &format!("{HEAD}share: {{nodes_per_sweep: 1, nodes: [a, b]}}\n")).unwrap();
    config.share.as_mut().unwrap().own = "a".into();
    let plan = plan(&config, &[Stand::own(&config, &[], "web")]);
    assert!(plan.not_tested.iter().any(|gap| gap.why == why), "{:?}", plan.not_tested);
}

/// Servers that all nodes have in common have turns like addresses; what each node has for itself is asked in every sweep.
#[test]
fn dns_servers_that_many_ask_are_shared() {
    let text = format!(
        "{}share: {{nodes_per_sweep: 1, nodes: [a, b, c, d]}}\n",
        HEAD.replace(", dns: off", "").replace(
            "dns: {resolver: 127.0.0.1:1}",
            "dns: {resolver: 127.0.0.1:1, servers: [system, 10.96.0.10, {name: node-local, address: 169.254.20.10}]}"
        )
    );
    let mut config = parse(Path::new("f.yaml"), &text).unwrap();
    config.share.as_mut().unwrap().own = "a".into();
    let plan = plan(&config, &[Stand::own(&config, &["127.0.0.53:53".parse().unwrap()], "web")]);
    let leg = &plan.legs[0];
    let share = leg.share(Part::Dns).unwrap();
    assert_eq!((share.nodes, share.sweeps), (4, 4));
    let nothing = Due::new(share.clone(), 0, Box::default());
    let interval = Duration::from_secs(20);
    for (index, check) in leg.dns.iter().enumerate() {
        let is_shared = &*check.id.target == "10.96.0.10";
        assert_eq!(!nothing.has(index, 0), is_shared, "{}", check.id);
        assert_eq!(leg.round(Part::Dns, index), if is_shared { 4 * interval } else { interval }, "{}", check.id);
    }
    // All techniques of a server have its turn together: its controls are around them all.
    let keys: BTreeSet<u64> = share.slots().iter().map(|slot| slot.key).collect();
    assert!(keys.len() == 1 && share.slots().len() == 5, "{:?}", share.slots());
    let alone = format!("{}share: {{nodes_per_sweep: 1, nodes: [a]}}\n", HEAD.replace(", dns: off", ""));
    let mut config = parse(Path::new("f.yaml"), &alone).unwrap();
    config.share.as_mut().unwrap().own = "a".into();
    let plan = super::super::plan(&config, &[Stand::own(&config, &["127.0.0.53:53".parse().unwrap()], "web")]);
    assert!(plan.legs[0].share(Part::Dns).is_none() && plan.legs[0].share(Part::Reach).is_none());
}

#[test]
fn times_for_people() {
    let told = [90, 599, 600, 10_799, 10_800, 46_080].map(|seconds| in_words(Duration::from_secs(seconds)));
    assert_eq!(told, ["90 s", "599 s", "10 min", "180 min", "3.0 h", "12.8 h"]);
}
