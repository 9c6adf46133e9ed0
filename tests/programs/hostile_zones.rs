//! Hostile servers against all six techniques at once: transfers that have no end, answers that contradict each other, and
//! transports that do. Each technique gets the reason that is right for it, and no hostility spoils the others'.

use std::{
    collections::HashMap,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SRV, TXT},
    },
};
use serde_json::{Value, json};

use crate::support::{
    Agent, SOON, directory,
    dns::{
        Replier, SECRET, SECRET_ADDRESS, Seen, Tcp, Udp, a, asked, close, empty, honest, is_first, is_technique, leaky,
        name, ptr, serve_over, soa, srv, with_code, write,
    },
    find, hostile, segprobe, wait_for, write_config,
};

const TECHNIQUES: [&str; 6] =
    ["srv-wildcard", "reverse-sweep", "zone-transfer", "service-lookup", "namespace-oracle", "pod-oracle"];

/// Time for one attempt in these tests.
const TIMEOUT: Duration = Duration::from_millis(400);

/// A server, and what must be said of it.
struct Case {
    name: &'static str,
    udp: Option<Udp>,
    tcp: Option<Tcp>,
    /// Reason of every technique but of those in `except`.
    reason: &'static str,
    except: &'static [(&'static str, &'static str)],
}

const fn case(
    name: &'static str,
    udp: Option<Udp>,
    tcp: Option<Tcp>,
    reason: &'static str,
    except: &'static [(&'static str, &'static str)],
) -> Case {
    Case { name, udp, tcp, reason, except }
}

/// Honest but for transfers.
const fn axfr(name: &'static str, tcp: Tcp, reason: &'static [(&'static str, &'static str)]) -> Case {
    Case { name, udp: CLEAN, tcp: Some(tcp), reason: NOTHING, except: reason }
}

/// The same over both transports: what `answer` says to the questions of the techniques.
macro_rules! both {
    ($name:literal, $answer:expr, $reason:expr, $except:expr) => {
        case(
            $name,
            Some(|q, to| to.send(&if is_technique(q) { $answer(q) } else { honest(q) })),
            Some(|q, to| write(to, &if is_technique(q) { $answer(q) } else { honest(q) })),
            $reason,
            $except,
        )
    };
}

const CLEAN: Option<Udp> = Some(|q, to| to.send(&honest(q)));
const CLEAN_TCP: Option<Tcp> = Some(|q, to| write(to, &honest(q)));
const LEAKING: Option<Udp> = Some(|q, to| to.send(&leaky(q)));
const LEAKING_TCP: Option<Tcp> = Some(|q, to| write(to, &leaky(q)));

const NOTHING: &str = "nothing-disclosed";
const TOLD: &str = "disclosed";

