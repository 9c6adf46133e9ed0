//! The truth table of the design, row by row, and what must hold of every row.

use std::time::Duration;

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    model::{Transport, Verdict, WitnessKind},
    observation::{ControlSeen, Disclosed, Disclosures, Rotation, Round, TcpSeen, TransportSeen},
};

/// The design's table, section 4. Columns: expectation, outcome, captured, vantage gone, vantage proven, lossy, kind, witness, the
/// boundary's `closed:`, and the reason. `*` is any value, `a|b` one of several. Every combination has exactly one row.
///
/// Two rows say more than the design's "any other, positive control not good": an unresolved name and a local failure keep
/// their own reasons, which are just as inconclusive and tell more.
const ROWS: &str = "
blocked open                                                          no  *   *   *   *        *                      *                    reached
blocked open                                                          yes *   *   *   *        *                      *                    captured
blocked closed|refused|rejected|filtered|unreachable|unresolved|error *   yes *   *   *        *                      *                    vantage-gone
blocked closed|refused|rejected|filtered|unreachable                  *   no  no  *   *        *                      *                    vantage-offline
blocked closed                                                        *   no  yes *   endpoint open                   *                    blocked
blocked closed                                                        *   no  yes *   endpoint not-open               *                    host-answered
blocked closed                                                        *   no  yes *   endpoint unclear                *                    witness-unclear
blocked closed                                                        *   no  yes *   endpoint none                   fail                 host-answered
blocked closed                                                        *   no  yes *   endpoint none                   inconclusive         closed-ambiguous
blocked closed                                                        *   no  yes *   endpoint none                   unverified           closed-unwitnessed
blocked closed                                                        *   no  yes *   virtual  *                      *                    no-backend
blocked refused                                                       *   no  yes *   endpoint open                   *                    blocked
blocked refused                                                       *   no  yes *   endpoint not-open|unclear|none  *                    refused-ambiguous
blocked refused                                                       *   no  yes *   virtual  *                      *                    refused-ambiguous
blocked rejected                                                      *   no  yes *   endpoint open                   *                    blocked
blocked rejected                                                      *   no  yes *   endpoint not-open               *                    target-down
blocked rejected                                                      *   no  yes *   endpoint unclear                *                    witness-unclear
blocked rejected                                                      *   no  yes *   endpoint none                   *                    no-witness
blocked rejected                                                      *   no  yes *   virtual  *                      *                    virtual-address
blocked filtered                                                      *   no  yes yes *        *                      *                    lossy
blocked filtered                                                      *   no  yes no  endpoint open                   *                    blocked
blocked filtered                                                      *   no  yes no  endpoint not-open               *                    target-down
blocked filtered                                                      *   no  yes no  endpoint unclear                *                    witness-unclear
blocked filtered                                                      *   no  yes no  endpoint none                   *                    no-witness
blocked filtered                                                      *   no  yes no  virtual  *                      *                    virtual-address
blocked unreachable                                                   *   no  yes *   *        *                      *                    unreachable
blocked unresolved                                                    *   no  *   *   *        *                      *                    unresolved
blocked error                                                         *   no  *   *   *        *                      *                    local-error
open   open                                                          no  *   *   *   *        *                      *                    reachable
open   open                                                          yes *   *   *   *        *                      *                    captured
open   closed|refused|rejected|filtered|unreachable|unresolved|error *   yes *   *   *        *                      *                    vantage-gone
open   closed|refused|rejected|filtered|unreachable|unresolved       *   no  no  *   *        *                      *                    vantage-offline
open   closed|refused|rejected|unreachable|unresolved                *   no  yes *   *        *                      *                    not-reached
open   filtered                                                      *   no  yes no  *        *                      *                    not-reached
open   filtered                                                      *   no  yes yes *        *                      *                    lossy
open   error                                                         *   no  *   *   *        *                      *                    local-error
";

/// What each reason of the table means to a reader, written out once more: the code's own mapping is under test too.
const VERDICTS: [(Verdict, &[&str]); 4] = [
    (Verdict::Fail, &["reached", "host-answered", "not-reached"]),
    (
        Verdict::Inconclusive,
        &[
            "captured",
            "vantage-gone",
            "vantage-offline",
            "lossy",
            "target-down",
            "witness-unclear",
            "no-backend",
            "closed-ambiguous",
            "refused-ambiguous",
            "unreachable",
            "unresolved",
            "local-error",
        ],
    ),
    (Verdict::Unverified, &["no-witness", "virtual-address", "closed-unwitnessed"]),
    (Verdict::Pass, &["blocked", "reachable"]),
];

const WITNESSES: [Witness; 4] = [Witness::Open, Witness::NotOpen, Witness::Unclear, Witness::None];
const CLOSED_RULES: [ClosedRule; 3] = [ClosedRule::Fail, ClosedRule::Inconclusive, ClosedRule::Unverified];

/// Everything that a verdict on one attempt depends on.
#[derive(Clone, Copy, Debug)]
struct Case {
    rule: TcpRule,
    kind: AddressKind,
    outcome: TcpOutcome,
    around: Around,
    witness: Witness,
}

impl Case {
    fn judge(self) -> Reason {
        judge_attempt(self.rule, self.kind, self.outcome, self.around, self.witness)
    }

    /// The case in the table's own words, column by column.
    fn words(self) -> [&'static str; 9] {
        let yes = |value| if value { "yes" } else { "no" };
        let witness = match self.witness {
            Witness::Open => "open",
            Witness::NotOpen => "not-open",
            Witness::Unclear => "unclear",
            Witness::None => "none",
        };
        let closed = match self.rule.closed {
            ClosedRule::Fail => "fail",
            ClosedRule::Inconclusive => "inconclusive",
            ClosedRule::Unverified => "unverified",
        };
        let Around { vantage_proven, lossy, captured, gone } = self.around;
        [
            self.rule.expect.as_str(),
            self.outcome.as_str(),
            yes(captured),
            yes(gone),
            yes(vantage_proven),
            yes(lossy),
            self.kind.as_str(),
            witness,
            closed,
        ]
    }
}

