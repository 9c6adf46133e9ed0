//! DNS techniques: each asks a server a list of questions and reads what the answers disclose.
//!
//! A technique is pure: which questions, and what an answer tells. [`enumerate`] puts the questions of all techniques to
//! one server over UDP and TCP, between the server's controls.

mod classify;
mod message;
mod namespace_oracle;
mod pod_oracle;
mod reverse_sweep;
mod running;
mod server;
mod service_lookup;
mod session;
mod srv_wildcard;
mod tcp;
mod udp;
mod zone_transfer;

use std::{collections::HashSet, io, net::IpAddr, time::Duration};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData},
};
use nix::libc;
use tokio::time::Instant;

pub use classify::{classify, extended_errors, soa_owner};
#[doc(hidden)]
pub use message::read_any;
pub use message::{Question, packet as query_packet};
pub use namespace_oracle::NamespaceOracle;
pub use pod_oracle::PodOracle;
pub use reverse_sweep::{Ranges, ReverseSweep};
pub use server::enumerate;
pub use service_lookup::ServiceLookup;
pub use session::Server;
pub use srv_wildcard::SrvWildcard;
pub use zone_transfer::ZoneTransfer;

use crate::observation::{Disclosed, Disclosures, ReplyClass};

/// How a server is asked.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Time for one attempt.
    pub timeout: Duration,
    /// Attempts before a question counts as lost; at least 1.
    pub attempts: u32,
    /// UDP sockets, each a source port of its own; at least 1.
    pub sockets: usize,
    /// UDP questions under way at the same time; at least 1.
    pub in_flight: usize,
    /// What was denied is asked again after this time.
    pub ask_again: Duration,
    /// After this no new question is begun.
    pub until: Instant,
    /// After this nothing more is sent: what is left counts as lost.
    pub deadline: Instant,
}

/// What became of one question.
#[derive(Debug)]
pub struct Reply {
    /// What it says.
    pub class: ReplyClass,
    /// The whole message, where one came that could be read.
    pub message: Option<Box<Message>>,
    /// Queries put on the wire.
    pub sent: u32,
}

impl Reply {
    fn is_cut(&self) -> bool {
        self.message.as_ref().is_some_and(|m| m.metadata.truncation)
    }
}

/// An answer, and what is needed to read it.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// What was asked.
    pub question: &'a Question,
    /// What the answer says.
    pub class: ReplyClass,
    /// The answer.
    pub message: &'a Message,
    /// Questions about what nobody has that this server answered, over the same transport, with NXDOMAIN.
    pub absent: &'a HashSet<Question>,
}

impl Answer<'_> {
    /// True when nobody's name in the same place, asked for in the same way, was answered with NXDOMAIN.
    fn differs_from_absent(&self) -> bool {
        let Question { name, kind } = self.question;
        self.absent.iter().any(|absent| absent.kind == *kind && absent.name.base_name() == name.base_name())
    }
}

/// What this vantage may know: a technique that does not find it proves nothing.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Names, from the configuration.
    pub names: Vec<Name>,
    /// Their addresses, as the server itself tells them.
    pub addresses: Vec<IpAddr>,
    /// The vantage's own address and namespace.
    pub own: Option<(IpAddr, Box<str>)>,
}

/// Questions in a fixed order.
pub trait Questions: Sync {
    /// How many.
    fn count(&self) -> u64;
    /// One of them; `index` is below [`Questions::count`].
    fn at(&self, index: u64) -> Option<Question>;
    /// Tells two lists apart.
    fn fingerprint(&self) -> u64;
}

/// One list of a technique.
pub struct List<'a> {
    /// The questions.
    pub questions: &'a dyn Questions,
    /// Most of them in one sweep.
    pub most: u64,
    /// Each is asked over TCP as well, because another transport may meet another policy.
    pub over_tcp: bool,
}

/// What is asked and how answers are read. Pure.
pub trait Technique: Send + Sync {
    /// What is asked in every sweep, or in slices.
    fn lists(&self) -> Vec<List<'_>> {
        Vec::new()
    }
    /// Zones to be transferred.
    fn zones(&self) -> &[Name] {
        &[]
    }
    /// Questions about what nobody has, asked first: they show what an absent name looks like at this server.
    fn absent(&self, _nobody: &str) -> Vec<Question> {
        Vec::new()
    }
    /// True where [`Technique::known`] wants the addresses of known names.
    fn wants_addresses(&self) -> bool {
        false
    }
    /// The self-check: what this vantage may know, asked for in the technique's own way.
    fn known(&self, known: &Known) -> Vec<Question>;
    /// True when the answer to a known question shows that the technique works.
    fn finds(&self, answer: &Answer<'_>) -> bool {
        answer.class == ReplyClass::Answered
    }
    /// Adds what an answer discloses.
    fn read(&self, answer: &Answer<'_>, told: &mut Disclosures);
}

