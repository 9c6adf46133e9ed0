//! Scenarios: data files of `scenarios/`, each a network with cases of what is configured and what must come out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use segprobe::{
    ledger::{Carried, CheckResult, Evidence, SweepReport},
    model::{Family, Via},
    observation::{Icmp, TcpOutcome},
    plan::Part,
};
use serde::Deserialize;

use crate::{
    engine::{Knobs, PORT, block_on},
    network::{Hook, Namespace, Network, fill},
    servers::{Names, Servers, Temper},
};

/// One file. `$words` in its texts are addresses of the family that it runs for: see `network::fill`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    description: String,
    #[serde(default = "both", deserialize_with = "families")]
    pub families: Vec<Family>,
    /// What is in the target of the configuration, beside its name and ports.
    #[serde(default = "endpoint")]
    target: String,
    #[serde(default = "port")]
    ports: Vec<u16>,
    #[serde(default)]
    client: Place,
    #[serde(default)]
    router: Place,
    #[serde(default)]
    server: Place,
    /// What the lab's DNS server knows.
    #[serde(default)]
    names: BTreeMap<String, Vec<String>>,
    /// ICMP errors are limited as the kernel does by default.
    #[serde(default)]
    icmp_limited: bool,
    /// What changes while the sweep runs.
    #[serde(default)]
    later: Vec<Later>,
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
}

/// One of the three namespaces, as this scenario wants it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Place {
    /// Commands for `ip`.
    ip: Vec<String>,
    /// Rules for `nft`, by the hook where they sit.
    rules: BTreeMap<Hook, Vec<String>>,
    /// Listeners, by `address port`. Default: the target, on the server.
    listen: Option<Listeners>,
}

type Listeners = BTreeMap<String, Temper>;

/// From some moment of the sweep on the router forwards by other rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Later {
    /// The moment: the router sees the low vantage's connect to the target of this number, counted from 1.
    attempt: usize,
    forward: Vec<String>,
}

/// What is configured, and what must come out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    pub name: String,
    #[serde(default)]
    promise: Option<String>,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    attempts: Option<u32>,
    #[serde(default)]
    closed: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    witness: Option<String>,
    #[serde(default = "control")]
    positive: Vec<String>,
    #[serde(default)]
    negative: Vec<String>,
    /// Replaces the scenario's.
    #[serde(default)]
    target: Option<String>,
    /// Replaces the listeners of the scenario's server.
    #[serde(default)]
    listen: Option<Listeners>,
    #[serde(default = "yes")]
    icmp_evidence: bool,
    /// Every check of the sweep: `via`, or `via:port` where the target has several.
    expect: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: String,
    reason: String,
    /// Exactly these outcomes are seen in the attempts at all addresses of the check.
    outcomes: BTreeSet<String>,
    /// Type and code of the ICMP errors; where absent, there are none.
    icmp: Option<ExpectedIcmp>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ExpectedIcmp {
    Same(String),
    Each { v4: String, v6: String },
}

fn both() -> Vec<Family> {
    Family::ALL.to_vec()
}

fn families<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Family>, D::Error> {
    let words = Vec::<String>::deserialize(deserializer)?;
    let family = |word: &String| Family::ALL.iter().copied().find(|f| f.as_str() == *word);
    words.iter().map(family).collect::<Option<_>>().ok_or_else(|| serde::de::Error::custom("expected ipv4 or ipv6"))
}

fn endpoint() -> String {
    "endpoints: '$target'".into()
}

fn port() -> Vec<u16> {
    vec![PORT]
}

fn control() -> Vec<String> {
    vec!["$control".into()]
}

fn yes() -> bool {
    true
}

/// All scenarios with their names, in order.
pub fn load_all() -> Vec<(String, Scenario)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/scenarios");
    let files = fs::read_dir(&folder).expect("the scenarios");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let load = |path: &Path| {
        let text = fs::read_to_string(path).expect("a scenario");
        let scenario = toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path.file_stem().expect("a name").to_string_lossy().into_owned(), scenario)
    };
    paths.iter().map(|path| load(path)).collect()
}

