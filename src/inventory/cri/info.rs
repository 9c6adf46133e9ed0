//! The verbose status of a sandbox: JSON in a string, of another shape from each runtime and version.
//!
//! | runtime | tells |
//! |---|---|
//! | containerd | `pid` (0 where the sandbox is not a process), `runtimeSpec` (null where there is none), `sandboxMetadata`, `config`, `runtimeType`, `netNamespaceClosed` |
//! | CRI-O | `runtimeSpec`, and `pid` only where an infra container is kept |
//!
//! Each field is read for itself: one that is not as expected counts as not told, and the others still count.

use std::{
    net::IpAddr,
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::line;

/// Runtimes that keep the pod's sockets to themselves, by a part of their names in lower case.
const HIDING: [&str; 3] = ["kata", "runsc", "gvisor"];
/// Linux' `PATH_MAX`.
const LONGEST_PATH: usize = 4_096;
/// `resolv.conf` takes 3 servers and pods 32 search domains; more are not kept.
const MOST_SERVERS: usize = 16;
const MOST_SEARCHES: usize = 64;
const LONGEST_SEARCH: usize = 256;
/// The text of a list that is read: each of its entries takes much more than its text.
const LONGEST_ENTRIES: usize = 64 << 10;

/// Where the sockets of a pod are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// In this network namespace: an absolute path, as the host sees it.
    Pod(PathBuf),
    /// In the host's network.
    Host,
    /// Behind the runtime, which hides it (Kata, gVisor): what it was recognised by.
    Hidden(Box<str>),
    /// Not known, and why.
    Unknown(Box<str>),
}

/// The pod's `resolv.conf`, as far as the runtime tells of it: containerd does, CRI-O does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodDns {
    /// In the pod's order.
    pub servers: Box<[IpAddr]>,
    /// In the pod's order.
    pub searches: Box<[Box<str>]>,
}

/// What a verbose status tells.
#[derive(Debug)]
pub struct Info {
    /// The first network namespace path that it tells.
    path: Option<String>,
    /// The namespaces of the sandbox are told, and none is of the network.
    shares_network: bool,
    /// Of the sandbox's process.
    pid: Option<u32>,
    /// The network namespace is no more.
    closed: bool,
    /// Names of the runtime that carries the sandbox.
    runtimes: Vec<String>,
    /// The pod's resolver.
    pub dns: PodDns,
}

impl Info {
    /// Reads the JSON text.
    ///
    /// # Errors
    /// It is no JSON object.
    pub fn read(text: &str) -> Result<Self, Box<str>> {
        let document: Document<'_> = serde_json::from_str(text)
            .map_err(|why| format!("the verbose status is no JSON object that can be read: {why}"))?;
        let spec: Spec<'_> = field(document.runtime_spec).unwrap_or_default();
        let sandbox = document.metadata();
        let namespaces = spec.namespaces();
        let network = namespaces.iter().find(|namespace| namespace.kind().as_deref() == Some("network"));
        let told = |path: Option<String>| path.filter(|path| !path.is_empty());
        let path =
            told(network.and_then(|namespace| field(namespace.path))).or_else(|| told(field(sandbox.net_ns_path)));
        let shares_network = network.is_none()
            && !namespaces.is_empty()
            && namespaces.iter().all(|namespace| namespace.kind().is_some());
        let annotations: Annotations<'_> = field(spec.annotations).unwrap_or_default();
        let runtimes =
            [document.runtime_type, document.runtime_handler, sandbox.runtime_handler, annotations.runtime_handler];
        Ok(Self {
            path,
            shares_network,
            pid: field(document.pid).filter(|pid| *pid > 0),
            closed: field(document.net_namespace_closed).unwrap_or(false),
            runtimes: runtimes.into_iter().filter_map(field).collect(),
            dns: document.dns(),
        })
    }