const CASES: &[Case] = &[
    // Without the first two every other line would prove nothing.
    case("clean", CLEAN, CLEAN_TCP, NOTHING, &[]),
    case("leaking", LEAKING, LEAKING_TCP, TOLD, &[]),
    // Transports. Where nobody listens nothing can be told; where nothing comes back, nobody knows.
    case("udp-only", CLEAN, None, NOTHING, &[]),
    case("tcp-only", None, CLEAN_TCP, NOTHING, &[]),
    case("tcp-closed-udp-leaks", LEAKING, None, TOLD, &[("zone-transfer", NOTHING)]),
    case("udp-closed-tcp-leaks", None, LEAKING_TCP, TOLD, &[]),
    case("udp-silent", Some(|_, _| {}), CLEAN_TCP, "no-self-check", &[("zone-transfer", NOTHING)]),
    case("udp-silent-tcp-leaks", Some(|_, _| {}), LEAKING_TCP, TOLD, &[]),
    case("leaks-over-tcp", CLEAN, LEAKING_TCP, TOLD, &[]),
    case("leaks-over-udp", LEAKING, CLEAN_TCP, TOLD, &[("zone-transfer", NOTHING)]),
    case("closes-after", CLEAN, Some(closes_after), NOTHING, &[]),
    case(
        "closes-before",
        CLEAN,
        Some(|_, stream| close(stream)),
        "no-self-check",
        &[("zone-transfer", "control-failed")],
    ),
    case("all-cut-over-tcp", CLEAN, Some(|q, to| write(to, &cut(&honest(q)))), "cut", &[]),
    case("tcp-other-question", CLEAN, Some(other_question), "lost-queries", &[("zone-transfer", "server-error")]),
    case("tcp-wrong-id", CLEAN, Some(wrong_id), "lost-queries", &[("zone-transfer", "server-error")]),
    case("tcp-claims-10000-records", CLEAN, Some(claims_many), "server-error", &[]),
    case(
        "tcp-as-many-records-as-fit",
        CLEAN,
        Some(as_many_as_fit),
        TOLD,
        &[("reverse-sweep", NOTHING), ("zone-transfer", NOTHING)],
    ),
    // What is said now and not then. A transfer is asked for once in a sweep.
    case("refuses-every-other", Some(refuses_every_other), CLEAN_TCP, "unsteady", &[("zone-transfer", NOTHING)]),
    case("refuses-at-first", Some(refuses_at_first), CLEAN_TCP, TOLD, &[("zone-transfer", NOTHING)]),
    case("refuses-at-first-over-tcp", CLEAN, Some(refuses_at_first_over_tcp), TOLD, &[("zone-transfer", NOTHING)]),
    // Codes that do not go with what they come with. `service-lookup` looks at records, and there are none.
    case(
        "nodata-for-all",
        Some(|q, to| to.send(&nodata(q))),
        Some(|q, to| write(to, &nodata(q))),
        NOTHING,
        &[("namespace-oracle", "no-self-check")],
    ),
    case("nxdomain-with-records-for-all", Some(|q, to| to.send(&records_for_all(q))), CLEAN_TCP, "captured", &[]),
    both!("nxdomain-with-records", nxdomain_with_records, TOLD, &[("namespace-oracle", NOTHING)]),
    // One name for every address: it is told, and it is one name. A name that may be known tells nothing.
    both!("ptr-all-secret", |q| ptr_to(q, SECRET), NOTHING, &[("reverse-sweep", TOLD)]),
    both!("ptr-all-known", |q| ptr_to(q, "kubernetes.default.svc.cluster.local."), NOTHING, &[]),
    both!("outside-the-zone", outside, NOTHING, &[]),
    both!("hostile-names", hostile_names, NOTHING, &[("reverse-sweep", TOLD), ("zone-transfer", TOLD)]),
    // Transfers.
    axfr("axfr-endless", |q, to| zone(q, to, endless), &[("zone-transfer", "cut")]),
    axfr("axfr-endless-leak", |q, to| zone(q, to, endless_leak), &[("zone-transfer", TOLD)]),
    axfr("axfr-stalls", |q, to| zone(q, to, stalls), &[("zone-transfer", "cut")]),
    axfr("axfr-ends-early", |q, to| zone(q, to, ends_early), &[("zone-transfer", "cut")]),
    axfr("axfr-drips", |q, to| zone(q, to, drips), &[("zone-transfer", "cut")]),
    axfr("axfr-malformed-in-the-middle", |q, to| zone(q, to, malformed_middle), &[("zone-transfer", "cut")]),
    axfr("axfr-wrong-id-in-the-middle", |q, to| zone(q, to, wrong_id_middle), &[("zone-transfer", "cut")]),
    axfr("axfr-refused-in-the-middle", |q, to| zone(q, to, refused_middle), &[("zone-transfer", "cut")]),
    axfr("axfr-wrong-id", |q, to| zone(q, to, wrong_id), &[("zone-transfer", "server-error")]),
    axfr("axfr-other-question", |q, to| zone(q, to, other_question), &[("zone-transfer", "server-error")]),
    axfr("axfr-no-soa-first", |q, to| zone(q, to, no_soa_first), &[("zone-transfer", "server-error")]),
    axfr("axfr-no-soa-first-but-a-leak", |q, to| zone(q, to, no_soa_first_leak), &[("zone-transfer", TOLD)]),
    axfr("axfr-soa-of-another", |q, to| zone(q, to, soa_of_another), &[("zone-transfer", "cut")]),
    axfr("axfr-cut", |q, to| zone(q, to, cut_transfer), &[("zone-transfer", "cut")]),
    axfr("axfr-servfail", |q, to| zone(q, to, servfail), &[("zone-transfer", "server-error")]),
    axfr("axfr-whole", |q, to| zone(q, to, whole), &[]),
    axfr("axfr-10000", |q, to| zone(q, to, ten_thousand), &[("zone-transfer", TOLD)]),
];