impl Questions for Vec<Question> {
    fn count(&self) -> u64 {
        Vec::len(self) as u64
    }

    fn at(&self, index: u64) -> Option<Question> {
        self.get(usize::try_from(index).ok()?).cloned()
    }

    fn fingerprint(&self) -> u64 {
        fingerprint(self)
    }
}

/// A list that is asked whole, over both transports.
fn whole(questions: &dyn Questions) -> List<'_> {
    List { questions, most: u64::MAX, over_tcp: true }
}

fn fingerprint(of: impl std::hash::Hash) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(of)
}

/// What a failed attempt says.
fn failure(error: &io::Error) -> ReplyClass {
    match (error.raw_os_error(), error.kind()) {
        (Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EACCES | libc::ENOPROTOOPT), _) => {
            ReplyClass::NoListener
        }
        (Some(libc::ECONNRESET | libc::EPIPE), _) => ReplyClass::Silent,
        (Some(_), _) => ReplyClass::Error,
        (None, io::ErrorKind::TimedOut | io::ErrorKind::UnexpectedEof) => ReplyClass::Silent,
        (None, _) => ReplyClass::Error,
    }
}

/// `<prefix>.<zone>`, where that is a name.
fn below(zone: &Name, prefix: &str) -> Option<Name> {
    Name::from_ascii(prefix).ok()?.append_domain(zone).ok()
}

/// The namespace of a service's, endpoint's or pod's name: the label before `svc` or `pod` and the zone.
fn namespace_of(name: &Name, zone: &Name) -> Option<String> {
    let zone_labels = usize::from(zone.num_labels());
    let labels: Vec<&[u8]> = name.iter().collect();
    let inside = labels.len().checked_sub(zone_labels)?;
    if inside < 2 || !zone.zone_of(name) {
        return None;
    }
    if ![&b"svc"[..], b"pod"].iter().any(|kind| labels[inside - 1].eq_ignore_ascii_case(kind)) {
        return None;
    }
    // Kubernetes namespaces are lower-case ASCII; anything else is shown in escapes.
    Some(labels[inside - 2].to_ascii_lowercase().escape_ascii().to_string())
}

/// Adds a name of the zone; `_port._protocol` before a service's name is the service.
fn add_name(zone: &Name, name: &Name, disclosed: &mut Disclosed) {
    let Some(namespace) = namespace_of(name, zone) else { return };
    let labels: Vec<&[u8]> = name.iter().collect();
    match &labels[..] {
        [port, protocol, rest @ ..] if port.starts_with(b"_") && protocol.starts_with(b"_") && rest.len() > 2 => {
            if let Ok(service) = Name::from_labels(rest.iter().copied()) {
                disclosed.add(&namespace, &service.to_ascii().to_ascii_lowercase());
            }
        }
        _ => disclosed.add(&namespace, &name.to_ascii().to_ascii_lowercase()),
    }
}

/// Adds every name of the zone that the message tells, except the question's own.
fn read_names(zone: &Name, question: &Question, message: &Message, disclosed: &mut Disclosed) {
    names_of(message).filter(|name| **name != question.name).for_each(|name| add_name(zone, name, disclosed));
}

/// Every name that the message tells: owners and what they point to.
fn names_of(message: &Message) -> impl Iterator<Item = &Name> {
    let records = message.answers.iter().chain(&message.additionals);
    records.flat_map(|record| {
        let target = match &record.data {
            RData::SRV(srv) => Some(&srv.target),
            RData::CNAME(cname) => Some(&cname.0),
            RData::PTR(ptr) => Some(&ptr.0),
            _ => None,
        };
        [&record.name].into_iter().chain(target)
    })
}

/// True when the answer says that the name exists. By the rcode: a cache in between takes away the AA flag.
fn tells_existence(answer: &Answer<'_>) -> bool {
    match answer.class {
        ReplyClass::Answered | ReplyClass::Nodata => true,
        ReplyClass::Forwarded => answer.message.metadata.response_code == ResponseCode::NoError,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
