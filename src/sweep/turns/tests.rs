//! Every pod has its turn, whoever comes and goes.

use proptest::prelude::*;

use super::*;
use crate::inventory::cri::{Network, PodDns};

fn pod(number: usize) -> Arc<Sandbox> {
    let id: Arc<str> = format!("sandbox-{number}").into();
    Arc::new(Sandbox {
        uid: id.clone(),
        namespace: "web".into(),
        name: id.clone(),
        id,
        labels: Some(Default::default()),
        created: jiff::Timestamp::UNIX_EPOCH,
        ready: true,
        running: true,
        network: Network::Host,
        addresses: Box::default(),
        dns: PodDns::default(),
    })
}

fn speakers(numbers: impl IntoIterator<Item = usize>) -> Speakers {
    Speakers::Pods(numbers.into_iter().map(pod).collect())
}

fn numbers(chosen: &[Arc<Sandbox>]) -> Vec<usize> {
    chosen.iter().map(|pod| pod.id.strip_prefix("sandbox-").unwrap().parse().unwrap()).collect()
}

#[test]
fn so_many_speak_that_each_has_its_turn_in_time() {
    for (pods, within, expected) in
        [(1, 1, 1), (1, 10, 1), (10, 10, 1), (11, 10, 2), (20, 10, 2), (21, 10, 3), (7, 1, 7), (500, 1000, 1)]
    {
        let speakers = speakers(0..pods);
        let mut turns = Turns::default();
        for sweep in 0..3 {
            assert_eq!(turns.next(&speakers, within).len(), expected, "{pods} within {within}, sweep {sweep}");
        }
    }
    // The configuration refuses it; nothing divides by it.
    assert_eq!(Turns::default().next(&speakers(0..3), 0).len(), 3);
}

#[test]
fn they_speak_in_their_order_and_begin_anew() {
    let mut turns = Turns::default();
    let chosen: Vec<_> = (0..5).map(|_| numbers(&turns.next(&speakers(0..5), 3))).collect();
    assert_eq!(chosen, [vec![0, 1], vec![2, 3], vec![4, 0], vec![1, 2], vec![3, 0]]);
}

#[test]
fn newcomers_speak_at_once_but_not_before_the_first_sweep() {
    let mut turns = Turns::default();
    assert_eq!(numbers(&turns.newcomers(&speakers(0..4))), [0; 0], "all are new, and the first sweep is not over");
    assert_eq!(numbers(&turns.next(&speakers(0..4), 4)), [0]);
    assert_eq!(numbers(&turns.newcomers(&speakers(0..4))), [0; 0], "the others wait for their turns");
    assert_eq!(numbers(&turns.newcomers(&speakers([0, 1, 8]))), [8]);
    assert_eq!(numbers(&turns.newcomers(&speakers([0, 1, 8]))), [0; 0]);
    // One that came with a sweep that had no place for it is new all the same.
    assert_eq!(numbers(&turns.next(&speakers([0, 1, 8, 9]), 4)), [1]);
    assert_eq!(numbers(&turns.newcomers(&speakers([0, 1, 8, 9]))), [9]);
}

#[test]
fn few_newcomers_speak_at_once_and_the_rest_soon() {
    let mut turns = Turns::default();
    assert_eq!(numbers(&turns.next(&speakers(0..1), 10)), [0]);
    let all = speakers(0..30);
    let chosen = numbers(&turns.newcomers(&all));
    assert_eq!(chosen, (1..=8).collect::<Vec<_>>());
    assert_eq!(numbers(&turns.next(&all, 10)), [9, 10, 11]);
    assert_eq!(numbers(&turns.newcomers(&all)), (12..=19).collect::<Vec<_>>());
}

#[test]
fn who_is_gone_is_forgotten() {
    let mut turns = Turns::default();
    for round in 0..100 {
        turns.next(&speakers(10 * round..10 * round + 10), 1);
        assert_eq!(turns.waiting.len(), 10);
    }
    // One that comes back under its id is new: nothing is known of what happened to it meanwhile.
    turns.next(&speakers([1, 2]), 1);
    turns.next(&speakers([1]), 1);
    assert_eq!(numbers(&turns.newcomers(&speakers([1, 2]))), [2]);
}

