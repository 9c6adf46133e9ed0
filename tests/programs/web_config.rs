//! `--web.config.file` with real clients: TLS, client certificates, passwords, a rotation under load, a flood of wrong passwords.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{Extension, Router, routing::get};
use nix::sys::signal::Signal;
use segprobe::web::{Authenticated, Peer, Web, listener};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    fake_kube::FakeKube,
    support::{
        Agent, SOON, directory, have, http, listen,
        metrics::Page,
        process,
        prometheus::{Prometheus, promtool, releases, value},
        segprobe,
        tls::{self, Authority},
        wait_for, write_config,
    },
    web_logins::login,
};

const PAIR: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// Nothing is tested but a control, so that sweeps are short.
fn idle(control: SocketAddr) -> String {
    format!(
        "zones: {{low: {{}}, high: {{}}}}
boundaries: [{{name: b, from: low, to: high, tcp: {{attempts: 1}}, dns: off}}]
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
targets: [{{zone: high, name: t, address: {}, kind: endpoint, ports: [1]}}]
",
        control.ip()
    )
}

/// An agent with a web configuration, an authority, and what it signed for the server and for a client.
struct Scene {
    directory: TempDir,
    authority: Authority,
    agent: Agent,
    _control: std::net::TcpListener,
}

impl Scene {
    fn start(web: &str) -> Self {
        let (directory, authority) = (directory(), Authority::new());
        let (control, control_at) = listen();
        authority.sign(&["127.0.0.1", "localhost"]).write(directory.path(), "server");
        authority.sign(&["prometheus.example"]).write(directory.path(), "client");
        Authority::new().sign(&["prometheus.example"]).write(directory.path(), "stranger");
        fs::write(directory.path().join("ca.crt"), authority.pem()).unwrap();
        let file = directory.path().join("web.yml");
        fs::write(&file, web).unwrap();
        let config = write_config(directory.path(), &idle(control_at));
        let agent = Agent::start(directory.path(), &config, &["--web.config.file", file.to_str().unwrap()]);
        Self { directory, authority, agent, _control: control }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// Status and version of HTTP as curl gets them, `000 0` where there was none.
    fn curl(&self, path: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("curl");
        command.current_dir(self.path()).args(["-sS", "-o", "/dev/null", "--noproxy", "*", "--max-time", "20"]);
        command.args(["-w", "%{http_code} %{http_version}", "--cacert", "ca.crt"]).args(arguments);
        command.arg(format!("https://{}{path}", self.agent.address));
        process::run(command, SOON).stdout
    }

    fn page(&self) -> Page {
        let answer = tls::get(&self.authority.client(), self.agent.address, "/metrics").unwrap();
        Page::parse(answer.text.split_once("\r\n\r\n").unwrap().1)
    }
}

const CERTIFICATE: [&str; 4] = ["--cert", "client.crt", "--key", "client.key"];

#[test]
fn curl_is_let_in_as_the_file_says() {
    if !have("curl") {
        return;
    }
    let hash = bcrypt::hash("right", 4).unwrap();
    let verified = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";
    let scene = Scene::start(&format!("{PAIR}{verified}basic_auth_users: {{alice: {hash}}}\n"));
    let with = |more: &[&'static str]| [&CERTIFICATE[..], more].concat();
    for (path, arguments, expected) in [
        ("/metrics", with(&["-u", "alice:right"]), "200 2"),
        ("/metrics", with(&["-u", "alice:right", "--http1.1"]), "200 1.1"),
        ("/metrics", with(&["-u", "alice:right", "--tls-max", "1.2"]), "200 2"),
        ("/metrics", with(&["-u", "alice:right", "--tls-max", "1.1"]), "000 0"),
        ("/metrics", with(&["-u", "alice:wrong"]), "401 2"),
        ("/metrics", with(&["-u", "bob:right"]), "401 2"),
        ("/metrics", with(&[]), "401 2"),
        ("/api/v1/checks", with(&["-u", "alice:right"]), "200 2"),
        ("/api/v1/checks", with(&[]), "401 2"),
        ("/-/ready", with(&[]), "200 2"),
        ("/metrics", vec!["-u", "alice:right"], "000 0"),
        ("/-/ready", vec![], "000 0"),
        ("/metrics", vec!["-u", "alice:right", "--cert", "stranger.crt", "--key", "stranger.key"], "000 0"),
    ] {
        assert_eq!(scene.curl(path, &arguments), expected, "{path} {arguments:?}");
    }
    // Who speaks no TLS gets nothing.
    assert!(http::try_request(scene.agent.address, "GET /-/ready HTTP/1.0\r\n\r\n").is_err());

    // The file is read anew, by a request; every connection after that is another.
    let reload = |web: &str| {
        scene.write("web.yml", web);
        scene.agent.process.signal(Signal::SIGHUP);
    };
    let soon = |what: &str, arguments: &[&str], expected: &str| {
        wait_for(what, SOON, || (scene.curl("/metrics", arguments) == expected).then_some(()));
    };
    reload(&format!(
        "{PAIR}{verified}  client_allowed_sans: [other.example]\n  min_version: TLS13\nhttp_server_config: {{http2: false}}\n"
    ));
    soon("another name is asked for", &CERTIFICATE, "000 0");
    reload(&format!(
        "{PAIR}{verified}  client_allowed_sans: [prometheus.example]\n  min_version: TLS13\nhttp_server_config: {{http2: false}}\n"
    ));
    soon("the name is the right one", &CERTIFICATE, "200 1.1");
    assert_eq!(scene.curl("/metrics", &with(&["--tls-max", "1.2"])), "000 0");
    reload(&format!("{PAIR}  client_auth_type: RequireAnyClientCert\n"));
    soon("any certificate will do", &["--cert", "stranger.crt", "--key", "stranger.key"], "200 2");
    assert_eq!(scene.curl("/metrics", &[]), "000 0");
    reload(&format!("{PAIR}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n"));
    soon("or none", &[], "200 2");
    assert_eq!(scene.curl("/metrics", &CERTIFICATE), "200 2");
    assert_eq!(scene.curl("/metrics", &["--cert", "stranger.crt", "--key", "stranger.key"]), "000 0");
    reload(&format!("{PAIR}  client_auth_type: RequestClientCert\n"));
    soon("and nobody looks at it", &["--cert", "stranger.crt", "--key", "stranger.key"], "200 2");
}

#[test]
fn prometheus_scrapes_with_certificate_and_password() {
    for program in releases("prometheus") {
        scrape_with_certificate_and_password(&program);
    }
}

fn scrape_with_certificate_and_password(program: &Path) {
    let hash = bcrypt::hash("right", 4).unwrap();
    let verified = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";
    let scene = Scene::start(&format!("{PAIR}{verified}basic_auth_users: {{prometheus: {hash}}}\n"));
    let job = |name: &str, password: &str, certificate: &str, more: &str| {
        let at = scene.path().display();
        format!(
            "- job_name: {name}
  scheme: https
  tls_config: {{ca_file: {at}/ca.crt, cert_file: {at}/{certificate}.crt, key_file: {at}/{certificate}.key{more}}}
  basic_auth: {{username: prometheus, password: {password}}}
  static_configs: [{{targets: ['{}']}}]
",
            scene.agent.address
        )
    };
    let text = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n{}{}{}{}",
        job("good", "right", "client", ""),
        job("old-tls", "right", "client", ", max_version: TLS12"),
        job("wrong-password", "wrong", "client", ""),
        job("wrong-certificate", "right", "stranger", ""),
    );
    let prometheus = Prometheus::start(program, scene.path(), &text);
    let up = |job: &str| prometheus.query(&format!("up{{job=\"{job}\"}}")).first().map(value);
    for job in ["good", "old-tls"] {
        wait_for(job, SOON, || (up(job) == Some(1.0)).then_some(()));
    }
    for job in ["wrong-password", "wrong-certificate"] {
        assert_eq!(wait_for(job, SOON, || up(job)), 0.0, "{job}");
    }
    let hashes = prometheus.query("segprobe_web_password_hashes_total{job=\"good\"}");
    // The right one and the wrong one: everything after that is remembered. (Both jobs may be in one moment.)
    assert!(value(&hashes[0]) <= 3.0, "{hashes:?}");
}

/// Tells others to stop when it is dropped, by a failed assertion too: nobody waits for scrapers that go on for ever.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_certificate_is_rotated_under_load_without_a_failed_scrape() {
    let scene = Scene::start(PAIR);
    let (stop, scrapes, failures) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(Vec::new()));
    let client = scene.authority.client();
    thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                // A client of its own each time: no session is resumed.
                while !stop.load(Ordering::Relaxed) {
                    let scrape = tls::get(&scene.authority.client(), scene.agent.address, "/metrics");
                    let status = scrape.map(|answer| answer.text.lines().next().unwrap_or_default().to_owned());
                    match status {
                        Ok(status) if status == "HTTP/1.0 200 OK" => _ = scrapes.fetch_add(1, Ordering::Relaxed),
                        other => failures.lock().unwrap().push(format!("{other:?}")),
                    };
                }
            });
        }
        let _stops = Stops(&stop);
        let shown = || tls::get(&client, scene.agent.address, "/-/ready").unwrap().certificate;
        let successful = || scene.page().value("segprobe_web_config_last_reload_successful", &[]).unwrap();
        for round in 0..4 {
            let (before, pair) = (shown(), scene.authority.sign(&["127.0.0.1"]));
            // Half of it, in either order; a look at that moment keeps the old pair.
            let (first, second) = if round % 2 == 0 {
                (("key", &pair.key), ("crt", &pair.certificate))
            } else {
                (("crt", &pair.certificate), ("key", &pair.key))
            };
            scene.write(&format!("server.{}", first.0), first.1);
            scene.agent.process.signal(Signal::SIGHUP);
            wait_for("half a rotation is seen", SOON, || (successful() == 0.0).then_some(()));
            assert_eq!(shown(), before);
            scene.write(&format!("server.{}", second.0), second.1);
            // Once without a signal: the files are looked at.
            if round > 0 {
                scene.agent.process.signal(Signal::SIGHUP);
            }
            wait_for("the new certificate is shown", SOON, || (shown() == pair.der).then_some(()));
            assert_eq!(successful(), 1.0);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {scrapes:?}: {failures:?}", failures.len());
    assert!(scrapes.load(Ordering::Relaxed) > 20, "{scrapes:?}");
}

