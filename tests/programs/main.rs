//! Real programs and hostile peers, on loopback: the built binary against Prometheus, bind9, and servers and files that
//! mean it ill. One module a subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts that come back as floats")]

mod agent;
mod alerts;
mod bind9;
mod caches;
mod check;
mod cluster;
#[path = "../support/cluster_dns.rs"]
mod cluster_dns;
mod command_line;
mod configuration;
mod configuration_reference;
mod cri;
mod dashboards;
mod defences;
mod demo;
mod discover;
mod discovered;
mod dns_properties;
mod dns_targets;
mod documents;
mod errors;
#[path = "../support/fake_cri.rs"]
mod fake_cri;
#[path = "../support/fake_kube.rs"]
mod fake_kube;
mod hostile_cri;
mod hostile_dns;
mod hostile_tcp;
mod hostile_zones;
mod http;
mod http_abuse;
mod http_tls;
mod manifests;
mod metrics_reference;
mod model_defences;
mod model_dns;
mod model_server;
mod outputs;
mod page;
mod prometheus;
mod reverse_sweep;
mod series;
mod share;
mod share_simulation;
mod slices;
mod support;
mod vantages;
mod web_config;
mod web_logins;
