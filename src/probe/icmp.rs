//! The ICMP errors that the kernel queues for a socket.

use std::{
    io::IoSliceMut,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::RawFd,
    time::Instant,
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg},
};

use crate::{
    model::Family,
    observation::{Icmp, TcpOutcome},
};

impl Icmp {
    /// What it says of the way. Source: measured on Linux 6.18 for every ICMP type; see the lab's scenarios.
    pub(super) fn outcome(self, family: Family) -> TcpOutcome {
        let rejected = match family {
            Family::V4 => self.kind == 3 && matches!(self.code, 2 | 3 | 9 | 10 | 13),
            Family::V6 => self.kind == 1 && matches!(self.code, 1 | 4 | 5 | 6),
        };
        if rejected { TcpOutcome::Rejected } else { TcpOutcome::Unreachable }
    }
}

/// The oldest queued error, with who sent it.
pub(super) fn queued(descriptor: RawFd) -> Option<Icmp> {
    let mut data = [0u8; 64];
    let mut iov = [IoSliceMut::new(&mut data)];
    let mut space = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = loop {
        match recvmsg::<SockaddrStorage>(descriptor, &mut iov, Some(&mut space), flags) {
            Ok(message) => break message,
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    };
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, offender) if error.ee_origin == libc::SO_EE_ORIGIN_ICMP => Some(Icmp {
            kind: error.ee_type,
            code: error.ee_code,
            offender: offender.map(|a| IpAddr::V4(Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr)))),
        }),
        ControlMessageOwned::Ipv6RecvErr(error, offender) if error.ee_origin == libc::SO_EE_ORIGIN_ICMP6 => {
            Some(Icmp {
                kind: error.ee_type,
                code: error.ee_code,
                offender: offender.map(|a| IpAddr::V6(Ipv6Addr::from(a.sin6_addr.s6_addr))),
            })
        }
        _ => None,
    })
}

/// Microseconds since then.
pub(super) fn micros(started: Instant) -> u32 {
    u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX)
}
