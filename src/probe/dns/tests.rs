//! What real servers answered, what defences and accidents look like on the wire, and that no bytes do harm.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use hickory_resolver::proto::{
    op::{Edns, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Record, RecordType,
        rdata::{A, CNAME, SOA, SRV, opt::EdnsOption},
    },
};
use proptest::prelude::*;

use super::{
    classify::{classify, extended_errors, soa_owner},
    *,
};
use crate::observation::ReplyClass;

/// What a technique reads from an answer, where `absent` were answered with NXDOMAIN.
fn told_where(technique: &dyn Technique, question: &Question, message: &Message, absent: &[Question]) -> Disclosures {
    let (absent, mut told) = (absent.iter().cloned().collect(), Disclosures::default());
    let class = classify(&zone(), question, message);
    technique.read(&Answer { question, class, message, absent: &absent }, &mut told);
    told
}

fn told_by(technique: &dyn Technique, question: &Question, message: &Message) -> Disclosures {
    told_where(technique, question, message, &[])
}

fn wildcards(known: &BTreeMap<IpAddr, Arc<str>>) -> SrvWildcard {
    SrvWildcard::new(&zone(), [], Arc::new(known.clone()))
}

fn look_up() -> ServiceLookup {
    ServiceLookup::new(&zone(), [])
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

fn zone() -> Name {
    name("cluster.local.")
}

#[test]
fn namespaces_are_read_from_names() {
    for (text, expected) in [
        ("ledger.payments.svc.cluster.local.", Some("payments")),
        ("10-244-1-5.ledger.Payments.SVC.cluster.local.", Some("payments")),
        ("payments.svc.cluster.local.", Some("payments")),
        ("svc.cluster.local.", None),
        ("127-0-0-7.payments.pod.cluster.local.", Some("payments")),
        ("ledger.payments.node.cluster.local.", None),
        ("ledger.payments.svc.example.", None),
        ("ledger.payments.svc.cluster.example.", None),
        ("cluster.local.", None),
        (".", None),
    ] {
        assert_eq!(namespace_of(&name(text), &zone()).as_deref(), expected, "{text}");
    }
    let labels: [&[u8]; 5] = [b"a", "\x1b[31m\u{202e}".as_bytes(), b"svc", b"cluster", b"local"];
    let hostile = Name::from_labels(labels).unwrap();
    assert_eq!(namespace_of(&hostile, &zone()).as_deref(), Some(r"\x1b[31m\xe2\x80\xae"));
}

// --- Recordings: see tests/data/README.md ---

#[derive(serde::Deserialize)]
struct Row {
    server: String,
    corefile: String,
    transport: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    klass: Option<String>,
    responses: Vec<String>,
}

impl Row {
    fn question(&self) -> Question {
        Question { name: name(&self.name), kind: self.kind.parse().unwrap() }
    }

    fn bytes(&self) -> Vec<Vec<u8>> {
        self.responses.iter().map(|r| hex::decode(r).unwrap()).collect()
    }

    fn message(&self) -> Message {
        Message::from_vec(&self.bytes()[0]).unwrap()
    }
}

fn rows() -> Vec<Row> {
    let rows = include_str!("../../../tests/data/dns.jsonl").lines();
    rows.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the server must have answered, from its configuration and the cluster that it served; none where it kept silent.
fn expected(row: &Row) -> Option<ReplyClass> {
    use ReplyClass::*;
    let sees_high = !row.corefile.starts_with("namespaces low");
    let visible = |namespace: &str| match namespace {
        "high" => sees_high,
        "low" | "default" | "kube-system" => true,
        _ => false,
    };
    if row.kind == "PTR" {
        // Of these four addresses one is nobody's and two are in `high`; the acl stands for the forward zone alone.
        return Some(match row.name.as_str() {
            "77.77.96.10.in-addr.arpa." => Servfail,
            "1.0.96.10.in-addr.arpa." => Answered,
            _ if sees_high => Answered,
            _ => Servfail,
        });
    }
    let in_cluster = row.name.ends_with("cluster.local.");
    match (row.kind.as_str(), row.corefile.as_str()) {
        // Nobody serves that class.
        _ if row.klass.is_some() => return Some(Refused),
        ("AXFR", "transfer to *") => return Some(Answered),
        ("AXFR", corefile) if corefile != "acl drop cluster.local" || !in_cluster => return Some(Refused),
        _ => {}
    }
    let labels: Vec<&str> = row.name.strip_suffix("cluster.local.").unwrap().split_terminator('.').rev().collect();
    match row.corefile.as_str() {
        "acl block cluster.local" => return Some(Refused),
        "acl drop cluster.local" => return None,
        "template ANY high.svc NXDOMAIN" if labels.starts_with(&["svc", "high"]) => return Some(Blocked),
        _ => {}
    }
    let wild = |label: &&str| *label == "any" || *label == "*";
    let services = ["web", "web-headless", "web-np", "kubernetes", "kube-dns"];
    let pods_are_told = row.corefile != "pods disabled";
    Some(match labels[..] {
        [] | ["dns-version"] => Answered,
        // Why the namespace oracle is never asked as TXT.
        ["svc", _] if row.kind == "TXT" && row.server == "coredns-1.8.7" => Nodata,
        ["svc", _] if row.kind == "TXT" => Nxdomain,
        ["svc"] => Nodata,
        [_, namespace, ..] if labels.iter().any(wild) => {
            let somebody = wild(&namespace) || visible(namespace);
            if row.server == "coredns-1.8.7" && somebody { Answered } else { Nxdomain }
        }
        ["svc", namespace] if visible(namespace) => Nodata,
        ["svc", namespace, service, ..] if visible(namespace) && services.contains(&service) => {
            if row.kind == "AAAA" {
                Nodata
            } else {
                Answered
            }
        }
        ["pod", namespace] if visible(namespace) && pods_are_told => Nodata,
        ["pod", namespace, address] if visible(namespace) && pods_are_told => {
            let exists = address == "10-244-1-5";
            if exists || row.corefile != "pods verified" { Answered } else { Nxdomain }
        }
        _ => Nxdomain,
    })
}

#[test]
fn every_recorded_answer_is_classified_by_what_its_server_was_told_to_do() {
    let mut classes = BTreeMap::new();
    for row in rows() {
        let what = format!("{} ({}): {} {}", row.server, row.corefile, row.name, row.kind);
        let question = row.question();
        let answer = row.bytes().first().map(|bytes| {
            let message = Message::from_vec(bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
            // From the bytes as from the message, so that what is recorded is also what would be accepted.
            let accepted = row.klass.is_none().then(|| classify(&zone(), &question, &message));
            assert_eq!(read_any(&zone(), &question, bytes), accepted, "{what}");
            classify(&zone(), &question, &message)
        });
        assert_eq!(answer, expected(&row), "{what}");
        *classes.entry(answer).or_insert(0) += 1;
    }
    assert_eq!(classes.values().sum::<i32>(), 433, "every row");
    // All kinds of answers are there, the silence too.
    use ReplyClass::*;
    for class in [None, Some(Answered), Some(Nodata), Some(Nxdomain), Some(Refused), Some(Blocked), Some(Servfail)] {
        assert!(classes.get(&class).is_some_and(|n| *n >= 10), "{class:?}: {classes:?}");
    }
}

#[test]
fn every_recorded_message_can_be_read() {
    let mut read = 0;
    for row in rows() {
        for bytes in row.bytes() {
            Message::from_vec(&bytes).unwrap_or_else(|e| panic!("{} {} {}: {e}", row.server, row.name, row.kind));
            read += 1;
        }
    }
    assert!(read > 350, "{read}");
}

#[test]
fn an_acl_that_refuses_says_so_with_an_extended_error() {
    for row in rows().iter().filter(|r| r.kind != "PTR" && !r.responses.is_empty()) {
        let codes: Vec<u16> = extended_errors(&row.message()).collect();
        // RFC 8914: 15 is Blocked.
        let of_acl = row.corefile == "acl block cluster.local" && row.name.ends_with("cluster.local.");
        assert_eq!(codes, if of_acl { vec![15] } else { vec![] }, "{} {} {}", row.corefile, row.name, row.kind);
    }
}

#[test]
fn a_negative_answer_of_the_cluster_carries_its_own_soa() {
    let miss = rows().into_iter().find(|r| r.corefile == "default" && r.name == "nosuch.svc.cluster.local.").unwrap();
    assert_eq!(soa_owner(&miss.message()), Some(&zone()));
    let template =
        rows().into_iter().find(|r| r.corefile.starts_with("template") && r.name == "high.svc.cluster.local.").unwrap();
    assert_eq!(soa_owner(&template.message()), None);
}

fn told_of<'a>(disclosed: &'a Disclosed, namespace: &str) -> Vec<&'a str> {
    disclosed.iter().filter(|(ns, _)| *ns == namespace).flat_map(|(_, names)| names).collect()
}

/// What one recorded wildcard answer of CoreDNS 1.8.7 discloses.
fn wildcard(
    corefile: &str,
    transport: &str,
    asked: &str,
    kind: &str,
    known: &BTreeMap<IpAddr, Arc<str>>,
) -> Disclosures {
    let is_it = |r: &Row| {
        (r.server.as_str(), r.corefile.as_str(), r.transport.as_str(), r.name.as_str(), r.kind.as_str())
            == ("coredns-1.8.7", corefile, transport, asked, kind)
    };
    let row = rows().into_iter().find(is_it).unwrap();
    told_by(&wildcards(known), &row.question(), &row.message())
}

#[test]
fn the_wildcards_of_coredns_1_8_disclose_exactly_the_services() {
    let none = BTreeMap::new();
    let high = [
        "10-244-1-5.web-headless.high.svc.cluster.local.",
        "10-244-2-4.web-headless.high.svc.cluster.local.",
        "web-np.high.svc.cluster.local.",
        "web.high.svc.cluster.local.",
    ];
    for (transport, asked) in [
        ("udp", "any.any.svc.cluster.local."),
        ("udp", "*.*.svc.cluster.local."),
        ("udp", "any.high.svc.cluster.local."),
        ("udp", "_any._tcp.any.any.svc.cluster.local."),
    ] {
        let seen = wildcard("default", transport, asked, "SRV", &none);
        assert_eq!(told_of(&seen.names, "high"), high, "{asked}");
        assert_eq!(seen.names.count("payments"), 0);
        let hidden = wildcard("namespaces low kube-system default", transport, asked, "SRV", &none);
        assert_eq!(told_of(&hidden.names, "high"), Vec::<&str>::new(), "{asked}");
    }
    // Three labels ask for endpoints: over UDP the answer is cut, over TCP it is whole.
    let whole = wildcard("default", "tcp", "any.any.any.svc.cluster.local.", "SRV", &none);
    let pods = ["10-244-1-5", "10-244-2-4"];
    let each = pods
        .iter()
        .flat_map(|pod| ["web-headless", "web-np", "web"].map(|s| format!("{pod}.{s}.high.svc.cluster.local.")));
    assert_eq!(told_of(&whole.names, "high"), each.collect::<Vec<_>>());
    let seen = wildcard("default", "udp", "any.any.svc.cluster.local.", "SRV", &none);
    let namespaces: Vec<&str> = seen.names.iter().map(|(ns, _)| ns).collect();
    assert_eq!(namespaces, ["default", "high", "kube-system", "low"]);
}

#[test]
fn addresses_without_names_count_for_whom_they_are_known_to_be() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let none = BTreeMap::new();
    let known = BTreeMap::from([(ip("10.96.201.90"), "high".into()), (ip("10.9.9.9"), "high".into())]);
    let asked = "any.any.svc.cluster.local.";
    let unknown = wildcard("default", "udp", asked, "A", &none);
    assert!(unknown.names.iter().next().is_none() && unknown.addresses.iter().next().is_none());
    let seen = wildcard("default", "udp", asked, "A", &known);
    assert_eq!(told_of(&seen.addresses, "high"), ["10.96.201.90"]);
    assert_eq!(wildcard("namespaces low kube-system default", "udp", asked, "A", &known).addresses.count("high"), 0);
    // A question for one namespace says itself whose they are.
    let question = Question { name: name("any.high.svc.cluster.local."), kind: RecordType::A };
    let mut message = reply(&question);
    message.answers.push(a_record(&question.name));
    let seen = told_by(&wildcards(&none), &question, &message);
    assert_eq!(told_of(&seen.addresses, "high"), ["127.0.0.7"]);
}

