//! The controls around and between the attempts of a sweep: what the vantage may reach, and what nobody may.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{Sweeper, Witness};
use crate::{
    ledger::ControlState,
    model::{Family, Identity},
    observation::{ControlRound, ControlSeen, TcpOutcome},
    plan::{CONTROL_CONNECTS, CONTROLS_EVERY, Check, Question},
    probe::tcp::{Connect, connect},
    vantage::Vantage,
    verdict::Controls,
};

/// The rounds of one sweep.
pub(super) struct Rounds {
    vantage: Arc<dyn Vantage>,
    witness_vantage: Option<Witness>,
    connect: Connect,
    positive: Vec<SocketAddr>,
    negative: Vec<SocketAddr>,
    /// Rounds of the own vantage.
    pub own: Vec<ControlRound>,
    /// Rounds of the witness: negative controls only. That it may reach the targets is its claim, tested by itself.
    pub witness: Vec<ControlRound>,
}

impl Rounds {
    /// Chooses the controls: at least [`CONTROL_CONNECTS`] a family and round, spread over that family's addresses.
    pub fn new(sweeper: &Sweeper, how: Connect, witness: Option<Witness>, tcp: &[&Check]) -> Self {
        let mut positive = Vec::new();
        for family in Family::ALL {
            let of_family: Vec<SocketAddr> =
                sweeper.plan.positive.iter().copied().filter(|p| Family::of(p.ip()) == *family).collect();
            let count = if of_family.is_empty() { 0 } else { CONTROL_CONNECTS.max(of_family.len()) };
            positive.extend(of_family.iter().cycle().take(count));
        }
        let asked = |port: u16| {
            tcp.iter().any(|c| matches!(c.question, Question::Tcp { port: p, .. } if p == port))
                || sweeper.plan.positive.iter().any(|p| p.port() == port)
        };
        let negative = sweeper.plan.negative.iter();
        let negative = negative.flat_map(|n| n.ports.iter().map(|port| SocketAddr::new(n.address, *port)));
        Self {
            vantage: sweeper.own.clone(),
            witness_vantage: witness,
            connect: how,
            positive,
            negative: negative.filter(|n| asked(n.port())).collect(),
            own: Vec::new(),
            witness: Vec::new(),
        }
    }

    /// One round of all controls at once.
    pub async fn run(&mut self) {
        let started = Instant::now();
        let connects = |vantage: &Arc<dyn Vantage>, addresses: &[SocketAddr]| {
            let how = self.connect;
            let addresses: Vec<_> = addresses.iter().copied().filter(|a| vantage.has(Family::of(a.ip()))).collect();
            join_all(addresses.into_iter().map(move |address| {
                let vantage = vantage.clone();
                async move { ControlSeen { address, seen: connect(&*vantage, &address, &how).await } }
            }))
        };
        let (positive, negative) =
            tokio::join!(connects(&self.vantage, &self.positive), connects(&self.vantage, &self.negative));
        self.own.push(ControlRound { started, ended: Instant::now(), positive, negative });
        if let Some(witness) = &self.witness_vantage {
            let negative = connects(&witness.vantage, &self.negative).await;
            self.witness.push(ControlRound { started, ended: Instant::now(), positive: Vec::new(), negative });
        }
    }

    /// Rounds every now and then until told to stop.
    pub async fn keep_running(mut self, stop: CancellationToken) -> Self {
        loop {
            tokio::select! {
                () = stop.cancelled() => return self,
                () = tokio::time::sleep(CONTROLS_EVERY) => self.run().await,
            }
        }
    }

    /// What the rounds say of each control, for `segprobe_control_ok`.
    pub fn states(&self, source: &Arc<Identity>, digested: &Controls) -> Vec<ControlState> {
        let mut states: Vec<ControlState> = Vec::new();
        let mut add = |kind, control: Arc<str>, ok| {
            states.push(ControlState { source: source.clone(), kind, control, ok });
        };
        let mut addresses: Vec<SocketAddr> = self.positive.clone();
        addresses.sort_unstable();
        addresses.dedup();
        for address in &addresses {
            let reached = |round: &ControlRound| {
                round.positive.iter().any(|c| c.address == *address && c.seen.outcome == TcpOutcome::Open)
            };
            add("positive", address.to_string().into(), !self.own.is_empty() && self.own.iter().all(reached));
        }
        for address in &self.negative {
            let quiet = |round: &ControlRound| {
                round.negative.iter().all(|c| c.address != *address || c.seen.outcome != TcpOutcome::Open)
            };
            add("negative", address.to_string().into(), self.own.iter().all(quiet));
        }
        for family in Family::ALL {
            if addresses.iter().any(|a| Family::of(a.ip()) == *family) {
                add("loss", family.as_str().into(), !digested.is_lossy(*family));
            }
        }
        states
    }
}
