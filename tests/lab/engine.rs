//! The engine under test, started from the library as `check` and `agent` start it.

use std::{fmt::Write, future::Future, path::Path, sync::Arc};

use segprobe::{config, inventory::stands::Stand, plan::plan, sweep::Sweeper};

use crate::network::Namespace;

/// What varies in the configuration of the lab. All texts are YAML.
#[derive(Clone)]
pub struct Knobs {
    pub expect: String,
    pub interval: String,
    pub timeout: String,
    pub attempts: u32,
    pub closed: String,
    /// What is in the target, beside its name and ports.
    pub target: String,
    pub ports: Vec<u16>,
    pub source: Option<String>,
    pub witness: Option<String>,
    pub positive: Vec<String>,
    /// What is in each negative control.
    pub negative: Vec<String>,
    /// The resolver of the targets' names; the system's is never asked.
    pub resolver: String,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            expect: "blocked".into(),
            interval: "10m".into(),
            timeout: "2s".into(),
            attempts: 2,
            closed: "fail".into(),
            target: String::new(),
            ports: vec![PORT],
            source: None,
            witness: None,
            positive: Vec::new(),
            negative: Vec::new(),
            resolver: String::new(),
        }
    }
}

/// The port of targets where nothing else is said.
pub const PORT: u16 = 5432;

impl Knobs {
    pub fn yaml(&self) -> String {
        let Self { expect, interval, timeout, attempts, closed, target, ports, resolver, .. } = self;
        let no_dns = if expect == "blocked" { "dns: off" } else { "" };
        let mut yaml = format!(
            "zones: {{low: {{namespaces: [web]}}, high: {{namespaces: [payments]}}}}\n\
             boundaries:\n\
             - name: lab\n  from: low\n  to: high\n  expect: {expect}\n  interval: {interval}\n  {no_dns}\n  \
               tcp: {{timeout: {timeout}, attempts: {attempts}, closed: {closed}}}\n\
             targets:\n\
             - {{zone: high, namespace: payments, service: ledger, ports: {ports:?}, {target}}}\n\
             dns: {{servers: ['{resolver}'], resolver: '{resolver}'}}\n\
             pace: {{in_flight: 512, per_second: 10000, spacing: 10ms}}\n"
        );
        let mut line = |text: String| writeln!(yaml, "{text}").expect("memory");
        if let Some(source) = &self.source {
            line(format!("vantage: {{source: '{source}'}}"));
        }
        if let Some(witness) = &self.witness {
            line(format!("witnesses: [{{zone: high, source: '{witness}'}}]"));
        }
        let positive: Vec<_> = self.positive.iter().map(|control| format!("{{tcp: '{control}'}}")).collect();
        let negative: Vec<_> = self.negative.iter().map(|control| format!("{{{control}}}")).collect();
        line(format!("controls: {{positive: [{}], negative: [{}]}}", positive.join(", "), negative.join(", ")));
        yaml
    }

    /// Makes the sweeper; to be called in a runtime of the client.
    pub fn sweeper(&self, icmp_evidence: bool) -> Arc<Sweeper> {
        let yaml = self.yaml();
        let config = config::parse(Path::new("lab.yaml"), &yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        let plan = plan(&config, &[Stand::own(&config, &[], "web")]);
        Arc::new(Sweeper::new(Arc::new(config), Arc::new(plan), None, icmp_evidence))
    }
}

/// Runs a future on a runtime of its own, on a thread of its own in the namespace.
pub fn block_on<T: Send, F: Future<Output = T>>(namespace: &Namespace, work: impl FnOnce() -> F + Send) -> T {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { work().await })
    })
}
