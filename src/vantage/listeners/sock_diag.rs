//! The bytes of NETLINK_SOCK_DIAG: one question, and the parts of its answer. Pure.
//!
//! Source: `linux/netlink.h`, `linux/sock_diag.h`, `linux/inet_diag.h`, and sock_diag(7).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::libc;

use crate::model::Family;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCP_LISTEN: u8 = 10;
const INET_DIAG_SKV6ONLY: u16 = 11;
const HEADER: usize = 16;
const REQUEST: usize = 56;
/// Length of `struct inet_diag_msg`; attributes follow.
const MESSAGE: usize = 72;

/// A TCP socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address that it is bound to; a v4-mapped one as IPv4.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
    /// False for a dual-stack socket: bound to `::` it also accepts IPv4.
    pub v6_only: bool,
    /// As many connections as it allows wait to be accepted: the kernel drops further ones.
    pub full: bool,
    /// Bound to one device, perhaps `lo`: it does not accept everything that comes to its address.
    pub on_device: bool,
    /// Tells the socket from every other, also from one that takes its place.
    pub cookie: u64,
}

/// How far the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// There is more of it.
    More,
    /// It is complete.
    Done,
}

/// Why an answer is worth nothing.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The kernel's own error.
    #[error("{0}")]
    Refused(io::Error),
    /// The table changed while it was read, so that something may be missing.
    #[error("the table changed while it was read")]
    Changed,
    /// The bytes end too early, or are none of this protocol.
    #[error("it cannot be read")]
    Malformed,
}

/// Asks for the TCP sockets of one family that listen, and for no others: the kernel does the filtering.
pub fn question(family: Family, sequence: u32) -> Vec<u8> {
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).unwrap_or_default();
    let domain = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let byte = |number: i32| u8::try_from(number).unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEADER + REQUEST);
    bytes.extend(u32::try_from(HEADER + REQUEST).unwrap_or_default().to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]); // port: the kernel knows it
    bytes.extend([byte(domain), byte(libc::IPPROTO_TCP), 0, 0]); // no extensions, padding
    bytes.extend((1u32 << TCP_LISTEN).to_ne_bytes()); // states
    bytes.resize(HEADER + REQUEST, 0); // any address
    bytes
}

/// Reads one datagram of the answer to the question with this number.
///
/// # Errors
/// The whole answer is then worth nothing: a listener may be missing.
pub fn read(mut bytes: &[u8], sequence: u32, mut found: impl FnMut(Listener)) -> Result<Part, Broken> {
    while !bytes.is_empty() {
        let length = usize::try_from(u32_at(bytes, 0)?).map_err(|_| Broken::Malformed)?;
        let message = bytes.get(..length).ok_or(Broken::Malformed)?;
        let payload = message.get(HEADER..).ok_or(Broken::Malformed)?;
        let (kind, flags) = (u16_at(message, 4)?, u16_at(message, 6)?);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        if u32_at(message, 8)? != sequence {
            continue;
        }
        if i32::from(flags) & libc::NLM_F_DUMP_INTR != 0 {
            return Err(Broken::Changed);
        }
        match i32::from(kind) {
            libc::NLMSG_NOOP => {}
            libc::NLMSG_ERROR => status(payload)?,
            libc::NLMSG_DONE => {
                // The kernel says here, too, whether it got through.
                if !payload.is_empty() {
                    status(payload)?;
                }
                return Ok(Part::Done);
            }
            _ if kind == SOCK_DIAG_BY_FAMILY => {
                if let Some(listener) = listener(payload)? {
                    found(listener);
                }
            }
            _ => return Err(Broken::Malformed),
        }
    }
    Ok(Part::More)
}

/// An error number, negative; 0 is none.
fn status(payload: &[u8]) -> Result<(), Broken> {
    match i32::from_ne_bytes(array(payload, 0)?) {
        0 => Ok(()),
        error => Err(Broken::Refused(io::Error::from_raw_os_error(error.saturating_neg()))),
    }
}