    /// Where the pod's sockets are, of what the runtime's handlers are called besides.
    pub fn network(&self, handlers: &[&str]) -> Network {
        let names = || handlers.iter().copied().chain(self.runtimes.iter().map(String::as_str));
        if let Some(name) = names().find(|name| hides(name)) {
            return Network::Hidden(line(name));
        }
        if self.closed {
            return unknown("the runtime says that its network namespace is closed");
        }
        match (&self.path, self.pid) {
            (Some(path), _) if is_plain(path) => Network::Pod(path.into()),
            (Some(path), _) => unknown(&format!("the runtime tells an odd network namespace: {path:?}")),
            (None, _) if self.shares_network => Network::Host,
            (None, Some(pid)) => Network::Pod(format!("/proc/{pid}/ns/net").into()),
            (None, None) => unknown("the runtime tells neither a network namespace nor a process"),
        }
    }
}

fn unknown(why: &str) -> Network {
    Network::Unknown(line(why))
}

fn hides(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    HIDING.iter().any(|part| name.contains(part))
}

/// Absolute, of a file, without ways around.
fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && path.len() < LONGEST_PATH
        && !path.contains(char::is_control)
        && Path::new(path).file_name().is_some()
        && Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// A field that counts only where it is as expected.
fn field<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

/// The entries of a list, each as it can be read.
fn entries<'a, T: Deserialize<'a>>(raw: Raw<'a>) -> impl Iterator<Item = Option<T>> {
    let entries: Vec<&RawValue> = field(raw.filter(|raw| raw.get().len() <= LONGEST_ENTRIES)).unwrap_or_default();
    entries.into_iter().map(|entry| field(Some(entry)))
}

type Raw<'a> = Option<&'a RawValue>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(borrow)]
    pid: Raw<'a>,
    #[serde(borrow)]
    net_namespace_closed: Raw<'a>,
    #[serde(borrow)]
    runtime_type: Raw<'a>,
    #[serde(borrow)]
    runtime_handler: Raw<'a>,
    #[serde(borrow)]
    runtime_spec: Raw<'a>,
    #[serde(borrow)]
    sandbox_metadata: Raw<'a>,
    #[serde(borrow)]
    config: Raw<'a>,
}

impl<'a> Document<'a> {
    /// containerd's own record of the sandbox: plain, or in an envelope with a version.
    fn metadata(&self) -> Metadata<'a> {
        let outer: Metadata<'a> = field(self.sandbox_metadata).unwrap_or_default();
        field(outer.metadata).unwrap_or(outer)
    }

    /// Names as of Go's `protobuf` tags.
    fn dns(&self) -> PodDns {
        let config: Config<'_> = field(self.config).unwrap_or_default();
        let dns: DnsConfig<'_> = field(config.dns_config).unwrap_or_default();
        let servers = entries::<String>(dns.servers).flatten().filter_map(|server| server.parse::<IpAddr>().ok());
        let searches = entries::<String>(dns.searches)
            .flatten()
            .filter(|search| search.len() <= LONGEST_SEARCH && !search.contains(char::is_control))
            .map(Box::from);
        PodDns { servers: servers.take(MOST_SERVERS).collect(), searches: searches.take(MOST_SEARCHES).collect() }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec<'a> {
    #[serde(borrow)]
    linux: Raw<'a>,
    #[serde(borrow)]
    annotations: Raw<'a>,
}

impl Spec<'_> {
    fn namespaces(&self) -> Vec<Namespace<'_>> {
        let linux: Linux<'_> = field(self.linux).unwrap_or_default();
        entries(linux.namespaces).map(Option::unwrap_or_default).collect()
    }
}

/// CRI-O tells the runtime's handler here alone.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations<'a> {
    #[serde(borrow, rename = "io.kubernetes.cri-o.RuntimeHandler")]
    runtime_handler: Raw<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux<'a> {
    #[serde(borrow)]
    namespaces: Raw<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Namespace<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    path: Raw<'a>,
}

impl Namespace<'_> {
    /// Absent where it cannot be read.
    fn kind(&self) -> Option<String> {
        field(self.kind)
    }
}

/// Go's names, for want of tags.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    metadata: Raw<'a>,
    #[serde(borrow, rename = "NetNSPath")]
    net_ns_path: Raw<'a>,
    #[serde(borrow)]
    runtime_handler: Raw<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Config<'a> {
    #[serde(borrow)]
    dns_config: Raw<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DnsConfig<'a> {
    #[serde(borrow)]
    servers: Raw<'a>,
    #[serde(borrow)]
    searches: Raw<'a>,
}

#[cfg(test)]
mod tests;
