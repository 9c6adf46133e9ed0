//! The test DNS server answers as the recorded servers did: every row of `tests/data/dns.jsonl`, both versions, all variants.

use std::collections::{BTreeMap, BTreeSet};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::opt::EdnsOption},
};
use serde::Deserialize;

use crate::cluster_dns::{
    Acl, AclAction, ClusterDns, Defences, Flavour, Inventory, Pods, Template, Transport, Upstream,
};

const ROWS: usize = 433;
/// Rows of `acl drop`.
const SILENT: usize = 33;
/// `any.any.any` and `*.*.*` over UDP, of a server with all namespaces.
const CUT: usize = 4;

#[derive(Deserialize)]
struct Row {
    server: String,
    corefile: String,
    transport: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    request: String,
    responses: Vec<String>,
}

/// What a recorded server was configured to do.
fn server(row: &Row) -> ClusterDns {
    let zone = || Name::from_ascii("cluster.local.").unwrap();
    let acl = |action| Some(Acl { zones: vec![zone()], action });
    let mut defences = Defences { upstream: Upstream::Absent, ..Defences::default() };
    match row.corefile.as_str() {
        "default" => {}
        "transfer to *" => defences.transfer = true,
        "pods verified" => defences.pods = Pods::Verified,
        "pods disabled" => defences.pods = Pods::Disabled,
        "namespaces low kube-system default" => {
            defences.namespaces = Some(["low", "kube-system", "default"].map(String::from).into());
        }
        "acl block cluster.local" => defences.acl = acl(AclAction::Block),
        "acl drop cluster.local" => defences.acl = acl(AclAction::Drop),
        "template ANY high.svc NXDOMAIN" => {
            let suffix = Name::from_ascii("high.svc.cluster.local.").unwrap();
            defences.template = Some(Template { suffix, kind: None });
        }
        other => panic!("unknown corefile {other}"),
    }
    let flavour = match row.server.as_str() {
        "coredns-1.8.7" => Flavour::CoreDns18,
        "coredns-1.14.7" => Flavour::CoreDns114,
        other => panic!("unknown server {other}"),
    };
    ClusterDns::new(flavour, Inventory::recorded()).with(defences)
}

/// What must be the same in a recorded and in a played answer: everything, but for the id of the message and
/// - the order of records: servers list a map, so it is another each time (a transfer's SOAs are checked apart);
/// - the SOA's serial: the time of the cluster's last change;
/// - how a transfer is spread over messages: all of the recorded ones fit one.
#[derive(Debug, PartialEq)]
struct Wire {
    code: ResponseCode,
    authoritative: bool,
    truncated: bool,
    recursion: (bool, bool),
    answers: Vec<String>,
    authorities: Vec<String>,
    additionals: Vec<String>,
    /// Size, DO and codes of extended errors.
    opt: Option<(u16, bool, Vec<u16>)>,
}

impl Wire {
    fn of(messages: &[Message]) -> Option<Self> {
        let first = messages.first()?;
        let sorted = |part: fn(&Message) -> &[Record]| {
            let mut lines: Vec<_> = messages.iter().flat_map(part).map(line).collect();
            lines.sort();
            lines
        };
        let opt = first.edns.as_ref().map(|edns| {
            let codes = edns.options().as_ref().iter().filter_map(|(_, option)| match option {
                EdnsOption::Unknown(15, data) => Some(u16::from_be_bytes([data[0], data[1]])),
                _ => None,
            });
            (edns.max_payload(), edns.flags().dnssec_ok, codes.collect())
        });
        Some(Self {
            code: first.metadata.response_code,
            authoritative: first.metadata.authoritative,
            truncated: messages.iter().any(|message| message.metadata.truncation),
            recursion: (first.metadata.recursion_desired, first.metadata.recursion_available),
            answers: sorted(|message| &message.answers),
            authorities: sorted(|message| &message.authorities),
            additionals: sorted(|message| &message.additionals),
            opt,
        })
    }
}

fn line(record: &Record) -> String {
    let mut record = record.clone();
    if let RData::SOA(soa) = &mut record.data {
        soa.serial = 0;
    }
    record.to_string()
}

