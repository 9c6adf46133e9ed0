//! The test DNS server where nothing was recorded: each defence's wire, kube-dns, sizes.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use hickory_resolver::proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::opt::EdnsOption},
};

use crate::{
    cluster_dns::{
        Acl, AclAction, Cilium, ClusterDns, Defences, Firewall, FirewallAction, Flavour, Inventory, Pods,
        Protocol::{Tcp, Udp},
        Service, Template, Transport, Upstream, View,
    },
    support::dns,
};

const CLIENT: [u8; 4] = [127, 0, 0, 1];

pub fn query(name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.add_query(Query::query(dns::name(name), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    query.edns = Some(edns);
    query
}

fn answers(server: &ClusterDns, transport: Transport, client: impl Into<IpAddr>, query: &Message) -> Vec<Message> {
    let octets = server.answer(&query.to_vec().unwrap(), transport, (client.into(), 53_000).into());
    octets.iter().map(|octets| Message::from_vec(octets).unwrap()).collect()
}

fn wire(server: &ClusterDns, name: &str, kind: RecordType) -> Wire {
    wire_to(server, CLIENT.into(), name, kind)
}

/// Code, AA, count of answers, owner of the SOA; `None` where nothing comes.
type Wire = Option<(ResponseCode, bool, usize, Option<String>)>;

fn wire_to(server: &ClusterDns, client: IpAddr, name: &str, kind: RecordType) -> Wire {
    let messages = answers(server, Transport::Udp, client, &query(name, kind));
    let message = messages.first()?;
    let soa = message.authorities.first().map(|soa| soa.name.to_ascii());
    Some((message.metadata.response_code, message.metadata.authoritative, message.answers.len(), soa))
}

/// Targets of SRV and PTR answers, addresses of A, in order of the alphabet.
fn data(messages: &[Message]) -> Vec<String> {
    let mut all: Vec<_> = messages.iter().flat_map(|m| &m.answers).map(|r| r.data.to_string()).collect();
    all.sort();
    all
}

fn recorded(flavour: Flavour, defences: Defences) -> ClusterDns {
    ClusterDns::new(flavour, Inventory::recorded()).with(defences)
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

const WEB: &str = "web.high.svc.cluster.local.";
const REVERSE: &str = "90.201.96.10.in-addr.arpa.";
const ZONE: &str = "cluster.local.";
const A: RecordType = RecordType::A;
const PTR: RecordType = RecordType::PTR;
const SRV: RecordType = RecordType::SRV;

const ANSWERED: Wire = Some((ResponseCode::NoError, true, 1, None));
const REFUSED: Wire = Some((ResponseCode::Refused, false, 0, None));

fn nxdomain(aa: bool, soa: Option<&str>) -> Wire {
    Some((ResponseCode::NXDomain, aa, 0, soa.map(str::to_owned)))
}

#[test]
fn acl_filter_is_an_empty_answer_with_a_reason_that_old_versions_do_not_give() {
    for (flavour, reason) in [(Flavour::CoreDns114, Some(17)), (Flavour::CoreDns18, None)] {
        let acl = Some(Acl { zones: vec![dns::name(ZONE)], action: AclAction::Filter });
        let server = recorded(flavour, Defences { acl, ..Defences::default() });
        assert_eq!(wire(&server, WEB, A), Some((ResponseCode::NoError, false, 0, None)));
        let message = &answers(&server, Transport::Udp, CLIENT, &query(WEB, A))[0];
        let options = message.edns.as_ref().unwrap().options().as_ref().iter();
        let data = options.map(|(code, option)| match option {
            EdnsOption::Unknown(15, data) => u16::from_be_bytes([data[0], data[1]]),
            _ => panic!("option {code:?}"),
        });
        assert_eq!(data.collect::<Vec<_>>(), Vec::from_iter(reason));
        assert_eq!(wire(&server, REVERSE, PTR), ANSWERED, "reverse zones are others");
    }
}

#[test]
fn firewall_blocks_without_soa_and_without_authority_refuses_or_drops() {
    let expected = [
        (FirewallAction::Block, nxdomain(false, None)),
        (FirewallAction::Refuse, REFUSED),
        (FirewallAction::Drop, None),
    ];
    for (action, wanted) in expected {
        let firewall = Some(Firewall { zones: vec![dns::name("high.svc.cluster.local.")], action });
        let server = recorded(Flavour::CoreDns114, Defences { firewall, ..Defences::default() });
        assert_eq!(wire(&server, WEB, A), wanted);
        assert_eq!(wire(&server, "web.low.svc.cluster.local.", A), ANSWERED);
        assert!(server.told(|d| d.name == WEB).is_empty());
    }
}

#[test]
fn template_of_ptr_leaves_other_types_alone() {
    let template = Some(Template { suffix: dns::name("10.in-addr.arpa."), kind: Some(PTR) });
    let server = recorded(Flavour::CoreDns114, Defences { template, ..Defences::default() });
    assert_eq!(wire(&server, REVERSE, PTR), nxdomain(true, None));
    assert_eq!(wire(&server, REVERSE, A), Some((ResponseCode::ServFail, false, 0, None)), "the upstream's");
    assert_eq!(wire(&server, WEB, A), ANSWERED);
}

#[test]
fn unlabelled_namespaces_are_hidden_from_all_but_ptr() {
    let unlabelled = names(&["high"]);
    let server = recorded(Flavour::CoreDns114, Defences { unlabelled, transfer: true, ..Defences::default() });
    assert_eq!(wire(&server, WEB, A), nxdomain(true, Some(ZONE)));
    assert_eq!(wire(&server, "high.svc.cluster.local.", A), nxdomain(true, Some(ZONE)));
    assert_eq!(wire(&server, "10-244-1-5.high.pod.cluster.local.", A), nxdomain(true, Some(ZONE)));
    let transfer = answers(&server, Transport::Tcp, CLIENT, &query(ZONE, RecordType::AXFR));
    assert!(transfer[0].answers.len() > 30, "the others are transferred");
    assert!(server.told(|_| true).of("high").is_empty());
    assert_eq!(wire(&server, REVERSE, PTR), ANSWERED);
    assert_eq!(server.told(|_| true).of("high"), [WEB.to_owned()].into());
}

#[test]
fn a_view_answers_by_source_address() {
    let view = View {
        low: vec!["127.1.0.0/16".parse().unwrap()],
        namespaces: names(&["low"]),
        high: vec!["127.2.0.0/16".parse().unwrap()],
    };
    let server = recorded(Flavour::CoreDns114, Defences { view: Some(view), ..Defences::default() });
    let [low, high, stranger] = [[127, 1, 0, 1], [127, 2, 0, 1], [127, 3, 0, 1]].map(IpAddr::from);
    assert_eq!(wire_to(&server, low, WEB, A), nxdomain(true, Some(ZONE)));
    assert_eq!(wire_to(&server, low, REVERSE, PTR), Some((ResponseCode::ServFail, false, 0, None)));
    assert_eq!(wire_to(&server, low, "web.low.svc.cluster.local.", A), ANSWERED);
    assert_eq!(wire_to(&server, high, WEB, A), ANSWERED);
    assert_eq!(wire_to(&server, stranger, "web.low.svc.cluster.local.", A), REFUSED);
    assert!(server.told(|d| d.client.ip() != high).of("high").is_empty());
}

#[test]
fn cilium_looks_at_names_not_types_and_perhaps_at_udp_only() {
    let cilium = |udp_only, name_error| Cilium {
        allowed: names(&["*.low.svc.cluster.local", "kubernetes.default.svc.cluster.local."]),
        name_error,
        udp_only,
    };
    for (udp_only, name_error) in [(false, false), (true, false), (false, true)] {
        let cilium = Some(cilium(udp_only, name_error));
        let server = recorded(Flavour::CoreDns114, Defences { cilium, ..Defences::default() });
        let denied = if name_error { nxdomain(false, None) } else { REFUSED };
        for (name, kind) in [(WEB, A), (WEB, SRV), (REVERSE, PTR), ("x.web.low.svc.cluster.local.", A)] {
            assert_eq!(wire(&server, name, kind), denied, "{name}");
        }
        assert_eq!(wire(&server, "Web.low.svc.cluster.local.", A), ANSWERED);
        assert_eq!(wire(&server, "kubernetes.default.svc.cluster.local.", A), ANSWERED);
        let udp = &answers(&server, Transport::Udp, CLIENT, &query(WEB, A))[0];
        assert!(udp.edns.is_none(), "the proxy's own message");
        let tcp = &answers(&server, Transport::Tcp, CLIENT, &query(WEB, A))[0];
        assert_eq!(tcp.answers.len(), usize::from(udp_only));
    }
    let everything = Some(Cilium { allowed: names(&["*"]), name_error: false, udp_only: false });
    let server = recorded(Flavour::CoreDns114, Defences { cilium: everything, ..Defences::default() });
    assert_eq!(wire(&server, REVERSE, PTR), ANSWERED, "matchPattern \"*\" lets the whole sweep through");
}

#[test]
fn load_drops_or_refuses_every_third_query_and_tells_nothing_by_it() {
    for (shed, overload, lost) in [(Some(3), None, None), (None, Some(3), REFUSED)] {
        let server = recorded(Flavour::CoreDns114, Defences { shed, overload, ..Defences::default() });
        let seen: Vec<_> = (0..6).map(|_| wire(&server, WEB, A)).collect();
        assert_eq!(seen, [ANSWERED, ANSWERED, lost.clone(), ANSWERED, ANSWERED, lost]);
        assert_eq!((server.received().total(), server.disclosures().len()), (6, 4));
    }
}

#[test]
fn a_reverse_miss_is_the_upstreams() {
    let miss = "8.1.2.10.in-addr.arpa.";
    let ask = |upstream, name| {
        let server = recorded(Flavour::CoreDns114, Defences { upstream, ..Defences::default() });
        assert_eq!(wire(&server, REVERSE, PTR), ANSWERED, "a hit is ours");
        let seen = wire(&server, name, PTR);
        assert!(server.told(|d| d.name == name).is_empty());
        seen
    };
    assert_eq!(ask(Upstream::Absent, miss), Some((ResponseCode::ServFail, false, 0, None)));
    assert_eq!(ask(Upstream::NxDomain, miss), nxdomain(false, Some("10.in-addr.arpa.")));
    let v6 = format!("{}0.0.d.f.ip6.arpa.", "0.".repeat(28));
    assert_eq!(ask(Upstream::NxDomain, v6.as_str()), nxdomain(false, Some("d.f.ip6.arpa.")));
    assert_eq!(ask(Upstream::Synthesised, miss), Some((ResponseCode::NoError, false, 1, None)));
    assert_eq!(ask(Upstream::Busy { every: 1 }, miss), REFUSED);
    let server = recorded(Flavour::KubeDns, Defences { upstream: Upstream::Synthesised, ..Defences::default() });
    let answer = answers(&server, Transport::Udp, CLIENT, &query(miss, PTR));
    assert_eq!(data(&answer), ["ip-10-2-1-8.ec2.internal."]);
}

#[test]
fn a_cached_answer_passes_an_acl_until_it_is_old() {
    let acl = Some(Acl { zones: vec![dns::name(".")], action: AclAction::Block });
    let server = recorded(Flavour::CoreDns114, Defences { acl, cache_before_acl: true, ..Defences::default() });
    assert_eq!(wire(&server, REVERSE, PTR), REFUSED);
    server.another_client_asked(REVERSE, PTR, Instant::now());
    assert_eq!(wire(&server, REVERSE, PTR), ANSWERED);
    assert_eq!(wire(&server, WEB, A), REFUSED, "nobody asked that");
    server.another_client_asked(REVERSE, PTR, Instant::now().checked_sub(Duration::from_secs(31)).unwrap());
    assert_eq!(wire(&server, REVERSE, PTR), REFUSED, "its TTL is over");
    let acl = server.defences().acl;
    server.set(Defences { acl, ..Defences::default() });
    server.another_client_asked(REVERSE, PTR, Instant::now());
    assert_eq!(wire(&server, REVERSE, PTR), REFUSED, "the acl comes first");
}

#[test]
fn verified_pods_are_told_and_dual_stack_services_have_both_families() {
    let inventory = Inventory::new()
        .namespace("empty")
        .pod("high", "10.2.0.7")
        .service(
            Service::cluster_ip("high", "db", &["10.9.0.1", "fd00::1"]).unnamed_port(Tcp, 5432).endpoint("fd00:2::"),
        )
        .service(Service::headless("high", "set").port("p", Udp, 9).named_endpoint("set-0", "10.2.0.7"));
    let server = ClusterDns::new(Flavour::CoreDns114, inventory);
    server.set(Defences { pods: Pods::Verified, ..Defences::default() });
    assert_eq!(wire(&server, "10-2-0-7.high.pod.cluster.local.", A), ANSWERED);
    assert_eq!(server.told(|_| true).of("high"), ["10-2-0-7.high.pod.cluster.local.".to_owned()].into());
    assert_eq!(wire(&server, "10-2-0-8.high.pod.cluster.local.", A), nxdomain(true, Some(ZONE)));
    assert_eq!(wire(&server, "10-2-0-7.empty.pod.cluster.local.", A), nxdomain(true, Some(ZONE)));

    let ask = |name: &str, kind| data(&answers(&server, Transport::Udp, CLIENT, &query(name, kind)));
    assert_eq!(ask("db.high.svc.cluster.local.", A), ["10.9.0.1"]);
    assert_eq!(ask("db.high.svc.cluster.local.", RecordType::AAAA), ["fd00::1"]);
    assert_eq!(ask(&reverse("fd00::1"), PTR), ["db.high.svc.cluster.local."]);
    // 1.12.3 and later: a label must not end in a dash.
    assert_eq!(ask(&reverse("fd00:2::"), PTR), ["fd00-2--0.db.high.svc.cluster.local."]);
    assert_eq!(ask(&reverse("10.2.0.7"), PTR), ["set-0.set.high.svc.cluster.local."]);
    assert_eq!(ask("_p._udp.set.high.svc.cluster.local.", SRV), ["0 100 9 set-0.set.high.svc.cluster.local."]);
    assert_eq!(ask("_p._tcp.set.high.svc.cluster.local.", SRV), names(&[]));
    assert_eq!(wire(&server, "empty.svc.cluster.local.", SRV).unwrap().0, ResponseCode::NoError);
}

#[test]
fn a_wildcard_without_records_tells_that_its_namespace_exists() {
    let server = ClusterDns::new(Flavour::CoreDns18, Inventory::recorded().namespace("empty"));
    let nodata = Some((ResponseCode::NoError, true, 0, Some(ZONE.to_owned())));
    assert_eq!(wire(&server, "any.empty.svc.cluster.local.", SRV), nodata);
    assert_eq!(wire(&server, "any.high.svc.cluster.local.", RecordType::AAAA), nodata);
    assert_eq!(wire(&server, "any.any.svc.cluster.local.", RecordType::AAAA), nodata);
    assert_eq!(wire(&server, "any.nosuch.svc.cluster.local.", SRV), nxdomain(true, Some(ZONE)));
    let told = server.told(|_| true).names;
    let namespace = |name: &str| (name.to_owned(), [format!("{name}.svc.cluster.local.")].into());
    assert_eq!(told, [namespace("empty"), namespace("high")].into());
}

fn reverse(address: &str) -> String {
    Name::from(address.parse::<IpAddr>().unwrap()).to_ascii()
}

/// As its source says: `*` in any label, `any` a name like others, no namespaces, every pod, no transfer.
#[test]
fn kube_dns_is_a_tree_with_stars() {
    let server = recorded(Flavour::KubeDns, Defences { transfer: true, ..Defences::default() });
    let tcp = |name: &str, kind| answers(&server, Transport::Tcp, CLIENT, &query(name, kind)).remove(0);
    let missing = nxdomain(true, Some(ZONE));

    assert_eq!(tcp("*.*.*.svc.cluster.local.", SRV).answers.len(), 7 + 4, "ClusterIPs and headless endpoints");
    assert_eq!(server.told(|d| d.kind == SRV).of("high").len(), 2 + 2);
    assert_eq!(data(&[tcp("*.web.high.svc.cluster.local.", A)]), ["10.96.201.90"]);
    assert_eq!(data(&[tcp("web.*.svc.cluster.local.", A)]), ["10.96.176.67", "10.96.201.90"]);
    assert_eq!(server.told(|d| d.kind == A).addresses.len(), 2);
    assert!(server.told(|d| d.kind == A).names.is_empty());
    let ports = "_http._tcp.*.high.svc.cluster.local.";
    let targets = data(&[tcp(ports, SRV)]);
    assert_eq!(targets.iter().filter(|t| t.ends_with("80 web.high.svc.cluster.local.")).count(), 1);
    assert_eq!(targets.len(), 1 + 1 + 2);
    assert!(server.told(|d| d.name == ports).of("high").contains(WEB));

    let within_ports = "*.*.*.web.high.svc.cluster.local.";
    let without_entries = ["any.any.svc.cluster.local.", "*.*.svc.cluster.local.", "high.svc.cluster.local.", ZONE];
    for name in without_entries.into_iter().chain([within_ports]) {
        assert_eq!(wire(&server, name, SRV), missing, "{name}");
    }
    assert_eq!(wire(&server, ZONE, RecordType::AXFR), missing);
    assert_eq!(wire(&server, ZONE, RecordType::SOA), ANSWERED);
    assert_eq!(wire(&server, "1-2-3-4.nosuch.pod.cluster.local.", A), ANSWERED, "any pod anywhere");
    assert_eq!(wire(&server, WEB, RecordType::ANY), REFUSED);
    assert_eq!(wire(&server, REVERSE, PTR), ANSWERED);
    assert_eq!(wire(&server, WEB, RecordType::AAAA), Some((ResponseCode::NoError, true, 0, Some(ZONE.into()))));
}

/// As many services with one port each in one namespace.
fn crowd(count: usize) -> Inventory {
    let address = |n: usize| format!("10.9.{}.{}", n / 250, n % 250 + 1);
    let service = |n: usize| Service::cluster_ip("high", &format!("service-{n}"), &[&address(n)]).port("p", Tcp, 80);
    (0..count).fold(Inventory::new(), |inventory, n| inventory.service(service(n)))
}

#[test]
fn what_is_too_large_is_cut_and_only_what_is_left_was_told() {
    let server = ClusterDns::new(Flavour::CoreDns18, crowd(3000));
    let mut asked = query("any.any.svc.cluster.local.", SRV);
    for (transport, size, limit) in [
        (Transport::Udp, None, 512),
        (Transport::Udp, Some(1232), 1232),
        (Transport::Udp, Some(4096), 4096),
        (Transport::Tcp, Some(1232), 65_535),
    ] {
        asked.edns = size.map(|size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns
        });
        server.forget();
        let octets = server.answer(&asked.to_vec().unwrap(), transport, (CLIENT, 53_000).into()).remove(0);
        assert!(octets.len() <= limit && octets.len() > limit - 80, "{} of {limit}", octets.len());
        let message = Message::from_vec(&octets).unwrap();
        assert!(message.metadata.truncation && !message.answers.is_empty());
        assert_eq!(message.edns.is_some(), size.is_some());
        let targets = message.answers.iter().map(|record| match &record.data {
            RData::SRV(srv) => srv.target.to_ascii(),
            other => panic!("{other}"),
        });
        assert_eq!(server.told(|_| true).of("high"), targets.collect());
    }
    let server = ClusterDns::new(Flavour::KubeDns, crowd(3000));
    let asked = query("*.*.*.svc.cluster.local.", SRV);
    assert!(answers(&server, Transport::Udp, CLIENT, &asked)[0].metadata.truncation);
    server.forget();
    let tcp = &answers(&server, Transport::Tcp, CLIENT, &asked)[0];
    assert_eq!((tcp.metadata.response_code, tcp.answers.len()), (ResponseCode::ServFail, 0));
    assert!(server.told(|_| true).is_empty());
}

#[test]
fn a_large_transfer_comes_in_several_messages() {
    for (flavour, zone) in [(Flavour::CoreDns18, ZONE), (Flavour::CoreDns114, "default.svc.cluster.local.")] {
        let server = ClusterDns::new(flavour, crowd(1000)).with(Defences { transfer: true, ..Defences::default() });
        let messages = answers(&server, Transport::Tcp, CLIENT, &query(zone, RecordType::AXFR));
        assert!(messages.len() > 2 && messages.iter().all(|m| !m.metadata.truncation), "{}", messages.len());
        let records: Vec<_> = messages.iter().flat_map(|m| &m.answers).map(Record::record_type).collect();
        // NS and its address beside A, SRV and named SRV of each.
        assert_eq!(records.len(), 2 + 2 + 3 * 1000);
        assert_eq!(records.iter().filter(|kind| **kind == RecordType::SOA).count(), 2);
        assert_eq!([records[0], records[records.len() - 1]], [RecordType::SOA; 2]);
        assert_eq!(server.told(|_| true).of("high").len(), 1000);
        assert_eq!(wire(&server, zone, RecordType::AXFR), REFUSED, "not over UDP");
        assert_eq!(wire(&server, "example.org.", RecordType::AXFR), Some((ResponseCode::ServFail, false, 0, None)));
    }
}
