//! What is due when: nothing is skipped or done twice, whatever clocks, sweeps and nodes do, and making up is bounded.

use proptest::prelude::*;

use super::*;

const GOOD: Option<Verdict> = Some(Verdict::Pass);

/// Slots with these turns, of a round of so many sweeps; their keys are their places.
fn share(sweeps: u32, turns: &[u32]) -> Arc<Share> {
    let slot = |(key, turn): (u64, &u32)| Slot { key, turn: *turn };
    Arc::new(Share::of_slots(sweeps, sweeps, (0..).zip(turns).map(slot).collect()))
}

/// One sweep that sees the same everywhere; what was due in it.
fn sweep(memory: &mut Memory, share: &Arc<Share>, epoch: u64, seen: Option<Verdict>) -> Vec<u32> {
    let due = memory.due(share, epoch);
    memory.done(&due, &vec![seen; due.slots().len()]);
    due.slots().to_vec()
}

#[test]
fn everybody_has_his_turn_and_nobody_two() {
    let share = share(4, &[0, 1, 2, 3, 2]);
    let mut memory = Memory::default();
    let all = |memory: &mut Memory, epochs: &[u64]| -> Vec<Vec<u32>> {
        epochs.iter().map(|epoch| sweep(memory, &share, *epoch, GOOD)).collect()
    };
    assert_eq!(all(&mut memory, &[8, 9, 10, 11, 12]), [vec![0], vec![1], vec![2, 4], vec![3], vec![0]]);
    // A second sweep in the same interval has nothing to do, and one after an interval without a sweep has both turns.
    assert_eq!(all(&mut memory, &[12, 14, 15]), [vec![], vec![1, 2, 4], vec![3]]);
    // A clock that is set back: that epoch comes again, and it goes on from there.
    assert_eq!(all(&mut memory, &[9, 10, 10]), [vec![1], vec![2, 4], vec![]]);
}

#[test]
fn a_sweep_that_was_broken_off_is_begun_again() {
    let share = share(4, &[0, 1, 2, 3]);
    let mut memory = Memory::default();
    sweep(&mut memory, &share, 8, GOOD);
    assert_eq!(memory.due(&share, 9).slots(), [1]);
    assert_eq!(memory.due(&share, 9).slots(), [1]);
    assert_eq!(memory.due(&share, 10).slots(), [1, 2]);
    // Another plan, as at a reload.
    let other = Arc::new(Share::of_slots(4, 4, share.slots().into()));
    assert_eq!(sweep(&mut memory, &other, 10, GOOD), [1, 2]);
    assert_eq!(sweep(&mut memory, &other, 11, GOOD), [3]);
}

#[test]
fn what_was_missed_is_made_up_for_a_few_at_a_time() {
    // 40 addresses, four in each turn of ten.
    let turns: Vec<u32> = (0..40).map(|i| i % 10).collect();
    let share = share(10, &turns);
    let mut memory = Memory::default();
    (100..110).for_each(|epoch| assert_eq!(sweep(&mut memory, &share, epoch, GOOD).len(), 4));
    // A sweep that took all day: the last three turns at once, and four of what waits.
    assert_eq!(sweep(&mut memory, &share, 3_000, GOOD).len(), 3 * 4 + 4);
    let mut due = Vec::new();
    for epoch in 3_001..3_010 {
        let now = sweep(&mut memory, &share, epoch, GOOD);
        assert!(now.len() <= 8, "{now:?}");
        due.extend(now);
    }
    due.sort_unstable();
    due.dedup();
    assert!(due.len() >= 40 - 16, "{due:?}");
    (3_020..3_060).for_each(|epoch| {
        sweep(&mut memory, &share, epoch, GOOD);
    });
    assert_eq!(sweep(&mut memory, &share, 3_060, GOOD).len(), 4);
}

#[test]
fn what_was_doubtful_is_seen_once_more_and_no_oftener() {
    let share = share(10, &[0, 5]);
    for doubtful in [Some(Verdict::Inconclusive), Some(Verdict::Fail)] {
        let mut memory = Memory::default();
        let mut probed = Vec::new();
        for epoch in 20..40 {
            if sweep(&mut memory, &share, epoch, doubtful).contains(&0) {
                probed.push(epoch);
            }
        }
        assert_eq!(probed, [20, 21, 30, 31], "{doubtful:?}");
    }
    // What could not be probed at all costs nobody anything: it is tried until it can be.
    let (mut memory, alone) = (Memory::default(), self::share(10, &[0]));
    let tried = (20..40).filter(|epoch| sweep(&mut memory, &alone, *epoch, None).contains(&0));
    assert_eq!(tried.collect::<Vec<_>>(), [20, 21, 30, 31, 33, 34, 35, 36, 37, 38, 39]);
    let mut memory = Memory::default();
    assert_eq!(sweep(&mut memory, &share, 20, Some(Verdict::Unverified)), [0]);
    assert_eq!(sweep(&mut memory, &share, 21, GOOD), [0; 0]);
}

