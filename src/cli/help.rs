//! What stands below the flags in each subcommand's help, and so in its manual page: examples, files, exit codes.

/// Below every short help.
pub const MORE: &str = "`--help` tells more: examples, files, exit codes.";

macro_rules! with_docs {
    ($text:literal) => {
        concat!($text, "\n\nDocumentation: ", env!("CARGO_PKG_REPOSITORY"), "/tree/main/docs")
    };
}

pub const TOP: &str = with_docs!(
    "Where to begin:
  segprobe demo                                       see what it does, in a lab of its own
  segprobe validate --config.file segprobe.yaml       is the configuration right?
  segprobe check --plan --config.file segprobe.yaml   what would be sent?
  segprobe check --config.file segprobe.yaml          one sweep, here and now

When an alert woke you: every alert names its runbook, and the agent's page at / tells the reason and the evidence of each check:
  kubectl port-forward -n NAMESPACE POD 11450    then http://localhost:11450/

Exit codes:
  0   as it should be
  1   check: a fail. Others: something of the system failed
  2   check: inconclusive and no fail
  64  wrong usage or configuration; the message says what to do"
);

pub const AGENT: &str = with_docs!(
    "Examples:
  segprobe agent --config.file /etc/segprobe/segprobe.yaml
  curl localhost:11450/metrics              what Prometheus gets
  curl localhost:11450/api/v1/checks        every check with its evidence, from this machine only
  curl -X POST localhost:11450/-/reload     read the files again, from this machine only

Files:
  the configuration, and the target files that it names, relative to it
  /etc/resolv.conf    where the configuration asks for the system's DNS servers

Exit codes:
  0   ended by SIGTERM or SIGINT
  1   something of the system failed, as an address to listen on
  64  wrong usage or configuration"
);

pub const CHECK: &str = with_docs!(
    "Examples:
  segprobe check --plan --config.file segprobe.yaml                             what would be sent, and how long it takes
  segprobe check --config.file segprobe.yaml                                    a table, the worst first
  segprobe check --config.file segprobe.yaml --output junit > segprobe.xml      for CI
  segprobe check --config.file segprobe.yaml --output json | jq '.checks[] | select(.verdict == \"fail\")'

Exit codes:
  0   every check is a pass or unverified
  1   a fail: something of a high zone was reached or enumerated
  2   inconclusive and no fail, or nothing of a boundary was tested; with --require-witness unverified too
  64  wrong usage or configuration"
);

pub const DISCOVER: &str = with_docs!(
    "Examples:
  segprobe discover --config.file discover.yaml --once --output yaml > targets.yaml    once, for a repository
  segprobe discover --config.file discover.yaml                                        for ever, as a Deployment

Files:
  $KUBECONFIG or ~/.kube/config, or in a pod the token of its service account

Exit codes:
  0   ended by SIGTERM or SIGINT, or --once printed all
  1   something of the system failed
  64  wrong usage or configuration, no API server, or with --once targets that do not fit"
);

pub const DEMO: &str = with_docs!(
    "Examples:
  segprobe demo           and open the page that it names
  segprobe demo --once    one sweep, for a test that the program works here

Exit codes:
  0   ended by Ctrl-C; with --once every verdict is the one that the lab was built to give
  1   another verdict, or something of the system failed"
);

pub const VANTAGES: &str = with_docs!(
    "Examples:
  kubectl exec -n NAMESPACE POD -- segprobe vantages --config.file /etc/segprobe/segprobe.yaml

Exit codes:
  0   this node's pods can be probed from
  64  wrong usage or configuration, or a mount, a capability or the runtime's socket is missing"
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
  segprobe schema > segprobe.schema.json    for an editor, which then completes and checks the configuration
  segprobe schema report                    what a program can rely on in `check --output json`"
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