fn every_case() -> Vec<Case> {
    let mut cases = Vec::new();
    for expect in [Expect::Blocked, Expect::Open] {
        for closed in CLOSED_RULES {
            for kind in [AddressKind::Endpoint, AddressKind::Virtual] {
                for outcome in TcpOutcome::ALL {
                    for witness in WITNESSES {
                        for bits in 0..16 {
                            let around = Around {
                                vantage_proven: bits & 1 > 0,
                                lossy: bits & 2 > 0,
                                captured: bits & 4 > 0,
                                gone: bits & 8 > 0,
                            };
                            let rule = TcpRule { expect, closed };
                            cases.push(Case { rule, kind, outcome: *outcome, around, witness });
                        }
                    }
                }
            }
        }
    }
    cases
}

fn matches(column: &str, word: &str) -> bool {
    column == "*" || column.split('|').any(|alternative| alternative == word)
}

#[test]
fn every_combination_is_judged_as_its_row_says() {
    let rows: Vec<Vec<&str>> =
        ROWS.lines().map(|l| l.split_whitespace().collect()).filter(|r: &Vec<_>| !r.is_empty()).collect();
    let mut used = vec![0; rows.len()];
    let cases = every_case();
    assert_eq!(cases.len(), 2 * 3 * 2 * 8 * 4 * 16);
    for case in cases {
        let words = case.words();
        let is_row =
            |row: &Vec<&str>| row.len() == 10 && words.iter().zip(row).all(|(word, column)| matches(column, word));
        let of_case: Vec<usize> = (0..rows.len()).filter(|i| is_row(&rows[*i])).collect();
        let [row] = of_case[..] else { panic!("{words:?} has the rows {of_case:?}, expected exactly one") };
        used[row] += 1;
        assert_eq!(case.judge().as_str(), rows[row][9], "{words:?}");
    }
    assert!(used.iter().all(|n| *n > 0), "a row that no combination has: {used:?}");
}

#[test]
fn every_reason_of_the_table_has_its_verdict() {
    for case in every_case() {
        let reason = case.judge();
        let (verdict, _) = VERDICTS.iter().find(|(_, reasons)| reasons.contains(&reason.as_str())).unwrap();
        assert_eq!(reason.verdict(), *verdict, "{reason}");
    }
}

/// The case that a row's name tells, on a good vantage where `blocked` is expected, at an endpoint without witness.
fn plain(outcome: TcpOutcome) -> Case {
    Case {
        rule: TcpRule { expect: Expect::Blocked, closed: ClosedRule::Fail },
        kind: AddressKind::Endpoint,
        outcome,
        around: Around { vantage_proven: true, lossy: false, captured: false, gone: false },
        witness: Witness::None,
    }
}

#[test]
fn reached_once_is_a_breach_even_from_a_bad_vantage() {
    let mut case = plain(TcpOutcome::Open);
    case.around = Around { vantage_proven: false, lossy: true, captured: false, gone: false };
    assert_eq!(case.judge(), Reason::Reached);
}

#[test]
fn a_proxy_that_answers_for_everybody_is_no_breach() {
    let mut case = plain(TcpOutcome::Open);
    case.around.captured = true;
    assert_eq!(case.judge(), Reason::Captured);
}

#[test]
fn a_reset_from_a_host_that_a_witness_cannot_reach_either_means_an_open_path() {
    let mut case = plain(TcpOutcome::Closed);
    case.witness = Witness::NotOpen;
    for closed in CLOSED_RULES {
        case.rule.closed = closed;
        assert_eq!(case.judge(), Reason::HostAnswered);
    }
}

#[test]
fn a_policy_that_answers_with_reset_passes_where_a_witness_is_let_in() {
    let mut case = plain(TcpOutcome::Closed);
    case.witness = Witness::Open;
    assert_eq!(case.judge(), Reason::Blocked);
}

#[test]
fn silence_without_witness_is_unverified_and_with_a_dead_target_inconclusive() {
    for outcome in [TcpOutcome::Filtered, TcpOutcome::Rejected] {
        let mut case = plain(outcome);
        assert_eq!(case.judge().verdict(), Verdict::Unverified);
        case.witness = Witness::NotOpen;
        assert_eq!(case.judge(), Reason::TargetDown);
        case.witness = Witness::Open;
        assert_eq!(case.judge().verdict(), Verdict::Pass);
    }
}

#[test]
fn a_rejection_from_a_lossy_vantage_still_counts_and_silence_does_not() {
    let mut case = plain(TcpOutcome::Rejected);
    case.around.lossy = true;
    assert_eq!(case.judge(), Reason::NoWitness);
    case.outcome = TcpOutcome::Filtered;
    assert_eq!(case.judge(), Reason::Lossy);
}

#[test]
fn an_outage_where_open_is_expected_is_a_fail_of_its_own() {
    let mut case = plain(TcpOutcome::Closed);
    case.rule.expect = Expect::Open;
    assert_eq!(case.judge(), Reason::NotReached);
    case.around.vantage_proven = false;
    assert_eq!(case.judge(), Reason::VantageOffline);
}

fn seen(outcome: TcpOutcome) -> TcpSeen {
    TcpSeen { outcome, icmp: None, errno: None, elapsed_us: 300 }
}

fn address_seen(kind: AddressKind, outcomes: &[TcpOutcome]) -> AddressSeen {
    let now = Instant::now();
    AddressSeen {
        address: Some(([127, 0, 0, 1], 5432).into()),
        kind,
        from: None,
        listed: true,
        startup: None,
        sidecar: None,
        attempts: outcomes.iter().copied().map(seen).collect(),
        witness: None,
        started: now,
        ended: now,
    }
}

