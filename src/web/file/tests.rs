//! Good and bad files: the cases are those of exporter-toolkit's `web/testdata`, and our own.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

use super::super::Web;

const HASH: &str = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";

/// A directory with a certificate, its key, another's key, and a CA.
fn materials() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    write("server.crt", &certificate.pem());
    write("server.key", &key.serialize_pem());
    write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.crt", &ca.self_signed(&KeyPair::generate().unwrap()).unwrap().pem());
    write("empty.pem", "nothing\n");
    write("broken.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    fs::write(directory.path().join("binary.pem"), b"\xff\xfe").unwrap();
    directory
}

/// What is said of a text, without the directory's name.
fn told(directory: &Path, text: &str) -> Result<Web, String> {
    let path = directory.join("web.yml");
    fs::write(&path, text).unwrap();
    Web::load(&path, false).map_err(|e| e.to_string().replace(&format!("{}/", directory.display()), ""))
}

const PAIR: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// The settings of TLS after a pair that is good.
fn tls(rest: &str) -> String {
    format!("{PAIR}{rest}")
}

#[test]
fn good_files() {
    let directory = materials();
    let inline = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap().replace('\n', "\n    ");
    let verified = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n";
    let all_ciphers = "  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256,\n    \
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,\n    \
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,\n    \
        TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256]\n";
    for (case, text, has_tls, authenticates) in [
        ("empty", String::new(), false, false),
        ("only a comment", "# nothing\n".into(), false, false),
        ("braces", "{}\n".into(), false, false),
        ("tls_empty", "tls_server_config: {}\n".into(), false, false),
        (
            "all keys commented out",
            "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n".into(),
            false,
            false,
        ),
        ("noAuth", tls(""), true, false),
        ("absolute paths", PAIR.replace("server.", &format!("{}/server.", directory.path().display())), true, false),
        (
            "tlsInline",
            format!(
                "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n",
                inline("server.crt"),
                inline("server.key")
            ),
            true,
            false,
        ),
        ("allCiphers", tls(all_ciphers), true, false),
        ("someCiphers", tls("  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n"), true, false),
        ("ciphers of TLS 1.3 alone", tls("  cipher_suites: [TLS_AES_128_GCM_SHA256]\n"), true, false),
        ("someCiphers_noOrder", tls("  prefer_server_cipher_suites: false\n"), true, false),
        ("allCurves that there are", tls("  curve_preferences: [CurveP256, CurveP384, X25519]\n"), true, false),
        ("versions", tls("  min_version: TLS12\n  max_version: TLS12\n"), true, false),
        ("noHTTP2", tls("http_server_config:\n  http2: false\n"), true, false),
        ("requestclientcert", tls("  client_auth_type: RequestClientCert\n"), true, false),
        ("requireanyclientcert", tls("  client_auth_type: RequireAnyClientCert\n"), true, false),
        ("its old name", tls("  client_auth_type: RequireClientCert\n"), true, false),
        (
            "verifyclientcertifgiven",
            tls("  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n"),
            true,
            true,
        ),
        ("requireandverifyclientcert", tls(verified), true, true),
        ("client_san", tls(&format!("{verified}  client_allowed_sans: [prometheus.example, 192.0.2.1]\n")), true, true),
        ("users", tls(&format!("basic_auth_users:\n  alice: {HASH}\n")), true, true),
        ("users_noTLS", format!("basic_auth_users: {{alice: {HASH}, bob: {HASH}}}\n"), false, true),
        (
            "headers",
            "http_server_config:\n  headers:\n    Strict-Transport-Security: max-age=31536000; includeSubDomains\n    \
             X-Content-Type-Options: nosniff\n    X-Frame-Options: deny\n    X-XSS-Protection: '0'\n    \
             Content-Security-Policy: \"default-src 'self'\"\n"
                .into(),
            false,
            false,
        ),
        ("rate_limit", "rate_limit: {interval: 200ms, burst: 20}\n".into(), false, false),
        ("rate_limit of nothing", "rate_limit: {interval: 0}\n".into(), false, false),
    ] {
        let web = told(directory.path(), &text).unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!((web.tls().is_some(), web.authenticates()), (has_tls, authenticates), "{case}");
        // A certificate is verified each time: it may have expired.
        if let Some(tls) = web.tls() {
            let resumes = (tls.config.session_storage.can_cache(), tls.config.send_tls13_tickets > 0);
            assert_eq!(resumes, (!tls.verifies, !tls.verifies), "{case}");
        }
    }
}

