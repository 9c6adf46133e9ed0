//! The command line. Flags are named as those of Prometheus' exporters.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod help;

/// Proves that low-security workloads cannot reach or enumerate high-security services
///
/// Stands where low-security pods stand, tries to connect to every target of the high zone and to make the cluster's DNS tell of it, and
/// calls it a pass only where the attempt was proven to be a fair one. There are four verdicts: fail (it was reached, or enumerated), pass
/// (proven blocked), unverified (not reached, but nobody proved the target alive) and inconclusive (not known, and the reason says why).
#[derive(Debug, Parser)]
#[command(
    name = "segprobe",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = help::MORE,
    after_long_help = help::TOP
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sweep for ever and export the verdicts as Prometheus metrics
    ///
    /// Reads the configuration, sweeps every boundary at its interval, and serves metrics. SIGHUP makes it read the configuration and the
    /// target files again; it looks at them by itself every 5 seconds. A configuration that goes bad later keeps the last good one.
    #[command(after_help = help::MORE, after_long_help = help::AGENT)]
    Agent(AgentArgs),
    /// Sweep every boundary once and print the verdicts
    ///
    /// Sends probes: `--plan` shows beforehand how many. Progress is shown on standard error where that is a terminal.
    #[command(after_help = help::MORE, after_long_help = help::CHECK)]
    Check(CheckArgs),
    /// Write the targets that the Kubernetes API tells of into ConfigMaps, for agents without credentials
    ///
    /// Lists and watches the API as KUBECONFIG, or a pod's service account, lets it, and writes target files that agents mount. Agents never
    /// speak to the API.
    #[command(after_help = help::MORE, after_long_help = help::DISCOVER)]
    Discover(DiscoverArgs),
    /// Show what segprobe does in a lab of its own, without configuration, root or a cluster
    ///
    /// Builds a small cluster in a network namespace of its own, sweeps it, prints the verdicts, and serves the page until Ctrl-C.
    #[command(after_help = help::MORE, after_long_help = help::DEMO)]
    Demo(DemoArgs),
    /// Show which pods of this node would be probed from, what witnesses see, and why others are not used
    ///
    /// Asks the container runtime of this node, as an agent with `vantage.mode: pods` does, and enters each pod's network namespace to see who
    /// listens there. Sends no packet.
    #[command(after_help = help::MORE, after_long_help = help::VANTAGES)]
    Vantages(ConfigArgs),
    /// Check a configuration without sending a packet
    ///
    /// Reads the configuration and the target files that it names; tells every problem with its file, line and column.
    #[command(after_help = help::MORE, after_long_help = help::VALIDATE)]
    Validate(ConfigArgs),
    /// Print the JSON Schema of the configuration, or of the result
    #[command(after_help = help::EXAMPLES, after_long_help = help::SCHEMA)]
    Schema(SchemaArgs),
    /// Print a shell's completions
    #[command(after_help = help::EXAMPLES, after_long_help = help::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page, or write all of them into a directory
    #[command(after_help = help::EXAMPLES, after_long_help = help::MAN)]
    Man(ManArgs),
}

/// The configuration file.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file (YAML)
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: PathBuf,
}

/// Who and where this agent is.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Name of this node; the host's name by default
    #[arg(long = "node.name", value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,
    /// Namespace of this pod: the `source_namespace` label where the configuration names none
    #[arg(long = "vantage.namespace", value_name = "NAMESPACE", env = "POD_NAMESPACE", default_value = "")]
    pub namespace: String,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Args)]
pub struct LogArgs {
    /// Least severity that is logged
    #[arg(long = "log.level", value_name = "LEVEL", value_enum, default_value = "info")]
    pub level: LogLevel,
    /// Format of the log
    #[arg(long = "log.format", value_name = "FORMAT", value_enum, default_value = "logfmt")]
    pub format: LogFormat,
}