#[test]
fn one_open_attempt_decides_an_address() {
    use TcpOutcome::*;
    let around = plain(Open).around;
    let judge = |expect, outcomes: &[TcpOutcome]| {
        let rule = TcpRule { expect, closed: ClosedRule::Fail };
        judge_address(rule, &address_seen(AddressKind::Endpoint, outcomes), around, Witness::Open)
    };
    assert_eq!(judge(Expect::Blocked, &[Filtered, Open]), Reason::Reached);
    assert_eq!(judge(Expect::Blocked, &[Filtered, Rejected, Closed]), Reason::Blocked);
    assert_eq!(judge(Expect::Blocked, &[Filtered, Unreachable]), Reason::Unreachable);
    assert_eq!(judge(Expect::Open, &[Filtered, Open]), Reason::Reachable);
    assert_eq!(judge(Expect::Open, &[Filtered, Rejected]), Reason::NotReached);
    assert_eq!(judge(Expect::Blocked, &[]), Reason::Pending);
}

#[test]
fn a_check_without_any_address_was_not_resolved() {
    assert_eq!(judge_check([]), Reason::Unresolved);
}

#[test]
fn what_a_witness_says() {
    use TcpOutcome::*;
    let says = |before, after: Option<TcpOutcome>, captured| {
        let witness = WitnessSeen {
            by: WitnessKind::Source,
            name: "w".into(),
            before: WitnessSaw::Connect(seen(before)),
            after: after.map(seen).map(WitnessSaw::Connect),
        };
        judge_witness(Some(&witness), captured)
    };
    assert_eq!(judge_witness(None, false), Witness::None);
    let measured = [Open, Closed, Refused, Rejected, Unreachable, Filtered];
    for before in TcpOutcome::ALL.iter().copied() {
        assert_eq!(says(before, None, false), Witness::Unclear, "{before}, then nothing");
        for after in TcpOutcome::ALL.iter().copied() {
            let expected = match (before, after) {
                _ if !measured.contains(&before) || !measured.contains(&after) => Witness::Unclear,
                (Open, Open) => Witness::Open,
                (Open, _) | (_, Open) => Witness::Unclear,
                _ => Witness::NotOpen,
            };
            assert_eq!(says(before, Some(after), false), expected, "{before}, then {after}");
            assert_eq!(says(before, Some(after), true), Witness::None, "{before}, then {after}, captured");
        }
    }
}

// --- Controls ---

const V4: &str = "127.0.0.53:53";
const V6: &str = "[::1]:53";

/// The clock of these tables: seconds after some moment.
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn at(&self, seconds: u64) -> Instant {
        self.0 + Duration::from_secs(seconds)
    }

    fn round(&self, started: u64, ended: u64, positive: &[(&str, TcpOutcome)]) -> ControlRound {
        let connect = |(address, outcome): &(&str, TcpOutcome)| ControlSeen {
            address: address.parse().unwrap(),
            seen: seen(*outcome),
        };
        ControlRound {
            started: self.at(started),
            ended: self.at(ended),
            positive: positive.iter().map(connect).collect(),
            negative: Vec::new(),
        }
    }

    fn around(&self, controls: &Controls, address: &str, started: u64, ended: u64) -> Around {
        controls.around(address.parse().unwrap(), self.at(started), self.at(ended))
    }
}

fn digest(rounds: &[ControlRound]) -> Controls {
    Controls::digest(rounds, &[], [false; 2], PlaceSeen::default())
}

#[test]
fn a_vantage_is_proven_by_the_rounds_around_the_attempts() {
    use TcpOutcome::*;
    let clock = Clock::new();
    // What each of the rounds at 0-2, 10-12, 20-22 and 30-32 seconds reached; the attempts; whether the vantage is proven.
    for (rounds, started, ended, proven, why) in [
        ([Open, Open, Open, Open], 3, 9, true, "a round before and one after"),
        ([Open, Open, Open, Open], 3, 29, true, "all rounds in between"),
        ([Open, Open, Open, Open], 2, 10, true, "touching both rounds"),
        ([Open, Closed, Open, Open], 3, 29, false, "the second round fails in between"),
        ([Open, Open, Filtered, Open], 3, 29, false, "the third round fails in between"),
        ([Closed, Open, Open, Closed], 3, 29, false, "the first and the last fail"),
        ([Closed, Open, Open, Open], 3, 9, false, "the round before fails"),
        ([Open, Closed, Open, Open], 3, 9, false, "the round after fails"),
        ([Closed, Open, Open, Closed], 13, 19, true, "rounds that fail elsewhere do not count"),
        ([Open, Open, Open, Open], 1, 9, false, "begun before the first round had ended"),
        ([Open, Open, Open, Open], 23, 31, false, "ended after the last round had begun"),
        ([Open, Open, Open, Open], 33, 34, false, "no round after"),
        ([Open, Open, Closed, Open], 11, 19, false, "the round that it began in proves nothing, the next one failed"),
    ] {
        let rounds: Vec<ControlRound> =
            (0..).zip(rounds).map(|(i, outcome)| clock.round(10 * i, 10 * i + 2, &[(V4, outcome)])).collect();
        let around = clock.around(&digest(&rounds), "127.0.0.9:80", started, ended);
        assert_eq!(around.vantage_proven, proven, "{why}");
    }
}

#[test]
fn one_round_alone_or_none_proves_nothing() {
    let clock = Clock::new();
    assert!(!clock.around(&digest(&[]), V4, 1, 2).vantage_proven);
    assert!(!digest(&[]).is_proven(Family::V4));
    let before = digest(&[clock.round(0, 1, &[(V4, TcpOutcome::Open)])]);
    assert!(!clock.around(&before, V4, 2, 3).vantage_proven);
    let after = digest(&[clock.round(8, 9, &[(V4, TcpOutcome::Open)])]);
    assert!(!clock.around(&after, V4, 2, 3).vantage_proven);
    let empty = digest(&[clock.round(0, 1, &[]), clock.round(8, 9, &[])]);
    assert!(!clock.around(&empty, V4, 2, 3).vantage_proven);
}