/// Only the zone itself is transferred; nothing else is hostile.
fn zone(query: &Message, stream: &mut TcpStream, transfer: Tcp) {
    match asked(query) == ("cluster.local.".into(), RecordType::AXFR) {
        true => transfer(query, stream),
        false => write(stream, &honest(query)),
    }
}

fn part(query: &Message, records: impl IntoIterator<Item = Record>) -> Vec<u8> {
    let mut answer = empty(query);
    answer.add_answers(records);
    answer.to_vec().unwrap()
}

fn service(namespace: &str, index: usize) -> Record {
    let name = name(&format!("s{index}.{namespace}.svc.cluster.local."));
    Record::from_rdata(name, 30, RData::A(A(Ipv4Addr::LOCALHOST)))
}

fn secret() -> Record {
    Record::from_rdata(name(SECRET), 30, RData::A(A(SECRET_ADDRESS)))
}

fn endless(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [soa()]));
    let filling =
        (0..200).map(|_| Record::from_rdata(name("x.cluster.local."), 30, RData::TXT(TXT::new(vec!["x".repeat(255)]))));
    let filling = part(query, filling);
    let length = u16::try_from(filling.len()).unwrap().to_be_bytes();
    while stream.write_all(&[&length, &filling[..]].concat()).is_ok() {}
}

fn endless_leak(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [soa(), secret()]));
    endless(query, stream);
}

fn stalls(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [soa()]));
    write(stream, &part(query, [service("web", 1)]));
    thread::sleep(Duration::from_secs(60));
}

fn ends_early(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [soa(), service("web", 1)]));
    close(stream);
}

/// One octet after the other, until the client is tired of it.
fn drips(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [soa()]));
    let rest = part(query, [secret(), soa()]);
    for octet in u16::try_from(rest.len()).unwrap().to_be_bytes().into_iter().chain(rest) {
        if stream.write_all(&[octet]).is_err() {
            return;
        }
        thread::sleep(TIMEOUT / 10);
    }
}

fn malformed_middle(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [soa()]));
    let whole = part(query, [service("web", 1)]);
    write(stream, &whole[..whole.len() - 3]);
    write(stream, &part(query, [soa()]));
}

fn wrong_id_middle(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [soa()]));
    wrong_id(query, stream);
    write(stream, &part(query, [soa()]));
}

fn refused_middle(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [soa()]));
    write(stream, &with_code(query, ResponseCode::Refused));
    write(stream, &part(query, [soa()]));
}

fn no_soa_first(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [service("web", 1), soa(), soa()]));
}

fn no_soa_first_leak(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [secret(), soa(), soa()]));
}

/// Another zone's SOA is no end.
fn soa_of_another(query: &Message, stream: &mut TcpStream) {
    let mut other = soa();
    other.name = name("x.cluster.local.");
    write(stream, &part(query, [soa(), service("web", 1), other]));
    close(stream);
}

fn cut_transfer(query: &Message, stream: &mut TcpStream) {
    write(stream, &cut(&part(query, [soa(), service("web", 1), soa()])));
}

fn servfail(query: &Message, stream: &mut TcpStream) {
    write(stream, &with_code(query, ResponseCode::ServFail));
}

/// A zone that may be transferred, because the protected names are not in it. Later parts may leave the question out.
fn whole(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [soa(), service("web", 1)]));
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.add_answers([service("web", 2), soa()]);
    write(stream, &answer.to_vec().unwrap());
}

const SERVICES: usize = 10_000;

fn ten_thousand(query: &Message, stream: &mut TcpStream) {
    write(stream, &part(query, [soa()]));
    for hundred in 0..SERVICES / 100 {
        write(stream, &part(query, (0..100).map(|i| service("payments", 100 * hundred + i))));
    }
    write(stream, &part(query, [soa()]));
}

fn closes_after(query: &Message, stream: &mut TcpStream) {
    write(stream, &honest(query));
    close(stream);
}

/// The same message, cut.
fn cut(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[2] |= 2;
    bytes
}