#[test]
fn a_look_up_that_is_answered_discloses_the_service_and_its_pods() {
    let look_up = |asked: &str, kind: &str| {
        let is_it = |r: &Row| {
            (r.server.as_str(), r.corefile.as_str(), r.name.as_str(), r.kind.as_str())
                == ("coredns-1.8.7", "default", asked, kind)
        };
        let row = rows().into_iter().find(is_it).unwrap();
        let seen = told_by(&look_up(), &row.question(), &row.message());
        told_of(&seen.names, "high").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(look_up("web.high.svc.cluster.local.", "A"), ["web.high.svc.cluster.local."]);
    assert_eq!(look_up("web.high.svc.cluster.local.", "SRV"), ["web.high.svc.cluster.local."]);
    assert_eq!(
        look_up("web-headless.high.svc.cluster.local.", "SRV"),
        [
            "10-244-1-5.web-headless.high.svc.cluster.local.",
            "10-244-2-4.web-headless.high.svc.cluster.local.",
            "web-headless.high.svc.cluster.local.",
        ]
    );
}

#[test]
fn a_transfer_gives_the_services_below_whatever_name_was_asked_for() {
    let technique = ZoneTransfer::new(&zone(), []);
    let mut transfers = 0;
    for row in rows().iter().filter(|r| r.kind == "AXFR" && r.corefile.starts_with("transfer")) {
        let told = told_by(&technique, &row.question(), &row.message()).names;
        let high = [
            "10-244-1-5.web-headless.high.svc.cluster.local.",
            "10-244-2-4.web-headless.high.svc.cluster.local.",
            "web-headless.high.svc.cluster.local.",
            "web-np.high.svc.cluster.local.",
            "web.high.svc.cluster.local.",
        ];
        assert_eq!(told_of(&told, "high"), high, "{} {}", row.server, row.name);
        assert_eq!(told.count("svc"), 0, "{}", row.name);
        transfers += 1;
    }
    assert_eq!(transfers, 6);
}

#[test]
fn what_an_address_is_called_discloses_it() {
    let technique = ReverseSweep::new(&zone(), [], &[], 0);
    for row in rows().iter().filter(|r| r.kind == "PTR") {
        let told = told_by(&technique, &row.question(), &row.message()).names;
        let expected: &[&str] = match row.name.as_str() {
            _ if row.message().answers.is_empty() => &[],
            "90.201.96.10.in-addr.arpa." => &["web.high.svc.cluster.local."],
            "5.1.244.10.in-addr.arpa." => &[
                "10-244-1-5.web-headless.high.svc.cluster.local.",
                "10-244-1-5.web-np.high.svc.cluster.local.",
                "10-244-1-5.web.high.svc.cluster.local.",
            ],
            _ => &[],
        };
        assert_eq!(told_of(&told, "high"), expected, "{} {} {}", row.server, row.corefile, row.name);
    }
}

/// The oracles on every recorded configuration: by what the same server answered to names that nobody has.
#[test]
fn oracles_tell_what_the_server_tells_them() {
    let namespaces = NamespaceOracle::new(&zone(), ["high"]);
    let pods = PodOracle::new(&zone(), [("high".into(), "10.244.1.5".parse().unwrap())]);
    let mut told_by_both = BTreeMap::new();
    for row in rows().iter().filter(|r| r.kind == "A" && !r.responses.is_empty()) {
        let question = row.question();
        let absent = |name: &str| Question { name: name.parse().unwrap(), kind: RecordType::A };
        let nobodys = [absent("nosuch.svc.cluster.local."), absent("nosuch.pod.cluster.local.")];
        let told = told_where(&namespaces, &question, &row.message(), &nobodys);
        let exists = row.name == "high.svc.cluster.local." || row.name == "high.pod.cluster.local.";
        let count = told.names.count("high");
        assert!(count <= usize::from(exists) || row.name.ends_with(".high.svc.cluster.local."), "{} {count}", row.name);
        // Without an absent name to compare with nothing is told: everything may be NODATA here.
        assert_eq!(told_by(&namespaces, &question, &row.message()), Disclosures::default());
        if exists {
            told_by_both.insert((row.server.clone(), row.corefile.clone(), row.name.clone()), count);
        }
        // A pod is told where nobody's address in its namespace is not answered.
        if row.name == "10-244-1-5.high.pod.cluster.local." {
            let nobody = absent("192-0-2-77.high.pod.cluster.local.");
            let answered = usize::from(!row.message().answers.is_empty());
            assert_eq!(told_where(&pods, &question, &row.message(), &[nobody]).names.count("high"), answered);
            assert_eq!(told_by(&pods, &question, &row.message()), Disclosures::default());
        }
    }
    let of = |server: &str, corefile: &str| {
        told_by_both[&(server.into(), corefile.into(), "high.svc.cluster.local.".into())]
    };
    assert_eq!((of("coredns-1.8.7", "default"), of("coredns-1.14.7", "default")), (1, 1));
    assert_eq!(of("coredns-1.14.7", "template ANY high.svc NXDOMAIN"), 0);
    assert_eq!(of("coredns-1.14.7", "namespaces low kube-system default"), 0);
}

/// A server that answers for every namespace tells of none, though a defence hides one of them.
#[test]
fn a_namespace_is_told_where_nobodys_is_not_answered() {
    let protected = [("high".into(), "10.244.1.5".parse().unwrap()), ("vault".into(), "10.244.1.6".parse().unwrap())];
    let pods = PodOracle::new(&zone(), protected);
    let nobodys_in = |namespace: &str| {
        let name = name(&format!("192-0-2-77.{namespace}.pod.cluster.local."));
        Question { name, kind: RecordType::A }
    };
    let question = nobodys_in("vault");
    let mut answered = reply(&question);
    answered.answers.push(a_record(&question.name));
    let told = |absent: &[Question]| told_where(&pods, &question, &answered, absent).names.count("vault");
    assert_eq!(told(&[nobodys_in("nosuch")]), 1);
    assert_eq!(told(&[nobodys_in("high")]), 0);
    assert_eq!(told(&[]), 0);
}

#[test]
fn a_service_without_records_of_a_type_is_told_by_nodata() {
    let technique = ServiceLookup::new(&zone(), [("high".into(), "web".into())]);
    let question = Question { name: name("web.high.svc.cluster.local."), kind: RecordType::AAAA };
    let nobodys = |kind| Question { name: name("nobody.high.svc.cluster.local."), kind };
    let mut nodata = reply(&question);
    nodata.authorities.push(soa("cluster.local."));
    let told =
        |message: &Message, absent: &[Question]| told_where(&technique, &question, message, absent).names.count("high");
    assert_eq!(told(&nodata, &[nobodys(RecordType::AAAA)]), 1);
    // Everything may be NODATA here, or everything of this type.
    assert_eq!(told(&nodata, &[]), 0);
    assert_eq!(told(&nodata, &[nobodys(RecordType::A)]), 0);
    // A cache takes the AA flag away, not the rcode.
    nodata.metadata.authoritative = false;
    assert_eq!(told(&nodata, &[nobodys(RecordType::AAAA)]), 1);
    nodata.metadata.response_code = ResponseCode::NXDomain;
    assert_eq!(told(&nodata, &[nobodys(RecordType::AAAA)]), 0);
    // A filter's empty answer is no NODATA.
    assert_eq!(told(&reply(&question), &[nobodys(RecordType::AAAA)]), 0);
}

#[test]
fn a_transfer_is_denied_in_many_words() {
    use ResponseCode::{NotAuth, NotImp, Refused, ServFail};
    for (code, expected) in [
        (Refused, ReplyClass::Refused),
        (NotAuth, ReplyClass::Refused),
        (NotImp, ReplyClass::Refused),
        (ServFail, ReplyClass::Servfail),
    ] {
        let question = Question { name: zone(), kind: RecordType::AXFR };
        let mut message = reply(&question);
        message.metadata.response_code = code;
        assert_eq!(classify(&zone(), &question, &message), expected);
        // Anybody else who says so is broken.
        let question = Question { name: zone(), kind: RecordType::A };
        let broken = if code == Refused { ReplyClass::Refused } else { ReplyClass::Servfail };
        assert_eq!(classify(&zone(), &question, &message), broken);
    }
}

#[test]
fn a_reverse_zone_of_its_own_says_no_for_itself() {
    let question = Question { name: name("7.0.0.127.in-addr.arpa."), kind: RecordType::PTR };
    for (owner, authoritative, expected) in [
        ("in-addr.arpa.", true, ReplyClass::Nxdomain),
        ("127.in-addr.arpa.", true, ReplyClass::Nxdomain),
        ("127.in-addr.arpa.", false, ReplyClass::Forwarded),
        ("128.in-addr.arpa.", true, ReplyClass::Forwarded),
        ("arpa.", true, ReplyClass::Forwarded),
        (".", true, ReplyClass::Forwarded),
    ] {
        let mut message = reply(&question);
        (message.metadata.response_code, message.metadata.authoritative) = (ResponseCode::NXDomain, authoritative);
        message.authorities.push(soa(owner));
        assert_eq!(classify(&zone(), &question, &message), expected, "{owner} {authoritative}");
    }
}

// --- By hand ---

fn reply(question: &Question) -> Message {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(question.name.clone(), question.kind));
    message.metadata.authoritative = true;
    message
}