#[test]
fn one_family_says_nothing_of_the_other() {
    let clock = Clock::new();
    let mut rounds =
        [(0, 1), (8, 9)].map(|(s, e)| clock.round(s, e, &[(V4, TcpOutcome::Open), (V6, TcpOutcome::Closed)]));
    let controls = digest(&rounds);
    assert!(clock.around(&controls, "127.0.0.9:80", 2, 3).vantage_proven);
    assert!(!clock.around(&controls, "[::9]:80", 2, 3).vantage_proven);
    assert!(controls.is_proven(Family::V4) && !controls.is_proven(Family::V6));
    // A name without an address has no family: any that works will do.
    assert!(controls.around_nowhere().vantage_proven);
    assert!(!digest(&[]).around_nowhere().vantage_proven);
    rounds[0].positive[0].seen.outcome = TcpOutcome::Filtered;
    let controls = digest(&rounds);
    assert!(controls.is_lossy(Family::V4) && !controls.is_lossy(Family::V6));
    assert!(clock.around(&controls, "127.0.0.9:80", 2, 3).lossy && !clock.around(&controls, "[::9]:80", 2, 3).lossy);
}

#[test]
fn one_good_control_of_several_is_enough_for_a_round() {
    let clock = Clock::new();
    let rounds = [(0, 1), (8, 9)]
        .map(|(s, e)| clock.round(s, e, &[("127.0.0.1:1", TcpOutcome::Closed), (V4, TcpOutcome::Open)]));
    assert!(clock.around(&digest(&rounds), V4, 2, 3).vantage_proven);
}

#[test]
fn loss_is_a_time_out_or_a_retransmission() {
    let clock = Clock::new();
    for (outcome, elapsed_us, lossy) in [
        (TcpOutcome::Open, 300, false),
        (TcpOutcome::Open, 899_999, false),
        (TcpOutcome::Open, 900_000, true),
        (TcpOutcome::Open, 1_030_000, true),
        (TcpOutcome::Filtered, 10, true),
        (TcpOutcome::Closed, 300, false),
    ] {
        let mut rounds = [clock.round(0, 1, &[(V4, TcpOutcome::Open)]), clock.round(8, 9, &[(V4, TcpOutcome::Open)])];
        rounds[1].positive[0].seen = TcpSeen { outcome, icmp: None, errno: None, elapsed_us };
        assert_eq!(digest(&rounds).is_lossy(Family::V4), lossy, "{outcome} after {elapsed_us} µs");
    }
    let mut rounds = [clock.round(0, 1, &[(V4, TcpOutcome::Open), (V6, TcpOutcome::Open)])];
    rounds[0].positive[1].seen.elapsed_us = 1_000_000;
    assert!(!digest(&rounds).is_lossy(Family::V4) && digest(&rounds).is_lossy(Family::V6));
    let lost_elsewhere = Controls::digest(&[], &[], [false, true], PlaceSeen::default());
    assert!(!lost_elsewhere.is_lossy(Family::V4) && lost_elsewhere.is_lossy(Family::V6));
}

fn negative_control() -> NegativeControl {
    NegativeControl {
        address: "127.9.9.9".parse().unwrap(),
        ports: vec![5432, 8200],
        range: "127.9.0.0/16".parse().unwrap(),
    }
}

fn captured_by(clock: &Clock, address: &str, outcome: TcpOutcome) -> Controls {
    let mut rounds = [(0, 1), (8, 9)].map(|(s, e)| clock.round(s, e, &[(V4, TcpOutcome::Open)]));
    rounds[1].negative.push(ControlSeen { address: address.parse().unwrap(), seen: seen(outcome) });
    Controls::digest(&rounds, &[negative_control()], [false; 2], PlaceSeen::default())
}

#[test]
fn a_negative_control_speaks_for_its_port_and_range() {
    let clock = Clock::new();
    let controls = captured_by(&clock, "127.9.9.9:5432", TcpOutcome::Open);
    for (address, captured) in [
        ("127.9.1.5:5432", true),
        ("127.9.9.9:5432", true),
        ("127.9.1.5:8200", false),
        ("127.8.1.5:5432", false),
        ("[::1]:5432", false),
    ] {
        assert_eq!(controls.is_captured(address.parse().unwrap()), captured, "{address}");
        assert_eq!(clock.around(&controls, address, 2, 3).captured, captured, "{address}");
    }
}

#[test]
fn only_a_negative_control_that_answers_captures() {
    let clock = Clock::new();
    for outcome in TcpOutcome::ALL.iter().filter(|o| **o != TcpOutcome::Open) {
        let controls = captured_by(&clock, "127.9.9.9:5432", *outcome);
        assert!(!controls.is_captured("127.9.1.5:5432".parse().unwrap()), "{outcome}");
    }
    // A connect that no negative control stands for is none.
    for address in ["127.9.9.9:80", "127.9.9.8:5432"] {
        let controls = captured_by(&clock, address, TcpOutcome::Open);
        assert!(!controls.is_captured(address.parse().unwrap()), "{address}");
    }
}

#[test]
fn a_captured_positive_control_proves_nothing() {
    let clock = Clock::new();
    let mut rounds = [(0, 1), (8, 9)].map(|(s, e)| clock.round(s, e, &[("127.9.0.7:5432", TcpOutcome::Open)]));
    assert!(
        clock
            .around(&Controls::digest(&rounds, &[negative_control()], [false; 2], PlaceSeen::default()), V4, 2, 3)
            .vantage_proven
    );
    // Seen in one round only, it spoils them all: a proxy does not come and go.
    rounds[1].negative.push(ControlSeen { address: "127.9.9.9:5432".parse().unwrap(), seen: seen(TcpOutcome::Open) });
    let controls = Controls::digest(&rounds, &[negative_control()], [false; 2], PlaceSeen::default());
    assert!(!clock.around(&controls, V4, 2, 3).vantage_proven);
    assert!(!controls.is_proven(Family::V4));
}

