//! The answer at one look: are we segmented?

use crate::export::report::{Row, Totals};
use crate::model::{Expect, Mode, Reason, Verdict};

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
    let judged = || rows.iter().filter(|row| row.view.mode == Mode::Judge);
    let of = |expect| Totals::of_rows(judged().filter(move |row| row.view.id.expect == expect)).0;
    let open = of(Expect::Open);
    let mut headline = match of(Expect::Blocked) {
        [0, 0, 0, 0] if open != [0; 4] && untested == 0 => return of_witness(open),
        [0, 0, 0, 0] if open == [0; 4] => Headline {
            state: "none",
            answer: "Nothing is tested".into(),
            meaning: "No check is planned here: see below what is not tested, and why.".into(),
        },
        [fail, ..] if fail > 0 => Headline {
            state: "fail",
            answer: format!("Not segmented: {}", checks(fail, "fails", "fail")),
            meaning: "What must be blocked was reached or disclosed. Begin with the open findings.".into(),
        },
        [_, inconclusive, ..] if inconclusive > 0 && judged().all(|row| row.reason == Reason::Pending) => Headline {
            state: "inconclusive",
            answer: "Not measured yet".into(),
            meaning: format!("The first sweep is under way: {} to do.", checks(inconclusive, "is", "are")),
        },
        [_, inconclusive, ..] if inconclusive > 0 => Headline {
            state: "inconclusive",
            answer: format!("Not proven: {} inconclusive", checks(inconclusive, "is", "are")),
            meaning: "Nothing was reached, but not all of it could be measured. Mend what the reasons name.".into(),
        },
        _ if untested > 0 => Headline {
            state: "inconclusive",
            answer: format!("Not proven: nothing of {} is tested here", boundaries(untested)),
            meaning: "Nothing was reached elsewhere, and that says nothing of it: see below what is not tested, and why.".into(),
        },
        [.., unverified, _] if unverified > 0 => Headline {
            state: "unverified",
            answer: format!("No breach seen, and {} unverified", checks(unverified, "is", "are")),
            meaning: "Nothing was reached or disclosed, but for these nobody proved that the target lives, or the technique works.".into(),
        },
        [.., pass] => Headline {
            state: "pass",
            answer: format!("Segmented: {}", checks(pass, "passes", "pass")),
            meaning: "Nothing was reached or disclosed, from vantages that work, while witnesses reached the targets.".into(),
        },
    };
    if untested > 0 && headline.state == "fail" {
        headline.meaning += &format!(" Nothing of {} is tested here.", boundaries(untested));
    }
    let down = open[Verdict::Fail as usize] + open[Verdict::Inconclusive as usize];
    if down > 0 {
        headline.meaning +=
            &format!(" Of what must be open, {} not: that is an outage, no breach.", checks(down, "is", "are"));
    }
    headline
}

/// Where this agent stands in the zone of the targets: it proves that they are alive.
fn of_witness(open: [usize; 4]) -> Headline {
    let state = Verdict::ALL.iter().find(|v| open[**v as usize] > 0).map_or("none", |v| v.as_str());
    let all: usize = open.iter().sum();
    let up = open[Verdict::Pass as usize];
    Headline {
        state,
        answer: format!("{up} of {all} targets' ways are open, as they must be"),
        meaning: "This agent is a witness: it proves that targets are alive, and says nothing of segmentation.".into(),
    }
}

fn boundaries(count: usize) -> String {
    if count == 1 { "1 boundary".into() } else { format!("{count} boundaries") }
}

fn checks(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 check {one}") } else { format!("{count} checks {many}") }
}
