//! Who holds a place, and who loses his when there are too many: whoever has most goes first, so that a crowd from one address
//! costs nobody else a place. Pure: it is told the time, and gives the handles of those who have to go.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::IpAddr,
    time::Instant,
};

use super::network;

/// A member, by the order of coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u64);

/// At most so many members; each has an address, and a handle by which it is sent away.
#[derive(Debug)]
pub struct Crowd<H> {
    most: usize,
    members: BTreeMap<Id, Member<H>>,
    /// The places of each address, and of each network: of IPv6 a /64, which one peer may have whole.
    held: HashMap<IpAddr, usize>,
    nets: HashMap<IpAddr, usize>,
    came: u64,
}

#[derive(Debug)]
struct Member<H> {
    ip: IpAddr,
    since: Instant,
    /// What it is being answered at the moment.
    answers: usize,
    handle: H,
}

impl<H> Crowd<H> {
    /// Nobody, and `most` places; one at least.
    pub fn new(most: usize) -> Self {
        Self { most, members: BTreeMap::new(), held: HashMap::new(), nets: HashMap::new(), came: 0 }
    }

    /// Nobody is there.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Lets a newcomer in, always; gives the one that it costs the place. That is, of the network that holds most places the
    /// address that does, and of that the oldest that is not being answered, else the oldest.
    pub fn enter(&mut self, ip: IpAddr, now: Instant, handle: H) -> (Id, Option<H>) {
        let ip = ip.to_canonical();
        let id = Id(self.came);
        self.came += 1;
        *self.held.entry(ip).or_default() += 1;
        *self.nets.entry(network(ip)).or_default() += 1;
        let victim = if self.members.len() < self.most { None } else { self.victim() };
        let victim = victim.and_then(|victim| self.remove(victim));
        self.members.insert(id, Member { ip, since: now, answers: 0, handle });
        (id, victim)
    }

    /// The newcomer's place is counted already, and it is not among those who may lose theirs.
    fn victim(&self) -> Option<Id> {
        let places = |member: &Member<H>| (self.nets.get(&network(member.ip)), self.held.get(&member.ip));
        let most = self.members.values().map(places).max()?;
        let mut greedy = self.members.iter().filter(|(_, member)| places(member) == most);
        let idle = greedy.clone().find(|(_, member)| member.answers == 0);
        idle.or_else(|| greedy.next()).map(|(id, _)| *id)
    }

    fn remove(&mut self, id: Id) -> Option<H> {
        let Member { ip, handle, .. } = self.members.remove(&id)?;
        for entry in [self.held.entry(ip), self.nets.entry(network(ip))] {
            if let Entry::Occupied(mut held) = entry {
                *held.get_mut() -= 1;
                if *held.get() == 0 {
                    held.remove();
                }
            }
        }
        Some(handle)
    }

    /// Something is being answered to it.
    pub fn answer_begins(&mut self, id: Id) {
        if let Some(member) = self.members.get_mut(&id) {
            member.answers += 1;
        }
    }

    /// It was answered.
    pub fn answer_ends(&mut self, id: Id) {
        if let Some(member) = self.members.get_mut(&id) {
            member.answers = member.answers.saturating_sub(1);
        }
    }

    /// It left by itself, or was sent away before.
    pub fn leave(&mut self, id: Id) {
        self.remove(id);
    }

