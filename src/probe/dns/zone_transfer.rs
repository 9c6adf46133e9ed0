//! `zone-transfer`: AXFR gives every service at once, of the zone and, from CoreDNS, of the reverse zones as well.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

use hickory_resolver::proto::rr::{Name, RecordType};

use super::{Answer, Known, Question, Technique, add_name, below, names_of};
use crate::observation::Disclosures;

/// Most zones of addresses: beside a CIDR for pods of each node there are only a few.
const MOST_REVERSE_ZONES: usize = 64;

/// Transfers of the cluster's zones.
pub struct ZoneTransfer {
    zone: Name,
    zones: Vec<Name>,
}

impl ZoneTransfer {
    /// The zone, `svc` below it, and the reverse zones that these addresses may be in.
    pub fn new(zone: &Name, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut zones = vec![zone.clone()];
        zones.extend(below(zone, "svc"));
        zones.extend(["in-addr.arpa.", "ip6.arpa."].iter().filter_map(|zone| Name::from_ascii(zone).ok()));
        let narrower: BTreeSet<Name> = addresses.into_iter().flat_map(reverse_zones).collect();
        zones.extend(narrower.into_iter().take(MOST_REVERSE_ZONES));
        Self { zone: zone.clone(), zones }
    }
}

/// Where reverse zones are usually cut: at 8, 16 and 24 bits of an IPv4 address, at 64 and 112 of an IPv6 one.
fn reverse_zones(address: IpAddr) -> Vec<Name> {
    let (name, lengths): (Name, &[usize]) = match address {
        IpAddr::V4(v4) => (v4.into(), &[3, 4, 5]),
        IpAddr::V6(v6) => (Ipv6Addr::into(v6), &[18, 30]),
    };
    lengths.iter().map(|labels| name.trim_to(*labels)).collect()
}

impl Technique for ZoneTransfer {
    fn zones(&self) -> &[Name] {
        &self.zones
    }

    /// A transfer finds all or nothing. That the server answers over the same way shows that the denial is its own.
    fn known(&self, known: &Known) -> Vec<Question> {
        known.names.iter().map(|name| Question { name: name.clone(), kind: RecordType::A }).collect()
    }

    /// CoreDNS gives every service of the cluster below whatever name it was asked for: `web.high.svc.in-addr.arpa` is
    /// `web.high.svc` of the cluster's zone.
    fn read(&self, answer: &Answer<'_>, told: &mut Disclosures) {
        let asked = &answer.question.name;
        for name in names_of(answer.message) {
            let rebased = below_svc(name, asked).and_then(|inside| inside.append_domain(&self.zone).ok());
            add_name(&self.zone, rebased.as_ref().unwrap_or(name), &mut told.names);
        }
    }
}

/// The part of a name before the zone, where it ends in `svc`.
fn below_svc(name: &Name, zone: &Name) -> Option<Name> {
    let inside = name.iter().len().checked_sub(zone.iter().len()).filter(|_| zone.zone_of(name))?;
    let labels: Vec<&[u8]> = name.iter().take(inside).collect();
    labels.last().filter(|label| label.eq_ignore_ascii_case(b"svc"))?;
    Name::from_labels(labels).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_zones_of_the_addresses_are_asked_for_once() {
        let zone = Name::from_ascii("cluster.local.").unwrap();
        let addresses = ["10.96.0.40", "10.96.0.41", "fd00::7"].map(|a| a.parse().unwrap());
        let transfer = ZoneTransfer::new(&zone, addresses);
        let zones: Vec<String> = transfer.zones.iter().map(Name::to_ascii).collect();
        assert_eq!(zones[..4], ["cluster.local.", "svc.cluster.local.", "in-addr.arpa.", "ip6.arpa."]);
        let narrower = &zones[4..];
        assert_eq!(narrower.len(), 5);
        for zone in ["10.in-addr.arpa.", "96.10.in-addr.arpa.", "0.96.10.in-addr.arpa."] {
            assert!(narrower.contains(&zone.to_owned()), "{zone} in {narrower:?}");
        }
        assert!(narrower.iter().any(|z| z.ends_with("d.f.ip6.arpa.") && z.split('.').count() == 19), "{narrower:?}");
    }
}
