//! What an administrator can put before the answers, each a switch; they compose. The wire of each is CoreDNS' (plugins
//! acl, template, view, kubernetes, transfer, forward), coredns/policy's firewall or Cilium's DNS proxy.

use std::net::IpAddr;

use hickory_resolver::proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{PTR, SOA},
    },
};
use ipnet::IpNet;

use super::{
    flavour::Flavour,
    reply::{Opt, Part, Reply},
};

/// All switches. By default nothing is defended: `kubernetes cluster.local in-addr.arpa ip6.arpa { pods insecure }`.
#[derive(Clone, Debug)]
pub struct Defences {
    pub acl: Option<Acl>,
    pub template: Option<Template>,
    pub firewall: Option<Firewall>,
    /// Option `namespaces`: all others do not exist, for PTR and AXFR neither.
    pub namespaces: Option<Vec<String>>,
    /// Namespaces that `namespace_labels` does not select. PTR tells them nevertheless: coredns' reverse.go only looks at
    /// `namespaces` (measured on 1.14.7).
    pub unlabelled: Vec<String>,
    pub pods: Pods,
    /// `transfer { to * }`
    pub transfer: bool,
    pub view: Option<View>,
    pub cilium: Option<Cilium>,
    /// Who answers what is not ours: reverse misses, through `fallthrough`, and foreign names.
    pub upstream: Upstream,
    /// Every n-th query is dropped: coredns' shed under load.
    pub shed: Option<usize>,
    /// Every n-th query is refused.
    pub overload: Option<usize>,
    /// Answers that an allowed client was given within the TTL reach those whom acl, firewall or view deny them
    /// (CoreDNS 1.14.3 to 1.14.6, fixed by coredns #8289). Filled by `another_client_asked`.
    pub cache_before_acl: bool,
    pub udp: Policy,
    pub tcp: Policy,
    /// Of records, and the zone's minimum; seconds.
    pub ttl: u32,
}

impl Default for Defences {
    fn default() -> Self {
        Self {
            acl: None,
            template: None,
            firewall: None,
            namespaces: None,
            unlabelled: Vec::new(),
            pods: Pods::Insecure,
            transfer: false,
            view: None,
            cilium: None,
            upstream: Upstream::Absent,
            shed: None,
            overload: None,
            cache_before_acl: false,
            udp: Policy::Open,
            tcp: Policy::Open,
            ttl: 30,
        }
    }
}

/// What a policy makes of one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Open,
    /// Nothing comes back. Over TCP connections are accepted, since a user's process cannot drop a SYN, and never answered.
    Silent,
    /// Nobody listens there.
    Closed,
}

/// Option `pods` of the kubernetes plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pods {
    Disabled,
    /// Any address in any namespace that exists.
    Insecure,
    Verified,
}

/// Plugin acl, for every client.
#[derive(Clone, Debug)]
pub struct Acl {
    pub zones: Vec<Name>,
    pub action: AclAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclAction {
    Block,
    Filter,
    Drop,
}

/// Plugin template with `rcode NXDOMAIN`, for every client.
#[derive(Clone, Debug)]
pub struct Template {
    pub suffix: Name,
    /// `None` is ANY: all types.
    pub kind: Option<RecordType>,
}

/// coredns/policy, for every client.
#[derive(Clone, Debug)]
pub struct Firewall {
    pub zones: Vec<Name>,
    pub action: FirewallAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirewallAction {
    Block,
    Refuse,
    Drop,
}

/// Split DNS: a server block per kind of client. Who is of neither kind meets no block.
#[derive(Clone, Debug)]
pub struct View {
    /// These are answered from `namespaces` only.
    pub low: Vec<IpNet>,
    pub namespaces: Vec<String>,
    /// These are answered everything.
    pub high: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Everything,
    Low,
    Nothing,
}

impl View {
    pub fn of(&self, client: IpAddr) -> Seen {
        let among = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&client));
        match (among(&self.low), among(&self.high)) {
            (true, _) => Seen::Low,
            (_, true) => Seen::Everything,
            _ => Seen::Nothing,
        }
    }
}

/// Cilium's DNS proxy: it looks at names only, not at types.
#[derive(Clone, Debug)]
pub struct Cilium {
    /// `matchPattern`s: `*` within a label stands for any letters of it; alone it is every name.
    pub allowed: Vec<String>,
    /// Refused, or `--tofqdns-dns-reject-response-code=nameError`.
    pub name_error: bool,
    /// The rule has no `protocol: TCP`, so that TCP passes by the proxy.
    pub udp_only: bool,
}