fn soa(owner: &str) -> Record {
    let data = SOA::new(name("ns.dns.cluster.local."), name("hostmaster.cluster.local."), 1, 2, 3, 4, 5);
    Record::from_rdata(name(owner), 30, RData::SOA(data))
}

fn a_record(owner: &Name) -> Record {
    Record::from_rdata(owner.clone(), 30, RData::A(A::new(127, 0, 0, 7)))
}

#[test]
fn what_defences_and_accidents_look_like() {
    use ReplyClass::*;
    use ResponseCode::{FormErr, NXDomain, NoError, NotImp, Refused as RefusedCode, ServFail};
    type Change = fn(&mut Message);
    let with_soa: Change = |m| m.authorities.push(soa("cluster.local."));
    let rows: [(&str, ResponseCode, Change, ReplyClass); 21] = [
        ("an answer", NoError, |m| m.answers.push(a_record(&name("x.high.svc.cluster.local."))), Answered),
        (
            "an alias and nothing else",
            NoError,
            |m| {
                m.answers.push(Record::from_rdata(
                    name("x.high.svc.cluster.local."),
                    30,
                    RData::CNAME(CNAME(name("y.example."))),
                ));
            },
            Answered,
        ),
        (
            "an answer of another type",
            NoError,
            |m| {
                let srv = SRV::new(0, 0, 80, name("x.high.svc.cluster.local."));
                m.answers.push(Record::from_rdata(name("x.high.svc.cluster.local."), 30, RData::SRV(srv)));
            },
            Blocked,
        ),
        (
            "records beside an empty answer",
            NoError,
            |m| m.additionals.push(a_record(&name("x.cluster.local."))),
            Blocked,
        ),
        ("NODATA with the zone's SOA", NoError, with_soa, Nodata),
        ("NODATA without SOA", NoError, |_| (), Blocked),
        (
            "NODATA, not authoritative",
            NoError,
            |m| {
                m.authorities.push(soa("cluster.local."));
                m.metadata.authoritative = false;
            },
            Forwarded,
        ),
        ("NODATA with another zone's SOA", NoError, |m| m.authorities.push(soa("example.")), Forwarded),
        ("NODATA with the root's SOA", NoError, |m| m.authorities.push(soa(".")), Forwarded),
        ("NODATA with the SOA of a zone below", NoError, |m| m.authorities.push(soa("svc.cluster.local.")), Nodata),
        ("NXDOMAIN with the zone's SOA", NXDomain, with_soa, Nxdomain),
        ("NXDOMAIN without SOA", NXDomain, |_| (), Blocked),
        (
            "NXDOMAIN, not authoritative",
            NXDomain,
            |m| {
                m.authorities.push(soa("cluster.local."));
                m.metadata.authoritative = false;
            },
            Forwarded,
        ),
        ("NXDOMAIN with another zone's SOA", NXDomain, |m| m.authorities.push(soa("example.")), Forwarded),
        (
            "NXDOMAIN with an answer",
            NXDomain,
            |m| {
                m.answers.push(a_record(&name("x.cluster.local.")));
                m.authorities.push(soa("cluster.local."));
            },
            Nxdomain,
        ),
        ("REFUSED", RefusedCode, |_| (), Refused),
        ("REFUSED with an answer", RefusedCode, |m| m.answers.push(a_record(&name("x.cluster.local."))), Refused),
        ("SERVFAIL", ServFail, with_soa, Servfail),
        ("FORMERR", FormErr, |_| (), Servfail),
        ("NOTIMP", NotImp, |_| (), Servfail),
        (
            "an answer that was cut",
            NoError,
            |m| {
                m.metadata.truncation = true;
                m.answers.push(a_record(&name("x.high.svc.cluster.local.")));
            },
            Answered,
        ),
    ];
    let question = Question { name: name("x.high.svc.cluster.local."), kind: RecordType::A };
    for (what, code, change, class) in rows {
        let mut message = reply(&question);
        message.metadata.response_code = code;
        change(&mut message);
        assert_eq!(classify(&zone(), &question, &message), class, "{what}");
        assert_eq!(read_any(&zone(), &question, &message.to_vec().unwrap()), Some(class), "{what}, from bytes");
    }
}

