//! An address of each range of ClusterIPs that no Service has: a negative control.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{
    objects::Inventory,
    settings::Settings,
    targets::{Gap, Negative, TargetSet, address, hash},
};
use crate::model::Transport;

/// Ports that a negative control is tried on. Each costs a connect in each round of controls, and a probed pod has 5 a second.
const MOST_PORTS: usize = 16;
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

/// The ports that most targets have, those of endpoints and Services before those of nodes.
fn ports(found: &mut TargetSet) -> BTreeSet<u16> {
    let mut near: BTreeMap<u16, usize> = BTreeMap::new();
    let mut far = near.clone();
    for port in found.targets.iter().flat_map(|t| &t.ports).filter(|p| p.transport == Transport::Tcp) {
        for number in [Some(port.port), port.target_port].into_iter().flatten() {
            *near.entry(number).or_default() += 1;
        }
        if let Some(number) = port.node_port {
            *far.entry(number).or_default() += 1;
        }
    }
    far.retain(|port, _| !near.contains_key(port));
    let ranked = |ports: BTreeMap<u16, usize>| {
        let mut ranked: Vec<(Reverse<usize>, u16)> =
            ports.into_iter().map(|(port, times)| (Reverse(times), port)).collect();
        ranked.sort_unstable();
        ranked
    };
    let all: Vec<u16> = ranked(near).into_iter().chain(ranked(far)).map(|(_, port)| port).collect();
    if all.len() > MOST_PORTS {
        *found.gaps.entry(Gap::NegativePort).or_default() += all.len() - MOST_PORTS;
    }
    all.into_iter().take(MOST_PORTS).collect()
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