#[test]
fn a_bad_file_ends_the_start_and_later_keeps_the_old_one() {
    let directory = directory();
    let (_control, control) = listen();
    let config = write_config(directory.path(), &idle(control));
    let file = directory.path().join("web.yml");
    fs::write(&file, "basic_auth_users:\n  alice: secret\n").unwrap();
    let file_name = file.to_str().unwrap();
    let ended = segprobe(&[
        "agent",
        "--config.file",
        &config,
        "--web.listen-address",
        "127.0.0.1:0",
        "--web.config.file",
        file_name,
    ]);
    assert_eq!(ended.code, Some(64), "{ended:?}");
    let expected = format!("segprobe: {file_name}:2:10: basic_auth_users: `alice`: not a bcrypt hash");
    assert!(ended.stderr.starts_with(&expected), "{}", ended.stderr);

    fs::write(&file, "http_server_config: {headers: {X-Frame-Options: deny}}\n").unwrap();
    let agent = Agent::start(directory.path(), &config, &["--web.config.file", file_name]);
    let framed = || agent.get("/-/healthy").header("X-Frame-Options").map(str::to_owned);
    let metric = |name: &str| agent.page().value(&format!("segprobe_web_config_last_reload_{name}"), &[]).unwrap();
    assert_eq!((framed().as_deref(), metric("successful")), (Some("deny"), 1.0));
    assert!(metric("success_timestamp_seconds") > 1.7e9);
    // Nobody says that the file changed; and it is complained of once.
    fs::write(&file, "http_server_config: {headers: {X-Frame-Options: maybe}}\n").unwrap();
    wait_for("the bad file is seen", SOON, || (metric("successful") == 0.0).then_some(()));
    assert_eq!(framed().as_deref(), Some("deny"));
    let reload = http::post(agent.address, "/-/reload");
    assert!(reload.status == 500 && reload.text().contains("web.yml:1:49: headers: X-Frame-Options"), "{reload:?}");
    thread::sleep(Duration::from_secs(6));
    let log = agent.process.stderr();
    assert_eq!(log.lines().filter(|l| l.contains("not reloaded") && l.contains("changed file")).count(), 1, "{log}");
    fs::write(&file, "http_server_config: {headers: {X-Frame-Options: sameorigin}}\n").unwrap();
    assert_eq!(http::post(agent.address, "/-/reload").status, 200);
    assert_eq!((framed().as_deref(), metric("successful")), (Some("sameorigin"), 1.0));
    // A file that became empty is no wish to open all.
    fs::write(&file, "").unwrap();
    assert_eq!(http::post(agent.address, "/-/reload").status, 500);
    assert_eq!(framed().as_deref(), Some("sameorigin"));
}