#[test]
fn names_are_read_wherever_an_answer_tells_them() {
    let question = Question { name: name("any.any.svc.cluster.local."), kind: RecordType::SRV };
    let told = |change: fn(&mut Message)| {
        let mut message = reply(&question);
        change(&mut message);
        let seen = told_by(&wildcards(&BTreeMap::new()), &question, &message);
        told_of(&seen.names, "high").join(" ")
    };
    let owner = || name("any.any.svc.cluster.local.");
    assert_eq!(told(|_| ()), "");
    let target = told(|m| {
        let srv = RData::SRV(SRV::new(0, 0, 80, name("Web.HIGH.svc.cluster.local.")));
        m.answers.push(Record::from_rdata(name("any.any.svc.cluster.local."), 30, srv));
    });
    assert_eq!(target, "web.high.svc.cluster.local.");
    let alias = told(|m| {
        let alias = RData::CNAME(CNAME(name("web.high.svc.cluster.local.")));
        m.answers.push(Record::from_rdata(name("any.any.svc.cluster.local."), 30, alias));
    });
    assert_eq!(alias, "web.high.svc.cluster.local.");
    assert_eq!(told(|m| m.additionals.push(a_record(&name("a.high.svc.cluster.local.")))), "a.high.svc.cluster.local.");
    assert_eq!(told(|m| m.answers.push(a_record(&name("a.high.svc.cluster.local.")))), "a.high.svc.cluster.local.");
    // The question's own name tells nothing, nor does one of another zone.
    assert_eq!(namespace_of(&owner(), &zone()).as_deref(), Some("any"));
    let mut message = reply(&question);
    message.answers.extend([a_record(&owner()), a_record(&name("web.high.svc.example."))]);
    assert_eq!(told_by(&wildcards(&BTreeMap::new()), &question, &message), Disclosures::default());
}