// --- DNS ---

/// A technique that saw nothing wrong.
fn clean_dns() -> DnsSeen {
    let over = TransportSeen {
        used: true,
        control: [ControlReply::Answered; 2],
        self_check: true,
        ..TransportSeen::default()
    };
    let mut list = Rotation { total: 9, ..Rotation::default() };
    list.round.asked = 9;
    list.settle(jiff::Timestamp::UNIX_EPOCH);
    DnsSeen { over: [over; 2], lists: vec![list], ..DnsSeen::default() }
}

fn name(seen: &mut DnsSeen, namespace: &str, name: &str) {
    seen.lists[0].round.disclosed.names.add(namespace, name);
}

fn control(transport: Transport, control: [ControlReply; 2]) -> impl Fn(&mut DnsSeen) {
    move |seen| seen.over[transport as usize].control = control
}

/// The round before, while the one under way is not complete.
fn before(change: fn(&mut Round)) -> impl Fn(&mut DnsSeen) {
    move |seen| {
        let mut round = Round::default();
        change(&mut round);
        (seen.lists[0].previous, seen.lists[0].round.asked) = (Some(std::sync::Arc::new(round)), 3);
    }
}

#[test]
fn what_a_dns_technique_proves() {
    use ControlReply::*;
    use Transport::*;
    type Change = Box<dyn Fn(&mut DnsSeen)>;
    fn change(change: impl Fn(&mut DnsSeen) + 'static) -> Change {
        Box::new(change)
    }
    let ledger = |d: &mut Disclosures| d.names.add("payments", "ledger.payments.svc.cluster.local.");
    // From the strongest to the weakest: each beats all that stand below it.
    let changes: Vec<(&str, Change, Reason)> = vec![
        ("answers to a name of nobody", change(|s| s.captured = true), Reason::Captured),
        ("a protected name", change(move |s| ledger(&mut s.lists[0].round.disclosed)), Reason::Disclosed),
        ("one told when asked again", change(move |s| ledger(&mut s.beside)), Reason::Disclosed),
        (
            "one told in the round before",
            change(before(|r| r.disclosed.names.add("vault", "vault.vault.svc.cluster.local."))),
            Reason::Disclosed,
        ),
        (
            "a protected address",
            change(|s| s.lists[0].round.disclosed.addresses.add("vault", "127.0.0.7")),
            Reason::Disclosed,
        ),
        ("no control before", change(control(Udp, [Failed, Answered])), Reason::ControlFailed),
        ("errors for controls", change(control(Tcp, [Failed; 2])), Reason::ControlFailed),
        ("silence and then an answer", change(control(Udp, [Silent, Answered])), Reason::ControlFailed),
        ("no control after", change(control(Tcp, [Answered, Failed])), Reason::ControlFailed),
        ("a listener that came", change(control(Tcp, [NoListener, Answered])), Reason::ControlFailed),
        ("a listener that went", change(control(Udp, [Answered, NoListener])), Reason::ControlFailed),
        (
            "neither transport",
            change(|s| s.over.iter_mut().for_each(|over| over.control = [Silent; 2])),
            Reason::ControlFailed,
        ),
        (
            "no listener at all",
            change(|s| s.over.iter_mut().for_each(|over| over.control = [NoListener; 2])),
            Reason::ControlFailed,
        ),
        ("a lost query", change(|s| s.lists[0].round.lost = 1), Reason::LostQueries),
        ("one lost in the round before", change(before(|r| r.lost = 1)), Reason::LostQueries),
        ("an error", change(|s| s.lists[0].round.broken = 1), Reason::ServerError),
        ("a cut answer", change(|s| s.lists[0].round.cut = 1), Reason::Cut),
        ("a denial that went away", change(|s| s.unsteady = 1), Reason::Unsteady),
        ("a list that was never asked whole", change(|s| s.lists[0].covered = None), Reason::NotCovered),
        ("refused controls", change(control(Udp, [Refused; 2])), Reason::NoSelfCheck),
        ("a silent transport", change(control(Tcp, [Silent; 2])), Reason::NoSelfCheck),
        ("a failed self-check over UDP", change(|s| s.over[0].self_check = false), Reason::NoSelfCheck),
        ("a failed self-check over TCP", change(|s| s.over[1].self_check = false), Reason::NoSelfCheck),
        ("nothing at all", change(|_| ()), Reason::NothingDisclosed),
    ];
    let judge = |seen: &DnsSeen| judge_dns(seen, ["payments", "vault"], false);
    for (i, (what, change, reason)) in changes.iter().enumerate() {
        let mut seen = clean_dns();
        change(&mut seen);
        assert_eq!(judge(&seen), *reason, "{what}");
        for (weaker, also, _) in &changes[i + 1..] {
            let mut seen = clean_dns();
            also(&mut seen);
            change(&mut seen);
            assert_eq!(judge(&seen), *reason, "{what} and {weaker}");
        }
    }
}

#[test]
fn a_closed_or_unused_transport_owes_no_proof() {
    let mut seen = clean_dns();
    seen.over[1] = TransportSeen { used: true, control: [ControlReply::NoListener; 2], ..TransportSeen::default() };
    assert_eq!(judge_dns(&seen, ["payments"], false), Reason::NothingDisclosed);
    seen.over[1] = TransportSeen { used: false, control: [ControlReply::Silent; 2], ..TransportSeen::default() };
    assert_eq!(judge_dns(&seen, ["payments"], false), Reason::NothingDisclosed);
    // What is asked over TCP only, of a server where nobody listens on TCP: UDP shows that the server is there.
    let mut seen = clean_dns();
    seen.over[0].used = false;
    seen.over[1].control = [ControlReply::NoListener; 2];
    assert_eq!(judge_dns(&seen, ["payments"], false), Reason::NothingDisclosed);
    seen.over[1].control = [ControlReply::Silent; 2];
    assert_eq!(judge_dns(&seen, ["payments"], false), Reason::ControlFailed, "silence is no closed port");
    seen.over[0].control = [ControlReply::NoListener; 2];
    assert_eq!(judge_dns(&seen, ["payments"], false), Reason::ControlFailed);
}

