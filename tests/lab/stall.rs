//! An agent that gets no processor for longer than a time-out, as behind a CPU limit, while more answers come than its reactor
//! takes at once (1,024). What came in time is heard, however late it is looked at.

use std::{
    collections::BTreeMap,
    future::Future,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::{future::join_all, poll};
use libtest_mimic::{Failed, Trial};
use segprobe::{
    model::{Family, Transport},
    observation::{TcpOutcome, TcpSeen},
    probe::{Reach, reach},
    vantage::Own,
};

use crate::{
    HEAVY,
    engine::{PORT, block_on},
    network::{Hook, Namespace, Network, fill},
    servers::{Servers, Temper},
};

pub fn trials() -> Vec<Trial> {
    vec![Trial::test("stall::connects", connects), Trial::test("stall::queries", queries)]
}

const AT_ONCE: usize = 1_800;
const HOW: Reach = Reach { timeout: Duration::from_secs(6), icmp_evidence: true };
const STALL: Duration = Duration::from_secs(8);

/// The outcomes of many probes that are all under way before a stall begins; `meanwhile` runs when they are.
fn outcomes(
    from: &Namespace,
    transport: Transport,
    target: SocketAddr,
    meanwhile: impl FnOnce() + Send,
) -> BTreeMap<&'static str, usize> {
    let work = async || {
        let own = Own::new();
        let mut probes: Vec<Pin<Box<dyn Future<Output = TcpSeen> + Send + '_>>> =
            (0..AT_ONCE).map(|_| Box::pin(reach(transport, &own, &target, &HOW)) as _).collect();
        for (index, probe) in probes.iter_mut().enumerate() {
            assert!(poll!(probe).is_pending(), "it was not answered within the call itself");
            // No faster than anybody answers.
            if index % 50 == 0 {
                thread::sleep(Duration::from_millis(10));
            }
        }
        meanwhile();
        thread::sleep(STALL);
        let mut outcomes = BTreeMap::new();
        for seen in join_all(probes).await {
            *outcomes.entry(seen.outcome.as_str()).or_default() += 1;
        }
        outcomes
    };
    // Tokio would make a task of so many wait in between.
    block_on(from, || tokio::task::unconstrained(work()))
}

/// The policy goes when all connects have sent their first SYN: a later one, of each second, is answered.
fn connects() -> Result<(), Failed> {
    let _turn = HEAVY.lock().unwrap_or_else(PoisonError::into_inner);
    let network = Network::new()?;
    let target = SocketAddr::new(fill("$target", Family::V4).parse()?, PORT);
    let _servers = Servers::start(&network.server, vec![(target, Temper::Open)], None);
    network.router.rules(Hook::Forward, &["tcp dport 5432 drop".into()])?;
    let open = || network.router.rules(Hook::Forward, &[]).expect("the policy goes");
    let outcomes = outcomes(&network.client, Transport::Tcp, target, open);
    assert_eq!(outcomes, [(TcpOutcome::Open.as_str(), AT_ONCE)].into());
    Ok(())
}

/// Each query is answered at once; those that a busy machine loses on their way are no matter of the probe's.
fn queries() -> Result<(), Failed> {
    let _turn = HEAVY.lock().unwrap_or_else(PoisonError::into_inner);
    let network = Network::new()?;
    let target = SocketAddr::new(fill("$target", Family::V4).parse()?, 53);
    let server = network.server.run(|| UdpSocket::bind(target))?;
    server.set_read_timeout(Some(Duration::from_millis(100)))?;
    let answered = AtomicUsize::new(0);
    let answer = || {
        let (mut buffer, mut last) = ([0; 512], Instant::now());
        while last.elapsed() < STALL {
            let Ok((length, from)) = server.recv_from(&mut buffer) else { continue };
            server.send_to(&buffer[..length], from).expect("answer");
            answered.fetch_add(1, Ordering::Relaxed);
            last = Instant::now();
        }
    };
    let outcomes = thread::scope(|scope| {
        scope.spawn(answer);
        outcomes(&network.client, Transport::Udp, target, || {})
    });
    let answered = answered.into_inner();
    assert!(answered > 1_100, "only {answered} queries came to the server: nothing is tested");
    let lost = AT_ONCE - answered;
    let expected = [(TcpOutcome::Open.as_str(), answered), (TcpOutcome::Filtered.as_str(), lost)];
    assert_eq!(outcomes, expected.into_iter().filter(|(_, count)| *count > 0).collect());
    Ok(())
}
