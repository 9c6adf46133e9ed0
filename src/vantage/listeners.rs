//! Who listens in a network namespace, as the kernel tells it: a witness that sends no packet and disturbs no service.

pub mod sock_diag;

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvmsg, sendto, socket},
};

use super::{EnterError, Netns};
use crate::model::Family;
use sock_diag::{Broken, Listener, Part};

/// As many as are kept of one namespace: one for each port.
const MOST: usize = 65_536;

/// The kernel's parts of an answer are at most this long (`netlink_recvmsg` in net/netlink/af_netlink.c).
const PART: usize = 32 * 1024;

/// So often the table is read again if it changes meanwhile.
const TRIES: u32 = 5;

/// So many messages of others are passed over while the kernel's answer is read.
const MOST_FOREIGN: usize = 100;

/// Where the sidecars and node proxies of service meshes listen: what a pod's connects reach then is the proxy.
///
/// Sources: Istio, "Application Requirements", ports used by Istio; Linkerd, "Proxy Configuration"; Kuma, "Transparent
/// proxying"; Consul, `consul connect redirect-traffic`.
const MESH_PORTS: [(u16, &str); 5] = [
    (4140, "Linkerd, outbound"),
    (4143, "Linkerd, inbound"),
    (15001, "Envoy of Istio, Consul or Kuma, or ztunnel, outbound"),
    (15006, "Envoy of Istio or Kuma, or ztunnel, inbound"),
    (15008, "ztunnel of Istio, HBONE"),
];

/// The TCP listeners of a network namespace at one moment.
#[derive(Debug, Default)]
pub struct Listeners {
    by_port: BTreeMap<u16, Vec<Listener>>,
}

/// Why the listeners of a namespace are not known. One line each: operation, object, remedy.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Enter(#[from] EnterError),
    /// The kernel has no sock_diag.
    #[error("read the TCP listeners: the kernel has no sock_diag for TCP; load the module tcp_diag")]
    Absent,
    /// More than are kept.
    #[error("read the TCP listeners: more than {MOST} in one namespace; find the pod that makes them")]
    TooMany,
    /// The table was never the same for long enough.
    #[error("read the TCP listeners: the table changed during each of {TRIES} tries; the next sweep tries again")]
    Changing,
    /// The answer did not come through between the messages of others.
    #[error("read the TCP listeners: a process in the namespace floods the socket; find the one with CAP_NET_ADMIN")]
    Flooded,
    /// The kernel's answer makes no sense.
    #[error("read the TCP listeners: the kernel's answer cannot be read; please report this kernel's release")]
    Malformed,
    /// Anything else.
    #[error("read the TCP listeners: {0}")]
    System(io::Error),
}

impl Listeners {
    /// Reads them. What it takes does not depend on the number of connections.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel does not tell.
    pub fn of(netns: &Netns) -> Result<Self, ListenersError> {
        netns.visit(|| {
            let mut listeners = Vec::new();
            for family in Family::ALL {
                listeners.extend(dump(*family)?);
            }
            Ok(Self::new(listeners))
        })?
    }

    fn new(listeners: impl IntoIterator<Item = Listener>) -> Self {
        let mut by_port: BTreeMap<u16, Vec<Listener>> = BTreeMap::new();
        for listener in listeners {
            by_port.entry(listener.port).or_default().push(listener);
        }
        Self { by_port }
    }

    /// True where the kernel would let a connect to this address of the namespace through to a listener, false where there
    /// is none.
    ///
    /// None where one of those that share the address has no room for it, because the connect may be that one's; and where
    /// all are bound to devices, because it may come in by another.
    pub fn accepts(&self, address: SocketAddr) -> Option<bool> {
        if self.hearing(address).next().is_none() {
            return Some(false);
        }
        let is_sure = !self.hearing(address).any(|l| l.full) && self.hearing(address).any(|l| !l.on_device);
        is_sure.then_some(true)
    }

    /// The same some time after `before`: none, too, where what accepts now took the place of what accepted then, because
    /// nobody may have listened in between. Of several that share the address one must have stayed.
    pub fn still_accepts(&self, before: &Self, address: SocketAddr) -> Option<bool> {
        let has_stayed = |now: &Listener| before.hearing(address).any(|then| then.cookie == now.cookie);
        match self.accepts(address) {
            Some(true) if !self.hearing(address).any(|now| !now.on_device && has_stayed(now)) => None,
            said => said,
        }
    }

    /// Those that a connect to this address may meet.
    fn hearing(&self, address: SocketAddr) -> impl Iterator<Item = &Listener> {
        let ip = address.ip().to_canonical();
        self.by_port.get(&address.port()).into_iter().flatten().filter(move |listener| hears(listener, ip))
    }

