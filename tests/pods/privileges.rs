//! What the agent must be allowed, and no more than that.

use libtest_mimic::Trial;

use crate::{
    cluster::Cluster,
    support::{Config, SOON, Start},
    trial,
};

pub fn trials() -> Vec<Trial> {
    vec![trial("privileges::one-capability-is-enough", one_capability_is_enough)]
}

const SYS_ADMIN: &str = "0000000000200000";
const SYS_ADMIN_AND_PTRACE: &str = "0000000000280000";
const NONE: &str = "0000000000000000";

fn one_capability_is_enough() {
    let cluster = Cluster::start();
    let listeners = cluster.listen();
    let root = Start::on(&cluster.node);
    assert_eq!(root.agent(cluster.config()).process.status("CapPrm"), SYS_ADMIN_AND_PTRACE, "all others are dropped");
    let as_container = Start { by: &["setpriv", "--bounding-set", "-all,+sys_admin", "--inh-caps", "-all"], ..root };
    let agent = as_container.agent(cluster.config());
    for source in ["app=front", "app=back"] {
        agent.wait_for_verdict(source, "ledger:5432", SOON, ("pass", "blocked"));
    }
    assert_eq!(agent.process.status("CapEff"), SYS_ADMIN);
    drop(agent);

    let without = Start { by: &["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"], ..root };
    for arguments in [&["agent", "--web.listen-address", "127.0.0.1:0"][..], &["check"], &["vantages"]] {
        let ended = without.run(arguments, cluster.config());
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(ended.stderr.contains("needs the capability SYS_ADMIN"), "{ended:?}");
    }

    // The own mode needs nothing.
    let nobody = Start {
        network: Some(&cluster.front[0]),
        by: &[
            "setpriv",
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "--bounding-set",
            "-all",
            "--inh-caps",
            "-all",
        ],
        ..root
    };
    let own = Config { mode: "own", pods: String::new(), ..cluster.config() };
    let agent = nobody.agent(format!("{own}\n").replace("mode: own", "mode: own, namespace: web"));
    agent.wait_for_verdict("own", "ledger:5432", SOON, ("unverified", "no-witness"));
    assert_eq!(agent.process.status("CapPrm"), NONE);
    assert!(listeners.iter().all(|listener| listener.accepted() == 0));
}
