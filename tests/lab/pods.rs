//! The pods' own vantage: what an agent on a node with pods concludes from inside their networks, while they come and go.

mod agent;
mod churn;
mod dns;
mod ends;
mod manners;
mod mesh;
mod node;
mod policy;
mod startup;
mod zones;

use libtest_mimic::{Failed, Trial};

pub use churn::churn;

pub fn trials() -> Vec<Trial> {
    let trial = |name: &str, test: fn() -> Result<(), Failed>| Trial::test(format!("pods::{name}"), test);
    vec![
        trial("nothing-is-left-of-1000-sweeps", churn::nothing_is_left),
        trial("runtime-unreadable", zones::runtime_unreadable),
        trial("policy-holds-and-who-vouches", policy::holds),
        trial("listeners-that-do-not-vouch", policy::do_not_vouch),
        trial("policy-misses-one-identity", policy::misses_one_identity),
        trial("policy-misses-one-pod", policy::misses_one_pod),
        trial("policy-misses-one-endpoint", policy::misses_one_endpoint),
        trial("a-pod-dies-in-mid-sweep", ends::in_mid_sweep),
        trial("pods-that-cannot-be-used", ends::unusable),
        trial("meshes", mesh::meshes),
        trial("a-witness-in-a-mesh", mesh::witnesses),
        trial("itself-is-no-control", policy::itself_is_no_control),
        trial("one-family-is-enough", policy::one_family_is_enough),
        trial("the-last-pod-ends", ends::the_last),
        trial("a-witness-ends", ends::of_the_witness),
        trial("co-residency", zones::co_residency),
        trial("a-pod-starts", startup::of_the_vantage),
        trial("a-target-starts", startup::of_the_target),
        trial("a-pod-starts-beside-a-sweep", startup::beside_a_sweep),
        trial("a-pod-starts-and-ends", startup::and_ends),
        trial("a-pod-starts-where-it-is-promised", startup::where_it_is_promised),
        trial("dns-from-pods", dns::from_pods),
        trial("dns-in-turns", dns::in_turns),
        trial("dns-holds-nothing-up", dns::holds_nothing_up),
        trial("a-guest-keeps-its-pace", manners::pace),
    ]
}

/// A policy's answer that needs no waiting for.
const REJECT: &str = "reject with icmpx admin-prohibited";