fn listener(payload: &[u8]) -> Result<Option<Listener>, Broken> {
    let fixed = payload.get(..MESSAGE).ok_or(Broken::Malformed)?;
    let (family, state) = (i32::from(fixed[0]), fixed[1]);
    if state != TCP_LISTEN {
        return Ok(None);
    }
    let ip = match family {
        libc::AF_INET => Ipv4Addr::from(array::<4>(fixed, 8)?).into(),
        libc::AF_INET6 => Ipv6Addr::from(array::<16>(fixed, 8)?).to_canonical(),
        _ => return Ok(None),
    };
    // What is not said cannot be relied on.
    let mut v6_only = true;
    let mut attributes = payload.get(MESSAGE..).unwrap_or_default();
    while !attributes.is_empty() {
        let length = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..length).ok_or(Broken::Malformed)?;
        if u16_at(attributes, 2)? == INET_DIAG_SKV6ONLY {
            v6_only = *value.first().ok_or(Broken::Malformed)? != 0;
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    // Of a listener these two are the connections that wait, and how many may; sk_acceptq_is_full in net/sock.h.
    let (waiting, allowed) = (u32_at(fixed, 56)?, u32_at(fixed, 60)?);
    Ok(Some(Listener {
        ip,
        port: u16::from_be_bytes(array(fixed, 4)?),
        v6_only,
        full: waiting > allowed,
        on_device: u32_at(fixed, 40)? != 0,
        cookie: u64::from_ne_bytes(array(fixed, 44)?),
    }))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Broken> {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).ok_or(Broken::Malformed)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Broken> {
    array(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Broken> {
    array(bytes, at).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEQUENCE: u32 = 7;
    const COOKIE: u64 = 0x0102_0304_0506_0708;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(SEQUENCE.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// `struct inet_diag_msg` of a listener.
    fn socket(ip: IpAddr, port: u16) -> Vec<u8> {
        let mut bytes = vec![0; MESSAGE];
        bytes[1] = TCP_LISTEN;
        bytes[4..6].copy_from_slice(&port.to_be_bytes());
        bytes[44..52].copy_from_slice(&COOKIE.to_ne_bytes());
        match ip {
            IpAddr::V4(ip) => {
                bytes[0] = 2;
                bytes[8..12].copy_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                bytes[0] = 10;
                bytes[8..24].copy_from_slice(&ip.octets());
            }
        }
        bytes
    }

    fn with_v6_only(mut socket: Vec<u8>, v6_only: u8) -> Vec<u8> {
        // Another attribute before it, with a length that is no multiple of four.
        socket.extend([5, 0, 8, 0, 1, 0, 0, 0]);
        socket.extend([5, 0, 11, 0, v6_only, 0, 0, 0]);
        socket
    }

    fn all(bytes: &[u8]) -> Result<(Part, Vec<Listener>), Broken> {
        let mut found = Vec::new();
        read(bytes, SEQUENCE, |listener| found.push(listener)).map(|part| (part, found))
    }

    fn one(socket: &[u8]) -> Option<Listener> {
        let (part, found) = all(&message(SOCK_DIAG_BY_FAMILY, 2, socket)).unwrap();
        assert_eq!(part, Part::More);
        found.first().copied()
    }

    #[test]
    fn listeners_are_read() {
        let v4 = one(&socket([192, 0, 2, 1].into(), 8443)).unwrap();
        let expected = Listener {
            ip: [192, 0, 2, 1].into(),
            port: 8443,
            v6_only: true,
            full: false,
            on_device: false,
            cookie: COOKIE,
        };
        assert_eq!(v4, expected);
        let any = socket(Ipv6Addr::UNSPECIFIED.into(), 80);
        assert!(one(&any).unwrap().v6_only, "not said");
        assert!(one(&with_v6_only(any.clone(), 1)).unwrap().v6_only);
        assert!(!one(&with_v6_only(any, 0)).unwrap().v6_only);
        let mapped = one(&socket("::ffff:192.0.2.1".parse().unwrap(), 80)).unwrap();
        assert_eq!(mapped.ip, IpAddr::from([192, 0, 2, 1]));
    }

    #[test]
    fn what_does_not_accept_is_no_listener_or_says_so() {
        let socket = socket([192, 0, 2, 1].into(), 80);
        let with = |at: usize, value: u8| {
            let mut socket = socket.clone();
            socket[at] = value;
            one(&socket)
        };
        assert_eq!(with(1, 1), None, "established");
        assert_eq!(with(0, 1), None, "a unix socket");
        assert!(with(40, 1).unwrap().on_device && with(43, 1).unwrap().on_device);
        let queue = |waiting: u32, allowed: u32| {
            let mut socket = socket.clone();
            socket[56..60].copy_from_slice(&waiting.to_ne_bytes());
            socket[60..64].copy_from_slice(&allowed.to_ne_bytes());
            one(&socket).unwrap().full
        };
        assert!(!queue(0, 0) && !queue(128, 128) && queue(129, 128));
    }

    #[test]
    fn an_answer_has_parts_and_an_end() {
        let listener = socket([192, 0, 2, 1].into(), 80);
        let mut bytes = message(SOCK_DIAG_BY_FAMILY, 2, &listener);
        bytes.extend(message(SOCK_DIAG_BY_FAMILY, 2, &listener));
        assert!(matches!(all(&bytes), Ok((Part::More, found)) if found.len() == 2));
        bytes.extend(message(3, 2, &0i32.to_ne_bytes()));
        assert!(matches!(all(&bytes), Ok((Part::Done, found)) if found.len() == 2));
        assert!(matches!(all(&message(3, 2, &[])), Ok((Part::Done, _))));
        let (part, found) = read_as(&bytes, SEQUENCE + 1);
        assert!(part == Part::More && found.is_empty(), "the answer to another question");
    }

    fn read_as(bytes: &[u8], sequence: u32) -> (Part, Vec<Listener>) {
        let mut found = Vec::new();
        let part = read(bytes, sequence, |listener| found.push(listener)).unwrap();
        (part, found)
    }

    #[test]
    fn errors_of_the_kernel_end_it() {
        let errno = |kind, error: i32| match all(&message(kind, 0, &error.to_ne_bytes())) {
            Err(Broken::Refused(error)) => error.raw_os_error(),
            other => panic!("{other:?}"),
        };
        assert_eq!(errno(2, -libc::ENOENT), Some(libc::ENOENT));
        assert_eq!(errno(3, -libc::EMSGSIZE), Some(libc::EMSGSIZE));
        let changed = message(3, 2 | 0x10, &0i32.to_ne_bytes());
        assert!(matches!(all(&changed), Err(Broken::Changed)));
        assert!(matches!(all(&message(99, 0, &[])), Err(Broken::Malformed)));
    }

    #[test]
    fn whatever_is_cut_is_malformed() {
        let whole = message(SOCK_DIAG_BY_FAMILY, 2, &with_v6_only(socket(Ipv6Addr::UNSPECIFIED.into(), 80), 0));
        for length in 1..whole.len() {
            assert!(matches!(all(&whole[..length]), Err(Broken::Malformed)), "{length} bytes");
        }
        // An attribute, and a message, that end before their own headers do.
        for (at, value) in [(HEADER + MESSAGE, 0), (HEADER + MESSAGE, 3), (0, 0), (0, 15)] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            assert!(matches!(all(&bytes), Err(Broken::Malformed)), "{value} at {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = all(&bytes);
            let _ = all(&message(SOCK_DIAG_BY_FAMILY, 2, &bytes));
        }
    }
}
