//! Evidence in words for people: table, page and log say it alike.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

use crate::{
    ledger::{CheckResult, CheckView, DnsEvidence, Evidence, Finding},
    model::{Reason, Transport, WitnessKind, plain},
    observation::{AddressSeen, ControlReply, Icmp, NodeSeen, ReplyClass, TcpOutcome, TcpSeen, WitnessSaw},
};

/// Addresses and names that are told one by one; the JSON has them all.
const MOST_TOLD: usize = 3;

/// What a check's latest result rests on, in one line without control characters.
pub fn evidence(view: &CheckView) -> String {
    evidence_with(view, MOST_TOLD)
}

/// The same with at most so many disclosed names.
pub fn evidence_with(view: &CheckView, most_names: usize) -> String {
    let mut text = String::new();
    if let Some(result) = &view.result {
        match &result.evidence {
            Evidence::Reach(addresses) => tcp(&mut text, addresses),
            Evidence::Dns(dns) => self::dns(&mut text, dns, most_names),
            Evidence::Node(seen) => node(&mut text, seen, result),
        }
        findings(&mut text, view, result);
    }
    plain(&text)
}

fn tcp(text: &mut String, addresses: &[(AddressSeen, Reason)]) {
    let mut worst: Vec<&(AddressSeen, Reason)> = addresses.iter().collect();
    worst.sort_by_key(|(_, reason)| *reason);
    for (i, (seen, _)) in worst.iter().take(MOST_TOLD).enumerate() {
        if i > 0 {
            text.push_str("; ");
        }
        address(text, seen);
    }
    if worst.len() > MOST_TOLD {
        let _ = write!(text, "; and {} more", worst.len() - MOST_TOLD);
    }
}

/// What was seen at an address, with its attempts and its witness.
pub fn of_address(seen: &AddressSeen) -> String {
    let mut text = String::new();
    address(&mut text, seen);
    text
}

/// How a server's control was answered.
pub const fn control(reply: ControlReply) -> &'static str {
    match reply {
        ControlReply::Answered => "answered",
        ControlReply::Refused => "refused",
        ControlReply::NoListener => "nobody listens",
        ControlReply::Silent => "silent",
        ControlReply::Failed => "failed",
    }
}

fn address(text: &mut String, seen: &AddressSeen) {
    if let Some(from) = &seen.from {
        let _ = write!(text, "from {} ", from.name);
    }
    if let Some(address) = seen.address {
        let _ = write!(text, "{address} ");
    }
    let mut attempts = seen.attempts.iter().peekable();
    let mut first = true;
    while let Some(attempt) = attempts.next() {
        let mut times = 1;
        while attempts.next_if(|next| next.outcome == attempt.outcome && same_icmp(next.icmp, attempt.icmp)).is_some() {
            times += 1;
        }
        if !first {
            text.push_str(", then ");
        }
        first = false;
        connect(text, attempt);
        if times > 1 {
            let _ = write!(text, " {times}×");
        }
    }
    if let Some(witness) = &seen.witness {
        let (before, after) = (saw(witness.before), witness.after.map(saw));
        let _ = match witness.by {
            WitnessKind::Source => write!(text, ", witness {before}"),
            _ => write!(text, ", witness {} {before}", witness.name),
        };
        if let Some(after) = after.filter(|after| *after != before) {
            let _ = write!(text, " then {after}");
        }
    }
    if let Some(port) = seen.sidecar {
        let _ = write!(text, ", a sidecar listens on {port}");
    }
    if let Some(milliseconds) = seen.startup {
        let _ = write!(text, ", at start-up open for {} ms", milliseconds.get());
    }
    if !seen.listed {
        text.push_str(" (no longer listed)");
    }
}

const fn saw(saw: WitnessSaw) -> &'static str {
    match saw {
        WitnessSaw::Connect(seen) => seen.outcome.as_str(),
        WitnessSaw::Listener { listening: Some(true) } => "listening",
        WitnessSaw::Listener { listening: Some(false) } => "not listening",
        WitnessSaw::Listener { listening: None } => "unclear",
    }
}

fn node(text: &mut String, seen: &NodeSeen, result: &CheckResult) {
    let id = &result.id;
    for (i, (zone, pods)) in [(&id.source.name, &seen.from), (&id.target, &seen.to)].into_iter().enumerate() {
        let comma = if i > 0 { "; " } else { "" };
        let Some((some, count)) = pods else { continue };
        let plural = if *count == 1 { "" } else { "s" };
        let _ = write!(text, "{comma}{count} pod{plural} of zone {zone}");
        if !some.is_empty() {
            let more = if some.len() < *count { ", …" } else { "" };
            let _ = write!(text, ": {}{more}", some.iter().map(|name| &**name).collect::<Vec<_>>().join(", "));
        }
    }
}

