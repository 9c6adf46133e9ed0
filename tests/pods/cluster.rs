//! The pods that most scenarios are about.

use crate::{
    containerd::{Listener, Node, Pod, PodSpec},
    support::Config,
};

/// Two identities of the low zone, `front` with two pods and `back` with one; two endpoints of the high zone; and a control.
pub struct Cluster {
    pub node: Node,
    pub front: [Pod; 2],
    pub back: Pod,
    pub ledgers: [Pod; 2],
    control: Listener,
}

/// A pod of the low zone.
pub fn web(name: &str, app: &str) -> PodSpec {
    PodSpec::new("web", name).label("app", app)
}

/// A pod of the high zone.
pub fn ledger(name: &str) -> PodSpec {
    PodSpec::new("payments", name).label("app", "ledger")
}

impl Cluster {
    /// Every policy holds.
    pub fn start() -> Self {
        let node = Node::start();
        let pods = node.run_pods(&[
            web("front-1", "front"),
            web("front-2", "front"),
            web("back-1", "back"),
            ledger("ledger-1"),
            ledger("ledger-2"),
            PodSpec::new("kube-system", "dns-1"),
        ]);
        let [front_1, front_2, back, ledger_1, ledger_2, dns] = pods.try_into().unwrap();
        let control = node.listen(&dns, 53);
        let cluster = Self { node, front: [front_1, front_2], back, ledgers: [ledger_1, ledger_2], control };
        let low = [&cluster.front[0], &cluster.front[1], &cluster.back];
        cluster.node.deny(&low, &cluster.ledgers.each_ref());
        cluster
    }

    pub fn listen(&self) -> [Listener; 2] {
        self.ledgers.each_ref().map(|pod| self.node.listen(pod, 5432))
    }

    pub fn config(&self) -> Config {
        Config::new(self.control.address, &self.ledgers)
    }
}
