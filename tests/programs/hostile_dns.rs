//! DNS servers that break, lie, flood, stall and hide. The agent must call each by its name, and none of them a pass.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{Ipv4Addr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, TXT},
    },
};
use serde_json::Value;

use crate::support::{
    Agent, SOON, closed, directory,
    dns::{
        Replier, Seen, Tcp, Udp, a, close, empty, honest, is_first, is_technique, name, serve, srv, with_code, write,
    },
    find, hostile, loopback, segprobe, wait_for, write_config,
};

/// The techniques that these tests do not ask for.
const OTHERS_OFF: &str = "reverse-sweep: off, service-lookup: off, namespace-oracle: off, pod-oracle: off";

/// Time for one attempt in these tests.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A server and what must be said of it.
struct Case {
    name: &'static str,
    udp: Udp,
    tcp: Option<Tcp>,
    /// Reason of its `srv-wildcard` check.
    reason: &'static str,
    /// Replies to the questions of the technique, by class, over both transports; none where it depends on the moment.
    replies: Option<&'static [(&'static str, u32)]>,
}

/// Questions of the technique: nine wildcards over everything and four over one namespace, SRV and A, and one NS.
const ALL: u32 = 27;
/// What an honest server says to them: the apex and `svc` exist.
const HONEST: &[(&str, u32)] = &[("nodata", 4), ("nxdomain", ALL - 4)];

type Replies = &'static [(&'static str, u32)];

const fn case(name: &'static str, udp: Udp, reason: &'static str, replies: Replies) -> Case {
    Case { name, udp, tcp: None, reason, replies: Some(replies) }
}

const fn over_tcp(name: &'static str, tcp: Option<Tcp>, reason: &'static str, replies: Replies) -> Case {
    Case { name, udp: cut, tcp, reason, replies: Some(replies) }
}

/// Without the first three every other line would prove nothing: these pass, so it is the hostility that does not.
const CASES: &[Case] = &[
    case("honest", |q, to| to.send(&honest(q)), "nothing-disclosed", HONEST),
    case("forged-then-honest", forged_then_honest, "nothing-disclosed", HONEST),
    case("one-packet-lost", one_packet_lost, "nothing-disclosed", HONEST),
    case("wrong-id", |q, to| hostile_to(q, to, wrong_id), "lost-queries", &[("silent", ALL)]),
    case("wrong-question", |q, to| hostile_to(q, to, wrong_question), "lost-queries", &[("silent", ALL)]),
    case("a-query-back", |q, to| hostile_to(q, to, |q| q.to_vec().unwrap()), "lost-queries", &[("silent", ALL)]),
    case("one-byte", |q, to| hostile_to(q, to, |q| honest(q)[..1].into()), "lost-queries", &[("silent", ALL)]),
    case("header-only", |q, to| hostile_to(q, to, |q| honest(q)[..12].into()), "server-error", &[("malformed", ALL)]),
    case("empty", |q, to| hostile_to(q, to, |_| Vec::new()), "lost-queries", &[("silent", ALL)]),
    case("garbage", |q, to| hostile_to(q, to, garbage), "server-error", &[("malformed", ALL)]),
    case("compression-loop", |q, to| hostile_to(q, to, compression_loop), "server-error", &[("malformed", ALL)]),
    case("late", late, "lost-queries", &[("silent", ALL)]),
    case("flood", flood, "lost-queries", &[("silent", ALL)]),
    case("servfail", |q, to| hostile_to(q, to, servfail), "server-error", &[("servfail", ALL)]),
    case("formerr", |q, to| hostile_to(q, to, formerr), "server-error", &[("servfail", ALL)]),
    case("servfail-always", |q, to| to.send(&servfail(q)), "control-failed", &[("servfail", ALL)]),
    case("garbage-always", |q, to| to.send(&garbage(q)), "control-failed", &[("malformed", ALL)]),
    case("silent-always", |_, _| {}, "control-failed", &[("silent", ALL)]),
    case("refused-always", |q, to| to.send(&with_code(q, ResponseCode::Refused)), "no-self-check", &[("refused", ALL)]),
    Case { name: "dies", udp: dies, tcp: None, reason: "control-failed", replies: None },
    case("no-known-name", no_known_name, "no-self-check", HONEST),
    case("captured", captured, "captured", &[("answered", ALL - 1), ("nxdomain", 1)]),
    over_tcp("cut-dead", None, "cut", &[("blocked", ALL)]),
    over_tcp("cut-closes", Some(|_, stream| close(stream)), "cut", &[("blocked", ALL)]),
    over_tcp("cut-stalls", Some(stalls), "cut", &[("blocked", ALL)]),
    over_tcp("cut-again", Some(|q, to| hostile_over_tcp(q, to, truncated)), "cut", &[("blocked", 2 * ALL)]),
    over_tcp(
        "cut-garbage",
        Some(|q, to| hostile_over_tcp(q, to, garbage)),
        "server-error",
        &[("blocked", ALL), ("malformed", ALL)],
    ),
    over_tcp("cut-garbage-always", Some(|q, to| write(to, &garbage(q))), "control-failed", &[("blocked", ALL)]),
    over_tcp(
        "cut-wrong-id",
        Some(|q, to| hostile_over_tcp(q, to, wrong_id)),
        "lost-queries",
        &[("blocked", ALL), ("silent", ALL)],
    ),
    over_tcp(
        "cut-empty",
        Some(|q, to| hostile_over_tcp(q, to, |_| Vec::new())),
        "lost-queries",
        &[("blocked", ALL), ("silent", ALL)],
    ),
    over_tcp(
        "cut-whole",
        Some(|q, to| write(to, &honest(q))),
        "nothing-disclosed",
        &[("blocked", ALL), ("nodata", 4), ("nxdomain", ALL - 4)],
    ),
    over_tcp(
        "64-kib",
        Some(|q, to| hostile_over_tcp(q, to, as_large_as_can_be)),
        "disclosed",
        // That to NS has no NS.
        &[("answered", ALL - 1), ("blocked", ALL + 1)],
    ),
    over_tcp(
        "many-namespaces",
        Some(|q, to| hostile_over_tcp(q, to, many_namespaces)),
        "cut",
        &[("answered", ALL), ("blocked", ALL)],
    ),
    case("cut-but-telling", cut_but_telling, "disclosed", &[("answered", ALL - 1), ("blocked", 1)]),
    case(
        "hostile-names",
        |q, to| hostile_to(q, to, hostile_names),
        "disclosed",
        &[("answered", ALL - 1), ("blocked", 1)],
    ),
];

