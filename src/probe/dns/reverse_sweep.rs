//! `reverse-sweep`: what an address is called. Since the wildcards went this is what is left, and on a plain cluster it
//! names every service and endpoint.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use ipnet::IpNet;

use super::{Answer, Known, List, Question, Questions, Technique, fingerprint, namespace_of, read_names, whole};
use crate::observation::Disclosures;

/// PTR of the targets' addresses, and of whole ranges in slices.
pub struct ReverseSweep {
    zone: Name,
    targets: Addresses,
    ranges: Ranges,
    most: u64,
}

impl ReverseSweep {
    /// `most` addresses of the ranges are asked for in one sweep.
    pub fn new(zone: &Name, addresses: impl IntoIterator<Item = IpAddr>, ranges: &[IpNet], most: u64) -> Self {
        let targets = Addresses(addresses.into_iter().collect());
        Self { zone: zone.clone(), targets, ranges: Ranges(ranges.into()), most }
    }
}

impl Technique for ReverseSweep {
    fn lists(&self) -> Vec<List<'_>> {
        let mut lists = vec![whole(&self.targets)];
        if !self.ranges.0.is_empty() {
            // Over one transport: what another would tell of the targets is asked above.
            lists.push(List { questions: &self.ranges, most: self.most, over_tcp: false });
        }
        lists
    }

    fn wants_addresses(&self) -> bool {
        true
    }

    fn known(&self, known: &Known) -> Vec<Question> {
        known.addresses.iter().map(|address| name_of(*address)).collect()
    }

    /// A name outside of the cluster is another server's: the reverse zones of the cluster were not asked.
    fn finds(&self, answer: &Answer<'_>) -> bool {
        answer.message.answers.iter().any(|record| match &record.data {
            RData::PTR(name) => namespace_of(&name.0, &self.zone).is_some(),
            _ => false,
        })
    }

    fn read(&self, answer: &Answer<'_>, told: &mut Disclosures) {
        read_names(&self.zone, answer.question, answer.message, &mut told.names);
    }
}

fn name_of(address: IpAddr) -> Question {
    Question { name: address.into(), kind: RecordType::PTR }
}

struct Addresses(Box<[IpAddr]>);

impl Questions for Addresses {
    fn count(&self) -> u64 {
        self.0.len() as u64
    }

    fn at(&self, index: u64) -> Option<Question> {
        self.0.get(usize::try_from(index).ok()?).copied().map(name_of)
    }

    fn fingerprint(&self) -> u64 {
        fingerprint(&self.0)
    }
}

/// All addresses of ranges, in order.
pub struct Ranges(pub Box<[IpNet]>);

impl Questions for Ranges {
    fn count(&self) -> u64 {
        self.0.iter().map(addresses_of).fold(0, u64::saturating_add)
    }

    fn at(&self, mut index: u64) -> Option<Question> {
        for range in &self.0 {
            let addresses = addresses_of(range);
            if index < addresses {
                return Some(name_of(match range.network() {
                    IpAddr::V4(first) => Ipv4Addr::from(u32::from(first) + u32::try_from(index).ok()?).into(),
                    IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + u128::from(index)).into(),
                }));
            }
            index -= addresses;
        }
        None
    }

    fn fingerprint(&self) -> u64 {
        fingerprint(&self.0)
    }
}

/// Addresses in a range, its first and last included.
fn addresses_of(range: &IpNet) -> u64 {
    1_u64.checked_shl(u32::from(range.max_prefix_len() - range.prefix_len())).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_give_every_address_once() {
        let ranges = ["10.96.0.254/30", "fd00::/126", "10.0.0.7/32"].map(|r| r.parse::<IpNet>().unwrap().trunc());
        let ranges = Ranges(ranges.into());
        assert_eq!(ranges.count(), 9);
        let names: Vec<_> = (0..9).map(|i| ranges.at(i).unwrap().name.to_ascii()).collect();
        assert_eq!(names[..2], ["252.0.96.10.in-addr.arpa.", "253.0.96.10.in-addr.arpa."]);
        assert!(
            names[4].starts_with("0.0.0.0.") && names[7].starts_with("3.0.0.0.") && names[7].ends_with("d.f.ip6.arpa.")
        );
        assert_eq!(names[8], "7.0.0.10.in-addr.arpa.");
        assert_eq!(ranges.at(9), None);
        assert_eq!(Ranges(["::/0".parse().unwrap()].into()).count(), u64::MAX);
    }
}