/// Agents that start together, and miss their first turn together because nodes come or go: what they make up for is spread like
/// the turns were.
#[test]
fn nobody_makes_up_for_anything_together_with_all_others() {
    let mut probes = [0; 57];
    // The hand stands at 40. Who would be next has its turn just behind it now, and again at 1,098 only.
    for node in 17..40 {
        let mut memory = Memory::default();
        let (before, after) = (share(64, &[node]), share(64, &[10]));
        assert!((1_000..1_041).all(|epoch| sweep(&mut memory, &before, epoch, GOOD).is_empty()));
        for (probes, epoch) in probes.iter_mut().zip(1_041..) {
            *probes += sweep(&mut memory, &after, epoch, GOOD).len();
        }
    }
    assert!(probes.iter().sum::<usize>() >= 20 && probes.iter().all(|probes| *probes <= 2), "{probes:?}");
}

/// Where nobody is listed nothing is due; a new address waits for its turn like any other.
#[test]
fn new_addresses_wait_for_their_turn() {
    let nobody = Arc::new(Share::of_slots(0, 1, Box::default()));
    assert!(nobody.is_partial() && Memory::default().due(&nobody, 5).slots().is_empty());
    let mut memory = Memory::default();
    let few = share(8, &[0, 1]);
    (80..1_000).for_each(|epoch| {
        sweep(&mut memory, &few, epoch, GOOD);
    });
    let more = share(8, &[0, 1, 7, 7, 7]);
    let probed: Vec<usize> = (1_000..1_008).map(|epoch| sweep(&mut memory, &more, epoch, GOOD).len()).collect();
    assert_eq!(probed, [1, 1, 0, 0, 0, 0, 0, 3]);
}

#[test]
fn epochs_are_the_same_for_all() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let interval = Duration::from_secs(30);
    assert_eq!(epoch(at("2026-11-26T00:00:00Z"), interval), 1_795_651_200 / 30);
    assert_eq!(epoch(at("2026-11-26T00:00:29.999Z"), interval), 1_795_651_200 / 30);
    assert_eq!(epoch(at("2026-11-26T00:00:30Z"), interval), 1_795_651_200 / 30 + 1);
    // Before 1970 nothing is counted, and nothing breaks.
    assert_eq!(epoch(at("1960-01-01T00:00:00Z"), interval), 0);
    assert_eq!(epoch(at("1970-01-01T00:00:01Z"), Duration::ZERO), 1_000);
}

proptest! {
    /// Whatever the clock does and whoever comes and goes, a pair waits no longer than stated while sweeps go on, and no sweep is
    /// more than twice a share, but for the turns of the epochs that were passed.
    #[test]
    fn no_pair_waits_longer_than_stated(
        steps in prop::collection::vec((0u64..3, any::<bool>(), 0u32..12), 1..200),
    ) {
        let mut turns: Vec<u32> = (0..24).map(|i| i % 12).collect();
        let mut share_now = share(12, &turns);
        let mut memory = Memory::default();
        let mut epoch = 1_000;
        let mut last = vec![epoch; turns.len()];
        for (ahead, moves, by) in steps {
            epoch += ahead;
            if moves {
                turns.iter_mut().step_by(3).for_each(|turn| *turn = (*turn + by) % 12);
                share_now = share(12, &turns);
            }
            let now = sweep(&mut memory, &share_now, epoch, GOOD);
            now.iter().for_each(|slot| last[*slot as usize] = epoch);
            let overdue = last.iter().filter(|last| epoch - **last > u64::from(share_now.within())).count();
            // What is overdue now waits for a share of its own only: two in each sweep, of eight that can be passed over at once.
            prop_assert!(last.iter().all(|last| epoch - *last <= u64::from(share_now.within()) + 3 + 2 * 12), "{:?}", overdue);
        }
    }
}
