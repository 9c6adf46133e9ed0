//! A pod sandbox: what the runtime lists of it, and what it tells of it when it is asked.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    error::line,
    info::{Info, Network, PodDns},
    messages::{ListedSandbox, NODE, PodSandboxStatus, PodSandboxStatusResponse, READY},
};

/// Longer ids, names and labels are of no Kubernetes object; a label's key is the longest, with 253 + 1 + 63 characters.
pub const LONGEST_NAME: usize = 320;
/// More labels do not tell pods apart.
const MOST_LABELS: usize = 64;
/// More addresses of one pod are not kept.
const MOST_ADDRESSES: usize = 64;

/// Keys and values.
pub type Labels = BTreeMap<Box<str>, Box<str>>;

/// One pod sandbox, as the runtime tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's own; a pod whose sandbox died gets another.
    pub id: Arc<str>,
    /// The pod's, of the Kubernetes API; a static pod's is of the kubelet's making.
    pub uid: Arc<str>,
    /// The pod's.
    pub namespace: Arc<str>,
    /// The pod's.
    pub name: Arc<str>,
    /// The pod's when the sandbox was made: later changes are not seen here. Without the `io.kubernetes.*` ones that kubelets
    /// and runtimes add. None where they cannot be kept whole; `network` says why.
    pub labels: Option<Labels>,
    /// When the sandbox was made.
    pub created: Timestamp,
    /// Its network is set up and its first process lives.
    pub ready: bool,
    /// A container of it was seen to run, and the sandbox has been ready ever since: one that crashes again and again runs
    /// for moments only, and comes back.
    pub running: bool,
    /// Where its sockets would be.
    pub network: Network,
    /// The pod's, none for one in the host's network.
    pub addresses: Box<[IpAddr]>,
    /// Who it asks for names, where the runtime tells.
    pub dns: PodDns,
}

/// A sandbox of a list, of which the status is not known yet.
pub struct Listed {
    /// As far as the list tells of it.
    pub sandbox: Sandbox,
    /// Why it is not asked about.
    pub problem: Option<Box<str>>,
    handler: String,
}

/// What a status adds.
#[derive(Clone)]
pub struct Told {
    ready: bool,
    network: Network,
    addresses: Box<[IpAddr]>,
    dns: PodDns,
}

impl Listed {
    /// Nothing of it is trusted to be short.
    pub fn new(listed: ListedSandbox) -> Self {
        let metadata = listed.metadata.unwrap_or_default();
        let labels = labels(&listed.labels);
        let named =
            [("id", &listed.id), ("uid", &metadata.uid), ("namespace", &metadata.namespace), ("name", &metadata.name)];
        let problem = named
            .into_iter()
            .find_map(|(what, text)| name_problem(what, text))
            .or_else(|| labels.as_ref().err().cloned());
        let short = |text: &str| -> Arc<str> { if problem.is_some() { line(text).into() } else { text.into() } };
        let sandbox = Sandbox {
            id: short(&listed.id),
            uid: short(&metadata.uid),
            namespace: short(&metadata.namespace),
            name: short(&metadata.name),
            labels: labels.ok(),
            created: Timestamp::from_nanosecond(listed.created_at.into()).unwrap_or_default(),
            ready: listed.state == READY,
            running: false,
            network: Network::Unknown("".into()),
            addresses: Box::default(),
            dns: PodDns::default(),
        };
        Self { sandbox, problem, handler: listed.runtime_handler }
    }

    /// Reads the status of this sandbox.
    pub fn status(&self, answer: PodSandboxStatusResponse) -> Told {
        let Some(status) = answer.status else { return Told::unknown("the runtime gave a status without content") };
        if *status.id != *self.sandbox.id {
            return Told::unknown("the runtime gave the status of another sandbox");
        }
        let addresses = addresses(&status);
        let ready = status.state == READY;
        let Some(info) = answer.info.get("info") else {
            let told = Told::unknown("the runtime gave no verbose status");
            return Told {
                ready,
                addresses,
                network: if on_host(&status) { Network::Host } else { told.network },
                ..told
            };
        };
        match Info::read(info) {
            Ok(info) => {
                let handlers = [&*self.handler, &*status.runtime_handler];
                let network = if on_host(&status) { Network::Host } else { info.network(&handlers) };
                Told { ready, network, addresses, dns: info.dns }
            }
            Err(why) => Told { ready, addresses, ..Told::unknown(&why) },
        }
    }

    /// The sandbox with all that is known of it.
    pub fn told(self, told: Told, running: bool) -> Sandbox {
        let Told { ready, network, addresses, dns } = told;
        Sandbox { ready: self.sandbox.ready && ready, running, network, addresses, dns, ..self.sandbox }
    }
}

impl Told {
    /// Nothing but the reason.
    pub fn unknown(why: &str) -> Self {
        let network = Network::Unknown(line(why));
        Self { ready: true, network, addresses: Box::default(), dns: PodDns::default() }
    }

    /// What was told of it before.
    pub fn of(known: &Sandbox) -> Self {
        let Sandbox { ready, network, addresses, dns, .. } = known.clone();
        Self { ready, network, addresses, dns }
    }

    /// True where asking again would tell the same.
    pub fn settles(&self) -> bool {
        self.ready && !matches!(self.network, Network::Unknown(_))
    }
}

impl Sandbox {
    /// Sandboxes are told in this order.
    pub(super) fn order(&self) -> (&str, &str, Timestamp, &str) {
        (&self.namespace, &self.name, self.created, &self.id)
    }
}

fn on_host(status: &PodSandboxStatus) -> bool {
    let namespaces = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref());
    namespaces.and_then(|namespaces| namespaces.options.as_ref()).is_some_and(|options| options.network == NODE)
}

fn addresses(status: &PodSandboxStatus) -> Box<[IpAddr]> {
    let Some(network) = &status.network else { return Box::default() };
    let texts = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|additional| &additional.ip));
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in texts.filter_map(|text| text.parse().ok()).take(MOST_ADDRESSES) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.into()
}

/// Cut names would make one of two: a pod with such a name is not known.
fn name_problem(what: &str, text: &str) -> Option<Box<str>> {
    let problem = match text {
        "" => "is missing".to_owned(),
        text if text.len() > LONGEST_NAME => format!("is {} bytes long", text.len()),
        text if text.contains(char::is_control) => "has control characters".to_owned(),
        _ => return None,
    };
    Some(format!("its {what} {problem}").into())
}

/// The pod's own labels, or why they cannot be kept whole.
fn labels(told: &HashMap<String, String>) -> Result<Labels, Box<str>> {
    let own = || told.iter().filter(|(key, _)| !key.starts_with("io.kubernetes."));
    let problem = match own().count() {
        count if count > MOST_LABELS => Some(format!("it has {count} labels, more than {MOST_LABELS}").into()),
        _ => own().find_map(|(key, value)| match value {
            value if value.is_empty() => name_problem("label's key", key),
            value => name_problem("label's key", key).or_else(|| name_problem("label's value", value)),
        }),
    };
    match problem {
        Some(problem) => Err(problem),
        None => Ok(own().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()),
    }
}
