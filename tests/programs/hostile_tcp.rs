//! Targets that accept and then misbehave: reached is reached, and nothing waits for them.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::support::{directory, find, listen, segprobe, write_config};

/// Accepts for ever and treats each connection so.
fn serve(treat: fn(TcpStream)) -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || accept(&listener, treat));
    address
}

fn accept(listener: &TcpListener, treat: fn(TcpStream)) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || treat(stream));
    }
}

fn never_speaks(stream: TcpStream) {
    thread::sleep(Duration::from_secs(60));
    drop(stream);
}

fn resets(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

fn floods(mut stream: TcpStream) {
    while stream.write_all(&[0x55; 64 << 10]).is_ok() {}
}

#[test]
fn whatever_it_does_then_it_is_open() {
    let targets = [("never-speaks", serve(never_speaks)), ("resets", serve(resets)), ("floods", serve(floods))];
    let (_control, control) = listen();
    let listed = targets.iter().map(|(name, address)| {
        format!(
            "  - {{zone: high, name: {name}, address: {}, kind: endpoint, ports: [{}]}}\n",
            address.ip(),
            address.port()
        )
    });
    let directory = directory();
    let path = write_config(
        directory.path(),
        &format!(
            "zones: {{low: {{}}, high: {{}}}}
boundaries: [{{name: b, from: low, to: high, interval: 20s, dns: off}}]
controls: {{positive: [{{tcp: '{control}'}}]}}
dns: {{resolver: 127.0.0.1:1, servers: []}}
targets:
{}",
            listed.collect::<String>()
        ),
    );
    let ended = segprobe(&["check", "--config.file", &path, "--output", "json"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    for (name, address) in targets {
        let check = find(&report, "tcp-connect", &format!("{name}:{}", address.port()));
        assert_eq!(check["reason"], "reached", "{check:#}");
        assert_eq!(check["addresses"][0]["attempts"][0]["outcome"], "open", "{check:#}");
    }
}