/// Honest in everything but the technique's questions.
fn hostile_to(query: &Message, to: &Replier, answer: fn(&Message) -> Vec<u8>) {
    to.send(&if is_technique(query) { answer(query) } else { honest(query) });
}

fn hostile_over_tcp(query: &Message, stream: &mut TcpStream, answer: fn(&Message) -> Vec<u8>) {
    write(stream, &if is_technique(query) { answer(query) } else { honest(query) });
}

fn servfail(query: &Message) -> Vec<u8> {
    with_code(query, ResponseCode::ServFail)
}

fn formerr(query: &Message) -> Vec<u8> {
    with_code(query, ResponseCode::FormErr)
}

fn wrong_id(query: &Message) -> Vec<u8> {
    let mut bytes = honest(query);
    bytes[0] ^= 0xff;
    bytes
}

fn wrong_question(query: &Message) -> Vec<u8> {
    let mut answer = Message::from_vec(&honest(query)).unwrap();
    answer.queries[0].name = name("other.cluster.local.");
    answer.to_vec().unwrap()
}

/// Right id, an answer by its flags, and noise.
fn garbage(query: &Message) -> Vec<u8> {
    let mut bytes = query.metadata.id.to_be_bytes().to_vec();
    bytes.push(0x84);
    bytes.extend((0u8..200).map(|i| i.wrapping_mul(151) ^ 0xa5));
    bytes
}

/// A question whose name points to itself.
fn compression_loop(query: &Message) -> Vec<u8> {
    let mut bytes = query.metadata.id.to_be_bytes().to_vec();
    bytes.extend([0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 33, 0, 1]);
    bytes
}

/// The right answer behind one with a wrong id and one with a wrong question.
fn forged_then_honest(query: &Message, to: &Replier) {
    to.send(&wrong_id(query));
    to.send(&wrong_question(query));
    to.send(&honest(query));
}