#[test]
fn extended_errors_are_read_from_the_option() {
    let question = Question { name: name("x.high.svc.cluster.local."), kind: RecordType::A };
    let codes = |options: &[&[u8]]| -> Vec<u16> {
        let mut message = reply(&question);
        let mut edns = Edns::new();
        for data in options {
            edns.options_mut().insert(EdnsOption::Unknown(15, data.to_vec()));
        }
        message.set_edns(edns);
        extended_errors(&Message::from_vec(&message.to_vec().unwrap()).unwrap()).collect()
    };
    assert_eq!(codes(&[]), Vec::<u16>::new());
    assert_eq!(codes(&[&[0, 15]]), [15]);
    assert_eq!(codes(&[b"\x01\x02because"]), [258]);
    assert_eq!(codes(&[&[15]]), Vec::<u16>::new(), "too short to be one");
}

#[test]
fn only_an_answer_to_the_question_is_one() {
    let question = Question { name: name("x.high.svc.cluster.local."), kind: RecordType::A };
    let whole = reply(&question).to_vec().unwrap();
    let read = |bytes: &[u8]| read_any(&zone(), &question, bytes);
    assert_eq!(read(&whole), Some(ReplyClass::Blocked));
    for other in [
        Question { name: name("y.high.svc.cluster.local."), kind: RecordType::A },
        Question { name: name("x.high.svc.cluster.local."), kind: RecordType::AAAA },
    ] {
        assert_eq!(read(&reply(&other).to_vec().unwrap()), None, "{other:?}");
    }
    // Case is the resolver's business (0x20): the name is the same.
    let shouted = Question { name: name("X.HIGH.svc.cluster.local."), kind: RecordType::A };
    assert_eq!(read(&reply(&shouted).to_vec().unwrap()), Some(ReplyClass::Blocked));
    let mut query = whole.clone();
    query[2] &= 0x7f;
    assert_eq!(read(&query), None, "a query is no answer");
    assert_eq!(read(&whole[..whole.len() - 1]), Some(ReplyClass::Malformed));
    assert_eq!((read(&[]), read(&[0]), read(&[0, 7])), (None, None, None));
    // A refusal may leave the question out; an answer may not.
    let mut bare = reply(&question);
    bare.queries.clear();
    bare.metadata.response_code = ResponseCode::Refused;
    assert_eq!(read(&bare.to_vec().unwrap()), Some(ReplyClass::Refused));
    bare.metadata.response_code = ResponseCode::NoError;
    bare.answers.push(a_record(&question.name));
    assert_eq!(read(&bare.to_vec().unwrap()), None);
    let mut twice = reply(&question);
    twice.add_query(Query::query(question.name.clone(), question.kind));
    assert_eq!(read(&twice.to_vec().unwrap()), None);
}

