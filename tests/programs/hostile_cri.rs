//! Runtimes that misbehave: every list ends in time and in little memory, tells what is wrong, and the next one is good again.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream};
use segprobe::inventory::cri::{Client, CriError, Network};

use crate::{
    cri::ask_apart,
    fake_cri::{FakeCri, FakePod, Method, Misbehaviour, OnConnect, Shape},
    support::{SOON, wait_for},
};

/// A call has 5 s, and the list that it is part of 15: what one call ends is over before that.
const ONE_CALL: Duration = Duration::from_secs(14);
/// A list has 15 s; the rest is for machines that are busy with other tests.
const ONE_LIST: Duration = Duration::from_secs(40);

fn pod(name: &str) -> FakePod {
    FakePod { netns: Some(format!("/var/run/netns/{name}").into()), ..FakePod::new("shop", name) }
}

/// Those that wait for a deadline wait together, and those that work have a core.
async fn few_at_once(trials: impl Iterator<Item = impl Future<Output = ()>>) {
    stream::iter(trials).buffer_unordered(8).collect::<()>().await;
}

/// The kind of an error, in a word.
fn kind(error: &CriError) -> &'static str {
    match error {
        CriError::Broken { .. } => "broken",
        CriError::Deadline { .. } => "deadline",
        CriError::Unreadable { .. } => "unreadable",
        CriError::Failed { .. } => "failed",
        CriError::NotCri { .. } => "not-cri",
        CriError::Absent { .. } | CriError::Refused { .. } | CriError::Denied { .. } => "connect",
    }
}

/// Items of a list that are as short as can be: each decodes to some hundred bytes.
fn bomb(items: usize) -> Vec<u8> {
    [1 << 3 | 2, 0].repeat(items)
}

/// One sandbox with so many labels.
fn labels_bomb(count: u32) -> Vec<u8> {
    let mut labels = Vec::new();
    for n in 0..count {
        labels.extend([5 << 3 | 2, 6, 1 << 3 | 2, 4]);
        labels.extend([n, n >> 7, n >> 14, n >> 21].map(|n| n as u8 & 0x7f));
    }
    let mut list = vec![1 << 3 | 2];
    prost::encode_length_delimiter(labels.len(), &mut list).unwrap();
    list.extend(labels);
    list
}