    /// Sends away who came before `then`.
    pub fn overstayed(&mut self, then: Instant) -> Vec<H> {
        let overstay = self.members.iter().take_while(|(_, member)| member.since < then);
        let gone: Vec<Id> = overstay.map(|(id, _)| *id).collect();
        gone.into_iter().filter_map(|id| self.remove(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    /// A crowd of those, named by their order.
    fn crowd(most: usize, ips: &[u8]) -> Crowd<usize> {
        let mut crowd = Crowd::new(most);
        for (name, last) in ips.iter().enumerate() {
            assert_eq!(crowd.enter(ip(*last), Instant::now(), name).1, None);
        }
        crowd
    }

    #[test]
    fn the_greediest_address_pays_for_a_newcomer() {
        for (members, answered, newcomer, victim) in [
            ([1, 2, 2, 3], &[] as &[u64], 4, 1),
            // Who is being answered stays, as long as another of his address may go.
            ([1, 2, 2, 3], &[1], 4, 2),
            ([1, 2, 2, 3], &[1, 2], 4, 1),
            // The newcomer counts as well: he pays himself, with an older one.
            ([1, 2, 2, 1], &[], 1, 0),
            ([1, 2, 3, 3], &[2, 3], 3, 2),
            // All alike: the oldest that may go.
            ([1, 2, 3, 4], &[0], 5, 1),
            ([1, 2, 3, 4], &[], 5, 0),
        ] {
            let mut crowd = crowd(4, &members);
            answered.iter().for_each(|id| crowd.answer_begins(Id(*id)));
            assert_eq!(crowd.enter(ip(newcomer), Instant::now(), 99).1, Some(victim), "{members:?} {answered:?}");
        }
    }

    #[test]
    fn an_answer_that_ended_protects_nobody() {
        let mut crowd = crowd(2, &[1, 1]);
        let first = Id(0);
        crowd.answer_begins(first);
        crowd.answer_begins(first);
        crowd.answer_ends(first);
        assert_eq!(crowd.enter(ip(2), Instant::now(), 2).1, Some(1), "one of two answers goes on");
        crowd.answer_ends(first);
        assert_eq!(crowd.enter(ip(2), Instant::now(), 3).1, Some(2), "of the address with two places");
        crowd.leave(first);
        assert_eq!(crowd.enter(ip(2), Instant::now(), 4).1, None, "a place was left");
    }

    #[test]
    fn an_address_is_one_in_both_forms() {
        let mut crowd = crowd(2, &[1]);
        let mapped = "::ffff:127.0.0.1".parse().unwrap();
        assert_eq!(crowd.enter(mapped, Instant::now(), 1).1, None);
        assert_eq!(crowd.enter(ip(2), Instant::now(), 2).1, Some(0));
    }

    #[test]
    fn addresses_of_one_network_pay_together() {
        let six = |text: &str| text.parse().unwrap();
        let mut crowd = crowd(5, &[1, 1]);
        for (name, ip) in ["2001:db8::1", "2001:db8::2", "2001:db8::2"].into_iter().enumerate() {
            assert_eq!(crowd.enter(six(ip), Instant::now(), name + 2).1, None);
        }
        assert_eq!(crowd.enter(six("2001:db8:0:1::1"), Instant::now(), 5).1, Some(3), "within it, who has most");
        assert_eq!(crowd.enter(six("2001:db8::3"), Instant::now(), 6).1, Some(2), "three with the newcomer");
        crowd.leave(Id(4));
        crowd.leave(Id(6));
        assert_eq!(crowd.nets.len(), 2);
    }

    #[test]
    fn who_stays_too_long_is_sent_away() {
        let (began, mut crowd) = (Instant::now(), Crowd::new(9));
        for second in 0..5 {
            crowd.enter(ip(1), began + Duration::from_secs(second), second);
        }
        crowd.leave(Id(1));
        assert_eq!(crowd.overstayed(began + Duration::from_secs(3)), [0, 2]);
        assert_eq!(crowd.overstayed(began + Duration::from_secs(3)), [0; 0]);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Enters(u8),
        Leaves(usize),
        Begins(usize),
        Ends(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (0..6_u8).prop_map(Event::Enters),
            1 => (0..40_usize).prop_map(Event::Leaves),
            1 => (0..40_usize).prop_map(Event::Begins),
            1 => (0..40_usize).prop_map(Event::Ends),
        ]
    }

    proptest! {
        /// Never above its bound; the newcomer is in; a victim's address held most, so a sole one stays while another has more.
        #[test]
        fn nobody_loses_a_place_to_who_has_more(most in 1..8_usize, events in prop::collection::vec(event(), 0..120)) {
            let mut crowd: Crowd<(IpAddr, u64)> = Crowd::new(most);
            for event in events {
                let nth = |n: usize| crowd.members.keys().nth(n % crowd.members.len().max(1)).copied();
                match event {
                    Event::Enters(last) => {
                        let before: BTreeSet<u64> = crowd.members.keys().map(|id| id.0).collect();
                        let of = |ip| crowd.members.values().filter(|member| member.ip == ip).count();
                        let places: HashMap<IpAddr, usize> =
                            (0..6).map(|l| (ip(l), of(ip(l)) + usize::from(l == last))).collect();
                        let (id, victim) = crowd.enter(ip(last), Instant::now(), (ip(last), crowd.came));
                        prop_assert!(crowd.members.contains_key(&id));
                        prop_assert_eq!(victim.is_some(), before.len() == most);
                        if let Some((ip, name)) = victim {
                            prop_assert!(before.contains(&name) && !crowd.members.contains_key(&Id(name)));
                            prop_assert_eq!(places.values().max(), Some(&places[&ip]));
                        }
                    }
                    Event::Leaves(n) => if let Some(id) = nth(n) { crowd.leave(id) },
                    Event::Begins(n) => if let Some(id) = nth(n) { crowd.answer_begins(id) },
                    Event::Ends(n) => if let Some(id) = nth(n) { crowd.answer_ends(id) },
                }
                prop_assert!(crowd.members.len() <= most);
                prop_assert_eq!(crowd.held.values().sum::<usize>(), crowd.members.len());
            }
        }
    }
}