fn wrong_id(query: &Message, stream: &mut TcpStream) {
    let mut bytes = honest(query);
    if is_technique(query) {
        bytes[0] ^= 0xff;
    }
    write(stream, &bytes);
}

fn other_question(query: &Message, stream: &mut TcpStream) {
    if !is_technique(query) {
        return write(stream, &honest(query));
    }
    let mut answer = Message::from_vec(&leaky(query)).unwrap();
    answer.queries[0].name = name("other.cluster.local.");
    write(stream, &answer.to_vec().unwrap());
}

/// Ten thousand by its count, and one in truth.
fn claims_many(query: &Message, stream: &mut TcpStream) {
    if !is_technique(query) {
        return write(stream, &honest(query));
    }
    let mut bytes = part(query, [a(query, Ipv4Addr::LOCALHOST)]);
    bytes[6..8].copy_from_slice(&10_000u16.to_be_bytes());
    write(stream, &bytes);
}

/// Addresses without end, of 16 octets each, for every name.
fn as_many_as_fit(query: &Message, stream: &mut TcpStream) {
    if asked(query).1 != RecordType::A || !asked(query).0.ends_with(".cluster.local.") || !is_technique(query) {
        return write(stream, &honest(query));
    }
    const RECORDS: u16 = 4_080;
    let mut bytes = part(query, []);
    bytes[6..8].copy_from_slice(&RECORDS.to_be_bytes());
    for index in 0..RECORDS {
        // The question's name, A, IN, 30 s, an address.
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 0]);
        bytes.extend(index.to_be_bytes());
    }
    write(stream, &bytes);
}

/// Each question by turns.
fn refuses_every_other(query: &Message, to: &Replier) {
    static TURNS: LazyLock<Mutex<HashMap<(String, RecordType), bool>>> = LazyLock::new(Mutex::default);
    let mut turns = TURNS.lock().unwrap();
    let turn = turns.entry(asked(query)).or_default();
    *turn = is_technique(query) && !*turn;
    to.send(&if *turn { with_code(query, ResponseCode::Refused) } else { honest(query) });
}

fn refuses_at_first(query: &Message, to: &Replier) {
    static SEEN: Seen = Seen::new(Default::default);
    let refuses = is_technique(query) && is_first(&SEEN, query);
    to.send(&if refuses { with_code(query, ResponseCode::Refused) } else { leaky(query) });
}

fn refuses_at_first_over_tcp(query: &Message, stream: &mut TcpStream) {
    static SEEN: Seen = Seen::new(Default::default);
    let refuses = is_technique(query) && is_first(&SEEN, query);
    write(stream, &if refuses { with_code(query, ResponseCode::Refused) } else { leaky(query) });
}

/// Whatever is asked for exists and has nothing of the kind, nobody's namespace too.
fn nodata(query: &Message) -> Vec<u8> {
    let mut answer = Message::from_vec(&honest(query)).unwrap();
    if answer.answers.is_empty() {
        answer.metadata.response_code = ResponseCode::NoError;
        answer.authorities = vec![soa()];
    }
    answer.to_vec().unwrap()
}

/// Nobody's names too.
fn records_for_all(query: &Message) -> Vec<u8> {
    let mut answer = Message::from_vec(&honest(query)).unwrap();
    if answer.metadata.response_code == ResponseCode::NXDomain {
        answer.add_answer(a(query, SECRET_ADDRESS));
    }
    answer.to_vec().unwrap()
}

fn nxdomain_with_records(query: &Message) -> Vec<u8> {
    let mut answer = Message::from_vec(&leaky(query)).unwrap();
    answer.metadata.response_code = ResponseCode::NXDomain;
    answer.to_vec().unwrap()
}

fn ptr_to(query: &Message, target: &str) -> Vec<u8> {
    match asked(query).1 {
        RecordType::PTR => part(query, [ptr(query, name(target))]),
        _ => honest(query),
    }
}

/// Names that look like the zone's and are not.
const OUTSIDE: [&str; 4] = [
    "ledger.payments.svc.cluster.local.example.org.",
    "ledger.payments.svc.notcluster.local.",
    "ledger.payments.svc.cluster.",
    "ledger.payments.svc.",
];