#[test]
fn names_of_other_namespaces_are_no_disclosure() {
    let mut seen = clean_dns();
    name(&mut seen, "kube-system", "kube-dns.kube-system.svc.cluster.local.");
    seen.lists[0].round.disclosed.addresses.add("web", "127.0.0.8");
    assert_eq!(judge_dns(&seen, ["payments"], false), Reason::NothingDisclosed);
    assert_eq!(judge_dns(&seen, [], false), Reason::NothingDisclosed);
    assert_eq!(judge_dns(&seen, ["web"], false), Reason::Disclosed);
}

#[test]
fn more_names_than_are_kept_prove_nothing() {
    let mut seen = clean_dns();
    for i in 0..=Disclosed::MOST_NAMES {
        name(&mut seen, "web", &i.to_string());
    }
    assert_eq!(seen.overflow(), 1);
    assert_eq!(judge_dns(&seen, ["payments"], false), Reason::Cut);
}

// --- Places, listeners and nodes ---

#[test]
fn what_a_listener_says() {
    let says = |before: Option<bool>, after: Option<Option<bool>>, captured| {
        let saw = |listening| WitnessSaw::Listener { listening };
        let witness = WitnessSeen {
            by: WitnessKind::Listening,
            name: "payments/ledger-0".into(),
            before: saw(before),
            after: after.map(saw),
        };
        judge_witness(Some(&witness), captured)
    };
    for (before, after, expected) in [
        (Some(true), Some(Some(true)), Witness::Open),
        (Some(false), Some(Some(false)), Witness::NotOpen),
        (Some(true), Some(Some(false)), Witness::Unclear),
        (Some(false), Some(Some(true)), Witness::Unclear),
        (Some(true), None, Witness::Unclear),
        (Some(false), None, Witness::Unclear),
        // What cannot be told neither vouches nor denies.
        (Some(true), Some(None), Witness::Unclear),
        (Some(false), Some(None), Witness::Unclear),
        (None, Some(Some(true)), Witness::Unclear),
        (None, Some(Some(false)), Witness::Unclear),
        (None, Some(None), Witness::Unclear),
    ] {
        assert_eq!(says(before, after, false), expected, "{before:?}, then {after:?}");
        assert_eq!(says(before, after, true), Witness::None, "{before:?}, then {after:?}, captured");
    }
    // A connect and a look do not make up for each other.
    let mixed = WitnessSeen {
        by: WitnessKind::Node,
        name: "this node".into(),
        before: WitnessSaw::Connect(seen(TcpOutcome::Open)),
        after: Some(WitnessSaw::Listener { listening: Some(false) }),
    };
    assert_eq!(judge_witness(Some(&mixed), false), Witness::Unclear);
}

#[test]
fn beside_a_sidecar_only_what_a_negative_control_speaks_for_is_believed() {
    let clock = Clock::new();
    let range = |text: &str, ports: &[u16]| NegativeControl {
        address: "127.9.9.9".parse().unwrap(),
        ports: ports.to_vec(),
        range: text.parse().unwrap(),
    };
    let good = [clock.round(0, 1, &[(V4, TcpOutcome::Open)]), clock.round(4, 5, &[(V4, TcpOutcome::Open)])];
    // It speaks for the positive control, too: else that proves nothing.
    let negative = [range("127.9.0.0/16", &[5432, 80]), range("127.0.0.0/24", &[53])];
    let captured = |rounds: &[ControlRound], negative: &[NegativeControl], sidecar| {
        let controls = Controls::digest(rounds, negative, [false; 2], PlaceSeen { sidecar, gone: false });
        let of = |address: &str| clock.around(&controls, address, 2, 3);
        ["127.9.0.7:5432", "127.9.0.7:80", "127.9.0.7:443", "127.8.0.7:5432", "[::7]:5432"].map(|a| of(a).captured)
    };
    assert_eq!(captured(&good, &negative, false), [false; 5], "without a sidecar nobody is suspected");
    assert_eq!(captured(&good, &negative, true), [false, false, true, true, true]);
    assert_eq!(captured(&good, &[], true), [true; 5]);
    // One that answers is believed with and without a sidecar, for its own port and range.
    let mut answered = good.clone();
    let address = "127.9.9.9:80".parse().unwrap();
    answered[0].negative.push(ControlSeen { address, seen: seen(TcpOutcome::Open) });
    assert_eq!(captured(&answered, &negative, false), [false, true, false, false, false]);
    assert_eq!(captured(&answered, &negative, true), [false, true, true, true, true]);
    // The positive control is a connect like any other.
    let proven = |negative: &[NegativeControl]| {
        let place = PlaceSeen { sidecar: true, gone: false };
        Controls::digest(&good, negative, [false; 2], place).is_proven(Family::V4)
    };
    assert!(proven(&negative) && !proven(&negative[..1]) && !proven(&[]));
}