/// The first query of each of the technique's questions is lost: one retry is enough.
fn one_packet_lost(query: &Message, to: &Replier) {
    static SEEN: Seen = Seen::new(Mutex::default);
    if !is_technique(query) || !is_first(&SEEN, query) {
        to.send(&honest(query));
    }
}

/// The right answer, when nobody waits for it any more.
fn late(query: &Message, to: &Replier) {
    if !is_technique(query) {
        return to.send(&honest(query));
    }
    let (query, to) = (query.clone(), to.clone());
    thread::spawn(move || {
        // Near the end of the second attempt: on a busy machine the first one ends late.
        thread::sleep(TIMEOUT.mul_f32(1.9));
        to.send(&honest(&query));
    });
}

/// As many wrong answers as fit, and no right one.
fn flood(query: &Message, to: &Replier) {
    if !is_technique(query) {
        return to.send(&honest(query));
    }
    let (mut wrong, first, to) = (wrong_id(query), query.metadata.id, to.clone());
    // The control must not wait for the end of it.
    thread::spawn(move || {
        for i in 0..2_000u16 {
            wrong[..2].copy_from_slice(&first.wrapping_add(i + 1).to_be_bytes());
            to.send(&wrong);
        }
    });
}

/// Answers six queries, which is the control and some of the questions, and is never heard of again.
fn dies(query: &Message, to: &Replier) {
    static ANSWERED: AtomicUsize = AtomicUsize::new(0);
    if ANSWERED.fetch_add(1, Ordering::Relaxed) < 6 {
        to.send(&honest(query));
    }
}

/// Hides from everybody what the vantage may know: then hiding the rest proves nothing.
fn no_known_name(query: &Message, to: &Replier) {
    let asked = query.queries[0].name.to_ascii();
    to.send(&if asked.starts_with("kubernetes.") { with_code(query, ResponseCode::ServFail) } else { honest(query) });
}

/// Has everything that anybody asks for, the zone's protected names among it.
fn captured(query: &Message, to: &Replier) {
    let mut answer = empty(query);
    let record = match query.queries[0].query_type {
        RecordType::SRV => srv(query, name("ledger.payments.svc.cluster.local.")),
        RecordType::A => a(query, Ipv4Addr::LOCALHOST),
        _ => return to.send(&honest(query)),
    };
    answer.add_answer(record);
    to.send(&answer.to_vec().unwrap());
}

fn truncated(query: &Message) -> Vec<u8> {
    let mut answer = empty(query);
    answer.metadata.truncation = true;
    answer.to_vec().unwrap()
}

fn cut(query: &Message, to: &Replier) {
    hostile_to(query, to, truncated);
}

/// Says that much will come.
fn stalls(_: &Message, stream: &mut TcpStream) {
    let _ = stream.write_all(&[0xff, 0xff, 1, 2, 3]);
    thread::sleep(Duration::from_secs(60));
}

/// 64 KiB, and what matters at the very end.
fn as_large_as_can_be(query: &Message) -> Vec<u8> {
    let mut answer = empty(query);
    let owner = &query.queries[0].name;
    for _ in 0..224 {
        answer.add_answer(Record::from_rdata(owner.clone(), 30, RData::TXT(TXT::new(vec!["x".repeat(255)]))));
    }
    let is_srv = query.queries[0].query_type == RecordType::SRV;
    let last = match is_srv {
        true => srv(query, name("ledger.payments.svc.cluster.local.")),
        false => a(query, Ipv4Addr::LOCALHOST),
    };
    answer.add_answer(last);
    whole(&answer)
}

/// hickory cuts what does not fit, which would be another test.
fn whole(answer: &Message) -> Vec<u8> {
    let bytes = answer.to_vec().unwrap();
    assert!((40_000..=65_535).contains(&bytes.len()) && bytes[2] & 2 == 0, "{}", bytes.len());
    bytes
}

/// Many namespaces in each answer, never the same: more than 10,000 in all. The CNAME makes it an answer to A as well.
fn many_namespaces(query: &Message) -> Vec<u8> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut answer = empty(query);
    let made_up = || name(&format!("s.n{}.svc.cluster.local.", NEXT.fetch_add(1, Ordering::Relaxed)));
    let alias = RData::CNAME(CNAME(made_up()));
    answer.add_answer(Record::from_rdata(query.queries[0].name.clone(), 30, alias));
    for _ in 1..850 {
        answer.add_answer(srv(query, made_up()));
    }
    whole(&answer)
}

