//! The answer at one look: are we segmented?

use crate::{
    export::report::{Row, Totals},
    model::{CheckKind, Expect, Mode, Reason, Verdict},
};

/// What the page says first.
#[derive(Debug, PartialEq, Eq)]
pub struct Headline {
    /// A verdict's word, or none where nothing is tested.
    pub state: &'static str,
    /// The answer.
    pub answer: String,
    /// What it means, or what to do.
    pub meaning: String,
}

/// Of what must be blocked, the worst speaks. What must be open is told beside it: a failure there is an outage, no breach.
/// `untested` boundaries must be blocked too, and nothing of them is asked here.
pub fn headline(rows: &[Row<'_>], untested: usize) -> Headline {
    let judged: Vec<&Row<'_>> = rows.iter().filter(|row| row.view.mode == Mode::Judge).collect();
    let (blocked, open): (Vec<&Row<'_>>, Vec<&Row<'_>>) =
        judged.into_iter().partition(|row| row.view.id.expect == Expect::Blocked);
    let totals = |rows: &[&Row<'_>]| Totals::of_rows(rows.iter().copied());
    let open = totals(&open);
    if blocked.is_empty() && open != Totals::default() && untested == 0 {
        return of_witness(open);
    }
    let mut headline = if blocked.is_empty() && open == Totals::default() {
        nothing(rows)
    } else {
        of_blocked(&blocked, totals(&blocked), untested)
    };
    let down = open.of(Verdict::Fail) + open.of(Verdict::Inconclusive);
    if down > 0 {
        headline.meaning += &format!(
            " Of what must be open, {} not: that is an outage, no breach.",
            count(down, "check is", "checks are")
        );
    }
    let reported = rows.iter().filter(|row| row.view.mode == Mode::Report && row.reason == Reason::Disclosed).count();
    if reported > 0 {
        let checks = count(reported, "check that is reported only", "checks that are reported only");
        headline.meaning += &format!(" Names were disclosed to {checks}.");
    }
    headline
}

fn nothing(rows: &[Row<'_>]) -> Headline {
    let (answer, meaning) = match rows.len() {
        0 => ("Nothing is tested".into(), "No check is planned here: see below what is not tested, and why.".into()),
        reported => (
            "Nothing is judged".into(),
            format!("{} reported, and counts for no verdict.", count(reported, "check is", "checks are")),
        ),
    };
    Headline { state: "none", answer, meaning }
}

fn of_blocked(rows: &[&Row<'_>], totals: Totals, untested: usize) -> Headline {
    let [fail, inconclusive, unverified, pass] = totals.0;
    let is_reach = |row: &Row<'_>| matches!(row.view.id.kind, CheckKind::TcpConnect | CheckKind::DnsQuery);
    let is_dns = |row: &&Row<'_>| !is_reach(row) && row.view.id.kind != CheckKind::NodeCoResidency;
    let pending = rows.iter().filter(|row| row.reason == Reason::Pending).count();
    let boundaries = || count(untested, "boundary", "boundaries");
    let (state, answer, mut meaning): (&str, String, String) = if fail > 0 {
        let mut meaning = "What must be blocked was reached or disclosed. Begin with the open findings.".to_owned();
        if untested > 0 {
            meaning += &format!(" Nothing of {} is tested here.", boundaries());
        }
        ("fail", format!("Not segmented: {}", count(fail, "check fails", "checks fail")), meaning)
    } else if pending > 0 && pending == rows.len() {
        let meaning = format!("The first sweep is under way: {} to do.", count(pending, "check is", "checks are"));
        ("inconclusive", "Not measured yet".into(), meaning)
    } else if inconclusive > 0 {
        let answer = format!("Not proven: {} inconclusive", count(inconclusive, "check is", "checks are"));
        ("inconclusive", answer, unclear(rows, pending))
    } else if untested > 0 {
        let meaning =
            "Nothing was reached elsewhere, and that says nothing of it: see below what is not tested, and why.";
        ("inconclusive", format!("Not proven: nothing of {} is tested here", boundaries()), meaning.into())
    } else if !rows.iter().any(|row| is_reach(row)) {
        let meaning = "What DNS tells, or which pods share the node, says nothing of what can be reached: see below what is not tested.";
        ("unverified", "No breach seen, and no target is probed".into(), meaning.into())
    } else if unverified > 0 {
        let meaning = "Nothing was reached or disclosed, but for these nobody proved that the target lives, or the technique works.";
        let answer = format!("No breach seen, and {} unverified", count(unverified, "check is", "checks are"));
        ("unverified", answer, meaning.into())
    } else {
        let meaning = "Nothing was reached, from vantages that work, while witnesses reached the targets.";
        ("pass", format!("Segmented: {}", count(pass, "check passes", "checks pass")), meaning.into())
    };
    if state == "pass" && rows.iter().any(is_dns) {
        meaning += " DNS told nothing of the zone.";
    }
    Headline { state, answer, meaning }
}

/// What is not known, and whether something was seen even so.
fn unclear(rows: &[&Row<'_>], pending: usize) -> String {
    let held = rows.iter().filter(|row| !row.view.findings.is_empty()).count();
    let unconfirmed = rows.iter().filter(|row| row.reason == Reason::UnconfirmedAddress).count();
    let mut meaning = "Not all of it could be measured: mend what the reasons name.".to_owned();
    for (number, one, many, what) in [
        (held, "check has", "checks have", "an open finding, and could not be looked at again"),
        (unconfirmed, "check", "checks", "reached an address of which discovery has yet to say whose it is"),
        (pending, "check is", "checks are", "not probed yet"),
    ] {
        if number > 0 {
            meaning += &format!(" {} {what}.", count(number, one, many));
        }
    }
    meaning
}

/// Where this agent stands in the zone of the targets: it proves that they are alive.
fn of_witness(open: Totals) -> Headline {
    let state = Verdict::ALL.iter().find(|v| open.of(**v) > 0).map_or("none", |v| v.as_str());
    let all: usize = open.0.iter().sum();
    Headline {
        state,
        answer: format!("{} of {all} targets' ways are open, as they must be", open.of(Verdict::Pass)),
        meaning: "This agent is a witness: it proves that targets are alive, and says nothing of segmentation.".into(),
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}