    /// The ports that something listens on, in order, loopback's too.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.by_port.keys().copied()
    }

    /// The ports of known service meshes among them, and whose they are: from such a pod a connect ends at the proxy.
    pub fn sidecars(&self) -> impl Iterator<Item = (u16, &'static str)> {
        MESH_PORTS.into_iter().filter(|(port, _)| self.by_port.contains_key(port))
    }
}

fn hears(listener: &Listener, ip: IpAddr) -> bool {
    match (listener.ip, ip) {
        (bound, ip) if bound == ip => true,
        (IpAddr::V6(any), IpAddr::V4(_)) => any.is_unspecified() && !listener.v6_only,
        (bound, ip) => bound.is_unspecified() && bound.is_ipv4() == ip.is_ipv4(),
    }
}

/// Asks the kernel for the listeners of the calling thread's namespace.
fn dump(family: Family) -> Result<Vec<Listener>, ListenersError> {
    for sequence in 1..=TRIES {
        match dump_once(family, sequence) {
            Err(Failed::Broken(Broken::Changed)) => {}
            Err(Failed::Broken(Broken::Refused(error))) if error.raw_os_error() == Some(libc::ENOENT) => {
                return Err(ListenersError::Absent);
            }
            Err(Failed::Broken(Broken::Refused(error))) => return Err(ListenersError::System(error)),
            Err(Failed::Broken(Broken::Malformed)) => return Err(ListenersError::Malformed),
            Err(Failed::TooMany) => return Err(ListenersError::TooMany),
            Err(Failed::Flooded) => return Err(ListenersError::Flooded),
            Ok(listeners) => return Ok(listeners),
        }
    }
    Err(ListenersError::Changing)
}

enum Failed {
    Broken(Broken),
    TooMany,
    Flooded,
}