fn messages<O: AsRef<[u8]>>(octets: &[O]) -> Vec<Message> {
    octets.iter().map(|octets| Message::from_vec(octets.as_ref()).unwrap()).collect()
}

fn rows() -> Vec<Row> {
    let rows = include_str!("../data/dns.jsonl").lines();
    rows.map(|row| serde_json::from_str(row).unwrap()).collect()
}

/// Asks a server of its own the recorded question, over any transport.
fn ask(server: &ClusterDns, row: &Row, transport: Transport) -> Vec<Message> {
    let request = hex::decode(&row.request).unwrap();
    messages(&server.answer(&request, transport, ([127, 0, 0, 1], 53_000).into()))
}

#[test]
fn answers_every_recorded_question_as_the_real_servers_did() {
    let (mut compared, mut silent, mut cut) = (0, 0, 0);
    for row in rows() {
        let context = format!("{} | {} | {} {} {}", row.server, row.corefile, row.transport, row.name, row.kind);
        let transport = if row.transport == "udp" { Transport::Udp } else { Transport::Tcp };
        let server = server(&row);
        let played_messages = ask(&server, &row, transport);
        let recorded: Vec<_> = row.responses.iter().map(|octets| hex::decode(octets).unwrap()).collect();
        let recorded_messages = messages(&recorded);
        let (mut recorded, mut played) = (Wire::of(&recorded_messages), Wire::of(&played_messages));
        match (&mut recorded, &mut played) {
            (None, None) => silent += 1,
            (Some(recorded), Some(played)) if recorded.truncated && played.truncated => {
                // Which records are kept depends on their order, which is another each time; all belong to the whole.
                let whole = Wire::of(&ask(&server, &row, Transport::Tcp)).unwrap();
                let whole: BTreeSet<_> = whole.answers.into_iter().collect();
                for kept in [&mut recorded.answers, &mut played.answers] {
                    assert!(!kept.is_empty() && kept.len() < whole.len(), "{context}: {} kept", kept.len());
                    kept.retain(|line| !whole.contains(line));
                }
                cut += 1;
            }
            _ => {}
        }
        assert_eq!(recorded, played, "{context}");
        if row.kind == "AXFR" && played.is_some_and(|played| !played.answers.is_empty()) {
            for messages in [&recorded_messages, &played_messages] {
                let records: Vec<_> = messages.iter().flat_map(|message| &message.answers).collect();
                let ends = [records[0], records[records.len() - 1]].map(Record::record_type);
                assert_eq!(ends, [RecordType::SOA; 2], "{context}");
            }
        }
        compared += 1;
    }
    assert_eq!((compared, silent, cut), (ROWS, SILENT, CUT));
}

/// The server writes down what it tells where it tells it; a reader of its messages finds the same names.
#[test]
fn what_it_says_it_told_is_what_its_messages_tell() {
    let (mut told_in_records, mut told_by_existence) = (0, 0);
    for row in rows() {
        let transport = if row.transport == "udp" { Transport::Udp } else { Transport::Tcp };
        let server = server(&row);
        let messages = ask(&server, &row, transport);
        let context = format!("{} | {} | {} {} {}", row.server, row.corefile, row.transport, row.name, row.kind);
        let told: BTreeSet<_> = server.told(|_| true).names.into_values().flatten().collect();
        let read = names_in(&messages);
        // Names that only exist: no record says so, the absence of NXDOMAIN does.
        let exists: BTreeSet<_> = told.difference(&read).cloned().collect();
        assert!(read.is_subset(&told), "{context}: {:?}", read.difference(&told));
        if !exists.is_empty() {
            let object = row.name.trim_start_matches("_http._tcp.");
            let namespace = object.split_once('.').map_or("", |(_, rest)| rest);
            let is_asked = |name: &String| name == object || name == namespace;
            assert!(exists.len() == 1 && exists.iter().all(is_asked), "{context}: {exists:?}");
            let first = &messages[0].metadata;
            assert_eq!((first.response_code, first.authoritative), (ResponseCode::NoError, true), "{context}");
        }
        told_in_records += read.len();
        told_by_existence += exists.len();
    }
    // Neither side is trivially empty.
    assert!(told_in_records > 400 && told_by_existence > 30, "{told_in_records} {told_by_existence}");
}