fn outside(query: &Message) -> Vec<u8> {
    let (asked, kind) = asked(query);
    let names = OUTSIDE.map(name);
    match kind {
        RecordType::PTR => part(query, names.map(|target| ptr(query, target))),
        RecordType::SRV if asked.contains("any") || asked.contains('*') => {
            part(query, names.map(|target| srv(query, target)))
        }
        RecordType::AXFR if asked == "cluster.local." => {
            let records = names.map(|name| Record::from_rdata(name, 30, RData::A(A(SECRET_ADDRESS))));
            part(query, [soa()].into_iter().chain(records).chain([soa()]))
        }
        _ => honest(query),
    }
}

/// Names that clear the screen, turn text round, end a line, a label, a tag, one of 255 octets, one in other letters.
fn hostile_names(query: &Message) -> Vec<u8> {
    let suffix: [&[u8]; 3] = [b"svc", b"cluster", b"LOCAL"];
    let of = |labels: &[&[u8]]| Name::from_labels(labels.iter().chain(&suffix).copied()).unwrap();
    let long = [[b'l'; 63]; 3];
    let names = [
        of(&[b"\x1b[2J\x1b[31mred\r\n", b"payments"]),
        of(&["\u{202e}\u{200b}\u{feff}\u{2028}".as_bytes(), b"payments"]),
        of(&[b"\x00\x7f\x80\x85\x9b\xff", b"payments"]),
        of(&[b"<script>alert(1)</script>", b"PayMents"]),
        of(&[&long[0], &long[1], &long[2], &[b'l'; 34], b"payments"]),
        of(&[b"a", b"\x1b[2J\"} 1\n"]),
    ];
    assert_eq!(names[4].iter().map(|label| label.len() + 1).sum::<usize>() + 1, 255);
    let (asked, kind) = asked(query);
    match kind {
        RecordType::PTR => part(query, names.map(|target| ptr(query, target))),
        RecordType::AXFR if asked == "cluster.local." => {
            let records = names.map(|target| {
                let to_itself = RData::SRV(SRV::new(0, 100, 5432, target.clone()));
                Record::from_rdata(target, 30, to_itself)
            });
            part(query, [soa()].into_iter().chain(records).chain([soa()]))
        }
        _ => honest(query),
    }
}

/// A configuration that asks these servers for the zone `high` in all six ways.
fn config<'a>(interval: &str, servers: impl IntoIterator<Item = (&'a str, SocketAddr)>) -> String {
    let servers: Vec<String> =
        servers.into_iter().map(|(name, address)| format!("  - {{name: {name}, address: '{address}'}}\n")).collect();
    let judged = TECHNIQUES.map(|technique| format!("{technique}: judge")).join(", ");
    format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - {{name: b, from: low, to: high, interval: {interval}, tcp: {{attempts: 1}}, dns: {{{judged}}}}}
vantage: {{namespace: web}}
targets: [{{zone: high, namespace: payments, service: ledger, endpoints: [{SECRET_ADDRESS}], ports: [1]}}]
controls: {{positive: [{{tcp: '127.0.0.1:1'}}]}}
dns:
  resolver: 127.0.0.1:1
  timeout: {}ms
  attempts: 2
  ask_again: 500ms
  queries_per_second: 10000
  reverse_sweep: {{ranges: [127.98.0.0/28], queries_per_sweep: 100}}
  servers:
{}",
        TIMEOUT.as_millis(),
        servers.concat()
    )
}

