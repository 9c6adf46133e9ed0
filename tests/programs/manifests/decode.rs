//! Every object decodes into the type of its kind, and encodes to what it was: no field is misspelt, in the wrong place, or of the wrong
//! type. Kubernetes' own kinds are those of k8s-openapi, the operator's are ours.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::{ConfigMap, Namespace, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    KUSTOMIZATIONS,
    custom::{PodMonitor, PrometheusRule},
    documents, drop_empty, name, read, rendered,
};
use crate::support::have;

fn again<T: DeserializeOwned + Serialize>(object: &Value) -> Result<Value, String> {
    let decoded: T = serde_json::from_value(object.clone()).map_err(|e| e.to_string())?;
    serde_json::to_value(decoded).map_err(|e| e.to_string())
}

/// The object as its type has it.
fn decoded(object: &Value) -> Result<Value, String> {
    let kind = (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default());
    match kind {
        ("v1", "Namespace") => again::<Namespace>(object),
        ("v1", "ServiceAccount") => again::<ServiceAccount>(object),
        ("v1", "ConfigMap") => again::<ConfigMap>(object),
        ("v1", "Service") => again::<Service>(object),
        ("apps/v1", "DaemonSet") => again::<DaemonSet>(object),
        ("apps/v1", "Deployment") => again::<Deployment>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => again::<NetworkPolicy>(object),
        ("policy/v1", "PodDisruptionBudget") => again::<PodDisruptionBudget>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => again::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => again::<ClusterRoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => again::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => again::<RoleBinding>(object),
        ("monitoring.coreos.com/v1", "PodMonitor") => again::<PodMonitor>(object),
        ("monitoring.coreos.com/v1", "PrometheusRule") => again::<PrometheusRule>(object),
        (version, kind) => Err(format!("no type is known for {version} {kind}")),
    }
}

/// Nothing of it is unknown to its type.
fn check(object: &Value) -> Result<(), String> {
    let (mut was, mut is) = (object.clone(), decoded(object)?);
    drop_empty(&mut was);
    drop_empty(&mut is);
    if was == is { Ok(()) } else { Err(format!("decoded\n{is:#}\nof\n{was:#}")) }
}

#[test]
fn every_object_is_known_to_its_last_field() {
    if !have("kubectl") {
        return;
    }
    for directory in KUSTOMIZATIONS {
        for object in rendered(directory) {
            check(&object).unwrap_or_else(|e| panic!("{directory}: {}: {e}", name(&object)));
        }
    }
    let not_applied = ["manifests/example/policy.yaml", "manifests/overlays/witness/allow-witness.yaml"];
    for object in not_applied.iter().flat_map(|file| documents(&read(file))) {
        check(&object).unwrap_or_else(|e| panic!("{}: {e}", name(&object)));
    }
}

#[test]
fn a_misspelt_field_does_not_decode() {
    let namespace =
        |metadata: Value| serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    assert_eq!(check(&namespace(serde_json::json!({"name": "x"}))), Ok(()));
    assert!(check(&namespace(serde_json::json!({"name": "x", "label": {"a": "b"}}))).is_err());
    let monitor = |key: &str| {
        serde_json::json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "x"},
            "spec": {"selector": {}, "podMetricsEndpoints": [{key: "metrics"}]}})
    };
    assert_eq!(check(&monitor("port")), Ok(()));
    assert!(check(&monitor("portName")).is_err());
}