/// Cut, with nobody at TCP, but the first part says enough.
fn cut_but_telling(query: &Message, to: &Replier) {
    let mut answer = empty(query);
    answer.metadata.truncation = true;
    answer.add_answer(srv(query, name("ledger.payments.svc.cluster.local.")));
    answer.add_answer(a(query, Ipv4Addr::LOCALHOST));
    to.send(&if is_technique(query) { answer.to_vec().unwrap() } else { honest(query) });
}

/// Names that clear the screen, turn text round, end a line, a label, a tag, and one of 255 octets.
pub fn hostile_names(query: &Message) -> Vec<u8> {
    let suffix: [&[u8]; 3] = [b"svc", b"cluster", b"local"];
    let of = |labels: &[&[u8]]| Name::from_labels(labels.iter().chain(&suffix).copied()).unwrap();
    let long = [[b'l'; 63]; 3];
    let mut answer = empty(query);
    for target in [
        of(&[b"\x1b[2J\x1b[31mred\r\n", b"payments"]),
        of(&["\u{202e}\u{200b}\u{feff}\u{2028}".as_bytes(), b"payments"]),
        of(&[b"\x00\x7f\x80\x85\x9b\xff", b"payments"]),
        of(&[b"\"} 1\nsegprobe_check_verdict{verdict=\"pass", b"payments"]),
        of(&[b"<script>alert(1)</script>", b"payments"]),
        of(&[&long[0], &long[1], &long[2], &[b'l'; 34], b"payments"]),
        of(&[b"a", b"\x1b[2J\"} 1\n"]),
        of(&[b"a", "\u{202e}\u{85}".as_bytes()]),
        of(&[b"a", b"<script>alert(1)</script>"]),
    ] {
        answer.add_answer(srv(query, target));
    }
    if query.queries[0].query_type == RecordType::A {
        answer.add_answer(a(query, Ipv4Addr::LOCALHOST));
    }
    answer.to_vec().unwrap()
}

/// A configuration that asks these servers for the zone `high`, which has the namespace `payments`.
fn config<'a>(
    interval: &str,
    timeout: Duration,
    attempts: u32,
    servers: impl IntoIterator<Item = (&'a str, std::net::SocketAddr)>,
) -> String {
    let servers: Vec<String> =
        servers.into_iter().map(|(name, address)| format!("  - {{name: {name}, address: '{address}'}}\n")).collect();
    format!(
        "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - {{name: b, from: low, to: high, interval: {interval}, tcp: {{attempts: 1}}, dns: {{srv-wildcard: judge, {OTHERS_OFF}}}}}
controls: {{positive: [{{tcp: '127.0.0.1:1'}}]}}
dns:
  resolver: 127.0.0.1:1
  timeout: {}ms
  attempts: {attempts}
  queries_per_second: 10000
  servers:
{}",
        timeout.as_millis(),
        servers.concat()
    )
}