#[test]
fn discovery_is_served_the_same_way() {
    let (directory, kube) = (directory(), FakeKube::start(Vec::new(), &["segprobe", "segprobe-system"]));
    let settings = directory.path().join("discover.yaml");
    fs::write(&settings, include_str!("../fixtures/discover.yaml")).unwrap();
    let file = directory.path().join("web.yml");
    let hash = bcrypt::hash("right", 4).unwrap();
    fs::write(&file, format!("basic_auth_users: {{alice: {hash}}}\n")).unwrap();
    let mut command = Command::new(crate::support::SEGPROBE);
    command.args(["discover", "--web.listen-address", "127.0.0.1:0", "--config.file"]).arg(&settings);
    command.arg("--web.config.file").arg(&file).env("KUBECONFIG", kube.kubeconfig());
    let discovery = process::Process::start(command, directory.path(), "discover");
    let address: SocketAddr = wait_for("discovery listens", SOON, || {
        let log = discovery.stderr();
        log.lines().find(|l| l.contains("started"))?.split_once("address=")?.1.split(' ').next()?.parse().ok()
    });
    assert_eq!((http::get(address, "/metrics").status, http::get(address, "/-/healthy").status), (401, 200));
    let page = || login(address, Ipv4Addr::LOCALHOST, "alice:right").unwrap();
    let has = |sample: &str| page().contains(&format!("\n{sample}\n"));
    assert!(
        has("segprobe_web_config_last_reload_successful 1") && has("segprobe_web_password_hashes_total 1"),
        "{}",
        page()
    );
    fs::write(&file, "junk").unwrap();
    discovery.signal(Signal::SIGHUP);
    wait_for("the signal is heard", SOON, || {
        discovery.stderr().lines().any(|l| l.contains("not reloaded") && l.contains("SIGHUP")).then_some(())
    });
    assert!(has("segprobe_web_config_last_reload_successful 0"), "{}", page());
}

