//! Who is where, as far as it must be asked: the system's DNS servers, the addresses behind names, the pods of this node.

pub mod cri;
pub mod identity;
pub mod pods;
pub mod resolve;
pub mod stands;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use hickory_resolver::system_conf::parse_resolv_conf;

/// The DNS servers of a `resolv.conf(5)`, without duplicates.
///
/// # Errors
/// The file cannot be read, or names no server.
pub fn system_dns(path: &Path) -> io::Result<Vec<SocketAddr>> {
    let text = std::fs::read(path)?;
    let (config, _) = parse_resolv_conf(text).map_err(io::Error::other)?;
    let mut servers: Vec<SocketAddr> = Vec::new();
    for server in config.name_servers() {
        // An address without a scope cannot reach a link-local server; the rest are plain.
        let address = SocketAddr::new(server.ip, 53);
        if !servers.contains(&address) && !matches!(server.ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) {
            servers.push(address);
        }
    }
    if servers.is_empty() { Err(io::Error::other("it names no server")) } else { Ok(servers) }
}