#[test]
fn of_a_pod_that_died_only_what_was_reached_is_believed() {
    let clock = Clock::new();
    let rounds = [clock.round(0, 1, &[(V4, TcpOutcome::Open)]), clock.round(4, 5, &[(V4, TcpOutcome::Open)])];
    for gone in [false, true] {
        let controls = Controls::digest(&rounds, &[], [false; 2], PlaceSeen { sidecar: false, gone });
        let around = clock.around(&controls, "127.0.0.7:80", 2, 3);
        assert_eq!((around.gone, controls.around_nowhere().gone), (gone, gone));
        for outcome in TcpOutcome::ALL.iter().copied() {
            for witness in WITNESSES {
                for expect in [Expect::Blocked, Expect::Open] {
                    let rule = TcpRule { expect, closed: ClosedRule::Fail };
                    let reason = Case { rule, around, witness, ..plain(outcome) }.judge();
                    match (expect, outcome) {
                        (Expect::Blocked, TcpOutcome::Open) => assert_eq!(reason, Reason::Reached),
                        (Expect::Open, TcpOutcome::Open) => assert_eq!(reason, Reason::Reachable),
                        _ => assert_eq!(reason == Reason::VantageGone, gone, "{outcome} {reason}"),
                    }
                }
            }
        }
    }
    let seen = clean_dns();
    assert_eq!(judge_dns(&seen, ["payments"], true), Reason::VantageGone);
    let mut told = clean_dns();
    name(&mut told, "payments", "ledger");
    assert_eq!(judge_dns(&told, ["payments"], true), Reason::Disclosed, "what was told was told");
}

#[test]
fn pods_of_both_zones_on_one_node() {
    let judge = |from: Option<usize>, to: Option<usize>| {
        // Names are for people; the number decides.
        let of = |count: usize| (vec!["web/shop-0".into(); count.min(1)], count);
        judge_co_residency(&NodeSeen { from: from.map(of), to: to.map(of) })
    };
    for (from, to, expected) in [
        (Some(1), Some(1), Reason::CoResident),
        (Some(40), Some(2), Reason::CoResident),
        (Some(0), Some(1), Reason::Apart),
        (Some(1), Some(0), Reason::Apart),
        (Some(0), Some(0), Reason::Apart),
        (None, None, Reason::RuntimeUnreadable),
        (Some(0), None, Reason::RuntimeUnreadable),
        (None, Some(0), Reason::RuntimeUnreadable),
    ] {
        assert_eq!(judge(from, to), expected, "{from:?} {to:?}");
    }
}

// --- What holds of everything ---

fn any_case() -> impl Strategy<Value = Case> {
    let rule = (select(Expect::ALL), select(&CLOSED_RULES[..])).prop_map(|(expect, closed)| TcpRule { expect, closed });
    let around = any::<[bool; 4]>().prop_map(|[vantage_proven, lossy, captured, gone]| Around {
        vantage_proven,
        lossy,
        captured,
        gone,
    });
    let rest = (select(AddressKind::ALL), select(TcpOutcome::ALL), select(&WITNESSES[..]));
    (rule, around, rest).prop_map(|(rule, around, (kind, outcome, witness))| Case {
        rule,
        kind,
        outcome,
        around,
        witness,
    })
}

fn any_outcomes() -> impl Strategy<Value = Vec<TcpOutcome>> {
    prop::collection::vec(select(TcpOutcome::ALL), 1..5)
}

/// Rounds one after another, each a second long, with controls of both families.
fn any_rounds() -> impl Strategy<Value = Vec<Vec<(bool, TcpOutcome)>>> {
    prop::collection::vec(prop::collection::vec((any::<bool>(), select(TcpOutcome::ALL)), 0..4), 0..5)
}

fn rounds_of(clock: &Clock, rounds: &[Vec<(bool, TcpOutcome)>]) -> Vec<ControlRound> {
    let controls = |round: &Vec<(bool, TcpOutcome)>| {
        round.iter().map(|(v4, outcome)| (if *v4 { V4 } else { V6 }, *outcome)).collect::<Vec<_>>()
    };
    (0..).zip(rounds).map(|(i, round)| clock.round(2 * i, 2 * i + 1, &controls(round))).collect()
}

