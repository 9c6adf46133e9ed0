//! Evidence in words for people: table, page and log say it alike.

use std::{fmt::Write, net::SocketAddr, sync::Arc};

use crate::{
    ledger::{CheckResult, CheckView, DnsEvidence, Evidence},
    model::{Reason, plain},
    observation::{AddressSeen, ControlReply, Disclosed, Icmp, ReplyClass, TcpOutcome, TcpSeen},
};

/// Addresses and names that are told one by one; the JSON has them all.
const MOST_TOLD: usize = 3;

/// What a check's latest result rests on, in one line without control characters.
pub fn evidence(view: &CheckView) -> String {
    let mut text = String::new();
    if let Some(result) = &view.result {
        match &result.evidence {
            Evidence::Tcp(addresses) => tcp(&mut text, addresses),
            Evidence::Dns(dns) => self::dns(&mut text, dns),
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

fn address(text: &mut String, seen: &AddressSeen) {
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
        let _ = write!(text, ", witness {}", witness.before.outcome);
        match witness.after {
            Some(after) if after.outcome != witness.before.outcome => {
                let _ = write!(text, " then {}", after.outcome);
            }
            _ => {}
        }
    }
    if !seen.listed {
        text.push_str(" (no longer listed)");
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

fn dns(text: &mut String, evidence: &DnsEvidence) {
    let DnsEvidence { server, protected, seen } = evidence;
    let _ = write!(text, "{server}: ");
    let names = told(text, &seen.names, protected, "name");
    if names == 0 && told(text, &seen.addresses, protected, "address") == 0 {
        text.push_str("nothing disclosed");
    }
    let classes = ReplyClass::ALL.iter().filter(|c| seen.count(**c) > 0);
    let classes: Vec<String> = classes.map(|c| format!("{} {c}", seen.count(*c))).collect();
    if !classes.is_empty() {
        let _ = write!(text, " ({})", classes.join(", "));
    }
    match seen.control {
        [ControlReply::Answered, ControlReply::Answered] => {}
        c if c.contains(&ControlReply::Failed) => text.push_str(", control not answered"),
        _ => text.push_str(", control refused"),
    }
    if !seen.self_check {
        text.push_str(", known name not found");
    }
    if seen.captured {
        text.push_str(", a name that nobody has was answered");
    }
}

/// Tells some of what was disclosed of the protected namespaces, and counts all of it.
fn told(text: &mut String, disclosed: &Disclosed, protected: &[Arc<str>], what: &str) -> usize {
    let of_protected = disclosed.iter().filter(|(ns, _)| protected.iter().any(|p| **p == **ns));
    let all: Vec<&str> = of_protected.flat_map(|(_, names)| names).collect();
    if !all.is_empty() {
        let plural = match (all.len(), what) {
            (1, _) => "",
            (_, "address") => "es",
            _ => "s",
        };
        let some = all[..all.len().min(MOST_TOLD)].join(", ");
        let more = if all.len() > MOST_TOLD { ", …" } else { "" };
        let _ = write!(text, "{} {what}{plural} disclosed: {some}{more}", all.len());
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
        let _ = write!(text, ", blocked {} of {} times{}", closing.blocked, closing.closes_at, at(closing.address));
    }
}

fn at(address: Option<SocketAddr>) -> String {
    address.map(|a| format!(" at {a}")).unwrap_or_default()
}
