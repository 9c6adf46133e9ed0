//! Which pods are probed from, for whom they speak, and why others are not used.

use std::{collections::HashMap, path::Path};

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{config::parse, inventory::cri::PodDns};

const ZONES: &str = "
zones:
  low: {namespaces: [web, batch]}
  high: {namespaces: [payments], pod_labels: {pci-scope: in}}
  other: {namespaces: [monitoring]}
boundaries:
- {name: b, from: low, to: high, dns: off}
- {name: c, from: low, to: other, dns: off}
";

fn config(rest: &str) -> Config {
    parse(Path::new("f.yaml"), &format!("{ZONES}{rest}")).unwrap_or_else(|e| panic!("{e}"))
}

fn pods() -> Config {
    config("vantage: {mode: pods}\n")
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

/// One that is probed from, as old as its id says: `7` is younger than `3`.
fn sandbox(id: u8, namespace: &str, pairs: &[(&str, &str)]) -> Sandbox {
    Sandbox {
        id: format!("{id}").into(),
        uid: format!("uid-{id}").into(),
        namespace: namespace.into(),
        name: format!("pod-{id}").into(),
        labels: Some(labels(pairs)),
        created: jiff::Timestamp::from_second(1_000 + i64::from(id)).unwrap(),
        ready: true,
        running: true,
        network: Network::Pod(format!("/run/netns/{id}").into()),
        addresses: Box::default(),
        dns: PodDns::default(),
    }
}

fn web(id: u8) -> Sandbox {
    sandbox(id, "web", &[("app", "web")])
}

fn asks(server: [u8; 4], pod: Sandbox) -> Sandbox {
    Sandbox { dns: PodDns { servers: [server.into()].into(), searches: Box::default() }, ..pod }
}

fn node(sandboxes: Vec<Sandbox>) -> NodePods {
    let sandboxes = sandboxes.into_iter().map(Arc::new).collect();
    NodePods { sandboxes, listed: Some(Instant::now()), problem: None, is_stale: false }
}

/// Zone, identity and who speaks for it, in one line each.
fn told(stands: &[Stand]) -> Vec<String> {
    let speakers = |stand: &Stand| match &stand.speakers {
        Speakers::Pods(pods) => pods.iter().map(|pod| &*pod.id).collect::<Vec<_>>().join(" "),
        Speakers::Nobody(reason) => reason.to_string(),
        other => format!("{other:?}"),
    };
    let line = |stand: &Stand| {
        let Source { identity, zone, .. } = &*stand.source;
        let zone = zone.as_deref().unwrap_or_default();
        format!("{zone}: {}/{}: {}", identity.namespace, identity.name, speakers(stand))
    };
    stands.iter().map(line).collect()
}

#[test]
fn a_pod_is_in_the_zone_of_its_namespace_and_labels() {
    let config = pods();
    for (namespace, pairs, zone) in [
        ("web", &[][..], Some("low")),
        ("batch", &[("pci-scope", "in")], Some("low")),
        ("payments", &[("pci-scope", "in"), ("app", "x")], Some("high")),
        ("payments", &[("pci-scope", "out")], None),
        ("payments", &[("app", "in")], None),
        ("payments", &[], None),
        ("monitoring", &[], Some("other")),
        ("kube-system", &[("pci-scope", "in")], None),
        ("we", &[], None),
    ] {
        assert_eq!(zone_of(&config, &sandbox(1, namespace, pairs)).map(|z| &**z), zone, "{namespace} {pairs:?}");
    }
}

/// In a namespace of which only some pods are in the zone: who could hide there would be neither probed nor counted.
#[test]
fn a_pod_whose_labels_nobody_knows_is_not_left_out() {
    let some = "zones: {low: {namespaces: [web], pod_labels: {tier: low}}, high: {namespaces: [payments], pod_labels: {tier: high}}}
boundaries: [{name: b, from: low, to: high, dns: off}]
vantage: {mode: pods}\n";
    let config = parse(Path::new("f.yaml"), some).unwrap_or_else(|e| panic!("{e}"));
    let unread = |id, namespace| Sandbox { labels: None, ..sandbox(id, namespace, &[]) };
    let zone = |namespace| zone_of(&config, &unread(1, namespace)).map(|zone| &**zone);
    assert_eq!([zone("web"), zone("payments"), zone("batch")], [Some("low"), Some("high"), None]);
    let of = |namespace| use_of(&config, &unread(1, namespace));
    assert_eq!([of("web"), of("payments")], [Use::Vantage, Use::Protected]);
    let low = sandbox(3, "web", &[("tier", "low")]);
    let node = node(vec![unread(1, "web"), sandbox(2, "web", &[]), low, unread(4, "payments")]);
    assert_eq!(told(&stands(&config, &node)), ["low: web/tier=low: 3", "low: web/unreadable-labels: 1"]);
    // Nobody knows whether it is the one that is wanted.
    let witness = |wanted| witness(&config, &node, &"high".into(), &labels(wanted)).map(|sandbox| &*sandbox.id);
    assert_eq!([witness(&[]), witness(&[("tier", "high")])], [None, None]);
}

#[test]
fn what_is_not_used_has_its_reason() {
    let config = pods();
    let in_scope = || sandbox(1, "payments", &[("pci-scope", "in")]);
    let host = |pod| Sandbox { network: Network::Host, ..pod };
    let not_ready = |pod| Sandbox { ready: false, ..pod };
    let empty = |pod| Sandbox { running: false, ..pod };
    for (pod, expected) in [
        (web(1), Use::Vantage),
        (in_scope(), Use::Protected),
        (sandbox(1, "monitoring", &[]), Use::Protected),
        (sandbox(1, "payments", &[]), Use::None("its labels are of no zone")),
        (sandbox(1, "kube-system", &[]), Use::None("its namespace is in no zone")),
        (not_ready(web(1)), Use::None("its sandbox is not ready")),
        (not_ready(host(sandbox(1, "kube-system", &[]))), Use::None("its sandbox is not ready")),
        (host(web(1)), Use::None("it has the host's network: policies do not bind it")),
        (host(empty(web(1))), Use::None("it has the host's network: policies do not bind it")),
        (host(in_scope()), Use::None("it has the host's network: policies do not bind it")),
        (empty(web(1)), Use::None("no container has run in it yet")),
        (empty(in_scope()), Use::None("no container has run in it yet")),
        // They cannot be entered, and must not look as if they were not there.
        (Sandbox { network: Network::Hidden("kata".into()), ..web(1) }, Use::Vantage),
        (Sandbox { network: Network::Unknown("no status".into()), ..web(1) }, Use::Vantage),
    ] {
        assert_eq!(use_of(&config, &pod), expected, "{pod:?}");
    }
}

#[test]
fn what_cannot_be_entered_is_known_beforehand() {
    let of = |network| unusable(&Sandbox { network, ..web(1) });
    assert_eq!(of(Network::Pod("/x".into())), None);
    assert_eq!(of(Network::Hidden("gvisor".into())), Some(Reason::VantageUnsupported));
    assert_eq!(of(Network::Unknown("why".into())), Some(Reason::VantageClosed));
    assert_eq!(of(Network::Host), Some(Reason::VantageClosed));
}

#[test]
fn pods_that_policies_cannot_tell_apart_are_one_identity() {
    let versioned = |id, version| {
        sandbox(id, "web", &[("app", "web"), ("app.kubernetes.io/version", version), ("pod-template-hash", version)])
    };
    let all = || {
        node(vec![
            sandbox(9, "web", &[("app", "shop")]),
            versioned(3, "1"),
            versioned(1, "2"),
            web(2),
            sandbox(4, "batch", &[("app", "web")]),
            sandbox(5, "web", &[]),
            sandbox(6, "payments", &[("pci-scope", "in")]),
            Sandbox { ready: false, ..web(7) },
        ])
    };
    assert_eq!(
        told(&stands(&pods(), &all())),
        [
            "low: batch/app=web: 4",
            "low: web/app=shop: 9",
            // The oldest first.
            "low: web/app=web: 1 2 3",
            "low: web/unlabelled: 5",
        ]
    );
    // What is not ignored tells them apart.
    let strict = config("vantage: {mode: pods}\npods: {ignore_labels: []}\n");
    let told = told(&stands(&strict, &all()));
    assert_eq!(told.len(), 6, "{told:?}");
    assert!(told.iter().any(|line| line.ends_with("app=web: 2")), "{told:?}");
}

/// Who may label pods can look for them.
#[test]
fn labels_of_one_name_are_one_identity() {
    let name = |n: u32| identity_name(Some(&labels(&[("app", &format!("{n:063}"))])), &Default::default());
    let mut known = HashMap::new();
    let (one, other) = (0..1 << 20).find_map(|n| Some((known.insert(name(n), n)?, n))).expect("the hash has 24 bits");
    let pod = |id, n: u32| sandbox(id, "web", &[("app", &format!("{n:063}"))]);
    let told = told(&stands(&pods(), &node(vec![pod(1, one), pod(2, other)])));
    assert_eq!(told, [format!("low: web/{}: 1 2", name(one))]);
}

#[test]
fn the_oldest_pod_that_tells_its_servers_speaks_for_all() {
    let dns = |sandboxes| stands(&pods(), &node(sandboxes)).remove(0).source.system_dns.to_vec();
    let (a, b) = ([127, 0, 0, 1], [127, 0, 0, 2]);
    let at = |ip: [u8; 4]| vec![SocketAddr::from((ip, 53))];
    assert_eq!(dns(vec![asks(b, web(2)), asks(a, web(1))]), at(a));
    assert_eq!(dns(vec![asks(b, web(2)), web(1)]), at(b), "one that the runtime does not tell of is passed over");
    assert_eq!(dns(vec![web(1)]), vec![]);
    // A new pod changes nothing, so that the checks stay what they are.
    let [before, after] = [vec![asks(a, web(1))], vec![asks(b, web(3)), asks(a, web(1)), web(2)]]
        .map(|sandboxes| stands(&pods(), &node(sandboxes)).remove(0).source);
    assert_eq!(before, after);
}

#[test]
fn pods_that_nobody_knows_of_do_not_look_like_none() {
    let config = pods();
    let nobody = "low: /unknown: runtime-unreadable";
    assert_eq!(told(&stands(&config, &NodePods::default())), [nobody], "once for two boundaries from one zone");
    let stale = NodePods { is_stale: true, ..node(vec![web(1)]) };
    assert_eq!(told(&stands(&config, &stale)), ["low: web/app=web: 1", nobody]);
    let troubled = NodePods { problem: Some("it hangs".into()), ..node(vec![web(1)]) };
    assert_eq!(told(&stands(&config, &troubled)), ["low: web/app=web: 1"], "young enough to be relied on");
    assert_eq!(told(&stands(&config, &node(vec![]))), [""; 0], "known to be none");
}

#[test]
fn in_mode_own_no_pod_is_spoken_for() {
    for own in [config(""), config("pods: {poll: 2s}\n")] {
        for node in [NodePods::default(), NodePods { is_stale: true, ..node(vec![web(1)]) }] {
            assert_eq!(told(&stands(&own, &node)), [""; 0]);
        }
    }
}

fn any_sandbox() -> impl Strategy<Value = Sandbox> {
    let namespace = select(vec!["web", "batch", "payments", "monitoring", "kube-system"]);
    let network = select(vec![0, 0, 0, 1, 2, 3]);
    let key = select(vec!["app", "tier", "pci-scope", "pod-template-hash", "helm.sh/chart"]);
    let value = select(vec!["in", "out", "x"]);
    let labels = prop::option::weighted(0.9, prop::collection::btree_map(key, value, 0..4));
    let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.8));
    (namespace, network, labels, flags).prop_map(|(namespace, network, labels, (ready, running))| {
        let labels = labels.map(|pairs| self::labels(&pairs.into_iter().collect::<Vec<_>>()));
        let network = match network {
            0 => Network::Pod("/run/netns/x".into()),
            1 => Network::Host,
            2 => Network::Hidden("kata".into()),
            _ => Network::Unknown("why".into()),
        };
        Sandbox { labels, ready, running, network, ..sandbox(0, namespace, &[]) }
    })
}

