//! The HTTP server: who may see what, and readers that will not hurry.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    Agent, SEGPROBE, SOON, directory, have, http, listen, namespaces_are_allowed, process, wait_for, write_config,
};

/// Many checks, so that the page is long, swept every 7 s.
fn config(control: SocketAddr) -> String {
    let target =
        |i| format!("  - {{zone: high, name: t{i}, address: {}, kind: endpoint, ports: [{i}]}}\n", control.ip());
    format!(
        "zones: {{low: {{}}, high: {{}}}}
boundaries:
  - {{name: b, from: low, to: high, interval: 7s, tcp: {{attempts: 1, closed: unverified}}, dns: off}}
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
pace: {{per_second: 10000, spacing: 0s}}
targets:
{}",
        (1..=200).map(target).collect::<String>()
    )
}

#[test]
fn what_is_served_to_whom() {
    let (_control, control) = listen();
    let directory = directory();
    let path = write_config(directory.path(), &config(control));
    let agent = Agent::start(directory.path(), &path, &[]);
    agent.wait_for_sweeps();

    let metrics = agent.get("/metrics");
    let content_type = metrics.header("Content-Type").unwrap();
    assert!(metrics.status == 200 && content_type.starts_with("text/plain; version=0.0.4"), "{}", metrics.head);
    for (path, status) in [
        ("/", 200),
        ("/-/healthy", 200),
        ("/-/ready", 200),
        ("/api/v1/checks", 200),
        ("/-/reload", 405),
        ("/metrics/", 404),
        ("/config", 404),
        ("/api/v1/nothing", 404),
        ("/../../etc/passwd", 404),
    ] {
        assert_eq!(agent.get(path).status, status, "{path}");
    }
    assert_eq!(http::post(agent.address, "/metrics").status, 405);
    assert!(agent.get("/?q=t200").text().contains("t200:200"), "loopback sees the detail");
    assert_eq!(agent.get("/api/v1/checks").header("Content-Type"), Some("application/json"));
    assert_eq!(http::post(agent.address, "/-/reload").status, 200);

    // A web page that points a name of its own at 127.0.0.1 comes over loopback, but says its name.
    let foreign = |method: &str, path: &str, host: &str| {
        let request = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        http::request(agent.address, &request)
    };
    for host in ["evil.example", "evil.example:80", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example", ""]
    {
        assert_eq!(foreign("GET", "/api/v1/checks", host).status, 403, "{host}");
        assert_eq!(foreign("POST", "/-/reload", host).status, 403, "{host}");
        let landing = foreign("GET", "/", host);
        assert!(landing.status == 200 && !landing.text().contains("t200"), "{host}: {}", landing.text());
        assert_eq!(foreign("GET", "/metrics", host).status, 200, "{host}");
    }
    assert_eq!(foreign("GET", "/api/v1/checks", "localhost").status, 200);
}

#[test]
fn detail_stays_on_loopback() {
    if !(have("unshare") && have("ip") && have("curl") && namespaces_are_allowed()) {
        return;
    }
    let directory = directory();
    let path = write_config(directory.path(), &config("127.0.0.1:1".parse().unwrap()));
    // In a network of its own the agent gets an address that is no loopback address, and is asked on it.
    let script = r#"
        set -e
        ip link set lo up; ip address add 192.0.2.1/32 dev lo
        "$0" agent --config.file "$1" --web.listen-address :11450 2>/dev/null &
        agent=$!
        ask() { curl -gs -o /dev/null --noproxy '*' --max-time 5 -w "$1 $2 %{http_code}\n" -X "$1" "$2"; }
        for i in $(seq 100); do ask GET http://127.0.0.1:11450/-/ready | grep -q 200 && break; sleep 0.1; done
        for base in http://127.0.0.1:11450 http://[::1]:11450 http://192.0.2.1:11450; do
            ask GET $base/metrics; ask GET $base/-/ready; ask GET $base/api/v1/checks; ask POST $base/-/reload
        done
        # Over the other address, but naming loopback.
        curl -s -o /dev/null --noproxy '*' -w "named %{http_code}\n" -H 'Host: localhost' http://192.0.2.1:11450/api/v1/checks
        curl -s --noproxy '*' http://192.0.2.1:11450/ | grep -c t200 || true
        kill $agent
    "#;
    let mut command = Command::new("unshare");
    // In a process namespace as well: whatever happens, nothing of the script is left behind.
    command.args(["-Urnp", "--fork", "--kill-child", "sh", "-c", script, SEGPROBE, &path]);
    let ended = process::run(command, SOON);
    let expected = "\
GET http://127.0.0.1:11450/metrics 200
GET http://127.0.0.1:11450/-/ready 200
GET http://127.0.0.1:11450/api/v1/checks 200
POST http://127.0.0.1:11450/-/reload 200
GET http://[::1]:11450/metrics 200
GET http://[::1]:11450/-/ready 200
GET http://[::1]:11450/api/v1/checks 200
POST http://[::1]:11450/-/reload 200
GET http://192.0.2.1:11450/metrics 200
GET http://192.0.2.1:11450/-/ready 200
GET http://192.0.2.1:11450/api/v1/checks 403
POST http://192.0.2.1:11450/-/reload 403
named 403
0
";
    assert_eq!(ended.stdout, expected, "{ended:?}");
}

#[test]
fn slow_readers_stop_neither_others_nor_the_sweeps() {
    let (_control, control) = listen();
    let directory = directory();
    let path = write_config(directory.path(), &config(control));
    let agent = Agent::start(directory.path(), &path, &[]);
    agent.wait_for_sweeps();
    let sweeps = || agent.page().value("segprobe_sweep_duration_seconds_count", &[("boundary", "b")]).unwrap();

    let (stop, reading) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let readers: Vec<_> = (0..40)
        .map(|_| {
            let (stop, reading, address) = (stop.clone(), reading.clone(), agent.address);
            thread::spawn(move || read_slowly(address, &stop, &reading))
        })
        .collect();
    wait_for("all of them read", SOON, || (reading.load(Ordering::Relaxed) == 40).then_some(()));
    let before = sweeps();
    let began = Instant::now();
    for _ in 0..10 {
        assert_eq!(agent.get("/metrics").status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(8), "they waited for the slow ones: {:?}", began.elapsed());
    wait_for("another sweep", SOON, || (sweeps() > before).then_some(()));
    let peak = agent.process.peak_memory();
    assert!(peak < 64 << 10, "the agent took {peak} KiB");
    stop.store(true, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

/// Asks for the page and reads a byte a second, through a window as small as the kernel makes it.
fn read_slowly(address: SocketAddr, stop: &AtomicBool, reading: &AtomicUsize) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    reading.fetch_add(1, Ordering::Relaxed);
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_secs(1));
        stream.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn clients_that_never_finish_their_request_are_cut() {
    let (_control, control) = listen();
    let directory = directory();
    let path = write_config(directory.path(), &config(control));
    let agent = Agent::start(directory.path(), &path, &[]);
    // More than are served at once: those who come later wait in the kernel, and get their turn.
    let mut idle: Vec<TcpStream> = (0..70)
        .map(|_| {
            let mut stream = TcpStream::connect(agent.address).unwrap();
            stream.write_all(b"GET /metrics HT").unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    assert_eq!(agent.get("/-/healthy").status, 200);
    // Ten seconds for the request's headers, and some for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // The first ones were told off by now.
    let mut rest = Vec::new();
    idle[0].set_read_timeout(Some(SOON)).unwrap();
    idle[0].read_to_end(&mut rest).unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}