// --- Whatever the bytes are ---

/// A recorded answer with its question, damaged here and there.
fn damaged() -> impl Strategy<Value = (Question, Vec<u8>)> {
    let whole: Vec<(Question, Vec<u8>)> =
        rows().iter().flat_map(|r| r.bytes().into_iter().map(|b| (r.question(), b)).collect::<Vec<_>>()).collect();
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (prop::sample::select(whole), flips, prop::option::of(any::<prop::sample::Index>())).prop_map(
        |((question, mut bytes), flips, cut)| {
            for (at, byte) in flips {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            (question, bytes)
        },
    )
}

/// Answered only where the header counts an answer, whose type is the one that was asked for, or an alias.
fn is_sound(question: &Question, bytes: &[u8]) -> Result<(), TestCaseError> {
    let class = read_any(&zone(), question, bytes);
    if class == Some(ReplyClass::Answered) {
        prop_assert!(u16::from_be_bytes([bytes[6], bytes[7]]) > 0 && bytes[3] & 0x0f == 0 && bytes[2] & 0x80 != 0);
        let message = Message::from_vec(bytes).unwrap();
        let transfer = question.kind == RecordType::AXFR;
        let fits = |r: &Record| transfer || [question.kind, RecordType::CNAME].contains(&r.record_type());
        prop_assert!(message.answers.iter().any(fits));
        told_by(&wildcards(&BTreeMap::new()), question, &message);
        told_by(&look_up(), question, &message);
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..600), kind in prop::sample::select(vec![RecordType::A, RecordType::SRV])) {
        let question = Question { name: name("any.any.svc.cluster.local."), kind };
        is_sound(&question, &bytes)?;
        // Made a response, so that more of it is read.
        let mut response = bytes;
        if let Some(flags) = response.get_mut(2) {
            *flags |= 0x80;
            is_sound(&question, &response)?;
        }
    }

    #[test]
    fn no_damaged_answer_does_harm((question, bytes) in damaged()) {
        is_sound(&question, &bytes)?;
    }
}
