//! A thousand sweeps while pods come, go and are replaced: nothing of them is left.

use std::{
    fs,
    path::PathBuf,
    sync::{
        PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use libtest_mimic::Failed;
use segprobe::model::{Reason, Verdict};

use super::{
    REJECT,
    agent::{Agent, Knobs, SOON},
    node::{Node, low},
};
use crate::{
    HEAVY,
    engine::{PORT, block_on},
    fake_cri::FakePod,
    netns::in_a_child,
    network::Namespace,
};

const SWEEPS: usize = 1000;
/// Pods that come and go.
const CHURNERS: usize = 4;
/// Sweeps at the same time, as of several boundaries. A pod in trouble makes each wait for the runtime's next list.
const AT_ONCE: usize = 20;
/// Of one sweep: pods are entered, and listeners are read before and after the attempts, each time by a thread that may block
/// and a visitor. On a busy machine the threads of one step are still there when the next one starts its own.
const THREADS: usize = 3 * 2;

/// In a process of its own, so that other trials' threads and descriptors do not count.
pub fn nothing_is_left() -> Result<(), Failed> {
    let _turn = HEAVY.lock().unwrap_or_else(PoisonError::into_inner);
    in_a_child("churn")
}

/// What the child does.
pub fn churn() {
    let node = Node::new().expect("a node");
    let _controls = node.controls().expect("controls");
    let _far = node.server("10.244.2.20", PORT).expect("a target");
    let stays = node.pod(low("web-0", "web"), "10.244.1.10").expect("a pod");
    node.policy(&[&format!("tcp dport 5432 {REJECT}")]).expect("a policy");
    let knobs = Knobs {
        targets: vec![("ledger", "endpoints: 10.244.2.20".into())],
        pods: "per_second: 100000, turn_within: 1",
        ..Knobs::default()
    };
    let before = (threads(), namespaces());
    let (stop, churned) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut namespaces = [const { None }; CHURNERS];
            while !stop.load(Ordering::Relaxed) {
                let round = churned.fetch_add(1, Ordering::Relaxed);
                replace(&node, round, &mut namespaces[round % CHURNERS]);
                thread::sleep(Duration::from_millis(20));
            }
        });
        // Also where an assertion fails: nobody would stop it then.
        let stops = Stops(&stop);
        let mut most_blocking = 0;
        block_on(&node.host, || async {
            let mut agent = Agent::start(&node, &knobs).await;
            let (mut of_stayer, mut speakers) = (0, 0);
            for _ in 0..SWEEPS / AT_ONCE {
                agent.follow();
                let swept = join_all((0..AT_ONCE).map(|_| agent.sweep("app=web"))).await;
                for (seen, reason) in swept.iter().flat_map(|swept| swept.seen("ledger")) {
                    speakers += 1;
                    let stays = seen.from.as_ref().is_some_and(|from| *from.sandbox == *stays.id);
                    of_stayer += usize::from(stays && *reason == Reason::NoWitness);
                    assert!(stays || reason.verdict() == Verdict::Inconclusive, "{seen:?}: {reason}");
                }
                assert!(swept.iter().all(|swept| swept.findings().is_empty()));
                most_blocking = most_blocking.max(threads());
            }
            assert!(of_stayer > SWEEPS * 9 / 10, "only {of_stayer} sweeps of the pod that stays were good");
            assert!(speakers > SWEEPS * 2, "the others spoke as well: {speakers}");
        });
        drop(stops);
        // Besides those that were there before: the churner and the runtime's own. The number of sweeps does not matter.
        assert!(most_blocking <= before.0 + 5 + AT_ONCE * THREADS, "{most_blocking} threads");
    });
    assert!(churned.load(Ordering::Relaxed) > 20, "pods were replaced {churned:?} times");
    for number in 0..CHURNERS {
        node.forget(&churner(number).id);
    }
    // What ends takes a moment; what is left stays.
    let give_up = Instant::now() + SOON;
    while (threads(), namespaces()) != before {
        assert!(Instant::now() < give_up, "left: {:?}, before: {before:?}", (threads(), namespaces()));
        thread::sleep(Duration::from_millis(10));
    }
}

/// Stops the churning at its end.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn churner(number: usize) -> FakePod {
    low(&format!("web-{}", number + 1), "web")
}

/// A pod comes as another sandbox, or its path leads elsewhere, or it goes.
fn replace(node: &Node, round: usize, namespace: &mut Option<Namespace>) {
    let pod = churner(round % CHURNERS);
    if round % 3 == 2 {
        node.forget(&pod.id);
    }
    let new = Namespace::new().expect("a namespace");
    let netns = Some(node.lead(&pod.id, &new.path()));
    // The path never leads to a descriptor that is closed: its number may be another namespace's a moment later.
    *namespace = Some(new);
    if round.is_multiple_of(3) {
        node.runtime.change(|pods| {
            pods.retain(|p| p.id != pod.id);
            let created = pod.created + i64::try_from(round).expect("small");
            pods.push(FakePod { netns, created, ..pod });
        });
    }
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("its threads").count()
}

/// Open namespaces, as their descriptors tell.
fn namespaces() -> usize {
    let links = fs::read_dir("/proc/self/fd").expect("its descriptors").flatten();
    let leads_to = |path: PathBuf| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("net:["));
    links.filter(|entry| leads_to(entry.path())).count()
}
