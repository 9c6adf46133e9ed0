//! The HTTP server: who may see what, and readers that will not hurry.

use std::{
    io::{ErrorKind, Read, Write},
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
    Agent, SEGPROBE, SOON, directory, have, http, listen, namespaces_are_allowed, process, segprobe, wait_for,
    write_config,
};

fn config(control: SocketAddr) -> String {
    many_checks(control, 200)
}

/// So many checks with series of their own, that the page is long, swept every 7 s.
pub fn many_checks(control: SocketAddr, count: u16) -> String {
    let target =
        |i| format!("  - {{zone: high, name: t{i}, address: {}, kind: endpoint, ports: [{i}]}}\n", control.ip());
    format!(
        "zones: {{low: {{}}, high: {{}}}}
boundaries:
  - {{name: b, from: low, to: high, interval: 7s, tcp: {{attempts: 1, closed: unverified}}, dns: off}}
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
pace: {{per_second: 10000, spacing: 0s}}
series: {{every_check: 1000}}
targets:
{}",
        (1..=count).map(target).collect::<String>()
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
    // Prometheus 3 drops what comes without a type that it knows.
    let format = Some("text/plain; version=0.0.4; charset=utf-8");
    assert_eq!((metrics.status, metrics.header("Content-Type")), (200, format), "{}", metrics.head);
    for (path, status) in [
        ("/", 200),
        ("/-/healthy", 200),
        ("/-/ready", 200),
        ("/api/v1/checks", 200),
        ("/-/reload", 405),
        ("/metrics/", 404),
        ("/config", 200),
        ("/config/", 404),
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
        assert!(landing.status == 403 && !landing.text().contains("t200"), "{host}: {}", landing.text());
        assert_eq!(foreign("GET", "/metrics", host).status, 200, "{host}");
    }
    assert_eq!(foreign("GET", "/api/v1/checks", "localhost").status, 200);

    // A page of another origin may not steer the agent through its reader's browser, though that is on this machine.
    let by_page = |headers: &str| {
        let head = format!("POST /-/reload HTTP/1.0\r\nHost: localhost:11450\r\nContent-Length: 0\r\n{headers}\r\n");
        http::request(agent.address, &head).status
    };
    for (headers, status) in [
        ("", 200),
        ("Origin: http://localhost:11450\r\nSec-Fetch-Site: same-origin\r\n", 200),
        ("Origin: https://evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
    ] {
        assert_eq!(by_page(headers), status, "{headers}");
    }
}

#[test]
fn the_configuration_is_shown_as_it_was_loaded() {
    let (_control, control) = listen();
    let directory = directory();
    let text = config(control);
    let path = write_config(directory.path(), &text);
    let agent = Agent::start(directory.path(), &path, &[]);
    let shown = agent.get("/config");
    let hash = agent.checks()["config_hash"].as_str().unwrap().to_owned();
    assert_eq!(shown.text(), format!("# hash: {hash}\n# file: {path}\n{text}"));
    assert_eq!(shown.header("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(shown.header("Cache-Control"), Some("no-store"));

    // A bad file changes nothing; a good one does, and its target files are named.
    std::fs::write(&path, "zones: []").unwrap();
    assert_eq!(http::post(agent.address, "/-/reload").status, 500);
    assert_eq!(agent.get("/config").text(), shown.text());
    std::fs::write(directory.path().join("more.yaml"), "targets: []\n").unwrap();
    std::fs::write(&path, format!("target_files: [more.yaml]\n{text}")).unwrap();
    assert_eq!(http::post(agent.address, "/-/reload").status, 200);
    let now = agent.get("/config").text();
    let more = directory.path().join("more.yaml");
    assert!(now.contains(&format!("# target file: {}\n", more.display())) && now.ends_with(&text), "{now}");
}

#[test]
fn detail_for_other_machines_needs_authentication_at_start() {
    let directory = directory();
    let path = write_config(directory.path(), &config("127.0.0.1:1".parse().unwrap()));
    for flag in ["--web.enable-detail", "--web.enable-lifecycle"] {
        let ended = segprobe(&["agent", "--config.file", &path, "--web.listen-address", ":0", flag]);
        assert_eq!(ended.code, Some(64), "{ended:?}");
        for part in
            [flag, "--web.config.file", "basic_auth_users", "RequireAndVerifyClientCert", "kubectl port-forward"]
        {
            assert!(ended.stderr.contains(part) && ended.stderr.lines().count() == 1, "{part}: {ended:?}");
        }
    }
    // On loopback it is shown anyway.
    let agent = Agent::start(directory.path(), &path, &["--web.enable-detail", "--web.enable-lifecycle"]);
    assert_eq!(agent.get("/").status, 200);
}

#[test]
fn the_server_has_a_thread_of_its_own_that_gives_way() {
    let (_control, control) = listen();
    let directory = directory();
    let agent = Agent::start(directory.path(), &write_config(directory.path(), &config(control)), &[]);
    agent.get("/metrics");
    let threads = std::fs::read_dir(agent.process.proc().join("task")).unwrap().map(|thread| {
        // The name stands in brackets; the nice value is the 17th field after it.
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(") ").unwrap();
        (name.to_owned(), rest.split(' ').nth(16).unwrap().parse::<i32>().unwrap())
    });
    let threads: Vec<_> = threads.collect();
    assert!(threads.iter().all(|(name, nice)| (name == "http") == (*nice == 10)), "{threads:?}");
    assert!(threads.iter().any(|(name, _)| name == "http"), "{threads:?}");
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
        ask() { curl -gs -o /dev/null --noproxy '*' --max-time 60 -w "$1 $2 %{http_code}\n" -X "$1" "$2"; }
        for i in $(seq 600); do ask GET http://127.0.0.1:11450/-/ready | grep -q 200 && break; sleep 0.1; done
        for base in http://127.0.0.1:11450 http://[::1]:11450; do
            for path in /metrics /-/ready / /api/v1/checks /config; do ask GET $base$path; done; ask POST $base/-/reload
        done
        # A scan from another address: what is known, and what scanners guess.
        scan() {
            for path in / /metrics /-/healthy /-/ready /api/v1/checks /config /-/reload /-/quit /-/config /api /api/v1 /api/v1/ \
                /api/v1/status/config /api/v1/targets /status /state /health /healthz /livez /readyz /debug /debug/pprof/ /debug/vars \
                /debug/requests /admin /console /env /actuator /graphql /swagger.json /openapi.json /v1 /probe /sd /targets /flags \
                /favicon.ico /index.html /robots.txt /.git/config /.env //config /%2e/config /config/ /config%00 /Config /metrics/../config
            do for method in GET HEAD POST PUT DELETE PATCH OPTIONS TRACE CONNECT; do
                curl -gs -o /dev/null --noproxy '*' --path-as-is --max-time 60 -w "$method $path %{http_code}\n" -X $method $([ $method = HEAD ] && echo -I) http://192.0.2.1:11450$path
            done; done | grep ' 2..$'
            # By another name, with what proxies and browsers say, and with a password that nobody asked for.
            for more in 'Host: localhost' 'Host: 127.0.0.1:11450' 'X-Forwarded-For: 127.0.0.1' 'Forwarded: for=127.0.0.1' \
                'X-Original-URL: /config' 'Authorization: Basic YWRtaW46YWRtaW4='
            do for path in / /config /api/v1/checks; do
                curl -gs -o /dev/null --noproxy '*' -H "$more" -w "$more %{http_code}\n" http://192.0.2.1:11450$path
            done; done | grep -v ' 403$' || true
        }
        scan
        for path in / /config /api/v1/checks; do curl -s --noproxy '*' http://192.0.2.1:11450$path; done
        curl -s --noproxy '*' -X POST http://192.0.2.1:11450/-/reload
        kill $agent
    "#;
    let mut command = Command::new("unshare");
    // In a process namespace as well: whatever happens, nothing of the script is left behind.
    command.args(["-Urnp", "--fork", "--kill-child", "sh", "-c", script, SEGPROBE, &path]);
    let ended = process::run(command, SOON);
    let expected = "\
GET http://127.0.0.1:11450/metrics 200
GET http://127.0.0.1:11450/-/ready 200
GET http://127.0.0.1:11450/ 200
GET http://127.0.0.1:11450/api/v1/checks 200
GET http://127.0.0.1:11450/config 200
POST http://127.0.0.1:11450/-/reload 200
GET http://[::1]:11450/metrics 200
GET http://[::1]:11450/-/ready 200
GET http://[::1]:11450/ 200
GET http://[::1]:11450/api/v1/checks 200
GET http://[::1]:11450/config 200
POST http://[::1]:11450/-/reload 200
GET /metrics 200
HEAD /metrics 200
GET /-/healthy 200
HEAD /-/healthy 200
GET /-/ready 200
HEAD /-/ready 200
only over the loopback address, where `kubectl port-forward` leads, or with --web.enable-detail and authentication
only over the loopback address, where `kubectl port-forward` leads, or with --web.enable-detail and authentication
only over the loopback address, where `kubectl port-forward` leads, or with --web.enable-detail and authentication
only over the loopback address (SIGHUP works too), or with --web.enable-lifecycle and authentication
";
    assert_eq!(ended.stdout, expected, "{ended:?}");
}

/// With the flags, and with passwords: nothing without one, everything with one, from another address too.
#[test]
fn detail_is_open_to_others_by_flag_and_password() {
    if !(have("unshare") && have("ip") && have("curl") && namespaces_are_allowed()) {
        return;
    }
    let directory = directory();
    let path = write_config(directory.path(), &config("127.0.0.1:1".parse().unwrap()));
    let web = directory.path().join("web.yml");
    std::fs::write(&web, format!("basic_auth_users: {{alice: {}}}\n", bcrypt::hash("secret", 4).unwrap())).unwrap();
    let script = r#"
        set -e
        ip link set lo up; ip address add 192.0.2.1/32 dev lo
        ask() { curl -s -o /dev/null --noproxy '*' --max-time 60 -w '%{http_code} ' "$@"; }
        for flag in --web.enable-detail --web.enable-lifecycle; do
            "$0" agent --config.file "$1" --web.config.file "$2" --web.listen-address :11450 $flag 2>/dev/null &
            agent=$!
            for i in $(seq 600); do ask http://127.0.0.1:11450/-/ready | grep -q 200 && break; sleep 0.1; done
            for host in 192.0.2.1 127.0.0.1; do
                for user in '' alice:wrong alice:secret; do
                    printf '%s %s %s: ' $flag $host "$user"
                    for path in / /api/v1/checks /config /metrics /-/ready; do ask -u "$user" http://$host:11450$path; done
                    ask -u "$user" -X POST http://$host:11450/-/reload; echo
                done
            done
            kill $agent; wait $agent
        done
        # A file that asks nobody for a password does not start, and says why.
        echo '{}' > "$2"
        "$0" agent --config.file "$1" --web.config.file "$2" --web.listen-address :11450 --web.enable-detail 2>&1 | grep -c 'web.yml: nobody is asked who they are'
    "#;
    let mut command = Command::new("unshare");
    command.args(["-Urnp", "--fork", "--kill-child", "sh", "-c", script, SEGPROBE, &path]).arg(&web);
    let ended = process::run(command, SOON);
    let expected = "\
--web.enable-detail 192.0.2.1 : 401 401 401 401 200 401 
--web.enable-detail 192.0.2.1 alice:wrong: 401 401 401 401 200 401 
--web.enable-detail 192.0.2.1 alice:secret: 200 200 200 200 200 403 
--web.enable-detail 127.0.0.1 : 401 401 401 401 200 401 
--web.enable-detail 127.0.0.1 alice:wrong: 401 401 401 401 200 401 
--web.enable-detail 127.0.0.1 alice:secret: 200 200 200 200 200 200 
--web.enable-lifecycle 192.0.2.1 : 401 401 401 401 200 401 
--web.enable-lifecycle 192.0.2.1 alice:wrong: 401 401 401 401 200 401 
--web.enable-lifecycle 192.0.2.1 alice:secret: 403 403 403 200 200 200 
--web.enable-lifecycle 127.0.0.1 : 401 401 401 401 200 401 
--web.enable-lifecycle 127.0.0.1 alice:wrong: 401 401 401 401 200 401 
--web.enable-lifecycle 127.0.0.1 alice:secret: 200 200 200 200 200 200 
1
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
    // A slow reader is cut after 30 s.
    assert!(began.elapsed() < Duration::from_secs(25), "they waited for the slow ones: {:?}", began.elapsed());
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
    // It is cut where others need the place.
    let begun = stream.read_exact(&mut [0]);
    reading.fetch_add(1, Ordering::Relaxed);
    while begun.is_ok() && !stop.load(Ordering::Relaxed) && stream.read_exact(&mut [0]).is_ok() {
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn clients_that_never_finish_their_request_are_cut() {
    let (_control, control) = listen();
    let directory = directory();
    let path = write_config(directory.path(), &config(control));
    let agent = Agent::start(directory.path(), &path, &[]);
    let mut idle: Vec<TcpStream> = (0..70)
        .map(|_| {
            let mut stream = TcpStream::connect(agent.address).unwrap();
            stream.write_all(b"GET /metrics HT").unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    assert_eq!(agent.get("/-/healthy").status, 200);
    assert!(began.elapsed() < Duration::from_secs(9), "nobody waits for them: {:?}", began.elapsed());
    // Ten seconds for the request's headers, and they are cut.
    for stream in &mut idle {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let ended = stream.read(&mut [0; 100]);
        assert!(
            matches!(&ended, Ok(0)) || ended.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
            "{ended:?}"
        );
    }
    assert!(began.elapsed() > Duration::from_secs(9), "{:?}", began.elapsed());
}
