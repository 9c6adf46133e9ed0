//! The subcommands: one file each, each a short story.

mod agent;
mod check;
mod completions;
mod demo;
mod discover;
mod man;
mod node;
mod schema;
mod validate;
mod vantages;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use crate::{
    cli::{Cli, Command, PlaceArgs, WebArgs},
    config::{Config, DnsServer, Files, LoadError, PositiveControl, load},
    export::Run,
    inventory::{stands::Stand, system_dns},
    model::VantageMode,
    plan::{Plan, plan},
    vantage,
    web::{Web, listener::MOST_CONNECTIONS},
};
use node::Node;

/// Wrong usage or configuration (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// As of a tool that SIGPIPE ended.
const EXIT_READER_LEFT: u8 = 128 + 13;

/// What ends a subcommand early: one line or several, and an exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] LoadError),
    /// The command line or the surroundings are wrong.
    #[error("{0}")]
    Usage(String),
    /// Something of the system failed.
    #[error("{what}: {source}")]
    System {
        /// Operation and object.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Who read standard output left before the end, as `head` does: nobody is told.
    #[error("")]
    ReaderLeft,
}

impl Failure {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }

    fn listen(address: &str) -> impl FnOnce(io::Error) -> Self {
        let what = format!("listen on {address}");
        let remedy = "give another address with --web.listen-address, or end who listens there";
        move |e| Self::System { what, source: io::Error::new(e.kind(), format!("{e}; {remedy}")) }
    }

    /// Standard output did not take what was written.
    fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderLeft,
            _ => Self::system("write to standard output")(error),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Usage(_) => ExitCode::from(EXIT_USAGE),
            Self::System { .. } => ExitCode::FAILURE,
            Self::ReaderLeft => ExitCode::from(EXIT_READER_LEFT),
        }
    }
}

/// Runs a subcommand to its end.
pub fn run(cli: Cli) -> ExitCode {
    let ended = match cli.command {
        Command::Agent(args) => agent::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Discover(args) => discover::run(&args),
        Command::Vantages(args) => vantages::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    };
    ended.unwrap_or_else(|failure| {
        for line in failure.to_string().lines() {
            complain(line);
        }
        failure.exit_code()
    })
}

/// Tells a person something beside the result. Nobody may be there to read it.
fn complain(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "segprobe: {line}");
}

/// A configuration, where it came from and what it asks for.
struct Loaded {
    config: Arc<Config>,
    files: Files,
    /// The agent's own network, where it speaks.
    own: Stand,
    plan: Arc<Plan>,
}

impl Loaded {
    /// Plans for the pods that run on this node, where the configuration needs them.
    async fn ask_node(&mut self) -> Option<Node> {
        let node = Node::look(&self.config).await?;
        let stands = node::who_asks(&self.config, &self.own, Some(&node.pods.borrow()));
        self.plan = Arc::new(self.plan.with_stands(&self.config, &stands));
        Some(node)
    }
}

/// Reads the configuration, and the system's resolvers where it needs them. Other nodes have their share of the targets where
/// they are `shared`.
fn load_plan(path: &Path, place: &PlaceArgs, shared: bool) -> Result<Loaded, Failure> {
    let (mut config, files) = load(path)?;
    config.share = config.share.filter(|_| shared);
    let resolv_conf = PathBuf::from("/etc/resolv.conf");
    let system = if needs_system_dns(&config) {
        system_dns(&resolv_conf).map_err(|e| {
            let path = resolv_conf.display();
            Failure::Usage(format!("{path}: {e}; set dns.servers and dns.resolver to addresses"))
        })?
    } else {
        Vec::new()
    };
    let own = Stand::own(&config, &system, &place.namespace);
    if let Some(share) = &mut config.share {
        share.own = node_name(place);
    }
    let plan = plan(&config, &node::who_asks(&config, &own, None));
    // The plan has what sweeps need of the targets: with thousands of them they are the largest part of the configuration.
    config.targets = Vec::new();
    Ok(Loaded { config: Arc::new(config), files, own, plan: Arc::new(plan) })
}

/// How HTTP is served: as the web configuration says, where there is one. It must ask who is who where that is needed.
fn load_web(args: &WebArgs, needs_authentication: bool) -> Result<Web, LoadError> {
    args.web_config_file.as_ref().map_or_else(|| Ok(Web::open()), |file| Web::load(file, needs_authentication))
}

fn needs_system_dns(config: &Config) -> bool {
    use crate::config::Address;
    if config.vantage.mode == VantageMode::Pods {
        // The pods' own are meant.
        return false;
    }
    let names = config.targets.iter().any(|t| {
        let listed = t.cluster_ips.len() + t.endpoints.len() + t.nodes.len() + t.external.len();
        listed == 0 && !matches!(t.address, Some((Address::Ip(_), _)))
            || t.external.iter().any(|a| matches!(a, Address::Name(_)))
    });
    let asked = config.boundaries.iter().any(|b| !b.techniques.is_empty());
    (asked && config.dns.servers.contains(&DnsServer::System))
        || (config.dns.resolver == DnsServer::System
            && (names || config.positive.iter().any(|(_, control)| *control == PositiveControl::Resolver)))
}

/// What is said about this run.
fn run_info(place: &PlaceArgs) -> Run {
    let uname = nix::sys::utsname::uname().ok();
    let of = |text: Option<&std::ffi::OsStr>| text.map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
    Run {
        node: node_name(place),
        kernel: of(uname.as_ref().map(|u| u.release())).into(),
        icmp_evidence: vantage::kernel_gives_icmp(),
    }
}

/// As it was given, else the host's.
fn node_name(place: &PlaceArgs) -> Arc<str> {
    let host = || nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    place.node_name.clone().unwrap_or_else(host).into()
}

/// Two threads: one may record a sweep while the other sends. Pages are another's (`web::listener`).
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Failure::system("start the runtime"))
}

/// Where a listener of the agent can be reached from this machine.
fn browse(address: SocketAddr) -> String {
    let ip = address.ip();
    if ip.is_unspecified() { format!("http://localhost:{}/", address.port()) } else { format!("http://{address}/") }
}

/// Connects that fit into the limit of open descriptors beside scrapers and everything else.
fn most_in_flight(descriptors: u64) -> u32 {
    let others = 128 + MOST_CONNECTIONS as u64;
    u32::try_from(descriptors.saturating_sub(others).max(16)).unwrap_or(u32::MAX)
}
