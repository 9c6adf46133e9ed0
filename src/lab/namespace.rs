//! A user and network namespace of the process's own, with its loopback interface up.

use std::{fs, io};

use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket},
    unistd::{getgid, getuid},
};
use std::os::fd::AsRawFd;

/// Where the process is afterwards.
#[derive(Debug)]
pub enum Entered {
    /// In namespaces of its own.
    Own,
    /// Where it was, because the system does not allow them.
    Refused(io::Error),
}

/// Enters them. To be called while the process has one thread only: the kernel refuses it later.
///
/// # Errors
/// The namespaces were made and cannot be used: there is no way back.
pub fn enter() -> io::Result<Entered> {
    let (user, group) = (getuid(), getgid());
    if let Err(refused) = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
        return Ok(Entered::Refused(refused.into()));
    }
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
    loopback_up()?;
    Ok(Entered::Own)
}

/// RTM_NEWLINK with IFF_UP for interface 1, which is the loopback interface of every new namespace (rtnetlink(7)).
fn loopback_up() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const LOOPBACK: i32 = 1;
    const IFF_UP: u32 = 1;
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes()); // nlmsghdr: length
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    message.extend([0; 4]); // ifinfomsg: family, padding, type
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(IFF_UP.to_ne_bytes()); // flags
    message.extend(IFF_UP.to_ne_bytes()); // which flags change

    let route = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    sendto(route.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 64];
    let length = recv(route.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // nlmsgerr: the error number, negative, stands behind the header.
    let error = answer.get(16..20).filter(|_| length >= 20).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    match error {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::other("netlink gave no answer")),
    }
}
