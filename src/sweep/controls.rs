//! The controls around and between the attempts of a sweep: what the vantage may reach, and what nobody may.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::{speakers::Speaker, witnesses::Witness};
use crate::{
    ledger::ControlState,
    model::{Family, Identity, Transport},
    observation::{ControlRound, ControlSeen, TcpOutcome},
    pace::Paces,
    plan::{CONTROL_CONNECTS, CONTROLS_EVERY, Check, ControlAddresses, Question},
    probe::{Reach, reach},
    vantage::Vantage,
    verdict::Controls,
};

/// The rounds of one sweep over one transport.
pub(super) struct Rounds {
    transport: Transport,
    vantage: Arc<dyn Vantage>,
    /// A pod's budget; the agent's own controls are few beside its probes.
    pace: Option<Paces>,
    reach: Reach,
    positive: Vec<SocketAddr>,
    negative: Vec<SocketAddr>,
    /// Rounds of the own vantage.
    pub own: Vec<ControlRound>,
    /// Rounds of each witness that connects: negative controls only. That it may reach the targets is its claim, tested by
    /// itself.
    pub witnesses: Vec<(Witness, Vec<ControlRound>)>,
}

impl Rounds {
    /// Chooses the controls: at least [`CONTROL_CONNECTS`] a family and round, spread over that family's addresses.
    pub fn new(
        speaker: &Speaker,
        controls: &ControlAddresses,
        transport: Transport,
        reach: Reach,
        witnesses: &[Witness],
        checks: &[Check],
    ) -> Self {
        // What nobody asks over needs no control.
        let is_used = checks.iter().any(|check| check.question.transport() == Some(transport));
        let known: &[SocketAddr] = match transport {
            _ if !is_used => &[],
            Transport::Tcp => &controls.positive,
            Transport::Udp => &controls.positive_udp,
        };
        let known: Vec<SocketAddr> = known.iter().copied().filter(|p| !speaker.is_itself(p.ip())).collect();
        let mut positive = Vec::new();
        for family in Family::ALL {
            let of_family: Vec<SocketAddr> = known.iter().copied().filter(|p| Family::of(p.ip()) == *family).collect();
            let count = if of_family.is_empty() { 0 } else { CONTROL_CONNECTS.max(of_family.len()) };
            positive.extend(of_family.iter().cycle().take(count));
        }
        let asked = |port: u16| {
            let asks = |c: &Check| matches!(c.question, Question::Reach { transport: over, port: of, .. } if (over, of) == (transport, port));
            checks.iter().any(asks) || known.iter().any(|p| p.port() == port)
        };
        let negative = controls.negative.iter();
        let negative = negative.flat_map(|n| n.ports.iter().map(|port| SocketAddr::new(n.address, *port)));
        Self {
            transport,
            vantage: speaker.vantage.clone(),
            pace: speaker.pod.is_some().then(|| speaker.pace.clone()),
            reach,
            positive,
            negative: negative.filter(|n| asked(n.port())).collect(),
            own: Vec::new(),
            witnesses: witnesses.iter().map(|witness| (witness.clone(), Vec::new())).collect(),
        }
    }

    /// The families that have positive controls.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        let has = |family: &Family| self.positive.iter().any(|p| Family::of(p.ip()) == *family);
        Family::ALL.iter().copied().filter(has)
    }

    /// One round of all controls.
    pub async fn run(&mut self) {
        let started = Instant::now();
        let (positive, negative) = tokio::join!(
            connects(self.transport, &self.vantage, self.pace.as_ref(), &self.positive, self.reach),
            connects(self.transport, &self.vantage, self.pace.as_ref(), &self.negative, self.reach)
        );
        self.own.push(ControlRound { started, ended: Instant::now(), positive, negative });
        for (witness, rounds) in &mut self.witnesses {
            let negative =
                connects(self.transport, &witness.vantage, witness.pace.as_ref(), &self.negative, self.reach).await;
            rounds.push(ControlRound { started, ended: Instant::now(), positive: Vec::new(), negative });
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
        let over = match self.transport {
            Transport::Tcp => "",
            Transport::Udp => "/udp",
        };
        let mut addresses: Vec<SocketAddr> = self.positive.clone();
        addresses.sort_unstable();
        addresses.dedup();
        for address in &addresses {
            let reached = |round: &ControlRound| {
                round.positive.iter().any(|c| c.address == *address && c.seen.outcome == TcpOutcome::Open)
            };
            add("positive", format!("{address}{over}").into(), !self.own.is_empty() && self.own.iter().all(reached));
        }
        for address in &self.negative {
            let quiet = |round: &ControlRound| {
                round.negative.iter().all(|c| c.address != *address || c.seen.outcome != TcpOutcome::Open)
            };
            add("negative", format!("{address}{over}").into(), self.own.iter().all(quiet));
        }
        for family in Family::ALL {
            if addresses.iter().any(|a| Family::of(a.ip()) == *family) {
                add("loss", format!("{family}{over}").into(), !digested.is_lossy(*family));
            }
        }
        states
    }
}

/// Connects to all that the vantage has an address for, at once or at a pace.
async fn connects(
    transport: Transport,
    vantage: &Arc<dyn Vantage>,
    pace: Option<&Paces>,
    addresses: &[SocketAddr],
    how: Reach,
) -> Vec<ControlSeen> {
    let addresses = addresses.iter().copied().filter(|a| vantage.has(Family::of(a.ip())));
    join_all(addresses.map(async |address| {
        if let Some(pace) = pace {
            pace.turn().await;
        }
        ControlSeen { address, seen: reach(transport, &**vantage, &address, &how).await }
    }))
    .await
}