fn in_answers() -> Vec<(Misbehaviour, &'static [&'static str])> {
    vec![
        (Misbehaviour::Error(2, "it\u{1b}[31m broke\nbadly"), &["failed"]),
        (Misbehaviour::Error(7, "no"), &["failed"]),
        (Misbehaviour::Error(12, "unknown"), &["not-cri"]),
        (Misbehaviour::Error(14, "not now"), &["failed"]),
        (Misbehaviour::Error(4_000_000_000, "no such code"), &["failed"]),
        (Misbehaviour::Message(b"\x08\x01\x0a\xff".to_vec()), &["unreadable"]),
        (Misbehaviour::Message(vec![0xff; 64]), &["unreadable"]),
        (Misbehaviour::Message(b"\x0a\x06\x0a\x01\xff\x12\x01\xff".to_vec()), &["unreadable"]),
        (Misbehaviour::Message(bomb(100_000)), &["unreadable"]),
        (Misbehaviour::Message(labels_bomb(300_000)), &["unreadable"]),
        (Misbehaviour::Huge(17 << 20), &["unreadable"]),
        (Misbehaviour::Claims(u32::MAX), &["unreadable"]),
        (Misbehaviour::Claims(15 << 20), &["deadline"]),
        (Misbehaviour::Truncated, &["failed", "broken", "unreadable"]),
        (Misbehaviour::Endless, &["deadline", "failed", "unreadable"]),
        (Misbehaviour::Trickle, &["deadline"]),
        (Misbehaviour::Stall, &["deadline"]),
        (Misbehaviour::StallWithin, &["deadline"]),
        (Misbehaviour::Reset, &["broken"]),
        (Misbehaviour::GoAway, &["broken"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_list_ends_in_time_and_the_next_is_good() {
    few_at_once([Method::ListPodSandbox, Method::ListContainers].into_iter().flat_map(|method| {
        in_answers().into_iter().map(move |(how, expected)| async move {
            let what = format!("{method:?} {:.60}", format!("{how:?}"));
            let runtime = FakeCri::start(vec![pod("a"), pod("b")]);
            let mut client = Client::new(&runtime.socket());
            runtime.misbehave(method, how);
            let began = Instant::now();
            let error = client.list().await.expect_err(&what);
            assert!(began.elapsed() < ONE_CALL, "{what}: {:?}", began.elapsed());
            assert!(expected.contains(&kind(&error)), "{what}: {error:?}");
            let text = error.to_string();
            assert!(text.contains(&format!("{method:?}")) || kind(&error) == "connect", "{what}: {text}");
            assert!(!text.contains(char::is_control) && text.len() < 700, "{what}: {text}");
            runtime.behave();
            assert_eq!(client.list().await.expect(&what).len(), 2, "{what}");
        })
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_status_costs_no_list() {
    few_at_once(in_answers().into_iter().map(|(how, _)| async move {
        let what = format!("{:.60}", format!("{how:?}"));
        let runtime = FakeCri::start(vec![pod("a")]);
        let mut client = Client::new(&runtime.socket());
        client.list().await.expect(&what);
        runtime.misbehave(Method::PodSandboxStatus, how);
        runtime.change(|pods| pods.push(pod("b")));
        let began = Instant::now();
        let sandboxes = client.list().await.expect(&what);
        assert!(began.elapsed() < ONE_CALL, "{what}: {:?}", began.elapsed());
        assert_eq!(sandboxes[0].network, Network::Pod("/var/run/netns/a".into()), "{what}");
        let Network::Unknown(why) = &sandboxes[1].network else { panic!("{what}: {sandboxes:?}") };
        assert!(!why.is_empty() && why.len() <= 700 && !why.contains(char::is_control), "{what}: {why}");
        runtime.behave();
        let sandboxes = client.list().await.expect(&what);
        assert_eq!(sandboxes[1].network, Network::Pod("/var/run/netns/b".into()), "{what}");
    }))
    .await;
}

#[tokio::test]
async fn many_slow_statuses_end_with_the_list() {
    let runtime = FakeCri::start((0..40).map(|n| pod(&format!("p{n:02}"))).collect());
    runtime.misbehave(Method::PodSandboxStatus, Misbehaviour::Stall);
    let mut client = Client::new(&runtime.socket());
    let began = Instant::now();
    let sandboxes = client.list().await.unwrap();
    assert!(began.elapsed() < ONE_LIST, "{:?}", began.elapsed());
    assert_eq!(sandboxes.len(), 40);
    assert!(
        sandboxes
            .iter()
            .all(|sandbox| matches!(&sandbox.network, Network::Unknown(why) if why.contains("no whole answer")))
    );
    assert!(runtime.calls(Method::PodSandboxStatus) <= 16, "a few at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_connection_ends_in_time_and_is_let_go() {
    let all = [
        (OnConnect::Silence, &["deadline"][..]),
        (OnConnect::Http1, &["broken"]),
        (OnConnect::Garbage, &["broken"]),
        (OnConnect::HangUp, &["broken"]),
        (OnConnect::Settings, &["deadline", "broken"]),
        (OnConnect::Pings, &["deadline", "broken"]),
        (OnConnect::Headers, &["broken", "deadline"]),
        (OnConnect::Data, &["broken", "unreadable", "failed"]),
    ];
    join_all(all.map(|(how, expected)| async move {
        let runtime = FakeCri::start(vec![pod("a")]);
        runtime.misbehave_on_connect(how);
        let mut client = Client::new(&runtime.socket());
        for _ in 0..2 {
            let began = Instant::now();
            let error = client.list().await.unwrap_err();
            assert!(began.elapsed() < ONE_CALL, "{how:?}: {:?}", began.elapsed());
            assert!(expected.contains(&kind(&error)), "{how:?}: {error:?}");
        }
        runtime.behave();
        assert_eq!(client.list().await.unwrap().len(), 1, "{how:?}");
        tokio::task::spawn_blocking(move || {
            // One who reads nothing learns of it by a failing write, the silent one never.
            if !matches!(how, OnConnect::Silence) {
                wait_for(&format!("{how:?}: no connection but one"), SOON, || {
                    (runtime.open_connections() <= 1).then_some(())
                });
            }
        })
        .await
        .unwrap();
    }))
    .await;
}

#[tokio::test]
async fn names_are_bounded() {
    let long = "x".repeat(400);
    let many = (0..65).map(|n| (format!("l{n}"), "v".to_owned())).collect();
    let odd = [
        (FakePod { uid: long.clone(), ..pod("a") }, "uid is 400 bytes long"),
        (FakePod { name: long.clone(), ..pod("a") }, "name is 400 bytes long"),
        (FakePod { namespace: "a\nb".into(), ..pod("a") }, "namespace has control characters"),
        (FakePod { uid: String::new(), ..pod("a") }, "uid is missing"),
        (FakePod { id: long.clone(), ..pod("a") }, "id is 400 bytes long"),
        (FakePod { labels: [("app".into(), long.clone())].into(), ..pod("a") }, "label's value is 400 bytes long"),
        (FakePod { labels: [(long.clone(), String::new())].into(), ..pod("a") }, "label's key is 400 bytes long"),
        (FakePod { labels: many, ..pod("a") }, "65 labels"),
    ];
    let runtime = FakeCri::start(vec![]);
    let mut client = Client::new(&runtime.socket());
    for (odd, expected) in odd {
        runtime.change(|pods| *pods = vec![odd, pod("b")]);
        let sandboxes = client.list().await.unwrap();
        assert_eq!(sandboxes.len(), 2);
        let (good, odd): (Vec<_>, Vec<_>) = sandboxes.iter().partition(|sandbox| &*sandbox.name == "b");
        assert_eq!(good[0].network, Network::Pod("/var/run/netns/b".into()));
        assert!(matches!(&odd[0].network, Network::Unknown(why) if why.contains(expected)), "{odd:?}");
        assert!([&odd[0].id, &odd[0].uid, &odd[0].namespace, &odd[0].name].iter().all(|text| text.len() <= 200));
        assert_eq!(odd[0].labels.is_none(), expected.contains("label"), "{odd:?}");
    }
    assert_eq!(runtime.calls(Method::PodSandboxStatus), 1, "only one was worth asking about, once");
    // Labels without value are good ones.
    let marked = FakePod { labels: [("node-role".into(), String::new())].into(), ..pod("c") };
    runtime.change(|pods| *pods = vec![marked]);
    assert_eq!(client.list().await.unwrap()[0].network, Network::Pod("/var/run/netns/c".into()));
}

/// Whoever may label one pod must not hide the others.
#[tokio::test]
async fn the_labels_of_one_pod_cost_no_list() {
    let labels: BTreeMap<_, _> = (0..2_900).map(|n| (format!("{n:0250}/{n:063}"), "v".repeat(63))).collect();
    let length: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(length > 1 << 20, "about as long as etcd takes");
    let runtime = FakeCri::start(vec![FakePod { labels, ..pod("a") }, pod("b")]);
    let sandboxes = Client::new(&runtime.socket()).list().await.unwrap();
    assert_eq!(sandboxes[0].network, Network::Unknown("it has 2900 labels, more than 64".into()));
    assert_eq!(sandboxes[1].network, Network::Pod("/var/run/netns/b".into()));
}

#[tokio::test]
async fn no_end_of_sandboxes_is_not_believed() {
    // Without a uid they are not asked about.
    let ready = |count: usize| (0..count).map(|n| FakePod { uid: String::new(), ..pod(&format!("p{n}")) }).collect();
    let runtime = FakeCri::start(ready(2_048));
    let mut client = Client::new(&runtime.socket());
    assert_eq!(client.list().await.unwrap().len(), 2_048);
    runtime.change(|pods| *pods = ready(2_049));
    let error = client.list().await.map(|sandboxes| sandboxes.len()).unwrap_err();
    assert!(error.to_string().contains("more than 2048 ready sandboxes"), "{error}");
    // What is told of each is the least that there is: it is not ready.
    let items = |count| Misbehaviour::Message([1 << 3 | 2, 2, 3 << 3, 1].repeat(count));
    runtime.misbehave(Method::ListPodSandbox, items(65_536));
    assert_eq!(client.list().await.unwrap().len(), 1);
    runtime.misbehave(Method::ListPodSandbox, items(65_537));
    let error = client.list().await.map(|sandboxes| sandboxes.len()).unwrap_err();
    assert!(error.to_string().contains("more than 65536 items"), "{error}");
    runtime.behave();
    // Told twice is one.
    runtime.change(|pods| *pods = vec![pod("a"), pod("a")]);
    assert_eq!(client.list().await.unwrap().len(), 1);
}

/// Each pod that has run to its end keeps a sandbox until somebody deletes it.
#[tokio::test]
async fn completed_pods_do_not_hide_those_that_run() {
    let runtime = FakeCri::start((0..5_000).map(|n| FakePod { ready: false, ..pod(&format!("job-{n}")) }).collect());
    runtime.change(|pods| pods.extend([pod("a"), pod("z")]));
    let mut client = Client::new(&runtime.socket());
    let first = client.list().await.unwrap();
    assert_eq!(first.len(), 1_024 + 2);
    let ready: Vec<_> = first.iter().filter(|sandbox| sandbox.ready).map(|sandbox| &*sandbox.name).collect();
    assert_eq!(ready, ["a", "z"]);
    // Nothing changes because the runtime lists in another order.
    runtime.change(|pods| pods.reverse());
    let second = client.list().await.unwrap();
    assert!(first.len() == second.len() && first.iter().zip(&second).all(|(a, b)| Arc::ptr_eq(a, b)));
    // One that is told as both is ready.
    runtime.change(|pods| pods.push(FakePod { ready: false, ..pod("a") }));
    let third = client.list().await.unwrap();
    assert_eq!(third.iter().filter(|sandbox| &*sandbox.name == "a").map(|a| a.ready).collect::<Vec<_>>(), [true]);
}

#[tokio::test]
async fn a_status_of_another_sandbox_is_not_believed() {
    let runtime = FakeCri::start(vec![pod("a")]);
    let mut client = Client::new(&runtime.socket());
    runtime.misbehave(Method::PodSandboxStatus, Misbehaviour::Message(b"\x0a\x03\x0a\x01b".to_vec()));
    let sandboxes = client.list().await.unwrap();
    assert_eq!(sandboxes[0].network, Network::Unknown("the runtime gave the status of another sandbox".into()));
    runtime.misbehave(Method::PodSandboxStatus, Misbehaviour::Message(Vec::new()));
    let sandboxes = client.list().await.unwrap();
    assert_eq!(sandboxes[0].network, Network::Unknown("the runtime gave a status without content".into()));
}

#[test]
fn memory_is_bounded() {
    let mut peaks = Vec::new();
    for how in [
        Misbehaviour::Message(bomb(8 << 20)),
        Misbehaviour::Message(labels_bomb(1_500_000)),
        // The longest items that are read, and as many as there can be.
        Misbehaviour::Message(labels_bomb(260_000).repeat(8)),
        Misbehaviour::Huge(16 << 20),
        Misbehaviour::Huge((16 << 20) - 8),
        Misbehaviour::Claims(u32::MAX),
    ] {
        let what = format!("{:.60}", format!("{how:?}"));
        let runtime = FakeCri::start(vec![pod("a")]);
        runtime.misbehave(Method::ListPodSandbox, how);
        peaks.push((what, peak(&runtime)));
    }
    let ended = (0..20_000).map(|n| FakePod { ready: false, ..pod(&format!("job-{n}")) }).collect();
    peaks.push(("ended".into(), peak(&FakeCri::start(ended))));
    // Verbose statuses, all at once, of the JSON that grows the most.
    let json = format!(r#"{{"runtimeSpec":{{"linux":{{"namespaces":[{}0]}}}}}}"#, "0,".repeat(900_000));
    let pods = (0..4).map(|n| FakePod { shape: Shape::Text(json.clone()), ..pod(&format!("p{n}")) }).collect();
    peaks.push(("JSON".into(), peak(&FakeCri::start(pods))));
    for (what, peak) in &peaks {
        assert!(*peak < 128 << 10, "{what}: {peak} kB of {peaks:?}");
    }
    println!("{peaks:?}");
}

/// The most memory that a client took which asked three times, in kB.
fn peak(runtime: &FakeCri) -> u64 {
    let ended = ask_apart(&runtime.socket());
    let line = ended.stdout.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.unwrap_or_else(|| panic!("{ended:?}")).trim().trim_end_matches(" kB");
    kilobytes.parse().unwrap()
}