/// Names of services and endpoints in the records of messages: owners and targets, under the zone whatever the suffix.
fn names_in(messages: &[Message]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for record in messages.iter().flat_map(|message| message.answers.iter().chain(&message.additionals)) {
        let target = match &record.data {
            RData::SRV(srv) => Some(&srv.target),
            RData::PTR(ptr) => Some(&ptr.0),
            RData::NS(ns) => Some(&ns.0),
            _ => None,
        };
        names.extend(std::iter::once(&record.name).chain(target).filter_map(object));
    }
    names
}

/// `web.high.svc.cluster.local.` of `_http._tcp.web.high.svc.in-addr.arpa.`; nothing of a wildcard's own name.
fn object(name: &Name) -> Option<String> {
    let text = name.to_ascii();
    let labels: Vec<_> = text.split('.').filter(|label| !label.starts_with('_')).collect();
    let svc = labels.iter().position(|label| *label == "svc")?;
    let wild = labels.iter().any(|label| matches!(*label, "any" | "*"));
    (svc >= 2 && !wild).then(|| format!("{}.svc.cluster.local.", labels[..svc].join(".")))
}

/// By namespace, what each technique learns from an undefended server: written by hand.
#[test]
fn writes_down_names_by_namespace() {
    let server = |flavour| ClusterDns::new(flavour, Inventory::recorded());
    let told = |flavour, name: &str, kind: &str| {
        let server = server(flavour);
        let row = rows().into_iter().find(|row| row.name == name && row.kind == kind).unwrap();
        ask(&server, &row, Transport::Tcp);
        let disclosures = server.disclosures();
        assert!(disclosures.len() <= 1 && disclosures.iter().all(|d| d.name == name && d.kind.to_string() == kind));
        server.told(|_| true)
    };
    let names = |of: &[(&str, &[&str])]| -> BTreeMap<String, BTreeSet<String>> {
        let absolute = |name: &&str| format!("{name}.cluster.local.");
        of.iter().map(|(n, names)| ((*n).to_owned(), names.iter().map(absolute).collect())).collect()
    };
    let (old, new) = (Flavour::CoreDns18, Flavour::CoreDns114);

    let wildcard = told(old, "any.high.svc.cluster.local.", "SRV");
    let headless = ["10-244-1-5.web-headless.high.svc", "10-244-2-4.web-headless.high.svc"];
    assert_eq!(wildcard.names, names(&[("high", &["web.high.svc", "web-np.high.svc", headless[0], headless[1]])]));
    assert!(told(new, "any.high.svc.cluster.local.", "SRV").is_empty());

    let addresses = told(old, "any.any.svc.cluster.local.", "A");
    assert_eq!((addresses.names.len(), addresses.addresses.len()), (0, 11), "no names, only addresses");

    let bare = told(new, "web-headless.high.svc.cluster.local.", "SRV");
    assert_eq!(bare.names, names(&[("high", &["web-headless.high.svc", headless[0], headless[1]])]));

    assert_eq!(told(new, "high.svc.cluster.local.", "A").names, names(&[("high", &["high.svc"])]));
    assert_eq!(told(new, "high.svc.cluster.local.", "SRV").names, names(&[("high", &["high.svc"])]));
    assert!(told(new, "high.svc.cluster.local.", "TXT").is_empty());
    assert!(told(new, "nosuch.svc.cluster.local.", "A").is_empty());
    // `pods insecure` answers for any address, so it tells the namespace only.
    assert_eq!(told(new, "1-2-3-4.high.pod.cluster.local.", "A").names, names(&[("high", &["high.pod"])]));
    assert_eq!(told(new, "90.201.96.10.in-addr.arpa.", "PTR").names, names(&[("high", &["web.high.svc"])]));
    assert!(told(new, "77.77.96.10.in-addr.arpa.", "PTR").is_empty());
}