impl Cilium {
    pub fn denies(&self, name: &Name) -> bool {
        let name = name.to_ascii().to_ascii_lowercase();
        !self
            .allowed
            .iter()
            .any(|pattern| pattern == "*" || matches(pattern.trim_end_matches('.'), name.trim_end_matches('.')))
    }

    pub fn denial(&self) -> Reply {
        let code = if self.name_error { ResponseCode::NXDomain } else { ResponseCode::Refused };
        Reply { opt: Opt::Never, ..Reply::bare(code) }
    }
}

/// `*` stands for any number of characters except the dot.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            let label = rest.find('.').unwrap_or(rest.len());
            (0..=label).any(|taken| matches(after, &rest[taken..]))
        }),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// SERVFAIL, as recorded.
    Absent,
    /// NXDOMAIN with the SOA of a private reverse zone.
    NxDomain,
    /// A name for every IPv4 address: `ip-10-2-1-8.ec2.internal.`
    Synthesised,
    /// As `NxDomain`, but every n-th forwarded query is refused: `max_concurrent`.
    Busy { every: usize },
}

impl Upstream {
    /// `count`: forwarded queries so far, this one too.
    pub fn answer(self, name: &Name, kind: RecordType, count: usize) -> Reply {
        match self {
            Self::Absent => return Reply::bare(ResponseCode::ServFail),
            Self::Busy { every } if count.is_multiple_of(every) => return Reply::bare(ResponseCode::Refused),
            Self::Synthesised if kind == RecordType::PTR => {
                if let Some(IpAddr::V4(address)) = reverse_address(name) {
                    let host = format!("ip-{}.ec2.internal.", address.to_string().replace('.', "-"));
                    let part = Part::new(name.clone(), 300, RData::PTR(PTR(Name::from_ascii(host).unwrap())), None);
                    return Reply { answers: vec![part], ..Self::forwarded(ResponseCode::NoError) };
                }
            }
            _ => {}
        }
        Reply { authority: Some(private_soa(name)), ..Self::forwarded(ResponseCode::NXDomain) }
    }

    fn forwarded(code: ResponseCode) -> Reply {
        Reply { recursion_available: true, ..Reply::bare(code) }
    }
}

/// The SOA of `10.in-addr.arpa.` or `d.f.ip6.arpa.`, the root's for other names.
fn private_soa(name: &Name) -> Record {
    let labels = match () {
        () if reverse_zone("in-addr.arpa.").zone_of(name) => 3,
        () if reverse_zone("ip6.arpa.").zone_of(name) => 4,
        () => 0,
    };
    let zone = name.trim_to(labels);
    let soa = SOA::new(zone.clone(), Name::root(), 0, 28800, 7200, 604_800, 86400);
    Record::from_rdata(zone, 300, RData::SOA(soa))
}

pub fn reverse_zone(name: &str) -> Name {
    Name::from_ascii(name).unwrap()
}

/// The address of a whole reverse name.
pub fn reverse_address(name: &Name) -> Option<IpAddr> {
    let net = name.parse_arpa_name().ok()?;
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

impl Defences {
    /// Those that deny by name, for whoever asks: acl, then firewall, as in CoreDNS' plugin.cfg. No reply is silence.
    pub fn denial(&self, flavour: Flavour, name: &Name) -> Option<Vec<Reply>> {
        let within = |zones: &[Name]| zones.iter().any(|zone| zone.zone_of(name));
        let opt = |code| if flavour.has_extended_errors() { Opt::Error(code) } else { Opt::Echo };
        if let Some(acl) = self.acl.as_ref().filter(|acl| within(&acl.zones)) {
            return Some(match acl.action {
                AclAction::Block => vec![Reply { opt: opt(15), ..Reply::bare(ResponseCode::Refused) }],
                AclAction::Filter => vec![Reply { opt: opt(17), ..Reply::bare(ResponseCode::NoError) }],
                AclAction::Drop => Vec::new(),
            });
        }
        let firewall = self.firewall.as_ref().filter(|firewall| within(&firewall.zones))?;
        Some(match firewall.action {
            FirewallAction::Block => vec![Reply::bare(ResponseCode::NXDomain)],
            FirewallAction::Refuse => vec![Reply::bare(ResponseCode::Refused)],
            FirewallAction::Drop => Vec::new(),
        })
    }

    /// NXDOMAIN without SOA, where plugin template is told so.
    pub fn templated(&self, name: &Name, kind: RecordType) -> Option<Reply> {
        let template = self.template.as_ref()?;
        let meant = template.suffix.zone_of(name) && template.kind.is_none_or(|of| of == kind);
        meant.then(|| Reply::authoritative(ResponseCode::NXDomain))
    }
}
