//! What stands below the flags in each subcommand's help, and so in its manual page: examples, files, exit codes.
//!
//! Paragraphs begin with a title and a colon; their lines fit into 80 columns, as they are shown as they are.

/// Below every short help.
pub const MORE: &str = "`--help` tells more: examples, files, exit codes.";
/// The same of what merely prints.
pub const EXAMPLES: &str = "`--help` tells more: examples.";

macro_rules! with_docs {
    ($text:literal) => {
        concat!($text, "\n\nDocumentation:\n  ", env!("CARGO_PKG_REPOSITORY"), "/tree/main/docs")
    };
}

pub const TOP: &str = with_docs!(
    "Where to begin:
  segprobe demo                                   in a lab of its own
  segprobe validate --config.file FILE            is the configuration right?
  segprobe check --plan --config.file FILE        what would be sent?
  segprobe check --config.file FILE               one sweep, here and now

When an alert woke you:
  Every alert names its runbook. The agent's page tells the reason and the
  evidence of each check; it is open to the agent's own machine:
    kubectl port-forward -n $NAMESPACE $POD 11450
    and then http://localhost:11450/ in a browser

Exit codes:
  0   as it should be
  1   check: a fail; others: something of the system failed
  2   check: inconclusive and no fail, or nothing of a boundary was tested
  64  wrong usage or configuration: the message says what to do"
);

pub const AGENT: &str = with_docs!(
    "Examples:
  segprobe agent --config.file /etc/segprobe/segprobe.yaml
  What Prometheus gets:
    curl localhost:11450/metrics
  Every check with its evidence:
    curl localhost:11450/api/v1/checks
  Read the files again:
    curl -X POST localhost:11450/-/reload

Files:
  The configuration, and the target files that it names, relative to it.
  /etc/resolv.conf, where the configuration asks for the system's DNS servers.

Exit codes:
  0   ended by SIGTERM or SIGINT
  1   something of the system failed, as an address to listen on
  64  wrong usage or configuration"
);

pub const CHECK: &str = with_docs!(
    "Examples:
  What would be sent, and how long it takes:
    segprobe check --plan --config.file segprobe.yaml
  A table, the worst first:
    segprobe check --config.file segprobe.yaml
  For CI:
    segprobe check --config.file segprobe.yaml --output junit > segprobe.xml
  What failed, for a program:
    segprobe check --config.file segprobe.yaml --output json |
      jq '.checks[] | select(.mode == \"judge\" and .verdict == \"fail\")'

Exit codes:
  0   every check is a pass or unverified
  1   a fail: something of a high zone was reached or enumerated
  2   inconclusive and no fail, or nothing of a boundary was tested;
      with --require-witness, unverified too
  64  wrong usage or configuration"
);

pub const DISCOVER: &str = with_docs!(
    "Examples:
  Once, for a repository:
    segprobe discover --config.file discover.yaml --once --output yaml
  For ever, as a Deployment:
    segprobe discover --config.file discover.yaml

Files:
  $KUBECONFIG or ~/.kube/config; in a pod the token of its service account.

Exit codes:
  0   ended by SIGTERM or SIGINT, or --once printed all
  1   something of the system failed
  64  wrong usage or configuration, no API server, or with --once targets
      that do not fit"
);

pub const DEMO: &str = with_docs!(
    "Examples:
  One that stays, with a page:
    segprobe demo
  One sweep, to see that the program works here:
    segprobe demo --once

Exit codes:
  0   ended by Ctrl-C; with --once every verdict is as the lab was built to give
  1   another verdict, or something of the system failed"
);

pub const VANTAGES: &str = with_docs!(
    "Examples:
  In an agent's pod:
    kubectl exec -n $NAMESPACE $POD --
      segprobe vantages --config.file /etc/segprobe/segprobe.yaml

Exit codes:
  0   this node's pods can be probed from
  1   something of the system failed
  64  wrong usage or configuration; a mount, a capability or the container
      runtime's socket is missing"
);

pub const VALIDATE: &str = with_docs!(
    "Examples:
  segprobe validate --config.file segprobe.yaml

Exit codes:
  0   valid
  64  not valid: a line for each problem"
);

pub const SCHEMA: &str = with_docs!(
    "Examples:
  For an editor, which then completes and checks the configuration:
    segprobe schema > segprobe.schema.json
  For a program that reads `check --output json`:
    segprobe schema report > report.schema.json"
);

pub const COMPLETIONS: &str = with_docs!(
    "Examples:
  segprobe completions bash > /etc/bash_completion.d/segprobe
  segprobe completions zsh > \"${fpath[1]}/_segprobe\"
  segprobe completions fish > ~/.config/fish/completions/segprobe.fish"
);

pub const MAN: &str = with_docs!(
    "Examples:
  segprobe man | man -l -
  segprobe man --output-dir /usr/share/man/man1"
);

#[cfg(test)]
mod tests {
    #[test]
    fn lines_fit_into_80_columns() {
        use clap::CommandFactory;
        let command = crate::cli::Cli::command();
        let all = command.get_subcommands().chain([&command]);
        for text in all.map(|c| c.get_after_long_help().unwrap().to_string()) {
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(text.split("\n\n").all(|paragraph| paragraph.lines().next().unwrap().ends_with(':')), "{text}");
        }
    }
}
