//! Clients that want the HTTP server down: an honest scraper from another address does not notice them.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rand::Rng;
use socket2::{Domain, Socket, Type};

use crate::{
    http::many_checks,
    support::{Agent, SOON, directory, listen, loopback, skip, slowdown, wait_for, write_config},
};

/// What an honest scraper is promised, by the time that this machine has for the server: it may be busy with other tests.
const A_SECOND: Duration = Duration::from_secs(1);
/// When Prometheus gives up.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// Honest scrapes beside each attack, at least.
const FEWEST: usize = 5;
/// How long each attack lasts at least.
const ATTACK: Duration = Duration::from_secs(2);
/// What attackers may cost, in KiB.
const MORE_KIB: u64 = 16 << 10;
/// Connections of the large crowds: well above the places that there are.
const CROWD: usize = 400;

/// So many that the page is longer than all buffers.
const CHECKS: u16 = 600;

/// A connection from an address of our own choice.
fn connect(from: Ipv4Addr, to: SocketAddr, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), SOON)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

/// Asks and reads to the end of the connection.
fn ask(from: Ipv4Addr, to: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream = connect(from, to, None)?;
    for (n, part) in request.as_bytes().chunks(32 << 10).enumerate() {
        // What is long goes on when the answer may be there already.
        thread::sleep(Duration::from_millis(if n > 0 { 50 } else { 0 }));
        stream.write_all(part)?;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// One scrape, whole; gives the time that it took.
fn scrape(from: Ipv4Addr, to: SocketAddr) -> io::Result<Duration> {
    let began = Instant::now();
    let answer = ask(from, to, "GET /metrics HTTP/1.0\r\n\r\n")?;
    let whole = answer.starts_with("HTTP/1.0 200") && answer.trim_end().ends_with(|c: char| c.is_ascii_digit());
    if whole { Ok(began.elapsed()) } else { Err(io::Error::other(answer.lines().next().unwrap_or("").to_owned())) }
}

/// Whoever attacks: where from and whom, and until when.
struct Attack<'a> {
    from: Ipv4Addr,
    to: SocketAddr,
    over: &'a AtomicBool,
    /// It is in full swing.
    under_way: &'a AtomicUsize,
}

/// Ends an attack, in a test that failed as well.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Attack<'_> {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// Holds a crowd of connections, each renewed when it is cut; `act` does its worst every 100 ms.
    fn crowd(&self, buffer: Option<usize>, first: &[u8], mut act: impl FnMut(&mut TcpStream) -> io::Result<()>) {
        let mut crowd: Vec<TcpStream> = Vec::new();
        while self.goes_on() {
            while crowd.len() < CROWD && self.goes_on() {
                // What is refused or cut is tried again: that is what attackers do.
                let Ok(mut stream) = connect(self.from, self.to, buffer) else { continue };
                stream.set_nonblocking(true).unwrap();
                if stream.write_all(first).is_ok() {
                    crowd.push(stream);
                }
            }
            self.under_way.store(crowd.len(), Ordering::Relaxed);
            crowd.retain_mut(|stream| {
                let acted = act(stream);
                acted.is_ok() || acted.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
            });
            thread::sleep(Duration::from_millis(100));
        }
    }
}

const ASK: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

fn slow_headers(attack: &Attack<'_>) {
    attack.crowd(None, b"GET /metrics HTTP/1.1\r\nX: ", |stream| stream.write_all(b"x"));
}

fn slow_readers(attack: &Attack<'_>) {
    attack.crowd(Some(1), ASK, |stream| stream.read(&mut [0]).map(|_| ()));
}

fn silence(attack: &Attack<'_>) {
    attack.crowd(None, b"", |stream| match stream.peek(&mut [0])? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    });
}

fn half_closed(attack: &Attack<'_>) {
    attack.crowd(Some(1), ASK, |stream| stream.shutdown(Shutdown::Write));
}

fn pipelines(attack: &Attack<'_>) {
    attack.crowd(None, ASK, |stream| stream.write_all(&ASK.repeat(50)));
}

fn garbage(attack: &Attack<'_>) {
    let mut bytes = [0; 512];
    attack.crowd(None, b"", |stream| {
        rand::rng().fill_bytes(&mut bytes);
        stream.write_all(&bytes)
    });
}