#[test]
fn nobody_speaks_where_no_pods_do() {
    use crate::model::Reason;
    for speakers in [Speakers::Own, Speakers::Node, Speakers::Nobody(Reason::RuntimeUnreadable)] {
        let mut turns = Turns::default();
        assert!(turns.next(&speakers, 10).is_empty() && turns.newcomers(&speakers).is_empty());
    }
}

#[test]
fn a_stream_of_new_pods_silences_nobody() {
    let mut turns = Turns::default();
    assert_eq!(turns.next(&speakers(0..4), 1).len(), 4);
    let mut heard = Vec::new();
    for sweep in 0..12 {
        // Twenty jobs a sweep, and pods 0 to 3 among them: two speak in each sweep.
        let jobs = 100 * (sweep + 1)..100 * (sweep + 1) + 20;
        let chosen = numbers(&turns.next(&speakers(jobs.chain(0..4)), 12));
        heard.extend(chosen.into_iter().filter(|pod| *pod < 100));
    }
    heard.sort_unstable();
    assert_eq!(heard, [0, 1, 2, 3]);
}

#[test]
fn turns_go_on_after_a_reload_and_dns_is_asked_by_one_at_a_time() {
    use crate::model::Identity;
    let identity = Arc::new(Identity { namespace: "web".into(), name: "app=web".into() });
    let asked = |part| -> Asked { ("b".into(), identity.clone(), part) };
    let pods = speakers(0..6);
    let before = Waiters::new(2);
    assert_eq!(numbers(&before.next(&asked(Part::Reach), &pods)), [0, 1, 2]);
    assert_eq!(numbers(&before.next(&asked(Part::Dns), &pods)), [0]);
    let after = before.promising(3);
    assert_eq!(numbers(&after.next(&asked(Part::Reach), &pods)), [3, 4]);
    let dns: Vec<_> = (0..6).map(|_| numbers(&after.next(&asked(Part::Dns), &pods))).collect();
    assert_eq!(dns.concat(), [1, 2, 3, 4, 5, 0]);
    // Who asks no more is forgotten.
    after.keep(&HashSet::from([asked(Part::Dns)]));
    assert_eq!(numbers(&after.next(&asked(Part::Reach), &pods)), [0, 1]);
    assert_eq!(numbers(&after.next(&asked(Part::Dns), &pods)), [1]);
}

proptest! {
    /// Pods come, stay a while and go, at any pace, with sweeps for newcomers in between.
    #[test]
    fn nobody_waits_longer_than_promised_and_no_more_speak_than_must(
        within in 1u32..12,
        steps in prop::collection::vec((prop::collection::vec(0usize..60, 0..40), any::<bool>()), 1..80),
    ) {
        let mut turns = Turns::default();
        // Sweeps that each of those here has waited.
        let mut waited: HashMap<usize, u32> = HashMap::new();
        for (mut here, is_extra) in steps {
            here.sort_unstable();
            here.dedup();
            let speakers = speakers(here.iter().copied());
            if is_extra {
                let chosen = numbers(&turns.newcomers(&speakers));
                prop_assert!(chosen.len() <= 8 && chosen.iter().all(|pod| here.contains(pod)));
                chosen.iter().for_each(|pod| { waited.insert(*pod, 0); });
                continue;
            }
            waited.retain(|pod, _| here.contains(pod));
            here.iter().for_each(|pod| *waited.entry(*pod).or_default() += 1);
            let must = waited.values().filter(|waited| **waited >= within).count();
            let chosen = numbers(&turns.next(&speakers, within));
            prop_assert_eq!(chosen.len(), here.len().div_ceil(within as usize).max(must));
            for pod in &chosen {
                // Also: nobody speaks twice in one sweep, and nobody who is not here.
                prop_assert!(waited.insert(*pod, 0).is_some_and(|waited| waited > 0));
            }
            prop_assert!(waited.values().all(|waited| *waited < within), "{:?} within {}", waited, within);
        }
    }

    /// Where nobody comes or goes, no more than the least number ever speaks.
    #[test]
    fn the_work_is_even(pods in 0usize..200, within in 1u32..20) {
        let mut turns = Turns::default();
        for _ in 0..3 * within {
            prop_assert_eq!(turns.next(&speakers(0..pods), within).len(), pods.div_ceil(within as usize));
        }
    }
}