/// What handlers are told of a client's certificate: that it was shown is not enough.
#[test]
fn a_certificate_counts_only_where_it_is_verified() {
    let (directory, authority) = (directory(), Authority::new());
    authority.sign(&["127.0.0.1"]).write(directory.path(), "server");
    fs::write(directory.path().join("ca.crt"), authority.pem()).unwrap();
    let file = directory.path().join("web.yml");
    fs::write(&file, PAIR).unwrap();
    let web = Web::load(&file, false).unwrap();

    let told = |Extension(peer): Extension<Peer>, Extension(authenticated): Extension<Authenticated>| async move {
        format!("{} {}", peer.certificate, authenticated.0)
    };
    let listener = listener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let app = Router::new().route("/", get(told));
    let (app, tls) = (web.guard(app), web.clone());
    runtime.spawn(listener::serve(listener, app, move || tls.tls(), CancellationToken::new()));

    let client = authority.client_with(Some(&authority.sign(&["client"])));
    let ca = "  client_ca_file: ca.crt\n";
    for (kind, ca, expected) in [
        ("NoClientCert", "", "false false"),
        ("RequestClientCert", "", "false false"),
        ("RequireAnyClientCert", "", "false false"),
        ("VerifyClientCertIfGiven", ca, "true true"),
        ("RequireAndVerifyClientCert", ca, "true true"),
    ] {
        fs::write(&file, format!("{PAIR}  client_auth_type: {kind}\n{ca}")).unwrap();
        web.reload("test").unwrap();
        let answer = tls::get(&client, address, "/").unwrap().text;
        assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, expected, "{kind}");
    }
    fs::write(&file, format!("{PAIR}  client_auth_type: VerifyClientCertIfGiven\n{ca}")).unwrap();
    web.reload("test").unwrap();
    assert!(tls::get(&authority.client(), address, "/").unwrap().text.ends_with("false false"));
}

/// What the documentation tells to write: segprobe takes the one file, Prometheus the other.
#[test]
fn the_files_of_the_documentation_are_good() {
    let page = include_str!("../../docs/web.md");
    let block = |first: &str| {
        let mut blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        blocks.find(|block| block.starts_with(first)).unwrap_or_else(|| panic!("no block `{first}`"))
    };
    let directory = directory();
    let pair = Authority::new().sign(&["segprobe"]);
    fs::write(directory.path().join("tls.crt"), pair.certificate).unwrap();
    fs::write(directory.path().join("tls.key"), pair.key).unwrap();
    fs::write(directory.path().join("client-ca.crt"), Authority::new().pem()).unwrap();
    for first in ["# web.yml", "# every key"] {
        let file = directory.path().join("web.yml");
        fs::write(&file, block(first)).unwrap();
        let web = Web::load(&file, true).unwrap_or_else(|e| panic!("{e}"));
        assert!(web.tls().is_some() && web.authenticates());
    }
    let scrape = directory.path().join("prometheus.yml");
    fs::write(&scrape, block("# prometheus.yml")).unwrap();
    promtool(&["check", "config", "--syntax-only"], &[scrape]);
}