impl Scenario {
    /// Builds the network, sweeps once and compares.
    pub fn run(&self, case: &Case, family: Family) -> Result<(), String> {
        let network = Network::new()?;
        if self.icmp_limited {
            network.limit_icmp()?;
        }
        let nobody = Listeners::new();
        let target = Listeners::from([(format!("$target {PORT}"), Temper::Open)]);
        let at_server = case.listen.as_ref().or(self.server.listen.as_ref()).unwrap_or(&target);
        let _servers = [
            furnish(&network.client, &self.client, self.client.listen.as_ref().unwrap_or(&nobody), family)?,
            furnish(&network.router, &self.router, self.router.listen.as_ref().unwrap_or(&nobody), family)?,
            furnish(&network.server, &self.server, at_server, family)?,
            self.control_servers(&network.server, family),
        ];
        let report = self.sweep(&network, &self.knobs(case, family), case.icmp_evidence, family)?;
        let seen: BTreeMap<String, &CheckResult> = report.results.iter().map(|r| (key(r), &**r)).collect();
        let mut wrong = String::new();
        if seen.keys().ne(case.expect.keys()) {
            wrong += &format!("checks {:?}, expected {:?}\n", seen.keys(), case.expect.keys());
        }
        for (key, expected) in &case.expect {
            if let Some(result) = seen.get(key) {
                wrong += &expected.differs(result, family).map(|what| format!("{key}: {what}\n")).unwrap_or_default();
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(format!("{}\n{wrong}{:#?}", self.description, report.results)),
        }
    }

    /// What every vantage may reach: port 53 of the server, over both families; its UDP answers names.
    fn control_servers(&self, server: &Namespace, family: Family) -> Servers {
        let listeners = ["$control", "$other_control"].map(|control| (control_address(control, family), Temper::Open));
        let names: Names = self
            .names
            .iter()
            .map(|(name, addresses)| (name.clone(), filled(addresses, family).iter().map(|a| ip(a)).collect()))
            .collect();
        Servers::start(server, listeners.into(), Some((control_address("$control", family), names)))
    }

    fn knobs(&self, case: &Case, family: Family) -> Knobs {
        let of = |text: &Option<String>| text.as_ref().map(|text| fill(text, family));
        let default = Knobs::default();
        Knobs {
            expect: case.promise.clone().unwrap_or(default.expect),
            timeout: case.timeout.clone().unwrap_or(default.timeout),
            attempts: case.attempts.unwrap_or(default.attempts),
            closed: case.closed.clone().unwrap_or(default.closed),
            target: fill(case.target.as_ref().unwrap_or(&self.target), family),
            ports: self.ports.clone(),
            source: of(&case.source),
            witness: of(&case.witness),
            positive: filled(&case.positive, family),
            negative: filled(&case.negative, family),
            resolver: fill("$control", family),
            interval: default.interval,
        }
    }

    /// One sweep, while the network changes as the scenario says.
    fn sweep(
        &self,
        network: &Network,
        knobs: &Knobs,
        icmp_evidence: bool,
        family: Family,
    ) -> Result<SweepReport, String> {
        if !self.later.is_empty() {
            network.watch_attempts(family)?;
        }
        let is_over = AtomicBool::new(false);
        let change = || {
            for later in &self.later {
                while network.attempts()? < later.attempt {
                    if is_over.load(Ordering::Relaxed) {
                        return Err(format!("the sweep was over before attempt {} was seen", later.attempt));
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                network.router.rules(Hook::Forward, &filled(&later.forward, family))?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let changing = scope.spawn(change);
            let report = block_on(&network.client, || async {
                let sweeper = knobs.sweeper(icmp_evidence);
                sweeper.sweep(&sweeper.plan.legs[0], Part::Reach, &[], &Carried::default()).await
            });
            is_over.store(true, Ordering::Relaxed);
            changing.join().expect("it does not panic")?;
            Ok(report)
        })
    }
}

/// Makes a namespace as the scenario wants it.
fn furnish(namespace: &Namespace, place: &Place, listen: &Listeners, family: Family) -> Result<Servers, String> {
    if !place.ip.is_empty() {
        namespace.ip(&filled(&place.ip, family).join("\n"))?;
    }
    for (hook, rules) in &place.rules {
        namespace.rules(*hook, &filled(rules, family))?;
    }
    let listeners = listen.iter().map(|(at, temper)| {
        let at = fill(at, family);
        let (address, port) = at.split_once(' ').unwrap_or_else(|| panic!("`{at}` is not `address port`"));
        (SocketAddr::new(ip(address), port.parse().expect("a port")), *temper)
    });
    Ok(Servers::start(namespace, listeners.collect(), None))
}

fn filled(texts: &[String], family: Family) -> Vec<String> {
    texts.iter().map(|text| fill(text, family)).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|e| panic!("`{text}`: {e}"))
}

fn control_address(word: &str, family: Family) -> SocketAddr {
    fill(word, family).parse().expect("an address")
}

/// How a scenario calls a check.
fn key(result: &CheckResult) -> String {
    let via = result.id.via.map_or("", Via::as_str);
    match result.id.target.rsplit_once(':') {
        Some((_, port)) if port != PORT.to_string() => format!("{via}:{port}"),
        _ => via.to_owned(),
    }
}

impl Expected {
    /// What is not as expected.
    fn differs(&self, result: &CheckResult, family: Family) -> Option<String> {
        let Evidence::Reach(addresses) = &result.evidence else { return Some("not a TCP check".into()) };
        let attempts = || addresses.iter().flat_map(|(seen, _)| &seen.attempts);
        let words = (result.reason.verdict().as_str(), result.reason.as_str());
        let outcomes: BTreeSet<String> = attempts().map(|a| a.outcome.as_str().to_owned()).collect();
        let icmp: BTreeSet<String> =
            attempts().filter_map(|a| a.icmp).map(|Icmp { kind, code, .. }| format!("{kind}/{code}")).collect();
        let expected_icmp = match (&self.icmp, family) {
            (None, _) => BTreeSet::new(),
            (Some(ExpectedIcmp::Same(icmp) | ExpectedIcmp::Each { v4: icmp, .. }), Family::V4)
            | (Some(ExpectedIcmp::Same(icmp) | ExpectedIcmp::Each { v6: icmp, .. }), Family::V6) => {
                [icmp.clone()].into()
            }
        };
        // Where an ICMP error is expected, it comes with every attempt that was not silent.
        let bare = |a: &&segprobe::observation::TcpSeen| a.icmp.is_none() && a.outcome != TcpOutcome::Filtered;
        let expected = (self.verdict.as_str(), self.reason.as_str());
        let right = words == expected
            && outcomes == self.outcomes
            && icmp == expected_icmp
            && (self.icmp.is_none() || attempts().find(bare).is_none());
        (!right).then(|| {
            format!(
                "{words:?} by {outcomes:?} with ICMP {icmp:?}, expected {expected:?} by {:?} with ICMP {expected_icmp:?}",
                self.outcomes
            )
        })
    }
}