impl From<Broken> for Failed {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<nix::Error> for Failed {
    fn from(error: nix::Error) -> Self {
        Self::Broken(Broken::Refused(error.into()))
    }
}

fn dump_once(family: Family, sequence: u32) -> Result<Vec<Listener>, Failed> {
    // A socket for each question: nothing of an answer that was given up can be left in it.
    let diag = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(diag.as_raw_fd(), &sock_diag::question(family, sequence), &kernel, MsgFlags::empty())?;
    answer(&diag, sequence)
}

/// Reads the whole answer to the question with this number.
fn answer(diag: &OwnedFd, sequence: u32) -> Result<Vec<Listener>, Failed> {
    let (mut listeners, mut foreign) = (Vec::new(), 0);
    let mut part = vec![0; PART];
    loop {
        let mut buffer = [IoSliceMut::new(&mut part)];
        // The kernel has each part ready before it is asked for, so there is never anything to wait for.
        let message = recvmsg::<NetlinkAddr>(diag.as_raw_fd(), &mut buffer, None, MsgFlags::MSG_DONTWAIT)?;
        let (length, cut) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
        // A process of the namespace with CAP_NET_ADMIN can write to our socket, as fast as it is read.
        if message.address.is_none_or(|sender| sender.pid() != 0) {
            foreign += 1;
            if foreign > MOST_FOREIGN {
                return Err(Failed::Flooded);
            }
            continue;
        }
        if cut {
            return Err(Broken::Malformed.into());
        }
        let bytes = part.get(..length).unwrap_or_default();
        let progress = sock_diag::read(bytes, sequence, |listener| listeners.push(listener))?;
        if listeners.len() > MOST {
            return Err(Failed::TooMany);
        }
        if progress == Part::Done {
            return Ok(listeners);
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{bind, getsockname};

    use super::*;

    fn listener(address: &str, v6_only: bool) -> Listener {
        let address: SocketAddr = address.parse().unwrap();
        Listener {
            ip: address.ip().to_canonical(),
            port: address.port(),
            v6_only,
            full: false,
            on_device: false,
            cookie: 0,
        }
    }

    #[test]
    fn a_listener_vouches_only_for_what_it_accepts() {
        for (bound, v6_only, accepted, refused) in [
            (
                "0.0.0.0:80",
                true,
                &["192.0.2.1:80", "[::ffff:192.0.2.1]:80"][..],
                &["[2001:db8::1]:80", "192.0.2.1:81"][..],
            ),
            ("192.0.2.1:80", true, &["192.0.2.1:80"], &["192.0.2.2:80"]),
            ("127.0.0.1:80", true, &["127.0.0.1:80"], &["192.0.2.1:80"]),
            ("[::]:80", true, &["[2001:db8::1]:80"], &["192.0.2.1:80", "[::ffff:192.0.2.1]:80"]),
            ("[::]:80", false, &["[2001:db8::1]:80", "192.0.2.1:80", "[::ffff:192.0.2.1]:80"], &["192.0.2.1:81"]),
            ("[2001:db8::1]:80", false, &["[2001:db8::1]:80"], &["[2001:db8::2]:80", "192.0.2.1:80"]),
            ("[::1]:80", false, &["[::1]:80"], &["[2001:db8::1]:80", "127.0.0.1:80"]),
            ("[::ffff:192.0.2.1]:80", false, &["192.0.2.1:80"], &["192.0.2.2:80", "[2001:db8::1]:80"]),
            ("[::ffff:0.0.0.0]:80", false, &["192.0.2.1:80"], &["[2001:db8::1]:80"]),
        ] {
            let listeners = Listeners::new([listener(bound, v6_only)]);
            for (addresses, expected) in [(accepted, true), (refused, false)] {
                for address in addresses {
                    let said = listeners.accepts(address.parse().unwrap());
                    assert_eq!(said, Some(expected), "{bound} {v6_only}: {address}");
                }
            }
        }
    }

    #[test]
    fn of_a_full_listener_nothing_can_be_told_nor_of_those_that_share_its_address() {
        let (any, exact) = (listener("0.0.0.0:80", true), listener("192.0.2.1:80", true));
        let both = |any_full, exact_full| {
            Listeners::new([Listener { full: any_full, ..any }, Listener { full: exact_full, ..exact }])
        };
        let (shared, other) = ("192.0.2.1:80".parse().unwrap(), "192.0.2.2:80".parse().unwrap());
        assert_eq!(both(false, false).accepts(shared), Some(true));
        assert_eq!([both(true, false), both(false, true), both(true, true)].map(|l| l.accepts(shared)), [None; 3]);
        assert_eq!(both(false, true).accepts(other), Some(true));
    }

    #[test]
    fn of_a_listener_bound_to_a_device_nothing_can_be_told() {
        let any = listener("0.0.0.0:80", true);
        let bound = Listener { on_device: true, ..any };
        let address = "192.0.2.1:80".parse().unwrap();
        assert_eq!(Listeners::new([bound]).accepts(address), None);
        assert_eq!(Listeners::new([bound, any]).accepts(address), Some(true), "what comes in elsewhere is the other's");
        assert_eq!(Listeners::new([bound]).accepts("192.0.2.1:81".parse().unwrap()), Some(false));
    }

    #[test]
    fn only_a_socket_that_stayed_vouches_again() {
        let socket = |cookie| Listener { cookie, ..listener("0.0.0.0:80", true) };
        let full = |cookie| Listener { full: true, ..socket(cookie) };
        let on_device = |cookie| Listener { on_device: true, ..socket(cookie) };
        let elsewhere = |cookie| Listener { cookie, ..listener("192.0.2.2:80", true) };
        for (before, after, expected) in [
            (vec![socket(1)], vec![socket(1)], Some(true)),
            (vec![socket(1)], vec![socket(2)], None),
            (vec![socket(1)], vec![full(1)], None),
            (vec![socket(1)], vec![], Some(false)),
            (vec![], vec![socket(1)], None),
            (vec![], vec![], Some(false)),
            // A group.
            (vec![socket(1), socket(2)], vec![socket(2), socket(3)], Some(true)),
            (vec![socket(1), socket(2)], vec![socket(3), socket(4)], None),
            // What stayed is another's.
            (vec![elsewhere(1)], vec![elsewhere(1), socket(2)], None),
            (vec![on_device(1), socket(2)], vec![on_device(1), socket(3)], None),
        ] {
            let (then, now) = (Listeners::new(before.clone()), Listeners::new(after.clone()));
            assert_eq!(now.still_accepts(&then, "192.0.2.1:80".parse().unwrap()), expected, "{before:?}, {after:?}");
        }
    }

    #[test]
    fn messages_of_others_are_passed_over_for_a_while() {
        // Between sockets of this protocol anybody may write.
        let [reader, writer] = [(); 2].map(|()| {
            let protocol = SockProtocol::NetlinkUserSock;
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap()
        });
        bind(reader.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
        let address: NetlinkAddr = getsockname(reader.as_raw_fd()).unwrap();
        let answer_after = |foreign| {
            for _ in 0..foreign {
                sendto(writer.as_raw_fd(), &[0; 16], &address, MsgFlags::empty()).unwrap();
            }
            answer(&reader, 1)
        };
        let Err(Failed::Broken(Broken::Refused(error))) = answer_after(MOST_FOREIGN) else { panic!("it was read") };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "all were passed over, and then there was nothing");
        assert!(matches!(answer_after(MOST_FOREIGN + 1), Err(Failed::Flooded)));
    }

    #[test]
    fn meshes_are_known_by_their_ports() {
        let listeners = Listeners::new(
            ["127.0.0.1:4140", "0.0.0.0:8080", "[::]:15006", "0.0.0.0:15006"].map(|a| listener(a, true)),
        );
        assert_eq!(listeners.ports().collect::<Vec<_>>(), [4140, 8080, 15006]);
        let found: Vec<_> = listeners.sidecars().map(|(port, _)| port).collect();
        assert_eq!(found, [4140, 15006]);
    }
}