/// Severities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator wants to know.
    Info,
    /// What an operator should look at.
    Warn,
    /// What does not work.
    Error,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}

/// How HTTP is served.
#[derive(Clone, Debug, Args)]
pub struct WebArgs {
    /// Address to serve HTTP on; `:port` means every address
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = ":11450")]
    pub listen_address: String,
    /// Path of the metrics
    #[arg(long = "web.telemetry-path", value_name = "PATH", default_value = "/metrics", value_parser = telemetry_path)]
    pub telemetry_path: String,
    /// TLS, passwords and limits of the HTTP server (YAML), in the format of Prometheus' exporters
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub web_config_file: Option<PathBuf>,
}

/// Arguments of `agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Who and where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The HTTP server.
    #[command(flatten)]
    pub web: WebArgs,
    /// Show verdicts, checks and the configuration to authenticated requests from other machines, not over loopback only
    #[arg(long = "web.enable-detail")]
    pub enable_detail: bool,
    /// Take `POST /-/reload` from authenticated requests from other machines, not over loopback only
    #[arg(long = "web.enable-lifecycle")]
    pub enable_lifecycle: bool,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Who and where.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// How the result is printed
    #[arg(long, value_enum, default_value = "table")]
    pub output: Output,
    /// Show what would be asked and what it costs, and send nothing
    #[arg(long)]
    pub plan: bool,
    /// Exit with 2 where a verdict is unverified: nothing but proof will do
    #[arg(long)]
    pub require_witness: bool,
}

/// Forms of the result of `check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs: everything, evidence included; `segprobe schema report` describes it
    Json,
    /// JUnit XML, for CI
    Junit,
    /// TAP 14, for CI
    Tap,
    /// For a pull request or a ticket: what did not pass, the rest folded
    Markdown,
    /// SARIF 2.1.0, for code scanning: what did not pass, at the configuration file
    Sarif,
}

/// Arguments of `discover`.
#[derive(Debug, Args)]
pub struct DiscoverArgs {
    /// Configuration of the discovery (YAML)
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: PathBuf,
    /// Read the API once, print the ConfigMaps and stop: nothing is written, and they have no heartbeat
    #[arg(long, requires = "output")]
    pub once: bool,
    /// Form of what `--once` prints
    #[arg(long, value_enum, requires = "once")]
    pub output: Option<Manifests>,
    /// The HTTP server.
    #[command(flatten)]
    pub web: WebArgs,
    /// The log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Forms of manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Manifests {
    /// Documents for `kubectl apply`.
    Yaml,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Stop after the first sweep; exit with 0 where every verdict is the one that the lab was built to give, else 1
    #[arg(long)]
    pub once: bool,
    /// Address to serve the page and the metrics on
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:11450")]
    pub listen_address: String,
}

/// Arguments of `schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Which document
    #[arg(value_enum, default_value = "config")]
    pub of: Described,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write segprobe.1 and a page for each subcommand into this directory, which must exist
    #[arg(long, value_name = "DIRECTORY")]
    pub output_dir: Option<PathBuf>,
}

/// Documents that a schema describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Described {
    /// The configuration file
    Config,
    /// What `check --output json` prints, and an agent serves at /api/v1/checks
    Report,
}

fn telemetry_path(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    let taken = text == "/" || text == "/config" || text.starts_with("/-/") || text.starts_with("/api/");
    if text.starts_with('/') && text.chars().all(plain) && !taken {
        Ok(text.to_owned())
    } else {
        Err("expected a path such as /metrics that is not /, /config, /-/… or /api/…".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn telemetry_paths() {
        assert!(telemetry_path("/metrics").is_ok() && telemetry_path("/a/b-c").is_ok());
        for wrong in ["", "metrics", "/", "/-/ready", "/api/v1/checks", "/config", "/{x}", "/a b"] {
            assert!(telemetry_path(wrong).is_err(), "{wrong}");
        }
    }
}