/// 10,000 connections, one after another as fast as it goes, from four addresses that nobody else has; they are held as long as the server holds them.
fn ten_thousand(attack: &Attack<'_>) {
    let [a, b, c, _] = attack.from.octets();
    let b = b - 50;
    thread::scope(|scope| {
        for last in 1..=4 {
            scope.spawn(move || {
                let mut held = Vec::new();
                for _ in 0..2_500 {
                    let mut stream = connect(Ipv4Addr::new(a, b, c, last), attack.to, None).unwrap();
                    // It may be cut already.
                    let _ = stream.write_all(b"GET /metrics HT");
                    held.push(stream);
                    attack.under_way.fetch_add(1, Ordering::Relaxed);
                }
                while attack.goes_on() {
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
    assert_eq!(attack.under_way.load(Ordering::Relaxed), 10_000);
}

fn large_headers(attack: &Attack<'_>) {
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 << 10));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(101));
    while attack.goes_on() {
        let answer = ask(attack.from, attack.to, &many).unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        for (what, request) in [("long", &long), ("path", &path)] {
            // The answer comes in the midst of the request, and is not lost for the rest.
            let answer = ask(attack.from, attack.to, request).unwrap();
            assert!(answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
            attack.under_way.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A body without end: nobody reads it, and whoever sends it is cut.
fn endless_bodies(attack: &Attack<'_>) {
    while attack.goes_on() {
        let mut stream = connect(attack.from, attack.to, None).unwrap();
        let head = "POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let chunk = [b"4000\r\n", [b'x'; 16 << 10].as_slice(), b"\r\n"].concat();
        let mut sent = 0;
        while sent < 8 << 20 && stream.write_all(&chunk).is_ok() {
            sent += chunk.len();
        }
        assert!(sent < 8 << 20, "{sent} bytes of a body were taken");
        attack.under_way.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_honest_scraper_does_not_notice_attackers() {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if hard < 11_000 {
        skip(&format!("10,000 connections need as many descriptors, and {hard} are allowed"));
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let (_control, control) = listen();
    let directory = directory();
    let agent = Agent::start(directory.path(), &write_config(directory.path(), &many_checks(control, CHECKS)), &[]);
    agent.wait_for_sweeps();
    let sweeps = || agent.page().value("segprobe_sweep_duration_seconds_count", &[("boundary", "b")]).unwrap();
    let (before, began) = (sweeps(), Instant::now());
    let mut busiest: f64 = 1.0;

    let honest = loopback();
    (0..20).for_each(|_| assert!(scrape(honest, agent.address).is_ok()));
    let peaceful = agent.process.peak_memory();
    for (what, attack) in [
        ("slow headers", slow_headers as fn(&Attack<'_>)),
        ("slow readers", slow_readers),
        ("silence", silence),
        ("half-closed sockets", half_closed),
        ("pipelines", pipelines),
        ("garbage", garbage),
        ("10,000 connections", ten_thousand),
        ("large headers", large_headers),
        ("endless bodies", endless_bodies),
    ] {
        let (from, over, under_way) = (loopback(), AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let attacker = scope.spawn(|| {
                // Attackers are elsewhere: they may take the server's time, but not this machine's.
                rustix::process::setpriority_process(None, 19).unwrap();
                attack(&Attack { from, to: agent.address, over: &over, under_way: &under_way });
            });
            let end = EndOf(&over);
            wait_for(what, SOON, || (under_way.load(Ordering::Relaxed) > 0).then_some(()));
            let (began, mut took, mut busy) = (Instant::now(), Vec::new(), Vec::new());
            while began.elapsed() < ATTACK || took.len() < FEWEST {
                took.push(scrape(honest, agent.address).unwrap_or_else(|e| panic!("{what}: {e}")));
                busy.push(slowdown());
                // Who shares the attacker's address shares its lot, but is let in.
                wait_for("an answer beside an attacker", SOON, || scrape(from, agent.address).ok());
                thread::sleep(Duration::from_millis(50));
            }
            drop(end);
            attacker.join().unwrap();
            took.sort();
            let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
            let busy = busy.iter().sum::<f64>() / busy.len() as f64;
            busiest = busiest.max(busy);
            let promised = [A_SECOND, SCRAPE_TIMEOUT].map(|time| time.mul_f64(busy));
            assert!(
                median < promised[0] && longest < promised[1],
                "{what}: {took:?} on a machine that is {busy} times slower"
            );
            let peak = agent.process.peak_memory();
            println!("{what}: {} scrapes, median {median:?}, longest {longest:?}, peak {peak} KiB", took.len());
        });
        let peak = agent.process.peak_memory();
        assert!(peak < peaceful + MORE_KIB, "{what}: the agent took {peak} KiB, and {peaceful} before");
    }
    // One in 7 s, and one less for what began before.
    let due = (began.elapsed().as_secs_f64() / 7.0 / busiest).floor() - 1.0;
    assert!(sweeps() - before >= due.max(1.0), "{} sweeps of {due}", sweeps() - before);
}
