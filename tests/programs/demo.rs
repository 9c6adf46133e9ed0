//! `segprobe demo`: it shows what it was built to show, to anybody, and stops when it is told to.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, process::Command};

use nix::sys::signal::Signal;

use crate::support::{
    SEGPROBE, SOON, as_plain_user, directory, have, http,
    metrics::Page,
    namespaces_are_allowed,
    process::{self, Process},
    wait_for,
};

fn assert_as_built(ended: &process::Ended) {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    assert_table(&ended.stdout);
}

fn assert_table(shown: &str) {
    assert!(!shown.contains("not as built"), "{shown}");
    for row in [
        "FAIL          payments/admin:8080",
        "FAIL          srv-wildcard at cluster-dns",
        "FAIL          reverse-sweep at cluster-dns",
        "FAIL          reverse-sweep at split-dns",
        "PASS          srv-wildcard at split-dns",
    ] {
        assert!(shown.contains(row), "{row} is not in {shown}");
    }
    // Without a namespace of its own the demo leaves out what is silent, and says so.
    let silence = [
        "PASS          payments/ledger:5432",
        "INCONCLUSIVE  payments/batch:7000",
        "UNVERIFIED    payments/vault:8200",
    ];
    let all = silence.iter().all(|row| shown.contains(row));
    let none = !silence.iter().any(|row| shown.contains(row));
    assert!(all || (none && shown.contains("Silence cannot be made without CAP_NET_ADMIN")), "{shown}");
}

#[test]
fn once_as_a_plain_user() {
    if nix::unistd::geteuid().is_root() && !have("setpriv") {
        return;
    }
    // The build's own directory may be closed to others.
    let directory = directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("segprobe");
    fs::copy(SEGPROBE, &copy).unwrap();
    let mut command = as_plain_user(&copy);
    command.args(["demo", "--once"]).current_dir("/");
    assert_as_built(&process::run(command, SOON));
}

#[test]
fn once_where_nothing_is_allowed() {
    if !(have("unshare") && have("setpriv") && have("ip") && namespaces_are_allowed()) {
        return;
    }
    // No namespace may be made, and there is no capability to make silence with.
    let script = "ip link set lo up; echo 0 > /proc/sys/user/max_user_namespaces
        exec setpriv --bounding-set -all --inh-caps -all \"$0\" demo --once";
    let mut command = Command::new("unshare");
    command.args(["-Urn", "sh", "-c", script, SEGPROBE]);
    let ended = process::run(command, SOON);
    assert_as_built(&ended);
    assert!(ended.stdout.contains("Silence cannot be made without CAP_NET_ADMIN"), "{ended:?}");
}

/// Waits until it has swept and serves its page.
pub fn serves_at(process: &mut Process) -> SocketAddr {
    wait_for("the demo serves", SOON, || {
        assert!(process.ended().is_none(), "{} {}", process.stdout(), process.stderr());
        let rest = process.stdout().split_once("http://")?.1.to_owned();
        rest.split_once('/')?.0.parse().ok()
    })
}

#[test]
fn it_serves_until_it_is_interrupted() {
    let directory = directory();
    let mut process = start(directory.path(), &["demo", "--web.listen-address", "127.0.0.1:0"]);
    let address = serves_at(&mut process);
    let landing = http::get(address, "/");
    assert_eq!(landing.status, 200);
    assert!(landing.text().contains("cluster-dns"), "{}", landing.text());
    let page = Page::parse(&http::get(address, "/metrics").text());
    page.assert_unique();
    assert!(page.verdicts().values().any(|verdict| verdict == "fail"));
    assert!(page.value("segprobe_sweep_duration_seconds_count", &[]).is_some_and(|sweeps| sweeps >= 1.0));
    assert_eq!(http::post(address, "/-/reload").status, 503, "there is nothing to reload");

    assert_table(&process.stdout());

    process.signal(Signal::SIGINT);
    assert_eq!(process.exit_code(SOON), Some(0));
}

pub fn start(directory: &Path, arguments: &[&str]) -> Process {
    let mut command = Command::new(SEGPROBE);
    command.args(arguments);
    Process::start(command, directory, "demo")
}
