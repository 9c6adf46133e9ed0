//! Policy identities: pods of one namespace that policies cannot tell apart, under a name that stays.

use std::{collections::BTreeSet, fmt::Write, sync::Arc};

use sha2::{Digest, Sha256};

use super::cri::Labels;

/// Labels with which controllers number their pods and revisions: they differ between pods that are meant to be alike.
/// Source: the well-known labels of Kubernetes' documentation, and its controllers.
const OF_CONTROLLERS: [&str; 11] = [
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/cronjob-scheduled-timestamp",
    "controller-revision-hash",
    "controller-uid",
    "job-name",
    "pod-template-generation",
    "pod-template-hash",
    "statefulset.kubernetes.io/pod-name",
];

/// Labels by which people know their workloads, the best known first.
const KNOWN: [&str; 6] =
    ["app.kubernetes.io/name", "app", "k8s-app", "name", "app.kubernetes.io/component", "app.kubernetes.io/instance"];

/// Longest name, in bytes.
const LONGEST: usize = 63;

/// The labels that make the identity: all but those of controllers and the ones in `ignored`.
fn identity_labels(labels: &Labels, ignored: &BTreeSet<Box<str>>) -> Labels {
    let counts = |key: &str| !OF_CONTROLLERS.contains(&key) && !ignored.contains(key);
    labels.iter().filter(|(key, _)| counts(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A short name for the identity of a pod with these labels, but for the ones in `ignored`, as `app=web,tier=front`. It depends
/// on the labels alone, so that it stays whoever comes and goes. What does not fit is stood for by a hash, as in
/// `app.kubernetes.io/name=web~1f0a3b`, of 24 bits: who looks for two sets of labels with one name finds them, and then they are
/// one identity.
pub fn identity_name(labels: Option<&Labels>, ignored: &BTreeSet<Box<str>>) -> Arc<str> {
    let Some(labels) = labels.map(|labels| identity_labels(labels, ignored)) else {
        return "unreadable-labels".into();
    };
    if labels.is_empty() {
        return "unlabelled".into();
    }
    let rank = |key: &str| KNOWN.iter().position(|known| *known == key).unwrap_or(KNOWN.len());
    let mut in_order: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (&**key, &**value)).collect();
    in_order.sort_by_key(|(key, _)| (rank(key), *key));
    let mut name = String::new();
    let mut told = 0;
    // Seven bytes are for the hash, in case that not all fit.
    for (key, value) in &in_order {
        let separator = usize::from(told > 0);
        if name.len() + separator + key.len() + 1 + value.len() > LONGEST - 7 || !is_plain(key) || !is_plain(value) {
            break;
        }
        let comma = if told > 0 { "," } else { "" };
        let _ = write!(name, "{comma}{key}={value}");
        told += 1;
    }
    if told < in_order.len() {
        let mut hash = Sha256::new();
        for (key, value) in &labels {
            hash.update((key.len() as u64).to_be_bytes());
            hash.update(key.as_bytes());
            hash.update((value.len() as u64).to_be_bytes());
            hash.update(value.as_bytes());
        }
        let digest = hash.finalize();
        let hex: String = digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
        let _ = write!(name, "{}~{hex}", if told == 0 { "labels" } else { "" });
    }
    name.into()
}

/// What Kubernetes allows in a label; a runtime that tells anything else gets it hashed.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
        pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
    }

    fn name_of(labels: &Labels) -> Arc<str> {
        identity_name(Some(labels), &BTreeSet::new())
    }

    #[test]
    fn names_are_those_that_people_use() {
        let name = |pairs: &[(&str, &str)]| name_of(&labels(pairs.iter().copied())).to_string();
        assert_eq!(name(&[("app", "web")]), "app=web");
        assert_eq!(name(&[("tier", "front"), ("app", "web")]), "app=web,tier=front");
        assert_eq!(name(&[("a", "1"), ("k8s-app", "dns"), ("app", "x")]), "app=x,k8s-app=dns,a=1");
        assert_eq!(name(&[]), "unlabelled");
        assert_eq!(&*identity_name(None, &BTreeSet::new()), "unreadable-labels");
        let chart = [
            ("app.kubernetes.io/name", "web"),
            ("app.kubernetes.io/instance", "shop"),
            ("app.kubernetes.io/part-of", "store"),
        ];
        assert!(name(&chart).starts_with("app.kubernetes.io/name=web~"), "{}", name(&chart));
        assert!(name(&[("app", "we\nb")]).starts_with("labels~"));
        let long = "x".repeat(63);
        assert!(name(&[("app", &long)]).starts_with("labels~"));
    }

    #[test]
    fn what_controllers_add_and_what_is_ignored_makes_no_identity() {
        let all = labels([
            ("app", "web"),
            ("pod-template-hash", "6b7f"),
            ("controller-revision-hash", "web-1"),
            ("statefulset.kubernetes.io/pod-name", "web-0"),
            ("apps.kubernetes.io/pod-index", "0"),
            ("job-name", "backup-123"),
            ("batch.kubernetes.io/job-name", "backup-123"),
            ("batch.kubernetes.io/controller-uid", "u"),
            ("controller-uid", "u"),
            ("helm.sh/chart", "web-1.2"),
        ]);
        assert_eq!(identity_labels(&all, &BTreeSet::from(["helm.sh/chart".into()])), labels([("app", "web")]));
        assert_eq!(identity_labels(&all, &BTreeSet::new()), labels([("app", "web"), ("helm.sh/chart", "web-1.2")]));
    }

    proptest! {
        #[test]
        fn names_are_bounded_and_not_shared_by_chance(
            sets in prop::collection::vec(btree_map("[a-c]{1,2}(/[a-z]{1,40})?", "[a-z=,~]{0,70}", 0..6), 2..6)
        ) {
            let mut known: BTreeMap<String, Labels> = BTreeMap::new();
            for set in sets {
                let set = labels(set.iter().map(|(k, v)| (k.as_str(), v.as_str())));
                let name = name_of(&set).to_string();
                prop_assert!((1..=LONGEST).contains(&name.len()), "{name}");
                let same = known.entry(name.clone()).or_insert_with(|| set.clone());
                prop_assert_eq!(&*same, &set, "{}", name);
            }
        }
    }
}
