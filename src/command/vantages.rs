//! `segprobe vantages`: which pods of this node would be probed from, what witnesses see, and why others are not used.

use std::{
    collections::BTreeSet,
    io::{self, BufWriter, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use super::{
    Failure,
    node::{self, Node},
    runtime,
};
use crate::{
    cli::ConfigArgs,
    config::{Config, WitnessConfig, WitnessWho, load},
    inventory::{
        cri::{Network, Sandbox},
        stands::{NodePods, Speakers, Use, age, stands, use_of, witness, zone_of},
    },
    model::{VantageMode, plain},
    sweep::is_pods_own,
    vantage::{Listeners, Netns, NetnsId},
};

pub fn run(args: &ConfigArgs) -> Result<ExitCode, Failure> {
    let (config, _) = load(&args.config_file)?;
    if config.pods.is_none() {
        let message =
            "vantage.mode is own and no boundary asks for co_residency: no pod is looked at; set vantage.mode: pods";
        return Err(Failure::Usage(message.into()));
    }
    let (version, node) = runtime()?
        .block_on(async {
            let mut node = Node::look(&config).await?;
            Some((node.version().await, node))
        })
        .ok_or_else(|| Failure::Usage("no pods are configured".into()))?;
    if let Some(problem) = &node.problem {
        return Err(Failure::Usage(problem.to_string()));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let shown = show(&mut out, &config, &node, version.as_deref()).and_then(|()| out.flush());
    shown.map_err(Failure::output)?;
    drop(out);
    node::can_enter(&config).and_then(|()| node.check(&config))?;
    Ok(ExitCode::SUCCESS)
}

/// Listeners of a pod that are shown.
const MOST_PORTS: usize = 16;

/// What a look into a pod's namespace showed.
struct Inside {
    id: NetnsId,
    listeners: Option<Listeners>,
}

fn show(out: &mut impl Write, config: &Config, node: &Node, version: Option<&str>) -> io::Result<()> {
    let pods = node.pods.borrow();
    let socket = config.pods.as_ref().map(|p| p.socket.display().to_string()).unwrap_or_default();
    let count = counted(pods.sandboxes.len(), "sandbox", "sandboxes");
    writeln!(out, "{} at {socket}: {count}", plain(version.unwrap_or("container runtime")))?;
    match config.vantage.mode {
        VantageMode::Pods => {
            vantages(out, config, &pods)?;
            witnesses(out, config, &pods)?;
        }
        VantageMode::Own => {
            writeln!(out, "\nvantage.mode is own: no pod is probed from; pods are only counted for co-residency")?;
        }
    }
    let mut others = Vec::new();
    for sandbox in &pods.sandboxes {
        if let Use::None(why) = use_of(config, sandbox) {
            others.push((sandbox, why));
        }
    }
    if !others.is_empty() {
        writeln!(out, "\nNot used: {}", counted(others.len(), "sandbox", "sandboxes"))?;
    }
    others.into_iter().try_for_each(|(sandbox, why)| writeln!(out, "  {}: {why}", name(sandbox)))
}

/// Who is probed from, by zone and identity.
fn vantages(out: &mut impl Write, config: &Config, pods: &NodePods) -> io::Result<()> {
    let stands = stands(config, pods);
    let zones: BTreeSet<&Arc<str>> = config.boundaries.iter().map(|b| &b.from).collect();
    for zone in zones {
        let mut identities = Vec::new();
        for stand in stands.iter().filter(|stand| stand.source.zone.as_ref() == Some(zone)) {
            if let Speakers::Pods(pods) = &stand.speakers {
                let mut pods = pods.to_vec();
                pods.sort_by(|a, b| a.name.cmp(&b.name));
                identities.push((&stand.source.identity, pods));
            }
        }
        let count = counted(identities.iter().map(|(_, pods)| pods.len()).sum(), "pod", "pods");
        let of = counted(identities.len(), "identity", "identities");
        writeln!(out, "\nProbed from, zone {zone}: {count} of {of}")?;
        if identities.is_empty() {
            writeln!(out, "  no pod of it can be probed from: nothing is tested on this node")?;
        }
        for (identity, pods) in identities {
            writeln!(out, "  {}", plain(&format!("{}/{}", identity.namespace, identity.name)))?;
            pods.iter().try_for_each(|sandbox| vantage(out, config, sandbox))?;
        }
    }
    Ok(())
}

/// Who vouches for the targets of each zone.
fn witnesses(out: &mut impl Write, config: &Config, pods: &NodePods) -> io::Result<()> {
    let zones: BTreeSet<&Arc<str>> = config.boundaries.iter().map(|b| &b.to).collect();
    for zone in zones {
        writeln!(out, "\nWitnesses, zone {zone}")?;
        let is_target = |s: &&Arc<Sandbox>| {
            zone_of(config, s) == Some(zone) && matches!(use_of(config, s), Use::Vantage | Use::Protected)
        };
        let targets: Vec<_> = pods.sandboxes.iter().filter(is_target).collect();
        let configured: Vec<_> = config.witnesses.iter().filter(|w| w.zone == *zone).collect();
        if targets.is_empty() && configured.is_empty() {
            writeln!(out, "  none on this node: what is blocked is `unverified`")?;
        }
        targets.into_iter().try_for_each(|sandbox| target(out, sandbox))?;
        configured.into_iter().try_for_each(|w| connecting(out, config, pods, w))?;
    }
    Ok(())
}

/// A pod of a protected zone, and its listeners.
fn target(out: &mut impl Write, sandbox: &Sandbox) -> io::Result<()> {
    let said = match inside(sandbox) {
        Ok(Inside { listeners: Some(listeners), .. }) => {
            let ports: Vec<u16> = listeners.ports().collect();
            format!("{}, listens on {}", addresses(sandbox), told_ports(&ports))
        }
        Ok(_) => "the kernel does not tell its listeners".into(),
        Err(why) => format!("not entered: {}", plain(&why)),
    };
    writeln!(out, "  {}  {said}", name(sandbox))
}

/// A pod may listen on all ports that there are.
fn told_ports(ports: &[u16]) -> String {
    if ports.is_empty() {
        return "no TCP port".into();
    }
    let mut told: Vec<String> = ports.iter().take(MOST_PORTS).map(ToString::to_string).collect();
    if ports.len() > MOST_PORTS {
        told.push(format!("… ({} ports)", ports.len()));
    }
    told.join(", ")
}

/// A witness that is configured.
fn connecting(out: &mut impl Write, config: &Config, pods: &NodePods, of: &WitnessConfig) -> io::Result<()> {
    match &of.who {
        WitnessWho::Node if is_pods_own(pods) => {
            writeln!(out, "  the node itself: not used, the agent lives in a pod's network: set hostNetwork: true")
        }
        WitnessWho::Node => writeln!(out, "  the node itself: connects to the pods of the zone that run here"),
        WitnessWho::Pods(labels) => {
            let told: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let said = match witness(config, pods, &of.zone, labels) {
                Some(sandbox) => format!("{} connects", name(sandbox)),
                None => "none runs on this node".into(),
            };
            writeln!(out, "  pods with {}: {said}", plain(&told.join(",")))
        }
        WitnessWho::Source(source) => {
            let source: Vec<String> = source.iter().map(ToString::to_string).collect();
            writeln!(out, "  the agent's address {}: connects", source.join(", "))
        }
    }
}

/// A pod that is probed from.
fn vantage(out: &mut impl Write, config: &Config, sandbox: &Sandbox) -> io::Result<()> {
    let (id, listeners) = match inside(sandbox) {
        Ok(Inside { id, listeners }) => (id, listeners),
        Err(why) => return writeln!(out, "    {}  inconclusive: {}", name(sandbox), plain(&why)),
    };
    let age = rounded(age(sandbox));
    // The network as `lsns` and /proc/<pid>/ns show it.
    writeln!(out, "    {}  {}, net:[{}], up {age}", name(sandbox), addresses(sandbox), id.inode)?;
    let servers: Vec<String> = sandbox.dns.servers.iter().map(ToString::to_string).collect();
    if servers.is_empty() {
        writeln!(
            out,
            "      the runtime does not tell its DNS servers: `system` is none; name dns.servers and dns.resolver"
        )?;
    } else {
        let searches: Vec<&str> = sandbox.dns.searches.iter().map(|s| &**s).collect();
        writeln!(out, "      DNS {}, search {}", servers.join(", "), plain(&searches.join(" ")))?;
    }
    if let Some(other) = other_zone(config, sandbox) {
        writeln!(out, "      its search list speaks of {}, not of dns.zone", plain(other))?;
    }
    for (port, mesh) in listeners.iter().flat_map(Listeners::sidecars) {
        writeln!(
            out,
            "      {mesh} listens on {port}: what is open is believed only where a negative control speaks for it"
        )?;
    }
    Ok(())
}

/// A cluster's zone in the search list that is not the configured one.
fn other_zone<'a>(config: &Config, sandbox: &'a Sandbox) -> Option<&'a str> {
    let zone = config.dns.zone.to_ascii();
    let zone = zone.trim_end_matches('.');
    let mut of_services = sandbox.dns.searches.iter().filter_map(|search| search.strip_prefix("svc."));
    of_services.find(|other| !other.trim_end_matches('.').eq_ignore_ascii_case(zone))
}

/// Looks into a pod's network namespace.
fn inside(sandbox: &Sandbox) -> Result<Inside, String> {
    let path = match &sandbox.network {
        Network::Pod(path) => path,
        Network::Hidden(runtime) => return Err(format!("its runtime hides its network: {runtime}")),
        Network::Host => return Err("it has the host's network".into()),
        Network::Unknown(why) => return Err(why.to_string()),
    };
    let netns = Netns::open(path).map_err(|e| e.to_string())?;
    netns.visit(|| ()).map_err(|e| e.to_string())?;
    Ok(Inside { id: netns.id(), listeners: Listeners::of(&netns).ok() })
}

fn name(sandbox: &Sandbox) -> String {
    plain(&format!("{}/{}", sandbox.namespace, sandbox.name))
}

fn addresses(sandbox: &Sandbox) -> String {
    let addresses: Vec<String> = sandbox.addresses.iter().map(ToString::to_string).collect();
    if addresses.is_empty() { "no address".into() } else { addresses.join(", ") }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// In the largest unit of which there are two at least.
fn rounded(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let (unit, word) = units.into_iter().find(|(unit, _)| seconds >= 2 * unit).unwrap_or((1, "s"));
    format!("{} {word}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_up_to_a_line() {
        assert_eq!(told_ports(&[]), "no TCP port");
        assert_eq!(told_ports(&[80, 443]), "80, 443");
        let all: Vec<u16> = (1..=u16::MAX).collect();
        assert_eq!(told_ports(&all[..16]), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16");
        assert_eq!(told_ports(&all), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, … (65535 ports)");
    }

    #[test]
    fn ages_are_short() {
        let texts = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|s| rounded(Duration::from_secs(s)));
        assert_eq!(texts, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
