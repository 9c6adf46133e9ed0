//! `segprobe discover` against an API server, its bad days and its bad company.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    fake_kube::{Asked, FakeKube, Misbehaviour, Verb},
    support::{
        SEGPROBE, SOON, directory, hostile, http, metrics,
        process::{Ended, Process, run},
        segprobe, wait_for,
    },
};

const INTO: [&str; 2] = ["segprobe", "segprobe-system"];

const SETTINGS: &str = "
zones:
  low: {namespace_labels: {pci-scope: out}}
  high: {namespace_labels: {pci-scope: in}, targets: true}
presets: {zone: infrastructure, include: [cloud-metadata, kubelet, api-server, etcd]}
service_cidrs: [10.96.0.0/16]
into: [segprobe, segprobe-system]
heartbeat: 10s
settle: 0s
";

fn namespace(name: &str, scope: &str) -> Value {
    json!({"kind": "Namespace", "metadata": {"name": name, "labels": {"pci-scope": scope}}})
}

fn service(name: &str, ip: &str) -> Value {
    json!({"kind": "Service", "metadata": {"namespace": "payments", "name": name},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 443, "protocol": "TCP"}]}})
}

fn slice(service: &str, ips: &[&str]) -> Value {
    let endpoints: Vec<Value> =
        ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    json!({"kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"port": 8443, "protocol": "TCP"}], "endpoints": endpoints,
        "metadata": {"namespace": "payments", "name": format!("{service}-a"), "labels": {"kubernetes.io/service-name": service}}})
}

