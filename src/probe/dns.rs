//! DNS techniques: each asks one server a list of questions and reads what the answers disclose.
//!
//! A technique is a list of questions (pure) and a reader of answers (pure); [`enumerate`] puts the questions on the wire.

mod classify;
mod exchange;
pub mod service_lookup;
pub mod srv_wildcard;

use hickory_resolver::proto::{
    op::Message,
    rr::{Name, RData, RecordType},
};

pub use classify::{classify, extended_errors, soa_owner};
#[doc(hidden)]
pub use exchange::read_any;
pub use exchange::{Reply, Session, Settings};

use crate::observation::{ControlReply, Disclosed, DnsSeen, ReplyClass};

/// One question. The name is always absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name.
    pub name: Name,
    /// SRV, A, AAAA, PTR, …
    pub kind: RecordType,
}

/// What a technique asks and how it reads the answers.
pub struct Technique<'a> {
    /// What to ask.
    pub questions: &'a [Question],
    /// Reads what one answered question's message discloses.
    pub read: &'a (dyn Fn(&Question, &Message, &mut DnsSeen) + Sync),
    /// Names that this vantage may know, asked for with the technique's own record types.
    pub known: &'a [Question],
}

/// Runs one technique against one server: control, questions, self-check, negative control, control.
pub async fn enumerate(session: &mut Session<'_>, technique: &Technique<'_>) -> DnsSeen {
    let mut seen = DnsSeen::default();
    seen.control[0] = control(session, &mut seen).await;
    for question in technique.questions {
        let reply = session.ask(question).await;
        account(&mut seen, &reply);
        if let Some(message) = &reply.message {
            // Whatever the rcode says, records tell: an alias to nowhere is NXDOMAIN with its CNAME.
            if !message.answers.is_empty() {
                (technique.read)(question, message, &mut seen);
            }
            if reply.class != ReplyClass::Answered && seen.soa.is_none() {
                seen.soa = soa_owner(message).map(|owner| owner.to_ascii().into());
            }
            for code in extended_errors(message) {
                // Bounded: the codes are 16 bit wide.
                *seen.extended_errors.entry(code).or_default() += 1;
            }
        }
    }
    for question in technique.known {
        let reply = session.ask(question).await;
        count_packets(&mut seen, &reply);
        seen.self_check |= reply.class == ReplyClass::Answered;
    }
    for kind in [RecordType::A, RecordType::SRV] {
        let Some(name) = name_of_nobody(session.zone()) else {
            continue;
        };
        let reply = session.ask(&Question { name, kind }).await;
        count_packets(&mut seen, &reply);
        seen.captured |= reply.class == ReplyClass::Answered;
    }
    seen.control[1] = control(session, &mut seen).await;
    seen
}

/// A service in a namespace that nobody has: a server that answers it answers everything, and its answers prove nothing.
fn name_of_nobody(zone: &Name) -> Option<Name> {
    let label = format!("segprobe-{:016x}", rand::random::<u64>());
    Name::from_ascii(format!("{label}.{label}.svc")).ok()?.append_domain(zone).ok()
}

/// The server's positive control: the zone's apex SOA.
async fn control(session: &mut Session<'_>, seen: &mut DnsSeen) -> ControlReply {
    let question = Question { name: session.zone().clone(), kind: RecordType::SOA };
    let reply = session.ask(&question).await;
    count_packets(seen, &reply);
    match reply.class {
        ReplyClass::Answered => ControlReply::Answered,
        ReplyClass::Refused | ReplyClass::Blocked => ControlReply::Refused,
        _ => ControlReply::Failed,
    }
}

fn count_packets(seen: &mut DnsSeen, reply: &Reply) {
    seen.sent += reply.sent;
    seen.retried += reply.sent.saturating_sub(1);
}

fn account(seen: &mut DnsSeen, reply: &Reply) {
    count_packets(seen, reply);
    seen.replies[reply.class as usize] += 1;
    match reply.class {
        ReplyClass::Silent | ReplyClass::NoListener | ReplyClass::Error => seen.lost += 1,
        _ => seen.answered += 1,
    }
    seen.cut += u32::from(reply.cut);
}

/// The namespace of a service's or endpoint's name: the label before `svc` and the zone.
fn namespace_of(name: &Name, zone: &Name) -> Option<String> {
    let zone_labels = usize::from(zone.num_labels());
    let labels: Vec<&[u8]> = name.iter().collect();
    let inside = labels.len().checked_sub(zone_labels)?;
    if inside < 2 || !zone.zone_of(name) || !labels[inside - 1].eq_ignore_ascii_case(b"svc") {
        return None;
    }
    // Kubernetes namespaces are lower-case ASCII; anything else is shown in escapes.
    Some(labels[inside - 2].to_ascii_lowercase().escape_ascii().to_string())
}

/// Adds every name of the zone that the message tells: owners and SRV targets, except the question's own name.
fn read_names(zone: &Name, question: &Question, message: &Message, disclosed: &mut Disclosed) {
    let mut add = |name: &Name| {
        if *name != question.name
            && let Some(namespace) = namespace_of(name, zone)
        {
            disclosed.add(&namespace, &name.to_ascii().to_ascii_lowercase());
        }
    };
    for record in message.answers.iter().chain(&message.additionals) {
        add(&record.name);
        match &record.data {
            RData::SRV(srv) => add(&srv.target),
            RData::CNAME(cname) => add(&cname.0),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
