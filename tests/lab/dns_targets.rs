//! DNS servers as targets over UDP: what each policy looks like on the wire, and what it means with a witness and without.

use std::{path::Path, sync::Arc};

use libtest_mimic::{Failed, Trial};
use segprobe::{
    config,
    inventory::stands::Stand,
    ledger::{Carried, Evidence},
    model::{CheckKind, Family, Reason},
    observation::TcpOutcome,
    plan::{Part, plan},
    sweep::Sweeper,
};

use crate::{
    cluster_dns::{ClusterDns, Flavour, Inventory},
    engine::block_on,
    network::{Hook, Network, fill},
};

/// What the router does to the client's queries, what the client sees, and what it means without a witness and with one.
type Case = (&'static str, &'static str, TcpOutcome, Reason, Reason);

const TO_TARGET: &str = "$ip saddr $client $ip daddr $target udp dport 53";

const POLICIES: &[Case] = &[
    ("none", "", TcpOutcome::Open, Reason::Reached, Reason::Reached),
    ("dropped", "drop", TcpOutcome::Filtered, Reason::NoWitness, Reason::Blocked),
    (
        "admin-prohibited",
        "reject with icmpx admin-prohibited",
        TcpOutcome::Rejected,
        Reason::NoWitness,
        Reason::Blocked,
    ),
    // A host without a server says the same.
    (
        "port-unreachable",
        "reject with icmpx port-unreachable",
        TcpOutcome::Refused,
        Reason::RefusedAmbiguous,
        Reason::Blocked,
    ),
    ("no-route", "reject with icmpx no-route", TcpOutcome::Unreachable, Reason::Unreachable, Reason::Unreachable),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for family in [Family::V4, Family::V6] {
        for case in POLICIES {
            let test = move || policy(family, case);
            trials.push(Trial::test(format!("dns-targets::{family}::{}", case.0), test));
        }
        trials.push(Trial::test(format!("dns-targets::{family}::dead"), move || dead(family)));
        trials.push(Trial::test(format!("dns-targets::{family}::offline"), move || offline(family)));
    }
    trials
}

fn serve(network: &Network, word: &str, family: Family) -> crate::cluster_dns::Running {
    let address = std::net::SocketAddr::new(fill(word, family).parse().expect("an address"), 53);
    network.server.run(|| ClusterDns::new(Flavour::CoreDns114, Inventory::recorded()).start_at(address))
}

/// The outcome and the reason of the one check.
fn sweep(network: &Network, family: Family, witness: bool) -> (TcpOutcome, Reason) {
    let witness = if witness { "witnesses: [{zone: high, source: '$witness'}]\n" } else { "" };
    let yaml = fill(
        &format!(
            "zones: {{low: {{}}, high: {{namespaces: [high]}}}}\n\
             boundaries: [{{name: lab, from: low, to: high, interval: 20s, tcp: {{attempts: 1}}, dns: off}}]\n\
             vantage: {{source: '$client'}}\n\
             targets:\n\
             - {{zone: high, namespace: high, service: dns, endpoints: '$target', ports: [{{port: 53, protocol: UDP}}]}}\n\
             controls: {{positive: [{{udp: '$backup'}}]}}\n\
             dns: {{resolver: '$backup', servers: ['$backup']}}\n{witness}"
        ),
        family,
    );
    let config = config::parse(Path::new("lab.yaml"), &yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    let plan = plan(&config, &[Stand::own(&config, &[], "low")]);
    let report = block_on(&network.client, || async move {
        let sweeper = Arc::new(Sweeper::new(Arc::new(config), Arc::new(plan), None, true));
        sweeper.sweep(&sweeper.plan.legs[0], Part::Reach, &[], &Carried::default()).await
    });
    let [result] = &report.results[..] else { panic!("{:?}", report.results) };
    assert_eq!(result.id.kind, CheckKind::DnsQuery);
    let Evidence::Reach(addresses) = &result.evidence else { unreachable!() };
    (addresses[0].0.attempts[0].outcome, result.reason)
}

fn policy(family: Family, (_, rule, outcome, alone, witnessed): &Case) -> Result<(), Failed> {
    let network = Network::new()?;
    let _servers = (serve(&network, "$target", family), serve(&network, "$second", family));
    if !rule.is_empty() {
        network.router.rules(Hook::Forward, &[fill(&format!("{TO_TARGET} {rule}"), family)])?;
    }
    assert_eq!(sweep(&network, family, false), (*outcome, *alone), "without a witness");
    assert_eq!(sweep(&network, family, true), (*outcome, *witnessed), "with a witness");
    Ok(())
}

/// The control works, the target's server is gone, and the network drops what is said to it: the witness knows.
fn dead(family: Family) -> Result<(), Failed> {
    let network = Network::new()?;
    let _control = serve(&network, "$second", family);
    network.router.rules(Hook::Forward, &[fill("$ip daddr $target drop", family)])?;
    assert_eq!(sweep(&network, family, true), (TcpOutcome::Filtered, Reason::TargetDown));
    Ok(())
}

/// Nothing over UDP comes through, not even to what the vantage may ask.
fn offline(family: Family) -> Result<(), Failed> {
    let network = Network::new()?;
    let _servers = (serve(&network, "$target", family), serve(&network, "$second", family));
    network.router.rules(Hook::Forward, &[fill("udp dport 53 drop", family)])?;
    assert_eq!(sweep(&network, family, true), (TcpOutcome::Filtered, Reason::VantageOffline));
    Ok(())
}
