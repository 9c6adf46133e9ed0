//! Whole ranges: few sockets, no more questions at the same time than configured, none lost, and an end in time.

use std::{
    collections::{BTreeSet, HashMap},
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use hickory_resolver::proto::op::Message;
use serde_json::Value;

use crate::support::{
    directory,
    dns::{self, honest},
    find, loopback, segprobe, write_config,
};

const ADDRESSES: usize = 4_096;
const RANGE: &str = "127.97.0.0/20";
const IN_FLIGHT: usize = 100;
const SOCKETS: usize = 16;

/// What a server saw of the range's questions.
#[derive(Debug, Default)]
struct Seen {
    most_at_once: usize,
    ports: BTreeSet<u16>,
    times: HashMap<String, u32>,
}

/// Answers other questions at once, and those of the range when as many wait as may and no further one comes, or nothing
/// comes for long. An empty datagram ends it.
fn holds_back(socket: &UdpSocket) -> Seen {
    const TICK: Duration = Duration::from_millis(20);
    const LONG: u32 = 25;
    socket.set_read_timeout(Some(TICK)).unwrap();
    let mut seen = Seen::default();
    let mut held: Vec<(Vec<u8>, SocketAddr)> = Vec::new();
    let (mut quiet, mut buffer) = (0, [0; 4_096]);
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            quiet += 1;
            if held.len() >= IN_FLIGHT || quiet >= LONG {
                seen.most_at_once = seen.most_at_once.max(held.len());
                for (answer, peer) in held.drain(..) {
                    socket.send_to(&answer, peer).unwrap();
                }
            }
            continue;
        };
        if length == 0 {
            return seen;
        }
        quiet = 0;
        let query = Message::from_vec(&buffer[..length]).unwrap();
        let asked = query.queries[0].name.to_ascii();
        if asked.ends_with(".97.127.in-addr.arpa.") {
            seen.ports.insert(peer.port());
            *seen.times.entry(asked).or_default() += 1;
            held.push((honest(&query), peer));
        } else {
            socket.send_to(&honest(&query), peer).unwrap();
        }
    }
}

/// The evidence of a sweep of the range.
fn sweep(server: SocketAddr, interval: &str, timeout: &str) -> Value {
    let directory = directory();
    let path = write_config(
        directory.path(),
        &format!(
            "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}
boundaries:
  - name: b
    from: low
    to: high
    interval: {interval}
    tcp: {{attempts: 1}}
    dns: {{srv-wildcard: off, service-lookup: off, namespace-oracle: off, pod-oracle: off, reverse-sweep: judge}}
controls: {{positive: [{{tcp: '127.0.0.1:1'}}]}}
dns:
  resolver: 127.0.0.1:1
  servers: [{{name: server, address: '{server}'}}]
  timeout: {timeout}
  attempts: 1
  queries_per_second: 1000000
  in_flight: {IN_FLIGHT}
  sockets: {SOCKETS}
  reverse_sweep: {{ranges: [{RANGE}], queries_per_sweep: {ADDRESSES}}}
"
        ),
    );
    let ended = segprobe(&["check", "--config.file", &path, "--output", "json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
    find(&report, "reverse-sweep", "server")["dns"].clone()
}

#[test]
fn a_range_is_asked_from_few_sockets_and_nothing_is_lost() {
    let socket = UdpSocket::bind((loopback(), 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let server = thread::spawn(move || holds_back(&socket));
    let evidence = sweep(address, "1m", "10s");
    assert_eq!((&evidence["asked"], &evidence["lost"]), (&ADDRESSES.into(), &0.into()), "{evidence:#}");
    UdpSocket::bind((loopback(), 0)).unwrap().send_to(&[], address).unwrap();
    let seen = server.join().unwrap();
    assert_eq!(seen.times.len(), ADDRESSES);
    assert!(seen.times.values().all(|times| *times == 1), "nothing is asked twice");
    assert_eq!((seen.ports.len(), seen.most_at_once), (SOCKETS, IN_FLIGHT));
}

#[test]
fn a_range_over_tcp_alone_ends_in_time_and_the_rest_is_the_next_sweeps() {
    // So slow that the range takes a minute and more.
    let slow: dns::Tcp = |query, stream| {
        thread::sleep(Duration::from_millis(20));
        dns::write(stream, &honest(query));
    };
    let server = dns::serve(|_, _| {}, Some(slow));
    let evidence = sweep(server, "7s", "500ms");
    assert_eq!(evidence["lost"], 0, "{evidence:#}");
    let asked = evidence["asked"].as_u64().unwrap();
    assert!((1..ADDRESSES as u64).contains(&asked), "{evidence:#}");
}