#[test]
fn bad_files() {
    let directory = materials();
    let mut others = Vec::new();
    for (case, text, line) in bad() {
        let told = told(directory.path(), &text).err();
        if told.as_deref() != Some(line) {
            others.push(format!("{case}: {}", told.unwrap_or_default()));
        }
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
}

fn bad() -> Vec<(&'static str, String, &'static str)> {
    let tls_of = |cert: &str, key: &str| format!("tls_server_config:\n  cert_file: {cert}\n  key_file: {key}\n");
    let headers = |header: &str| format!("http_server_config:\n  headers:\n    {header}\n");
    let user = |hash: &str| format!("basic_auth_users:\n  alice: {hash}\n");
    vec![
        ("junk", "hello\n".into(), "web.yml:1:1: expected a mapping"),
        (
            "junk_key",
            "tls_config_foo: {}\n".into(),
            "web.yml:1:1: unknown field `tls_config_foo`, expected one of tls_server_config, http_server_config, basic_auth_users, rate_limit",
        ),
        (
            "junk key of TLS",
            tls("  ciphers: []\n"),
            "web.yml:4:3: unknown field `ciphers`, expected one of cert, cert_file, key, key_file, client_ca, client_ca_file, client_auth_type, client_allowed_sans, min_version, max_version, cipher_suites, prefer_server_cipher_suites, curve_preferences",
        ),
        (
            "certPath_empty",
            tls_of("\"\"", "server.key"),
            "web.yml:2:3: tls_server_config: cert or cert_file is missing",
        ),
        ("keyPath_empty", tls_of("server.crt", "\"\""), "web.yml:2:3: tls_server_config: key or key_file is missing"),
        (
            "certPath_keyPath_empty",
            "tls_server_config:\n  min_version: TLS13\n".into(),
            "web.yml:2:3: tls_server_config: cert or cert_file is missing\nweb.yml:2:3: tls_server_config: key or key_file is missing",
        ),
        (
            "certPath_invalid",
            tls_of("none.crt", "server.key"),
            "web.yml:2:14: cert_file: none.crt: cannot read: No such file or directory (os error 2)",
        ),
        (
            "keyPath_invalid",
            tls_of("server.crt", "none.key"),
            "web.yml:3:13: key_file: none.key: cannot read: No such file or directory (os error 2)",
        ),
        (
            "a certificate that is none",
            tls_of("empty.pem", "server.key"),
            "web.yml:2:14: cert_file: empty.pem: no certificate in it, expected PEM",
        ),
        (
            "a certificate that is broken",
            tls_of("broken.pem", "server.key"),
            "web.yml:2:14: cert_file: broken.pem: not PEM: the base64 between BEGIN and END is damaged",
        ),
        (
            "a certificate that is binary",
            tls_of("binary.pem", "server.key"),
            "web.yml:2:14: cert_file: binary.pem: binary, expected PEM, which is text",
        ),
        (
            "a key that is none",
            tls_of("server.crt", "server.crt"),
            "web.yml:3:13: key_file: server.crt: no private key in it, expected PEM that is not encrypted",
        ),
        (
            "another's key",
            tls_of("server.crt", "other.key"),
            "web.yml:3:13: key_file: other.key: it does not belong to cert_file: server.crt",
        ),
        (
            "both inline and file",
            tls("  cert: x\n"),
            "web.yml:2:14: cert_file: cert is given too, expected one of them",
        ),
        (
            "noAuth: a CA and no policy",
            tls("  client_ca_file: ca.crt\n"),
            "web.yml:4:19: client_ca_file: client_auth_type NoClientCert verifies no certificate, expected RequireAndVerifyClientCert or VerifyClientCertIfGiven",
        ),
        (
            "a CA, and any certificate",
            tls("  client_auth_type: RequireAnyClientCert\n  client_ca: x\n"),
            "web.yml:5:14: client_ca: client_auth_type RequireAnyClientCert verifies no certificate, expected RequireAndVerifyClientCert or VerifyClientCertIfGiven",
        ),
        (
            "clientCAs_missing",
            tls("  client_auth_type: RequireAndVerifyClientCert\n"),
            "web.yml:4:21: client_auth_type: RequireAndVerifyClientCert needs client_ca or client_ca_file",
        ),
        (
            "clientCAs_invalid",
            tls("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: none.crt\n"),
            "web.yml:5:19: client_ca_file: none.crt: cannot read: No such file or directory (os error 2)",
        ),
        (
            "clientCAs_nocerts",
            tls("  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: empty.pem\n"),
            "web.yml:5:19: client_ca_file: empty.pem: no certificate in it, expected PEM",
        ),
        (
            "invalid ClientAuth",
            tls("  client_auth_type: RequireAndVerify\n"),
            "web.yml:4:21: client_auth_type: found `RequireAndVerify`, expected NoClientCert, RequestClientCert, RequireAnyClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert",
        ),
        (
            "client_san_no_client_auth",
            tls("  client_allowed_sans: [a]\n"),
            "web.yml:4:25: client_allowed_sans: client_auth_type NoClientCert verifies none, expected RequireAndVerifyClientCert",
        ),
        (
            "client_san_optional_cert",
            tls("  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n  client_allowed_sans: [a]\n"),
            "web.yml:6:25: client_allowed_sans: client_auth_type VerifyClientCertIfGiven lets clients in that show none, expected RequireAndVerifyClientCert",
        ),
        (
            "names of a certificate that nobody verifies",
            tls("  client_auth_type: RequireAnyClientCert\n  client_allowed_sans: [a]\n"),
            "web.yml:5:25: client_allowed_sans: client_auth_type RequireAnyClientCert verifies none, expected RequireAndVerifyClientCert",
        ),
        (
            "wrongTLSVersion",
            tls("  min_version: TLS111\n"),
            "web.yml:4:16: min_version: found `TLS111`, expected TLS12 or TLS13",
        ),
        (
            "an old version",
            tls("  min_version: TLS11\n"),
            "web.yml:4:16: min_version: TLS11 is not offered: rustls has no TLS before 1.2; expected TLS12 or TLS13",
        ),
        (
            "no version",
            tls("  min_version: TLS13\n  max_version: TLS12\n"),
            "web.yml:4:16: min_version: it is above max_version, and no version is left",
        ),
        (
            "inventedCiphers",
            tls("  cipher_suites:\n    - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\n    - TLS_RSA_WITH_RC4_128_SHA\n"),
            "web.yml:6:7: cipher_suites: found `TLS_RSA_WITH_RC4_128_SHA`, and rustls has only TLS_AES_256_GCM_SHA384, \
             TLS_AES_128_GCM_SHA256, TLS_CHACHA20_POLY1305_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, \
             TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, \
             TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, \
             TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        ),
        (
            "ciphers of a version that is not offered",
            tls("  max_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n"),
            "web.yml:5:19: cipher_suites: none of them is of TLS 1.2, which is the only version that is offered",
        ),
        (
            "inventedCurves",
            tls("  curve_preferences: [CurveP257]\n"),
            "web.yml:4:23: curve_preferences: found `CurveP257`, and rustls has only X25519, CurveP256, CurveP384",
        ),
        (
            "a curve that ring lacks",
            tls("  curve_preferences: [X25519, CurveP521]\n"),
            "web.yml:4:31: curve_preferences: found `CurveP521`, and rustls has only X25519, CurveP256, CurveP384",
        ),
        (
            "headers_extra_header",
            headers("X-Extra: a"),
            "web.yml:3:14: headers: `X-Extra` cannot be set, expected one of Content-Security-Policy, X-Frame-Options, X-Content-Type-Options, X-XSS-Protection, Strict-Transport-Security",
        ),
        (
            "headers_content_type_options",
            headers("X-Content-Type-Options: sniff"),
            "web.yml:3:29: headers: X-Content-Type-Options: found `sniff`, expected nosniff",
        ),
        (
            "headers_frame_options",
            headers("X-Frame-Options: never"),
            "web.yml:3:22: headers: X-Frame-Options: found `never`, expected deny or sameorigin",
        ),
        (
            "a header of two lines",
            headers("X-XSS-Protection: \"1\\nb\""),
            "web.yml:3:23: headers: X-XSS-Protection: found `1\\nb`, expected one line of printable ASCII",
        ),
        (
            "auth_user_list_invalid",
            user("secret"),
            "web.yml:2:10: basic_auth_users: `alice`: not a bcrypt hash such as $2y$10$…; make one with htpasswd -nBC 10 \"\"",
        ),
        (
            "a hash that is too dear",
            user(&HASH.replace("$10", "$15")),
            "web.yml:2:10: basic_auth_users: `alice`: the hash has cost 15, expected 14 at most: each more doubles the work",
        ),
        (
            "a user with a colon",
            format!("basic_auth_users:\n  'a:b': {HASH}\n"),
            "web.yml:2:10: basic_auth_users: `a:b`: a name with a colon cannot log in",
        ),
        (
            "a user twice",
            format!("basic_auth_users:\n  a: {HASH}\n  a: {HASH}\n"),
            "web.yml:3:3: the key `a` stands here a second time",
        ),
        (
            "a limit that lets nobody in",
            "rate_limit: {interval: 1s}\n".into(),
            "web.yml:1:13: rate_limit.burst: found 0, and nothing would ever be answered; expected 1 or more",
        ),
        (
            "a limit that is no time",
            "rate_limit: {interval: often, burst: 1}\n".into(),
            "web.yml:1:24: rate_limit.interval: found `often`, expected a duration up to 1h such as 200ms, or 0",
        ),
    ]
}

/// Nobody's password, hash or key ends in a log.
#[test]
fn secrets_are_not_shown() {
    let directory = materials();
    let key =
        |style: &str, text: &str| format!("tls_server_config:\n  cert_file: server.crt\n  key: {style}\n    {text}\n");
    for text in [
        "basic_auth_users: swordfish\n",
        "basic_auth_users: [swordfish]\n",
        "basic_auth_users:\n  alice: [swordfish]\n",
        "basic_auth_users:\n  alice: {swordfish: 1}\n",
        "basic_auth_users:\n  alice swordfish\n",
        "basic_auth_users:\n  - alice: swordfish\n",
        "basic_auth_users:\n  alice: \"swordfish\n",
        "tls_server_config:\n  key: |\n  swordfish\n",
        "tls_server_config:\n  key: [swordfish]\n",
        "tls_server_config:\n  key: |\n    a\n   swordfish\n  cert: x\n",
        "tls_server_config: swordfish\n",
        "http_server_config: {http2: yes}\nbasic_auth_users: {alice: swordfish}\n",
        // Folded to one line, cut off, damaged; the same of a certificate, for it may be a key in the wrong place.
        &key(">", "-----BEGIN PRIVATE KEY-----\n    swordfish\n    -----END PRIVATE KEY-----"),
        &key("|", "-----BEGIN PRIVATE KEY-----\n    swordfish"),
        &key("|", "-----BEGIN swordfish"),
        &key("|", "-----BEGIN PRIVATE KEY-----\n    swordfish!\n    -----END PRIVATE KEY-----"),
        &key("|", "-----BEGIN PRIVATE KEY-----\n    swordfish000\n    -----END PRIVATE KEY-----"),
        &key(">", "-----BEGIN PRIVATE KEY-----\n    swordfish\n    -----END PRIVATE KEY-----")
            .replace("key: >", "key_file: server.key\n  client_auth_type: VerifyClientCertIfGiven\n  client_ca: >"),
    ] {
        let told = told(directory.path(), text).err().unwrap_or_else(|| panic!("good: {text}"));
        // Nor as the numbers of its letters.
        assert!(!told.contains("swordfish") && !told.contains("115, 119, 111"), "{text}: {told}");
        assert!(told.starts_with("web.yml:"), "{text}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn authentication_that_is_needed_is_asked_of_the_file() {
    let directory = materials();
    let path = directory.path().join("web.yml");
    let load = |text: &str| {
        fs::write(&path, text).unwrap();
        Web::load(&path, true).map_err(|e| e.to_string())
    };
    let refused = load(PAIR).err().unwrap();
    assert!(
        refused.contains("web.yml: nobody is asked who they are") && refused.contains("set basic_auth_users"),
        "{refused}"
    );
    assert!(load(&tls("  client_auth_type: RequireAnyClientCert\n")).is_err());
    let web = load(&format!("basic_auth_users: {{a: {HASH}}}\n")).unwrap();
    // And later, of what it became.
    fs::write(&path, "rate_limit: {}\n").unwrap();
    assert!(web.reload("test").is_err() && web.authenticates());
    assert!(!web.status().unwrap().successful);
}

/// As on a mount that hangs.
#[tokio::test]
async fn files_that_hang_take_no_thread_of_the_sweeps() {
    let directory = materials();
    let web = told(directory.path(), PAIR).unwrap();
    let certificate = directory.path().join("server.crt");
    fs::remove_file(&certificate).unwrap();
    assert!(Command::new("mkfifo").arg(&certificate).status().unwrap().success());
    let (release, released) = mpsc::channel();
    let mount = thread::spawn(move || {
        let _ = released.recv_timeout(Duration::from_secs(3));
        let end = fs::OpenOptions::new().write(true).open(&certificate).unwrap();
        fs::remove_file(&certificate).unwrap();
        drop(end);
    });
    let began = Instant::now();
    let watching = tokio::spawn(web.watch());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let took = began.elapsed();
    // It may have been released by the clock.
    let _ = release.send(());
    mount.join().unwrap();
    watching.abort();
    assert!(took < Duration::from_secs(2), "it was held up for {took:?}");
}

#[test]
fn the_last_good_one_counts() {
    let directory = materials();
    let web = told(directory.path(), &tls(&format!("basic_auth_users: {{a: {HASH}}}\n"))).unwrap();
    let at = |name: &str| directory.path().join(name);
    let before = web.tls().unwrap().config;
    let same = || std::sync::Arc::ptr_eq(&before, &web.tls().unwrap().config);
    web.reload("test").unwrap();
    assert!(same(), "what did not change is not built anew");
    let good = fs::read_to_string(at("web.yml")).unwrap();
    for (bad, text) in [("web.yml", "junk\n"), ("web.yml", " \n"), ("server.crt", "")] {
        let old = fs::read_to_string(at(bad)).unwrap();
        fs::write(at(bad), text).unwrap();
        assert!(web.reload("test").is_err(), "{bad}: {text}");
        assert!(same() && web.authenticates() && !web.status().unwrap().successful);
        fs::write(at(bad), old).unwrap();
        web.reload("test").unwrap();
        assert!(web.status().unwrap().successful);
        fs::write(at("web.yml"), &good).unwrap();
    }
    // Half of a rotation: the key is another's until the certificate is too.
    let before = web.tls().unwrap().config;
    let key = KeyPair::generate().unwrap();
    fs::write(at("server.key"), key.serialize_pem()).unwrap();
    assert!(
        web.reload("test").err().unwrap().contains("key_file: server.key: it does not belong to cert_file: server.crt")
    );
    assert!(std::sync::Arc::ptr_eq(&before, &web.tls().unwrap().config));
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(at("server.crt"), certificate.pem()).unwrap();
    web.reload("test").unwrap();
    assert!(!std::sync::Arc::ptr_eq(&before, &web.tls().unwrap().config));
    // Who opens it on purpose says so.
    fs::write(at("web.yml"), "{}\n").unwrap();
    web.reload("test").unwrap();
    assert!(web.tls().is_none() && !web.authenticates());
}
