//! bind9 as the cluster's DNS, with a view for each defence: what still leaks, technique by technique.

use serde_json::{Value, json};

use crate::support::{
    cluster_dns::{
        Named, Policy,
        Records::{All, WithoutPayments},
        View,
    },
    find, have,
    told::{LOOKUP, MAY_KNOW, NAMESPACE, NOTHING, POD, REVERSE, SPLIT, Told, UNKNOWN, WILDCARD, ZONES, enumerate_all},
};

/// A transfer of the reverse zone, where that still has the services.
const REVERSE_ZONE: Told<'_> = (
    "disclosed",
    &[
        "kubernetes.default.svc",
        "web-*.storefront.svc",
        "OWN.storefront.pod",
        "any.any.svc",
        "ledger-*.payments.svc",
        "127-97-0-5.ledger-07.payments.svc",
    ],
);

/// Each defence, and what it leaves: wildcards, reverse, transfer, service, namespace, pod.
fn defences() -> [(View, [Told<'static>; 6]); 7] {
    let view = |name, zones, transfer| View { name, zones, transfer, policy: Policy::None };
    let whole = Some([All, All]);
    [
        (view("open", whole, true), [WILDCARD, REVERSE, ZONES, LOOKUP, NAMESPACE, POD]),
        (view("transfer-denied", whole, false), [WILDCARD, REVERSE, NOTHING, LOOKUP, NAMESPACE, POD]),
        (view("split", Some([WithoutPayments; 2]), true), SPLIT),
        // The service's name is gone, its addresses still have theirs.
        (
            view("reverse-forgotten", Some([WithoutPayments, All]), true),
            [MAY_KNOW, REVERSE, REVERSE_ZONE, NOTHING, NOTHING, NOTHING],
        ),
        // A policy looks at the name that is asked for: not at names in answers, nor at transfers.
        (
            View { policy: Policy::Services, ..view("policy", whole, true) },
            [WILDCARD, REVERSE, ZONES, NOTHING, ("disclosed", &["payments.pod"]), POD],
        ),
        (
            View { policy: Policy::ServicesAndPods, ..view("policy-with-pods", whole, false) },
            [WILDCARD, REVERSE, NOTHING, NOTHING, NOTHING, NOTHING],
        ),
        (view("refusing", None, false), [UNKNOWN; 6]),
    ]
}

#[test]
fn each_defence_hides_what_it_hides_and_no_more() {
    if !have("named") {
        return;
    }
    let (views, expected): (Vec<View>, Vec<_>) = defences().into_iter().unzip();
    let named = Named::start(&views);
    let cases = views.iter().zip(named.clients()).zip(expected);
    let cases: Vec<_> = cases.map(|((view, client), expected)| (view.name, named.address, client, expected)).collect();
    let reports = enumerate_all(&cases);

    let [open, _, split, _, policy, _, refusing] = &reports[..] else { panic!("seven views") };
    let leak = &find(open, "srv-wildcard", "tested")["dns"];
    assert_eq!((&leak["cut"], &leak["lost"]), (&json!(0), &json!(0)), "UDP has no room for it, TCP has: {leak:#}");
    let lookup = &find(split, "service-lookup", "tested")["dns"];
    assert_eq!(lookup["soa"], "cluster.local.");
    assert_eq!(lookup["replies"], json!({"nxdomain": 12}), "{lookup:#}");
    // AA, NXDOMAIN, and the policy's own SOA in the additional section: no denial of the zone's.
    let lookup = &find(policy, "service-lookup", "tested")["dns"];
    assert_eq!(lookup["replies"], json!({"blocked": 12}), "{lookup:#}");
    assert_eq!(lookup["soa"], Value::Null);
    let lookup = &find(refusing, "service-lookup", "tested")["dns"];
    for transport in ["udp", "tcp"] {
        assert_eq!(lookup[transport]["control"], json!(["refused", "refused"]), "{lookup:#}");
        assert_eq!(lookup[transport]["replies"], json!({"refused": 6}), "{lookup:#}");
    }
}