fn same_icmp(a: Option<Icmp>, b: Option<Icmp>) -> bool {
    a.map(|i| (i.kind, i.code)) == b.map(|i| (i.kind, i.code))
}

fn connect(text: &mut String, seen: &TcpSeen) {
    let _ = write!(text, "{}", seen.outcome);
    if let Some(icmp) = seen.icmp {
        let _ = write!(text, " by ICMP {}/{}", icmp.kind, icmp.code);
        if let Some(offender) = icmp.offender {
            let _ = write!(text, " from {offender}");
        }
    } else if seen.outcome == TcpOutcome::Error
        && let Some(errno) = seen.errno
    {
        let _ = write!(text, " ({})", nix::errno::Errno::from_raw(errno));
    }
}

fn dns(text: &mut String, evidence: &DnsEvidence, most_names: usize) {
    let DnsEvidence { server, protected, seen, from, .. } = evidence;
    if let Some(from) = from {
        let _ = write!(text, "from {} ", from.name);
    }
    let _ = write!(text, "{server}: ");
    let names = told(text, &seen.names(), protected, "name", most_names);
    if names == 0 && told(text, &seen.addresses(), protected, "address", most_names) == 0 {
        text.push_str("nothing disclosed");
    }
    let classes = ReplyClass::ALL.iter().filter(|c| seen.count(**c) > 0);
    let classes: Vec<String> = classes.map(|c| format!("{} {c}", seen.count(*c))).collect();
    if !classes.is_empty() {
        let _ = write!(text, " ({})", classes.join(", "));
    }
    let (asked, questions) = seen.progress();
    if asked < questions {
        let _ = write!(text, ", {asked} of {questions} questions asked in this round");
        if let Some(covered) = seen.covered() {
            let _ = write!(text, ", all of them until {}", covered.strftime("%Y-%m-%d %H:%M:%SZ"));
        }
    }
    for (transport, over) in Transport::ALL.iter().zip(&seen.over).filter(|(_, over)| over.used) {
        use ControlReply::*;
        match over.control {
            [Answered, Answered] if over.self_check => {}
            [Answered, Answered] => {
                let _ = write!(text, ", known name not found over {transport}");
            }
            [NoListener, NoListener] => {
                let _ = write!(text, ", nobody listens on {transport}");
            }
            control => {
                let refused = control.iter().all(|reply| matches!(reply, Answered | Refused));
                let said = if refused { "refused" } else { "not answered" };
                let _ = write!(text, ", control {said} over {transport}");
            }
        }
    }
    if seen.unsteady > 0 {
        let _ = write!(text, ", {} denied and then not", seen.unsteady);
    }
    if seen.captured {
        text.push_str(", a name that nobody has was answered");
    }
}

/// Tells some of what was disclosed of the protected namespaces, and counts all of it.
fn told(
    text: &mut String,
    disclosed: &BTreeMap<&str, BTreeSet<&str>>,
    protected: &[Arc<str>],
    what: &str,
    most: usize,
) -> usize {
    let of_protected = disclosed.iter().filter(|(ns, _)| protected.iter().any(|p| **p == ***ns));
    let all: Vec<&str> = of_protected.flat_map(|(_, names)| names).copied().collect();
    if !all.is_empty() {
        let plural = match (all.len(), what) {
            (1, _) => "",
            (_, "address") => "es",
            _ => "s",
        };
        let _ = write!(text, "{} {what}{plural} disclosed", all.len());
        if most > 0 {
            let more = if all.len() > most { ", …" } else { "" };
            let _ = write!(text, ": {}{more}", all[..all.len().min(most)].join(", "));
        }
    }
    all.len()
}

fn findings(text: &mut String, view: &CheckView, result: &CheckResult) {
    let Some(first) = view.findings.first() else { return };
    let closing = view.findings.iter().find(|f| f.blocked > 0);
    if first.since < result.at {
        let _ = write!(text, "; finding open since {}", first.since.strftime("%Y-%m-%d %H:%M:%SZ"));
    }
    if let Some(closing) = closing {
        let _ = write!(text, ", blocked {} of {} times{}", closing.blocked, closing.closes_at, at(closing));
    }
}

fn at(finding: &Finding) -> String {
    let from = finding.from.as_ref().map(|from| format!(" from {}", from.name)).unwrap_or_default();
    from + &finding.address.map(|a| format!(" at {a}")).unwrap_or_default()
}
