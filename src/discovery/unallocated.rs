//! An address of each range of ClusterIPs that no Service has: a negative control.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{
    objects::Inventory,
    settings::Settings,
    targets::{Gap, Negative, TargetSet, address, hash},
};
use crate::model::Transport;

/// Ports that a negative control is tried on: each costs a connect in each round of controls.
const MOST_PORTS: usize = 256;
/// Addresses that are looked at: in a range that is half full, one in 2^64 would not do.
const TRIES: u32 = 64;

pub fn find(settings: &Settings, inventory: &Inventory, found: &mut TargetSet) {
    let of_api = || inventory.service_cidrs.values().flat_map(|s| &s.spec.cidrs).filter_map(|text| text.parse().ok());
    let ranges: BTreeSet<IpNet> = match settings.service_cidrs.as_slice() {
        [] => of_api().map(|range: IpNet| range.trunc()).collect(),
        configured => configured.iter().copied().collect(),
    };
    let services = inventory.services.values();
    let allocated: BTreeSet<IpAddr> = services
        .flat_map(|s| s.spec.cluster_ips.iter().chain([&s.spec.cluster_ip]))
        .filter_map(|text| address(text))
        .collect();
    let ports = ports(found);
    if ports.is_empty() {
        return;
    }
    if ranges.is_empty() {
        *found.gaps.entry(Gap::NoFreeAddress).or_default() += 1;
    }
    for range in ranges {
        match free(range, &allocated) {
            Some(tcp) => found.negative.push(Negative { tcp, ports: ports.clone() }),
            None => *found.gaps.entry(Gap::NoFreeAddress).or_default() += 1,
        }
    }
}

/// The ports of all targets, those of endpoints and Services before those of nodes.
fn ports(found: &mut TargetSet) -> BTreeSet<u16> {
    let of_targets = || found.targets.iter().flat_map(|t| &t.ports).filter(|p| p.transport == Transport::Tcp);
    let near: BTreeSet<u16> = of_targets().flat_map(|p| [Some(p.port), p.target_port]).flatten().collect();
    let far: BTreeSet<u16> = of_targets().filter_map(|p| p.node_port).filter(|p| !near.contains(p)).collect();
    let all = near.len() + far.len();
    let ports: BTreeSet<u16> = near.into_iter().chain(far).take(MOST_PORTS).collect();
    if all > ports.len() {
        *found.gaps.entry(Gap::NegativePort).or_default() += all - ports.len();
    }
    ports
}

/// The same address as long as it is free, and another as soon as it is not.
fn free(range: IpNet, allocated: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    // Neither the range's own address nor its last; and in a range of few addresses there is none to spare.
    if bits < 3 {
        return None;
    }
    (0..TRIES).find_map(|attempt| {
        let at = u128::from(hash(&[&range.to_string(), &attempt.to_string()]));
        let host = if bits >= 64 { at } else { at & ((1 << bits) - 1) };
        if host == 0 || (bits < 64 && host == (1 << bits) - 1) {
            return None;
        }
        let ip = match range.network() {
            IpAddr::V4(network) => {
                IpAddr::V4(Ipv4Addr::from_bits(network.to_bits() | u32::try_from(host).unwrap_or_default()))
            }
            IpAddr::V6(network) => IpAddr::V6(Ipv6Addr::from_bits(network.to_bits() | host)),
        };
        (!allocated.contains(&ip)).then_some(ip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_address_stays_until_somebody_gets_it() {
        for (text, others) in
            [("10.96.0.0/12", 1000), ("fd00:10:96::/112", 1000), ("fd00:10:96::/64", 10), ("10.0.0.0/28", 3)]
        {
            let range: IpNet = text.parse().unwrap();
            let mut allocated = BTreeSet::new();
            let first = free(range, &allocated).unwrap();
            assert!(range.contains(&first) && first != range.network() && first != range.broadcast(), "{first}");
            for ip in range.hosts().filter(|ip| *ip != first).take(others) {
                allocated.insert(ip);
                assert_eq!(free(range, &allocated), Some(first), "others come");
            }
            allocated.insert(first);
            let second = free(range, &allocated).unwrap();
            assert!(second != first && !allocated.contains(&second) && range.contains(&second), "{second}");
        }
        assert_eq!(free("10.0.0.0/30".parse().unwrap(), &BTreeSet::new()), None);
        let full: BTreeSet<IpAddr> = "10.0.0.0/24".parse::<IpNet>().unwrap().hosts().collect();
        assert_eq!(free("10.0.0.0/24".parse().unwrap(), &full), None);
    }
}