fn pod(name: &str, ip: &str, phase: &str) -> Value {
    json!({"kind": "Pod", "metadata": {"namespace": "payments", "name": name},
        "spec": {"nodeName": "n1", "containers": [{"ports": [{"containerPort": 9090}]}]},
        "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "192.0.2.11"}})
}

/// A cluster with something of every kind, more than a page of each.
fn cluster() -> Vec<Value> {
    let node = |i: u32| {
        json!({"kind": "Node", "metadata": {"name": format!("n{i}")},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.1{i}")}]}})
    };
    let agent = json!({"kind": "Pod", "metadata": {"namespace": "segprobe", "name": "segprobe-x",
        "labels": {"app.kubernetes.io/name": "segprobe", "app.kubernetes.io/component": "agent"}},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIP": "10.0.9.9"}});
    let mut all: Vec<Value> = (1..=3).map(node).collect();
    all.extend(INTO.map(|name| namespace(name, "none")));
    all.extend([namespace("storefront", "out"), namespace("payments", "in"), namespace("vault", "in"), agent]);
    for i in 1..=5 {
        all.push(service(&format!("service-{i}"), &format!("10.96.1.{i}")));
        all.push(slice(&format!("service-{i}"), &[&format!("10.0.0.{i}"), &format!("10.0.1.{i}")]));
    }
    let [mut api_server, mut its_slice] = [service("kubernetes", "10.96.0.1"), slice("kubernetes", &["192.0.2.1"])];
    for object in [&mut api_server, &mut its_slice] {
        object["metadata"]["namespace"] = "default".into();
    }
    all.extend([api_server, its_slice, pod("loner", "10.0.2.1", "Running"), pod("done", "10.0.2.2", "Succeeded")]);
    all
}

/// The names of all targets in a namespace's files, with their endpoints.
fn found(kube: &FakeKube, namespace: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for file in (0..8).map(|number| kube.applied(namespace, number)) {
        for target in file["targets"].as_array().into_iter().flatten() {
            let name = target["service"].as_str().or(target["name"].as_str()).unwrap().to_owned();
            let endpoints =
                target["endpoints"].as_array().into_iter().flatten().map(|ip| ip.as_str().unwrap().to_owned());
            assert!(all.insert(name, endpoints.collect()).is_none(), "one target in two files");
        }
    }
    all
}

fn names(kube: &FakeKube) -> Vec<String> {
    found(kube, INTO[0]).into_keys().collect()
}

const ALL: [&str; 9] = [
    "api-server",
    "cloud-metadata",
    "kubelet",
    "loner.pods",
    "service-1",
    "service-2",
    "service-3",
    "service-4",
    "service-5",
];

/// A running `segprobe discover`.
struct Discovery {
    process: Process,
    address: std::net::SocketAddr,
}

impl Discovery {
    fn start(directory: &Path, kube: &FakeKube, settings: &str) -> Self {
        let mut command = command(directory, &kube.kubeconfig(), settings);
        command.args(["--web.listen-address", "127.0.0.1:0"]);
        let mut process = Process::start(command, directory, "discover");
        let address = wait_for("discovery listens", SOON, || {
            if let Some(status) = process.ended() {
                panic!("it ended with {status}: {}", process.stderr());
            }
            process.stderr().split_once("address=")?.1.split(' ').next()?.parse().ok()
        });
        Self { process, address }
    }

    fn page(&self) -> metrics::Page {
        let page = metrics::Page::parse(&http::get(self.address, "/metrics").text());
        page.assert_unique();
        page
    }

    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.page().value(name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}"))
    }

    fn is_ready(&self) -> bool {
        http::get(self.address, "/-/ready").status == 200
    }
}

fn command(directory: &Path, kubeconfig: &Path, settings: &str) -> Command {
    let path = directory.join("discover.yaml");
    fs::write(&path, settings).unwrap();
    let mut command = Command::new(SEGPROBE);
    command.args(["discover", "--config.file"]).arg(path).env("KUBECONFIG", kubeconfig);
    command.env_remove("KUBERNETES_SERVICE_HOST").env_remove("HTTPS_PROXY").env_remove("https_proxy");
    command
}

fn wait_for_names(kube: &FakeKube, expected: &[&str]) {
    wait_for(&format!("{expected:?} are written"), SOON, || (names(kube) == expected).then_some(()));
}

/// Runs `segprobe validate` on an agent's configuration with the files that were written.
fn validate(directory: &Path, files: &[String]) -> Ended {
    let text = "zones: {low: {}, high: {}, infrastructure: {}}
boundaries: [{name: b, from: low, to: high}, {name: i, from: low, to: infrastructure}]
controls: {positive: [{tcp: '10.96.0.1:443'}]}
dns: {resolver: 127.0.0.1:1, servers: []}
target_files:
  - /run/segprobe/targets/*.json
";
    validate_with(directory, files, text)
}

/// The same with another configuration, which looks for the files where the manifests mount them.
fn validate_with(directory: &Path, files: &[String], text: &str) -> Ended {
    let targets = directory.join("targets");
    fs::create_dir_all(&targets).unwrap();
    for (number, text) in files.iter().enumerate() {
        fs::write(targets.join(format!("{number}.json")), text).unwrap();
    }
    let path = directory.join("segprobe.yaml");
    assert!(text.contains("/run/segprobe/targets"));
    fs::write(&path, text.replace("/run/segprobe/targets", targets.to_str().unwrap())).unwrap();
    segprobe(&["validate", "--config.file", path.to_str().unwrap()])
}

#[test]
fn all_that_the_api_tells_is_written_by_server_side_apply() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    let mut discovery = Discovery::start(directory.path(), &kube, SETTINGS);
    wait_for("it is ready", SOON, || discovery.is_ready().then_some(()));
    for namespace in INTO {
        assert_eq!(found(&kube, namespace).keys().collect::<Vec<_>>(), ALL);
    }
    assert_eq!(found(&kube, INTO[0])["service-3"], ["10.0.0.3", "10.0.1.3"]);
    assert_eq!(kube.applied(INTO[0], 0)["nodes"], json!(["n1"]));
    assert_eq!(kube.applied(INTO[1], 0).get("nodes"), None);
    assert_eq!(kube.applied(INTO[0], 0)["negative"][0]["ports"], json!([80, 443, 8443, 9090, 10250]));
    let texts: Vec<String> = (0..8).map(|number| kube.applied_text(INTO[0], number).unwrap()).collect();
    assert!(texts.iter().all(|text| text.starts_with("{\"heartbeat\":\"20")), "{texts:?}");
    let validated = validate(directory.path(), &texts);
    assert_eq!(validated.code, Some(0), "{}", validated.stderr);
    // Each agent takes what its own zones need: the witness knows one of three.
    for path in ["base/segprobe.yaml", "overlays/pods/segprobe.yaml", "overlays/witness/segprobe.yaml"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests").join(path)).unwrap();
        let validated = validate_with(directory.path(), &texts, &text);
        assert_eq!(validated.code, Some(0), "{path}: {}", validated.stderr);
    }

    // Nothing but what the table of rights in docs/discovery.md allows, and what server-side apply wants.
    let asked = kube.asked();
    let reads: BTreeSet<&str> = asked.iter().filter(|a| a.verb != Verb::Patch).map(|a| &*a.plural).collect();
    assert_eq!(Vec::from_iter(reads), ["endpointslices", "namespaces", "nodes", "pods", "servicecidrs", "services"]);
    for patch in asked.iter().filter(|a| a.verb == Verb::Patch) {
        let name = patch.path.rsplit('/').next().unwrap();
        let place = INTO.iter().any(|n| patch.path == format!("/api/v1/namespaces/{n}/configmaps/{name}"));
        assert!(
            place && name.strip_prefix("segprobe-targets-").is_some_and(|n| n.parse::<u8>().unwrap() < 8),
            "{}",
            patch.path
        );
        assert_eq!(patch.content_type, "application/apply-patch+yaml");
        assert_eq!((&*patch.query["fieldManager"], &*patch.query["force"]), ("segprobe-discover", "true"));
        assert_eq!((&patch.body["kind"], &patch.body["metadata"]["name"]), (&json!("ConfigMap"), &json!(name)));
        assert_eq!(patch.body["data"].as_object().unwrap().keys().collect::<Vec<_>>(), ["targets.json"]);
    }
    assert!(asked.iter().any(|a| a.query.contains_key("continue")), "in pages");
    // Watched, not polled: one list of each kind.
    let lists = asked.iter().filter(|a| a.verb == Verb::List && !a.query.contains_key("continue")).count();
    assert_eq!(lists, 6);

    assert_eq!(discovery.value("segprobe_discovery_targets", &[("zone", "high"), ("kind", "service")]), 5.0);
    assert_eq!(discovery.value("segprobe_discovery_objects", &[("kind", "endpointslices")]), 6.0);
    assert_eq!(discovery.value("segprobe_discovery_targets_left_out", &[]), 0.0);
    assert!(discovery.value("segprobe_discovery_last_apply_timestamp_seconds", &[("into", "segprobe")]) > 1e9);
    assert_eq!(http::get(discovery.address, "/-/healthy").status, 200);
    discovery.process.signal(Signal::SIGTERM);
    assert_eq!(discovery.process.exit_code(SOON), Some(0));
}

#[test]
fn changes_are_followed_and_only_they_are_written() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    // Heartbeats write all: not in this test's time.
    let _discovery = Discovery::start(directory.path(), &kube, &SETTINGS.replace("10s", "1h"));
    wait_for_names(&kube, &ALL);
    let patches = || kube.asked().into_iter().filter(|a| a.verb == Verb::Patch).map(|a| a.path).collect::<Vec<_>>();
    wait_for("all are written", SOON, || (patches().len() == 16).then_some(()));

    kube.put(slice("service-3", &["10.0.0.3", "10.0.1.33"]));
    wait_for("the endpoint is followed", SOON, || {
        (found(&kube, INTO[1])["service-3"] == ["10.0.0.3", "10.0.1.33"]).then_some(())
    });
    // In each namespace the one file that it is in.
    let changed: BTreeSet<String> = patches()[16..].iter().cloned().collect();
    assert_eq!((patches().len(), changed.len()), (18, 2), "{changed:?}");

    kube.delete(&service("service-2", ""));
    wait_for("it is gone", SOON, || (!names(&kube).contains(&"service-2".into())).then_some(()));
    // A pod that ends, a namespace that is no longer in scope, one that comes.
    kube.put(pod("loner", "10.0.2.1", "Succeeded"));
    wait_for("the pod is gone", SOON, || (!names(&kube).contains(&"loner.pods".into())).then_some(()));
    kube.put(namespace("payments", "out"));
    wait_for_names(&kube, &["api-server", "cloud-metadata", "kubelet"]);
    kube.put(namespace("payments", "in"));
    kube.put(service("service-2", "10.96.0.2"));
    wait_for_names(
        &kube,
        &["api-server", "cloud-metadata", "kubelet", "service-1", "service-2", "service-3", "service-4", "service-5"],
    );
    wait_for("both namespaces have it", SOON, || (found(&kube, INTO[1]) == found(&kube, INTO[0])).then_some(()));
    std::thread::sleep(Duration::from_secs(1));
    // What nobody reads is no change.
    let before = patches().len();
    let mut same = service("service-2", "10.96.0.2");
    same["metadata"]["annotations"] = json!({"a": "b"});
    kube.put(same);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(patches().len(), before);
}

#[test]
fn nothing_is_written_before_all_is_known() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    kube.misbehave("pods", Verb::List, Misbehaviour::Stall);
    let discovery = Discovery::start(directory.path(), &kube, SETTINGS);
    let cpu = || discovery.value("process_cpu_seconds_total", &[]);
    // Longer than a heartbeat's interval: it waits for that, and not in a loop.
    std::thread::sleep(Duration::from_secs(13));
    let before = cpu();
    std::thread::sleep(Duration::from_secs(5));
    assert!(cpu() - before < 2.0, "{} s of 5 s", cpu() - before);
    assert!(kube.asked().iter().all(|asked| asked.verb != Verb::Patch) && !discovery.is_ready());
    wait_for("it is asked again", 3 * SOON, || discovery.is_ready().then_some(()));
    assert_eq!(names(&kube), ALL);
}

#[test]
fn a_namespace_with_agents_may_come_later() {
    let mut objects = cluster();
    let is_later = |object: &Value| object["kind"] == "Namespace" && object["metadata"]["name"] == INTO[1];
    objects.retain(|object| !is_later(object));
    let (kube, directory) = (FakeKube::start(objects, &INTO), directory());
    let discovery = Discovery::start(directory.path(), &kube, &SETTINGS.replace("10s", "1h"));
    wait_for("it is ready", SOON, || discovery.is_ready().then_some(()));
    assert_eq!(names(&kube), ALL);
    assert_eq!(kube.applied(INTO[1], 0), Value::Null);
    kube.put(namespace(INTO[1], "none"));
    wait_for("it is written into", SOON, || (found(&kube, INTO[1]) == found(&kube, INTO[0])).then_some(()));
}

#[test]
fn a_heartbeat_is_the_apis_word_and_ages_without_it() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    let discovery = Discovery::start(directory.path(), &kube, SETTINGS);
    let beat = || kube.applied(INTO[0], 3)["heartbeat"].as_str().map(str::to_owned);
    let first = wait_for("the first heartbeat", SOON, beat);
    // Nothing changes, and bookmarks say so.
    let second = wait_for("the next heartbeat", SOON, || beat().filter(|now| *now != first));
    assert!(second > first);
    let beats: BTreeSet<_> = (0..8).map(|number| kube.applied(INTO[1], number)["heartbeat"].to_string()).collect();
    assert!(!beats.contains("null"), "{beats:?}");
    let lists = kube.asked().iter().filter(|a| a.verb == Verb::List && !a.query.contains_key("continue")).count();
    assert_eq!(lists, 6, "bookmarks are words: nothing is listed again");

    // The server says nothing any more, neither on open watches nor on new ones: what is written stays as it is.
    kube.freeze(true);
    std::thread::sleep(Duration::from_secs(2));
    let stuck = discovery.value("segprobe_discovery_as_of_timestamp_seconds", &[("kind", "pods")]);
    std::thread::sleep(Duration::from_secs(13));
    let last = beat().unwrap();
    assert_eq!(discovery.value("segprobe_discovery_as_of_timestamp_seconds", &[("kind", "pods")]), stuck);
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(beat().unwrap(), last, "a heartbeat without a word");
    assert_eq!(names(&kube), ALL);

    kube.freeze(false);
    kube.cut_watches();
    let later = Duration::from_secs(120);
    wait_for("heartbeats go on", later, || beat().filter(|now| *now > last));
}

#[test]
fn a_watch_without_a_word_is_followed_by_a_list() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    kube.without_bookmarks();
    let _discovery = Discovery::start(directory.path(), &kube, SETTINGS);
    let beat = || kube.applied(INTO[0], 3)["heartbeat"].as_str().map(str::to_owned);
    let first = wait_for("the first heartbeat", SOON, beat);
    wait_for("the next heartbeat", SOON, || beat().filter(|now| *now > first));
    let lists = kube.asked().iter().filter(|a| a.verb == Verb::List && a.plural == "nodes").count();
    assert!(lists > 2, "{lists} requests");
}

#[test]
fn lists_in_a_row_come_ever_later() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    for _ in 0..4 {
        kube.misbehave("pods", Verb::Watch, Misbehaviour::Status(410, None));
        kube.misbehave("services", Verb::Watch, Misbehaviour::Bytes(Vec::new()));
        kube.misbehave("nodes", Verb::Watch, Misbehaviour::ErrorEvent(410));
    }
    let _discovery = Discovery::start(directory.path(), &kube, SETTINGS);
    for kind in ["pods", "services", "nodes"] {
        let lists = || -> Vec<Instant> {
            let first = |a: &Asked| a.plural == kind && a.verb == Verb::List && !a.query.contains_key("continue");
            kube.asked().into_iter().filter(first).map(|a| a.at).collect()
        };
        let lists = wait_for("all is listed", SOON, || Some(lists()).filter(|lists| lists.len() == 5));
        let waits: Vec<u128> = lists.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        assert!(waits.iter().zip([500, 1_000, 2_000, 4_000]).all(|(wait, least)| *wait >= least), "{kind}: {waits:?}");
    }
}

#[test]
fn a_kind_that_goes_holds_no_heartbeat() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    let discovery = Discovery::start(directory.path(), &kube, SETTINGS);
    wait_for("it is ready", SOON, || discovery.is_ready().then_some(()));
    // Its watch has heard a bookmark, so that it is followed by a watch.
    std::thread::sleep(Duration::from_secs(2));
    kube.does_not_know("servicecidrs");
    kube.cut_watches();
    let objects = || discovery.page().value("segprobe_discovery_objects", &[("kind", "servicecidrs")]);
    wait_for("it is absent", SOON, || objects().is_none().then_some(()));
    let beat = || kube.applied(INTO[0], 3)["heartbeat"].as_str().map(str::to_owned);
    let before = beat();
    wait_for("the next heartbeat", SOON, || (beat() > before).then_some(()));
}

#[test]
fn bad_days_of_the_api_server() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    let [say, wait] = [|code| Misbehaviour::Status(code, None), |code| Misbehaviour::Status(code, Some(3))];
    // While it is started: overload, errors, a list that breaks off, and one whose pages expire.
    kube.misbehave("services", Verb::List, wait(429));
    for how in [say(500), Misbehaviour::Cut, say(503), Misbehaviour::Bytes(b"<html>".into())] {
        kube.misbehave("endpointslices", Verb::List, how);
    }
    kube.misbehave("nodes", Verb::List, say(410));
    kube.does_not_know("servicecidrs");
    // And of the first watches.
    for how in [say(410), Misbehaviour::ErrorEvent(410), Misbehaviour::Cut, Misbehaviour::ErrorEvent(500), say(504)] {
        kube.misbehave("pods", Verb::Watch, how);
    }
    kube.misbehave("services", Verb::Watch, Misbehaviour::Bytes(b"{\"type\": \"ADDED\", \"obj\n".into()));
    let discovery = Discovery::start(directory.path(), &kube, SETTINGS);
    wait_for_names(&kube, &ALL);
    let asked = kube.asked();
    let lists: Vec<_> = asked.iter().filter(|a| a.plural == "services" && a.verb == Verb::List).map(|a| a.at).collect();
    assert!(lists[1] - lists[0] >= Duration::from_secs(3), "Retry-After: {:?}", lists[1] - lists[0]);
    let page = discovery.page();
    assert_eq!(page.value("segprobe_discovery_watch_errors_total", &[("kind", "endpointslices")]), Some(4.0));
    assert_eq!(page.value("segprobe_discovery_objects", &[("kind", "servicecidrs")]), None, "it is absent");

    // It is restarted, and has forgotten what happened.
    wait_for("all was had", SOON, || kube.has_misbehaved().then_some(()));
    kube.put(pod("second", "10.0.2.3", "Running"));
    kube.forget();
    kube.cut_watches();
    kube.put(service("service-6", "10.96.0.6"));
    let with = |more: &[&str]| {
        let mut all: Vec<String> = ALL.iter().chain(more).map(|name| (*name).to_owned()).collect();
        all.sort();
        all
    };
    let expected = with(&["second.pods", "service-6"]);
    wait_for("all is followed", SOON, || (names(&kube) == expected).then_some(()));

    // While it is written: refused, overloaded, broken.
    let before = kube.asked().len();
    kube.misbehave("configmaps", Verb::Patch, say(500));
    kube.misbehave("configmaps", Verb::Patch, wait(429));
    kube.misbehave("configmaps", Verb::Patch, say(409));
    kube.put(service("service-7", "10.96.0.7"));
    let expected = with(&["second.pods", "service-6", "service-7"]);
    for namespace in INTO {
        wait_for("it is written in the end", SOON, || {
            (found(&kube, namespace).into_keys().collect::<Vec<_>>() == expected).then_some(())
        });
    }
    assert!(kube.asked().len() > before);
    let log = discovery.process.stderr();
    for said in ["list services: 429: told to say so", "not a list: ", "apply ConfigMap segprobe/segprobe-targets-"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    assert!(discovery.value("segprobe_discovery_apply_errors_total", &[]) >= 2.0);
}

#[test]
fn a_config_map_that_is_missing_is_named_and_costs_no_other() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    let missing = (INTO[1], "segprobe-targets-5");
    kube.has_config_map(missing.0, missing.1, false);
    let discovery = Discovery::start(directory.path(), &kube, &SETTINGS.replace("10s", "1h"));
    wait_for_names(&kube, &ALL);
    wait_for("it is told", SOON, || {
        let log = discovery.process.stderr();
        let said = "apply ConfigMap segprobe-system/segprobe-targets-5: 403: ";
        (log.contains(said) && log.contains("it must exist already")).then_some(())
    });
    assert!(!discovery.is_ready());
    let page = discovery.page();
    assert_eq!(page.value("segprobe_discovery_last_apply_timestamp_seconds", &[("into", "segprobe-system")]), None);
    // It alone is written again, whatever the API says meanwhile.
    wait_for("it is tried again", SOON, || (patches(&kube, missing).len() > 2).then_some(()));
    let all: usize = (0..8).map(|i| patches(&kube, (INTO[0], &format!("segprobe-targets-{i}"))).len()).sum();
    assert_eq!(all, 8);
    kube.has_config_map(missing.0, missing.1, true);
    wait_for("it is mended", SOON, || discovery.is_ready().then_some(()));

    // One that vanishes later is known by the first write that it is due.
    let number = (0..8).find(|i| kube.applied_text(INTO[1], *i).unwrap().contains("service-3")).unwrap();
    let name = format!("segprobe-targets-{number}");
    let heartbeat = || discovery.value("segprobe_discovery_heartbeat_timestamp_seconds", &[]);
    let before = heartbeat();
    kube.has_config_map(INTO[1], &name, false);
    kube.put(slice("service-3", &["10.0.0.33"]));
    wait_for("it is not ready", SOON, || (!discovery.is_ready()).then_some(()));
    assert_eq!(found(&kube, INTO[0])["service-3"], ["10.0.0.33"]);
    assert_eq!(heartbeat(), before, "it ages");
    kube.has_config_map(INTO[1], &name, true);
    wait_for("it is mended", SOON, || discovery.is_ready().then_some(()));
    assert_eq!(found(&kube, INTO[1])["service-3"], ["10.0.0.33"]);
}

#[test]
fn a_write_that_is_told_to_wait_waits_alone() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    let discovery = Discovery::start(directory.path(), &kube, SETTINGS);
    wait_for("it is ready", SOON, || discovery.is_ready().then_some(()));
    let beat = |number| kube.applied(INTO[1], number)["heartbeat"].as_str().map(str::to_owned);
    let first = beat(3);
    kube.misbehave("configmaps", Verb::Patch, Misbehaviour::Status(429, Some(25)));
    // The first place in order has its heartbeat refused; changes do not wake it, and the others' heartbeats go on.
    wait_for("it is told to wait", SOON, || kube.has_misbehaved().then_some(()));
    let told = patches(&kube, (INTO[0], "segprobe-targets-0")).len();
    let next = wait_for("the others have a heartbeat", SOON, || beat(3).filter(|next| Some(next) != first.as_ref()));
    kube.put(slice("service-3", &["10.0.0.33"]));
    wait_for("the next one", SOON, || beat(3).filter(|now| *now != next));
    assert_eq!(found(&kube, INTO[1])["service-3"], ["10.0.0.33"]);
    let waited = wait_for("it is asked again", SOON, || {
        let at = patches(&kube, (INTO[0], "segprobe-targets-0"));
        at.get(told).map(|again| *again - at[told - 1])
    });
    assert!(waited >= Duration::from_secs(25), "{waited:?}");
    wait_for("it is ready", SOON, || discovery.is_ready().then_some(()));
}

#[test]
fn a_write_that_hangs_is_given_up() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    kube.misbehave("configmaps", Verb::Patch, Misbehaviour::Stall);
    let discovery = Discovery::start(directory.path(), &kube, SETTINGS);
    wait_for("it is written in the end", 4 * SOON, || discovery.is_ready().then_some(()));
    assert!(discovery.process.stderr().contains("segprobe-targets-0: no answer within 60 s"));
    assert_eq!(names(&kube), ALL);
}

/// When a ConfigMap was asked to be written.
fn patches(kube: &FakeKube, (namespace, name): (&str, &str)) -> Vec<Instant> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
    kube.asked().iter().filter(|a| a.verb == Verb::Patch && a.path == path).map(|a| a.at).collect()
}

#[test]
fn odd_objects_cost_no_other_and_do_no_harm() {
    let evil = "x\u{1b}[31m\n\"}\u{202e}";
    let mut odd = cluster();
    odd.push(
        json!({"kind": "Service", "metadata": {"namespace": "payments", "name": "ports"}, "spec": {"ports": "none"}}),
    );
    odd.push(json!({"kind": "Service", "metadata": {"namespace": "payments", "name": evil}, "spec": {"clusterIP": "10.96.0.66", "ports": [{"port": 1}]}}));
    odd.push(json!({"kind": "Namespace", "metadata": {"name": evil, "labels": {"pci-scope": "in"}}}));
    odd.push(json!({"kind": "Node", "metadata": {"name": evil}, "status": {"addresses": [{"type": "InternalIP", "address": evil}]}}));
    let mut more = slice("service-9", &["10.0.0.256", "127.0.0.1", "::", evil]);
    more["metadata"]["labels"]["kubernetes.io/service-name"] = "service-1".into();
    odd.push(more);
    let mut huge = pod("huge", "10.0.2.9", "Running");
    huge["metadata"]["annotations"] = json!({"x": "x".repeat(1 << 20)});
    odd.push(huge);
    let (kube, directory) = (FakeKube::start(odd, &INTO), directory());
    let discovery = Discovery::start(directory.path(), &kube, SETTINGS);
    let with_huge: Vec<&str> = ALL[..2].iter().copied().chain(["huge.pods"]).chain(ALL[2..].iter().copied()).collect();
    wait_for_names(&kube, &with_huge);
    wait_for("it is ready", SOON, || discovery.is_ready().then_some(()));
    let page = discovery.page();
    assert_eq!(page.value("segprobe_discovery_objects_unreadable", &[("kind", "services")]), Some(1.0));
    assert_eq!(page.value("segprobe_discovery_not_targets", &[("reason", "malformed")]), Some(6.0));

    // The same while it is watched, with an event larger than any object can be.
    kube.misbehave("pods", Verb::Watch, Misbehaviour::Bytes(vec![b'x'; 9 << 20]));
    let mut again = service("service-1", "10.96.0.1");
    again["spec"] = json!(["odd"]);
    kube.put(again);
    kube.cut_watches();
    wait_for("the others stay", SOON, || (!names(&kube).contains(&"service-1".into())).then_some(()));
    wait_for("the event was had", SOON, || kube.has_misbehaved().then_some(()));
    kube.put(service("service-1", "10.96.0.1"));
    wait_for_names(&kube, &with_huge);
    let texts: Vec<String> = (0..8).map(|number| kube.applied_text(INTO[0], number).unwrap()).collect();
    assert_eq!(validate(directory.path(), &texts).code, Some(0));
    for line in discovery.process.stderr().lines() {
        assert!(line.starts_with("ts=") && !line.contains(hostile), "{line:?}");
    }
}

#[test]
fn pages_that_are_too_large_are_asked_for_in_parts() {
    let large = (0..40).map(|i| {
        let mut pod = pod(&format!("large-{i}"), &format!("10.0.3.{i}"), "Running");
        pod["metadata"]["annotations"] = json!({"x": "x".repeat(1 << 20)});
        pod
    });
    let (kube, directory) = (FakeKube::start(cluster().into_iter().chain(large).collect(), &INTO), directory());
    kube.pages_of(1_000);
    let printed = once(directory.path(), &kube.kubeconfig(), SETTINGS);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    assert_eq!(printed.stdout.matches(r#""name":"large-"#).count(), 40 * INTO.len());
    let of_pods = |asked: Asked| (asked.plural == "pods").then(|| asked.query["limit"].clone());
    let limits: Vec<String> = kube.asked().into_iter().filter_map(of_pods).collect();
    assert_eq!(limits, ["500", "250", "125", "62", "31", "31"]);
}

#[test]
fn once_prints_what_would_be_written() {
    let (kube, directory) = (FakeKube::start(cluster(), &INTO), directory());
    let printed = once(directory.path(), &kube.kubeconfig(), SETTINGS);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    assert!(kube.asked().iter().all(|asked| asked.verb == Verb::List), "nothing is written");
    let documents: Vec<ConfigMap> = config_maps(&printed.stdout);
    assert_eq!(documents.len(), 16);
    let texts: Vec<String> = documents.iter().filter(|d| d.namespace == INTO[0]).map(|d| d.text.clone()).collect();
    assert!(texts.iter().all(|text| !text.contains("heartbeat")));
    let validated = validate(directory.path(), &texts);
    assert_eq!(validated.code, Some(0), "{}", validated.stderr);
    // The same objects give the same bytes.
    assert_eq!(once(directory.path(), &kube.kubeconfig(), SETTINGS).stdout, printed.stdout);

    // One that is larger than a ConfigMap is printed nowhere, and costs no other.
    let ips: Vec<String> = (0..70_000).map(|i| Ipv4Addr::from_bits(0x0a80_0000 + i).to_string()).collect();
    kube.put(slice("service-3", &ips.iter().map(String::as_str).collect::<Vec<_>>()));
    let cut = once(directory.path(), &kube.kubeconfig(), SETTINGS);
    assert_eq!((cut.code, config_maps(&cut.stdout).len()), (Some(64), 16));
    assert!(cut.stderr.contains("1 targets do not fit into the ConfigMaps"), "{}", cut.stderr);
    assert!(cut.stdout.contains("service-2") && !cut.stdout.contains("service-3"));

    kube.misbehave("nodes", Verb::List, Misbehaviour::Status(403, None));
    let refused = once(directory.path(), &kube.kubeconfig(), SETTINGS);
    assert_eq!((refused.code, &*refused.stdout), (Some(64), ""));
    assert!(refused.stderr.contains("list nodes: 403: told to say so; see the table of rights"), "{}", refused.stderr);
}

#[test]
fn without_an_api_server_it_says_what_is_missing() {
    let directory = directory();
    let none = once(directory.path(), &directory.path().join("none"), SETTINGS);
    assert_eq!(none.code, Some(64));
    assert!(none.stderr.contains("set KUBECONFIG"), "{}", none.stderr);
    let wrong = once(directory.path(), &directory.path().join("none"), "zones: {}\ninto: [x]\n");
    assert!(wrong.stderr.contains("discover.yaml:1:8: zones is empty"), "{}", wrong.stderr);
}

fn once(directory: &Path, kubeconfig: &Path, settings: &str) -> Ended {
    let mut command = command(directory, kubeconfig, settings);
    command.args(["--once", "--output", "yaml"]);
    run(command, SOON)
}

/// A ConfigMap as it was printed.
struct ConfigMap {
    namespace: String,
    text: String,
}

fn config_maps(text: &str) -> Vec<ConfigMap> {
    let of = |document: &str| {
        let value: Value = serde_saphyr::from_str(document).unwrap();
        let of = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        assert_eq!((&*of("/apiVersion"), &*of("/kind")), ("v1", "ConfigMap"));
        assert!(of("/metadata/name").starts_with("segprobe-targets-"));
        ConfigMap { namespace: of("/metadata/namespace"), text: of("/data/targets.json") }
    };
    text.split("---\n").filter(|document| !document.is_empty()).map(of).collect()
}
