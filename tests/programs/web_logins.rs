//! A flood of wrong passwords: it moves no sweep, and keeps nobody else out.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::support::{Agent, SOON, directory, listen, metrics::Page, wait_for, write_config};

/// A page, asked for from this address with a user and a password; none where it is refused, or cut because it had to wait too long.
pub fn login(address: SocketAddr, from: Ipv4Addr, login: &str) -> Option<String> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET /metrics HTTP/1.0\r\nAuthorization: Basic {}\r\n\r\n", base64(login)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.starts_with("HTTP/1.0 200").then_some(text)
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

#[test]
fn wrong_passwords_move_no_sweep_and_take_a_bounded_share() {
    const COST: u32 = 7;
    /// Two hundred a second for two intervals; on a busy machine it takes longer until there are so many.
    const WRONG_LOGINS: u64 = 2_800;
    let hash = bcrypt::hash("right", COST).unwrap();
    let (directory, (_control, control)) = (directory(), listen());
    let target =
        |i| format!("  - {{zone: high, name: t{i}, address: {}, kind: endpoint, ports: [{i}]}}\n", control.ip());
    let config = format!(
        "zones: {{low: {{}}, high: {{}}}}
boundaries: [{{name: b, from: low, to: high, interval: 7s, tcp: {{attempts: 1, closed: unverified}}, dns: off}}]
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
pace: {{per_second: 10000, spacing: 0s}}
targets:
{}",
        (1..=50).map(target).collect::<String>()
    );
    let config = write_config(directory.path(), &config);
    let file = directory.path().join("web.yml");
    fs::write(&file, format!("basic_auth_users: {{alice: {hash}, bob: {hash}}}\n")).unwrap();
    let agent = Agent::start(directory.path(), &config, &["--web.config.file", file.to_str().unwrap()]);
    let page = || {
        let answer = wait_for("the page", SOON, || login(agent.address, Ipv4Addr::LOCALHOST, "alice:right"));
        Page::parse(answer.split_once("\r\n\r\n").unwrap().1)
    };
    let sweeps = |page: &Page| page.value("segprobe_sweep_duration_seconds_count", &[("boundary", "b")]).unwrap_or(0.0);
    let hashes = |page: &Page| page.value("segprobe_web_password_hashes_total", &[]).unwrap();
    wait_for("a sweep", SOON, || (sweeps(&page()) >= 1.0).then_some(()));

    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (before, began) = (page(), Instant::now());
    let flood: Vec<_> = (0..8)
        .map(|thread| {
            let (stop, asked, address) = (stop.clone(), asked.clone(), agent.address);
            thread::spawn(move || guess(address, thread, &stop, &asked))
        })
        .collect();
    // Somebody honest, who is not known yet, from another address.
    wait_for("bob is let in", SOON, || login(agent.address, Ipv4Addr::new(127, 0, 0, 9), "bob:right"));
    let during = wait_for("two more sweeps beside a flood", SOON, || {
        let is_flood = asked.load(Ordering::Relaxed) >= WRONG_LOGINS;
        Some(page()).filter(|page| is_flood && sweeps(page) >= sweeps(&before) + 2.0)
    });
    stop.store(true, Ordering::Relaxed);
    flood.into_iter().for_each(|guesser| guesser.join().unwrap());
    let took = began.elapsed();

    assert_eq!(during.value("segprobe_sweep_overruns_total", &[("boundary", "b")]), Some(0.0));
    assert!(during.all("segprobe_control_ok", &[]).iter().all(|control| control.value == 1.0), "a control is lost");
    let seconds = |page: &Page| page.value("segprobe_sweep_duration_seconds_sum", &[("boundary", "b")]).unwrap();
    let mean = (seconds(&during) - seconds(&before)) / (sweeps(&during) - sweeps(&before));
    let calm = seconds(&before) / sweeps(&before);
    assert!(mean < calm * 2.0 + 1.0, "sweeps took {mean} s instead of {calm} s");
    // The place rests four times as long as a refusal takes; how long that is, is measured here.
    let one = (0..5).map(|_| {
        let began = Instant::now();
        let _ = bcrypt::verify("wrong", &hash);
        began.elapsed()
    });
    let most = took.as_secs_f64() / (3.0 * one.min().unwrap().as_secs_f64()) + 10.0;
    let computed = hashes(&during) - hashes(&before);
    assert!((2.0..most).contains(&computed), "{computed} hashes, expected {most} at most, of {asked:?} logins");
}

/// Wrong passwords without end, each another, at 125 a second where the machine allows it.
fn guess(address: SocketAddr, thread: usize, stop: &AtomicBool, asked: &AtomicU64) {
    let (mut stream, mut next): (Option<TcpStream>, _) = (None, Instant::now());
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let open = stream.take().or_else(|| {
            let stream = TcpStream::connect_timeout(&address, SOON).ok()?;
            stream.set_read_timeout(Some(SOON)).ok()?;
            Some(stream)
        });
        let user = ["alice", "bob", "nobody"][number % 3];
        let login = base64(&format!("{user}:wrong {thread} {number}"));
        if let Some(mut open) = open {
            let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {login}\r\n\r\n");
            let mut answer = [0; 1024];
            if open.write_all(request.as_bytes()).is_ok() && open.read(&mut answer).is_ok_and(|bytes| bytes > 0) {
                assert!([&b"HTTP/1.1 401"[..], b"HTTP/1.1 429"].contains(&&answer[..12]));
                asked.fetch_add(1, Ordering::Relaxed);
                stream = Some(open);
            }
        }
        next = (next + Duration::from_millis(8)).max(Instant::now() - Duration::from_millis(100));
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}