proptest! {
    #[test]
    fn every_sandbox_speaks_for_one_identity_or_has_a_reason(sandboxes in prop::collection::vec(any_sandbox(), 0..30)) {
        let config = pods();
        let with_ids = (0u8..).zip(sandboxes).map(|(id, pod)| Sandbox { id: id.to_string().into(), ..pod });
        let node = node(with_ids.collect());
        let stands = stands(&config, &node);
        let mut speaks: HashMap<Arc<str>, usize> = HashMap::new();
        for stand in &stands {
            let Speakers::Pods(pods) = &stand.speakers else { panic!("{stand:?}") };
            prop_assert!(!pods.is_empty());
            for pod in pods.iter() {
                *speaks.entry(pod.id.clone()).or_default() += 1;
                prop_assert_eq!(zone_of(&config, pod), stand.source.zone.as_ref());
                prop_assert_eq!(&pod.namespace, &stand.source.identity.namespace);
            }
        }
        for pod in &node.sandboxes {
            let expected = usize::from(use_of(&config, pod) == Use::Vantage);
            prop_assert_eq!(speaks.get(&pod.id).copied().unwrap_or(0), expected, "{:?}", pod);
        }
        // No two share a name, which is the name of their series.
        let names: std::collections::HashSet<_> = stands.iter().map(|stand| stand.source.identity.clone()).collect();
        prop_assert_eq!(names.len(), stands.len());
        // The same whatever the order in which the runtime tells.
        let reversed = NodePods { sandboxes: node.sandboxes.iter().rev().cloned().collect(), ..node.clone() };
        let sources = |stands: &[Stand]| stands.iter().map(|s| s.source.identity.clone()).collect::<Vec<_>>();
        prop_assert_eq!(sources(&stands), sources(&super::stands(&config, &reversed)));
        prop_assert_eq!(told(&stands), told(&super::stands(&config, &reversed)), "and their pods");
    }
}