#[test]
fn each_technique_says_what_is_right_of_each_server() {
    let servers: Vec<_> = CASES.iter().map(|case| (case.name, serve_over(case.udp, case.tcp))).collect();
    let directory = directory();
    let path = write_config(directory.path(), &config("10m", servers));
    let agent = Agent::start(directory.path(), &path, &[]);
    let swept = || agent.checks()["boundaries"][0]["last_completed"].is_string().then_some(());
    wait_for("the sweep ends", SOON, swept);

    let report = agent.checks();
    let mut wrong = Vec::new();
    for case in CASES {
        for technique in TECHNIQUES {
            let check = find(&report, technique, case.name);
            let except = case.except.iter().find(|(of, _)| *of == technique);
            let expected = except.map_or(case.reason, |(_, reason)| reason);
            if check["reason"] != expected {
                wrong.push(format!(
                    "{} {technique}: {}, expected {expected}: {}",
                    case.name, check["reason"], check["dns"]["replies"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    what_is_told_is_counted_right(&report);
    a_closed_connection_is_no_loss(&report);
    bounds_hold(&agent);
    nothing_hostile_comes_through(&agent);
}

fn what_is_told_is_counted_right(report: &Value) {
    let names = |technique, server| find(report, technique, server)["dns"]["names"].clone();
    for technique in ["srv-wildcard", "reverse-sweep", "zone-transfer", "service-lookup"] {
        assert_eq!(names(technique, "leaking"), json!({"payments": [SECRET]}), "{technique}");
    }
    assert_eq!(names("namespace-oracle", "leaking").as_object().unwrap().keys().collect::<Vec<_>>(), ["payments"]);
    // Seventeen addresses were asked for, and all have the one name.
    assert_eq!(names("reverse-sweep", "ptr-all-secret"), json!({"payments": [SECRET]}));
    assert_eq!(find(report, "reverse-sweep", "ptr-all-secret")["dns"]["asked"], 17);
    for technique in TECHNIQUES {
        assert_eq!(names(technique, "outside-the-zone"), json!({}), "{technique}");
    }
    let all = &names("zone-transfer", "axfr-10000")["payments"];
    assert_eq!(all.as_array().unwrap().len(), SERVICES);
    for technique in ["reverse-sweep", "zone-transfer"] {
        assert_eq!(names(technique, "hostile-names")["payments"].as_array().unwrap().len(), 5, "{technique}");
    }
}

/// A connection that was closed meanwhile says nothing of the question: it costs no attempt.
fn a_closed_connection_is_no_loss(report: &Value) {
    for technique in TECHNIQUES {
        let over_tcp = &find(report, technique, "closes-after")["dns"]["tcp"];
        assert_eq!(over_tcp["replies"]["silent"], Value::Null, "{technique}: {over_tcp}");
        // Asked all at once in the beginning, and then one by one on connections of their own.
        assert!(over_tcp["retried"].as_u64().unwrap() <= 16, "{technique}: {over_tcp}");
    }
}

fn bounds_hold(agent: &Agent) {
    let peak = agent.process.peak_memory();
    assert!(peak < 64 << 10, "the agent took {peak} KiB");
}

fn nothing_hostile_comes_through(agent: &Agent) {
    let [metrics, json, html] = ["/metrics", "/api/v1/checks", "/"].map(|path| agent.get(path).text());
    for text in [&metrics, &json, &html] {
        assert!(!text.contains(hostile), "{text}");
    }
    assert!(!metrics.contains("<script") && !html.contains("<script"), "{html}");
    assert!(json.is_ascii() && json.contains("llll.payments"), "the long name is in the evidence");
    for line in agent.process.stderr().lines() {
        assert!(line.starts_with("ts=") && !line.contains(hostile), "{line:?}");
    }
}

/// A transfer that is slow and has no end takes its share of the sweep, and leaves the other techniques theirs.
#[test]
fn a_slow_endless_transfer_leaves_the_others_their_time() {
    fn slow(query: &Message, stream: &mut TcpStream) {
        if asked(query).1 != RecordType::AXFR {
            return write(stream, &honest(query));
        }
        let message = part(query, [soa()]);
        let more = part(query, [service("web", 1)]);
        write(stream, &message);
        let length = u16::try_from(more.len()).unwrap().to_be_bytes();
        while stream.write_all(&[&length, &more[..]].concat()).is_ok() {
            thread::sleep(TIMEOUT / 4);
        }
    }
    let server = serve_over(CLEAN, Some(slow));
    let directory = directory();
    let path = write_config(directory.path(), &config("9s", [("slow", server)]));
    let began = Instant::now();
    let ended = segprobe(&["check", "--config.file", &path, "--output", "json"]);
    // Without a limit it would never end.
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    for technique in TECHNIQUES {
        let expected = if technique == "zone-transfer" { "inconclusive" } else { "pass" };
        let check = find(&report, technique, "slow");
        assert_eq!(check["verdict"], expected, "{technique}: {check:#}");
    }
}
