//! Pods of a service mesh, whose sidecar accepts every connection in the target's stead.

use libtest_mimic::Failed;
use segprobe::{ledger::ControlState, model::Reason};

use super::{
    REJECT,
    agent::{Agent, Knobs},
    node::{Node, high, low},
};
use crate::{
    engine::{PORT, block_on},
    fake_cri::FakePod,
    network::Hook,
};

/// Istio's port for what leaves the pod.
const OUTBOUND: u16 = 15001;

/// Three pods that nothing keeps away: one whose connects end at its sidecar, one with a sidecar that lets them through, and
/// one without.
pub fn meshes() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let meshed = node.pod(low("meshed-0", "meshed"), "10.244.1.10")?;
    let idle = node.pod(low("idle-0", "idle"), "10.244.1.11")?;
    let _plain = node.pod(low("plain-0", "plain"), "10.244.1.12")?;
    let _sidecars = [meshed.listens(OUTBOUND), idle.listens(OUTBOUND)];
    meshed.namespace.rules(Hook::NatOutput, &[format!("meta l4proto tcp redirect to :{OUTBOUND}")])?;
    let _open = node.server("10.244.2.20", PORT)?;
    let targets = vec![("ledger", "endpoints: 10.244.2.20".into())];
    block_on(&node.host, || async {
        for (negative, identity, expected) in [
            (true, "app=meshed", Reason::Captured),
            (false, "app=meshed", Reason::Captured),
            (true, "app=idle", Reason::Reached),
            (false, "app=idle", Reason::Captured),
            (true, "app=plain", Reason::Reached),
            (false, "app=plain", Reason::Reached),
        ] {
            let agent = Agent::start(&node, &Knobs { targets: targets.clone(), negative, ..Knobs::default() }).await;
            let swept = agent.sweep(identity).await;
            let case = format!("{identity}, negative control: {negative}: {:#?}", swept.results);
            assert_eq!(swept.reason("ledger"), expected, "{case}");
            assert_eq!(swept.findings().len(), usize::from(expected == Reason::Reached), "{case}");
            let has_sidecar = identity != "app=plain";
            assert_eq!(swept.seen("ledger")[0].0.sidecar, has_sidecar.then_some(OUTBOUND), "{case}");
            let sidecars: Vec<&ControlState> = swept.controls.iter().filter(|c| c.kind == "sidecar").collect();
            match sidecars.as_slice() {
                [] => assert!(!has_sidecar, "{case}"),
                [told] => assert!(has_sidecar && !told.ok && told.control.starts_with("15001 ("), "{case}"),
                _ => panic!("{case}"),
            }
        }
    });
    Ok(())
}

/// A witness in a mesh would vouch for the dead: it is believed where a negative control speaks for it, and stayed silent.
pub fn witnesses() -> Result<(), Failed> {
    let node = Node::new()?;
    let _controls = node.controls()?;
    let _web = node.pod(low("web-0", "web"), "10.244.1.10")?;
    let prober = FakePod { labels: [("role".into(), "prober".into())].into(), ..high("prober-0") };
    let prober = node.pod(prober, "10.244.1.30")?;
    let _sidecar = prober.listens(OUTBOUND);
    let _alive = node.server("10.244.2.20", PORT)?;
    node.policy(&[&format!("ip saddr 10.244.1.10 tcp dport 5432 {REJECT}")])?;
    let (_dead, _) = node.attach(&["10.244.2.21"])?;
    let targets = vec![("alive", "endpoints: 10.244.2.20".to_owned()), ("dead", "endpoints: 10.244.2.21".to_owned())];
    block_on(&node.host, || async {
        for (redirects, negative, alive, dead) in [
            (false, true, Reason::Blocked, Reason::TargetDown),
            (false, false, Reason::NoWitness, Reason::NoWitness),
            (true, true, Reason::NoWitness, Reason::NoWitness),
            (true, false, Reason::NoWitness, Reason::NoWitness),
        ] {
            let rules = redirects.then(|| format!("meta l4proto tcp redirect to :{OUTBOUND}"));
            prober.namespace.rules(Hook::NatOutput, rules.as_slice())?;
            let knobs = Knobs {
                targets: targets.clone(),
                negative,
                witnesses: "{zone: high, pods: {role: prober}}",
                ..Knobs::default()
            };
            let swept = Agent::start(&node, &knobs).await.sweep("app=web").await;
            let case = format!("redirects: {redirects}, negative control: {negative}");
            assert_eq!((swept.reason("alive"), swept.reason("dead")), (alive, dead), "{case}: {:#?}", swept.results);
        }
        Ok(())
    })
}