proptest! {
    #[test]
    fn nothing_passes_from_a_vantage_that_is_not_proven(case in any_case()) {
        let verdict = case.judge().verdict();
        if case.rule.expect == Expect::Blocked && matches!(verdict, Verdict::Pass | Verdict::Unverified) {
            prop_assert!(case.around.vantage_proven);
        }
    }

    #[test]
    fn no_pass_or_unverified_without_a_good_control_of_the_same_family(
        rounds in any_rounds(), case in any_case(), v6 in any::<bool>(), started in 0u64..10, took in 0u64..4,
    ) {
        let clock = Clock::new();
        let address = if v6 { "[::7]:80" } else { "127.0.0.7:80" };
        let digested = digest(&rounds_of(&clock, &rounds));
        let around = clock.around(&digested, address, started, started + took);
        let rule = TcpRule { expect: Expect::Blocked, ..case.rule };
        let reason = Case { rule, around, ..case }.judge();
        if matches!(reason.verdict(), Verdict::Pass | Verdict::Unverified) {
            let good = |round: &Vec<(bool, TcpOutcome)>| round.contains(&(!v6, TcpOutcome::Open));
            let ended_before = (0u64..).zip(&rounds).any(|(i, round)| 2 * i < started && good(round));
            let begun_after = (0u64..).zip(&rounds).any(|(i, round)| 2 * i >= started + took && good(round));
            prop_assert!(ended_before && begun_after, "{reason}");
        }
    }

    #[test]
    fn open_is_never_a_pass_where_blocked_is_expected(mut case in any_case()) {
        case.rule.expect = Expect::Blocked;
        case.outcome = TcpOutcome::Open;
        prop_assert!(case.judge().verdict() <= Verdict::Inconclusive);
    }

    #[test]
    fn nothing_virtual_ever_passes_where_blocked_is_expected(mut case in any_case()) {
        case.rule.expect = Expect::Blocked;
        case.kind = AddressKind::Virtual;
        prop_assert_ne!(case.judge().verdict(), Verdict::Pass);
    }

    #[test]
    fn a_pass_needs_a_witness_that_was_let_in(mut case in any_case()) {
        case.rule.expect = Expect::Blocked;
        if case.judge().verdict() == Verdict::Pass {
            prop_assert_eq!(case.witness, Witness::Open);
        }
    }

    #[test]
    fn doubt_never_makes_a_pass(case in any_case()) {
        let doubts: [fn(&mut Case); 6] = [
            |c| c.around.gone = true,
            |c| c.around.vantage_proven = false,
            |c| c.around.lossy = true,
            |c| c.around.captured = true,
            |c| c.witness = Witness::Unclear,
            |c| c.witness = Witness::None,
        ];
        for (i, doubt) in doubts.iter().enumerate() {
            let mut doubted = case;
            doubt(&mut doubted);
            if case.judge().verdict() != Verdict::Pass {
                prop_assert_ne!(doubted.judge().verdict(), Verdict::Pass, "doubt {}", i);
            }
        }
    }

    #[test]
    fn a_failed_control_never_makes_a_pass(
        rounds in any_rounds(), worse in 0usize..5, case in any_case(), started in 0u64..10, took in 0u64..4,
        answered in any::<bool>(),
    ) {
        let clock = Clock::new();
        let judge = |rounds: &[ControlRound]| {
            let controls = Controls::digest(rounds, &[negative_control()], [false; 2], PlaceSeen::default());
            Case { around: clock.around(&controls, "127.9.0.7:5432", started, started + took), ..case }.judge().verdict()
        };
        let mut rounds = rounds_of(&clock, &rounds);
        let before = judge(&rounds);
        if let Some(round) = rounds.get_mut(worse) {
            round.positive.iter_mut().for_each(|c| c.seen.outcome = TcpOutcome::Filtered);
            if answered {
                let address = "127.9.9.9:5432".parse().unwrap();
                round.negative.push(ControlSeen { address, seen: seen(TcpOutcome::Open) });
            }
        }
        if before != Verdict::Pass {
            prop_assert_ne!(judge(&rounds), Verdict::Pass);
        }
    }

    #[test]
    fn the_order_of_attempts_never_matters(
        case in any_case(), (outcomes, shuffled) in any_outcomes().prop_flat_map(|o| (Just(o.clone()), Just(o).prop_shuffle())),
    ) {
        let judge = |of: &[TcpOutcome]| judge_address(case.rule, &address_seen(case.kind, of), case.around, case.witness);
        prop_assert_eq!(judge(&outcomes), judge(&shuffled));
    }

    #[test]
    fn another_attempt_never_makes_a_blocked_address_better(mut case in any_case(), outcomes in any_outcomes()) {
        case.rule.expect = Expect::Blocked;
        let judge = |of: &[TcpOutcome]| judge_address(case.rule, &address_seen(case.kind, of), case.around, case.witness);
        for i in 1..=outcomes.len() {
            prop_assert!(judge(&outcomes) <= judge(&outcomes[..i]));
            prop_assert!(judge(&outcomes) <= judge(&outcomes[i - 1..i]));
        }
    }

    #[test]
    fn a_check_is_as_bad_as_its_worst_address(reasons in prop::collection::vec(select(Reason::ALL), 1..6)) {
        let order = [Verdict::Fail, Verdict::Inconclusive, Verdict::Unverified, Verdict::Pass];
        let worst = order.iter().find(|v| reasons.iter().any(|r| r.verdict() == **v)).unwrap();
        let check = judge_check(reasons.iter().copied());
        prop_assert_eq!(check.verdict(), *worst);
        prop_assert!(reasons.contains(&check));
    }

    #[test]
    fn a_dns_pass_needs_everything(
        captured in any::<bool>(), disclosed in any::<bool>(), covered in any::<bool>(), unsteady in 0u32..2,
        counts in prop::array::uniform3(0u32..2), self_check in prop::array::uniform2(any::<bool>()),
        control in prop::array::uniform2(prop::array::uniform2(select(CONTROLS.to_vec()))),
    ) {
        let mut seen = clean_dns();
        (seen.captured, seen.unsteady) = (captured, unsteady);
        if disclosed {
            name(&mut seen, "payments", "x");
        }
        for at in 0..2 {
            (seen.over[at].self_check, seen.over[at].control) = (self_check[at], control[at]);
        }
        let list = &mut seen.lists[0];
        [list.round.lost, list.round.broken, list.round.cut] = counts;
        list.covered = list.covered.filter(|_| covered);
        let speaks = |at: usize| control[at] == [ControlReply::Answered; 2] && self_check[at];
        let closed = |at: usize| control[at] == [ControlReply::NoListener; 2];
        let proven = (speaks(0) || speaks(1)) && (0..2).all(|at| speaks(at) || closed(at));
        let clean = !captured && !disclosed && covered && unsteady == 0 && counts == [0; 3] && proven;
        prop_assert_eq!(judge_dns(&seen, ["payments"], false).verdict() == Verdict::Pass, clean);
        prop_assert_eq!(judge_dns(&seen, ["payments"], false).verdict() == Verdict::Fail, disclosed && !captured);
    }
}

const CONTROLS: [ControlReply; 5] = [
    ControlReply::Answered,
    ControlReply::Refused,
    ControlReply::NoListener,
    ControlReply::Silent,
    ControlReply::Failed,
];

#[test]
fn a_failure_at_a_discovered_address_counts_when_a_later_word_lists_it() {
    let at = |seconds| jiff::Timestamp::from_second(seconds).unwrap();
    for reason in Reason::ALL {
        let fails = reason.verdict() == Verdict::Fail;
        for (word, confirmed) in [(0, false), (100, false), (109, false), (110, true), (1_000, true)] {
            let expected = if fails && !confirmed { Reason::UnconfirmedAddress } else { *reason };
            assert_eq!(confirm(*reason, at(100), at(word)), expected, "{reason} {word}");
        }
    }
    // Neither end of time overflows.
    assert_eq!(confirm(Reason::Reached, jiff::Timestamp::MAX, jiff::Timestamp::MIN), Reason::UnconfirmedAddress);
}