#[test]
fn each_is_called_by_its_name_and_none_grows_or_leaks() {
    let servers: Vec<_> = CASES.iter().map(|case| (case.name, serve(case.udp, case.tcp))).collect();
    let closed = closed();
    let all = servers.iter().copied().chain([("closed", closed)]);
    let directory = directory();
    let path = write_config(directory.path(), &config("10m", TIMEOUT, 2, all));
    let agent = Agent::start(directory.path(), &path, &[]);
    let swept = || agent.checks()["boundaries"][0]["last_completed"].is_string().then_some(());
    wait_for("the sweep ends", SOON, swept);

    let report = agent.checks();
    let mut wrong = Vec::new();
    for case in CASES {
        let check = find(&report, "srv-wildcard", case.name);
        let replies = &check["dns"]["replies"];
        let expected = case.replies.map(|replies| replies.iter().copied().collect::<BTreeMap<_, _>>());
        if check["reason"] != case.reason || expected.is_some_and(|e| *replies != serde_json::json!(e)) {
            wrong.push(format!(
                "{}: {} {replies}, expected {} {:?}",
                case.name, check["reason"], case.reason, case.replies
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    // Nobody listens: the kernel says so at once.
    let check = find(&report, "srv-wildcard", "closed");
    assert_eq!((&check["reason"], &check["dns"]["replies"]["no-listener"]), (&"control-failed".into(), &ALL.into()));

    lost_packets_are_repeated_and_counted(&report);
    bounds_hold(&agent, &report);
    nothing_hostile_comes_through(&agent);
}

fn lost_packets_are_repeated_and_counted(report: &Value) {
    let retried = |name| find(report, "srv-wildcard", name)["dns"]["retried"].as_u64().unwrap();
    assert!(retried("one-packet-lost") >= ALL.into(), "{}", retried("one-packet-lost"));
    assert_eq!(find(report, "srv-wildcard", "silent-always")["dns"]["lost"], ALL);
    assert_eq!(find(report, "srv-wildcard", "cut-stalls")["dns"]["cut"], ALL);
}

fn bounds_hold(agent: &Agent, report: &Value) {
    let many = find(report, "srv-wildcard", "many-namespaces");
    assert_eq!(many["dns"]["names"].as_object().unwrap().len(), 1_000);
    assert_eq!(many["dns"]["overflow"], ALL * 850 - 1_000);
    let peak = agent.process.peak_memory();
    assert!(peak < 64 << 10, "the agent took {peak} KiB");
}

fn nothing_hostile_comes_through(agent: &Agent) {
    let text = agent.get("/metrics").text();
    let page = agent.page();
    page.assert_unique();
    assert!(!text.contains(hostile) && text.is_ascii(), "{text}");
    // Names are counted, never shown: those of the zone by namespace, all others as one.
    let namespaces = |server| {
        let samples = page.all("segprobe_dns_disclosed_names", &[("server", server)]);
        samples.iter().map(|s| (s.label("target_namespace").to_owned(), s.value)).collect::<Vec<_>>()
    };
    assert_eq!(namespaces("hostile-names"), [("payments".to_owned(), 6.0), (String::new(), 3.0)]);
    assert_eq!(namespaces("many-namespaces"), [("payments".to_owned(), 0.0), (String::new(), 1_000.0)]);
    assert!(!text.contains("<script"));

    let json = agent.get("/api/v1/checks").text();
    assert!(!json.contains(hostile) && json.is_ascii(), "{json}");
    assert!(json.contains("llll.payments"), "the long name is in the evidence");
    let html = agent.get("/").text();
    assert!(!html.contains(hostile) && !html.contains("<script"), "{html}");
    for line in agent.process.stderr().lines() {
        assert!(line.starts_with("ts=") && !line.contains(hostile), "{line:?}");
    }
}

#[test]
fn the_table_shows_hostile_names_in_escapes() {
    let server = serve(|q, to| hostile_to(q, to, hostile_names), None);
    let directory = directory();
    let path = write_config(directory.path(), &config("30s", TIMEOUT, 2, [("names", server)]));
    let ended = segprobe(&["check", "--config.file", &path]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("6 names disclosed: "), "{ended:?}");
    assert!(!ended.stdout.contains(hostile) && !ended.stderr.contains(hostile), "{ended:?}");
}

#[test]
fn a_closed_port_is_told_at_once() {
    let directory = directory();
    let patient = Duration::from_secs(20);
    let path = write_config(directory.path(), &config("10m", patient, 1, [("closed", closed())]));
    let began = Instant::now();
    let ended = segprobe(&["check", "--config.file", &path, "--output", "json"]);
    assert!(began.elapsed() < patient, "it waited for an answer that the kernel had given");
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[test]
fn a_silent_server_costs_its_deadline_and_no_more() {
    static HELD: Mutex<Vec<std::net::UdpSocket>> = Mutex::new(Vec::new());
    let socket = std::net::UdpSocket::bind((loopback(), 0)).unwrap();
    let address = socket.local_addr().unwrap();
    HELD.lock().unwrap().push(socket);
    let directory = directory();
    // 30 questions of 10 attempts of 2 s would take 600 s.
    let path = write_config(directory.path(), &config("7s", Duration::from_secs(2), 10, [("silent", address)]));
    let began = Instant::now();
    let ended = segprobe(&["check", "--config.file", &path, "--output", "json"]);
    assert!(began.elapsed() < Duration::from_secs(100), "{:?}", began.elapsed());
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(find(&report, "srv-wildcard", "silent")["verdict"], "inconclusive");
}
