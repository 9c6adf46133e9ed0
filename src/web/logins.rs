//! Logins: what is known of passwords, and the one place where hashes are computed. Whoever floods it with wrong passwords gets a
//! fifth of a core and neither takes another address's turn nor delays a sweep.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use rand::Rng;
use sha2::{Digest as _, Sha256};

use super::{
    network,
    passwords::{Users, Work},
};

/// Most logins that wait for their turn, each from another address: more than a few attackers can fill, and at a quarter of a second
/// each (cost 10, and the rest after it) no more than a client waits for.
const MOST_WAITING: usize = 64;
/// Most refusals that are remembered.
const MOST_REFUSALS: usize = 128;
/// After a refusal the place rests for so many times as long as the refusal took.
const REST: u32 = 4;

/// How a login went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    Good,
    Bad,
    /// It was not looked at: too many wait.
    Busy,
}

type Digest = [u8; 32];

/// What is known, and who waits.
pub struct Logins {
    /// Of this process alone, so that nobody can compute digests.
    key: [u8; 32],
    known: Mutex<Known>,
    waiting: Mutex<BTreeSet<IpAddr>>,
    place: Arc<tokio::sync::Mutex<()>>,
    work: Work,
}

#[derive(Default)]
struct Known {
    /// The last good one of each user: no flood of others pushes it out.
    good: BTreeMap<String, Digest>,
    bad: VecDeque<Digest>,
}

impl Default for Logins {
    fn default() -> Self {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        let (known, waiting) = (Mutex::default(), Mutex::default());
        Self { key, known, waiting, place: Arc::default(), work: Work::default() }
    }
}

impl Logins {
    /// What it cost so far.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Whether this is one of the users.
    pub async fn check(self: &Arc<Self>, users: &Arc<Users>, from: IpAddr, user: &str, password: &[u8]) -> Login {
        let login =
            Asked { digest: self.digest(users, user, password), user: user.to_owned(), password: password.to_vec() };
        if let Some(known) = self.look_up(&login) {
            return known;
        }
        let Some(waiting) = self.wait(from) else { return Login::Busy };
        // A task of its own: who gave up waiting is known the next time, and a flood that hangs up is not served any faster.
        tokio::spawn(self.clone().in_turn(users.clone(), waiting, login)).await.unwrap_or(Login::Busy)
    }

    /// Keeps all others waiting until it is dropped.
    #[cfg(test)]
    pub async fn hold(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.place.clone().lock_owned().await
    }

    /// How many wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Forgets users that are gone. A digest tells of one hash alone, so another hash needs no forgetting.
    pub fn keep(&self, users: Option<&Users>) {
        lock(&self.known).good.retain(|user, _| users.is_some_and(|users| users.hash(user).is_some()));
    }

    async fn in_turn(self: Arc<Self>, users: Arc<Users>, waiting: Waiting, login: Asked) -> Login {
        let place = self.place.clone().lock_owned().await;
        drop(waiting);
        if let Some(known) = self.look_up(&login) {
            return known;
        }
        let began = Instant::now();
        let (logins, login) = (self.clone(), Arc::new(login));
        let asked = login.clone();
        let verified =
            tokio::task::spawn_blocking(move || users.verify(&asked.user, &asked.password, &logins.work)).await;
        if verified.unwrap_or(false) {
            lock(&self.known).good.insert(login.user.clone(), login.digest);
            return Login::Good;
        }
        let mut known = lock(&self.known);
        known.bad.truncate(MOST_REFUSALS - 1);
        known.bad.push_front(login.digest);
        drop(known);
        let rest = began.elapsed() * REST;
        tokio::spawn(async move {
            tokio::time::sleep(rest).await;
            drop(place);
        });
        Login::Bad
    }

    fn look_up(&self, login: &Asked) -> Option<Login> {
        let known = lock(&self.known);
        if known.good.get(&login.user) == Some(&login.digest) {
            return Some(Login::Good);
        }
        known.bad.contains(&login.digest).then_some(Login::Bad)
    }

    fn digest(&self, users: &Users, user: &str, password: &[u8]) -> Digest {
        let mut hash = Sha256::new_with_prefix(self.key);
        for part in [user.as_bytes(), users.hash(user).unwrap_or_default().as_bytes(), password] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    fn wait(self: &Arc<Self>, from: IpAddr) -> Option<Waiting> {
        let from = network(from);
        let mut waiting = lock(&self.waiting);
        (waiting.len() < MOST_WAITING && waiting.insert(from)).then(|| Waiting { logins: self.clone(), from })
    }
}

/// A login that is asked for.
struct Asked {
    digest: Digest,
    user: String,
    password: Vec<u8>,
}

/// A place in the queue.
struct Waiting {
    logins: Arc<Logins>,
    from: IpAddr,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        lock(&self.logins.waiting).remove(&self.from);
    }
}

/// Nothing panics while it is held, and what it holds is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn users(password: &str) -> Arc<Users> {
        let hash = bcrypt::hash(password, 4).unwrap();
        Arc::new(Users::new([("alice".to_owned(), hash)].into_iter()).unwrap())
    }

    fn hashes(logins: &Logins) -> u64 {
        logins.work().done().0
    }

    #[tokio::test]
    async fn what_is_known_is_not_computed_again_and_ends_with_the_hash() {
        let (logins, old, new) = (Arc::new(Logins::default()), users("old"), users("new"));
        for _ in 0..3 {
            assert_eq!(logins.check(&old, HERE, "alice", b"old").await, Login::Good);
            assert_eq!(logins.check(&old, HERE, "alice", b"new").await, Login::Bad);
            assert_eq!(logins.check(&old, HERE, "bob", b"old").await, Login::Bad);
        }
        assert_eq!(hashes(&logins), 3);
        logins.keep(Some(&new));
        assert_eq!(logins.check(&new, HERE, "alice", b"old").await, Login::Bad);
        assert_eq!(logins.check(&new, HERE, "alice", b"new").await, Login::Good);
        assert_eq!(hashes(&logins), 5);
        logins.keep(None);
        assert!(lock(&logins.known).good.is_empty());
    }

    #[tokio::test]
    async fn wrong_passwords_push_out_no_good_one_and_take_no_end_of_memory() {
        let (logins, users) = (Arc::new(Logins::default()), users("right"));
        assert_eq!(logins.check(&users, HERE, "alice", b"right").await, Login::Good);
        for wrong in 0..MOST_REFUSALS + 20 {
            assert_eq!(logins.check(&users, HERE, "alice", wrong.to_string().as_bytes()).await, Login::Bad);
        }
        let before = hashes(&logins);
        assert_eq!(logins.check(&users, HERE, "alice", b"right").await, Login::Good);
        assert_eq!((hashes(&logins), lock(&logins.known).bad.len()), (before, MOST_REFUSALS));
    }

    /// One address has one place in the queue and the queue has an end; whoever waits gets a turn, and who was refused makes all wait.
    #[tokio::test]
    async fn a_flood_waits_in_one_place_of_the_queue() {
        let (logins, users) = (Arc::new(Logins::default()), users("right"));
        let taken = logins.place.clone().lock_owned().await;
        let ask = |from: IpAddr, password: String| {
            let (logins, users) = (logins.clone(), users.clone());
            tokio::spawn(async move { logins.check(&users, from, "alice", password.as_bytes()).await })
        };
        let flood: Vec<_> = (0..50).map(|i| ask(HERE, format!("wrong {i}"))).collect();
        let honest = ask("192.0.2.2".parse().unwrap(), "right".into());
        // The same for a flood of one network's addresses.
        let six: Vec<_> = (1..50).map(|i| ask(format!("2001:db8::{i}").parse().unwrap(), format!("six {i}"))).collect();
        while lock(&logins.waiting).len() < 3 {
            tokio::task::yield_now().await;
        }
        drop(taken);
        let mut ends = Vec::new();
        for login in flood.into_iter().chain(six) {
            ends.push(login.await.unwrap());
        }
        let count = |end| ends.iter().filter(|e| **e == end).count();
        assert_eq!((count(Login::Bad), count(Login::Busy)), (2, 97));
        assert_eq!(honest.await.unwrap(), Login::Good);
        assert_eq!(hashes(&logins), 3);

        let _taken = logins.place.clone().lock_owned().await;
        let crowd: Vec<_> =
            (0..MOST_WAITING).map(|i| ask(format!("198.51.100.{i}").parse().unwrap(), "x".into())).collect();
        while lock(&logins.waiting).len() < MOST_WAITING {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask("203.0.113.1".parse().unwrap(), "y".into()).await.unwrap(), Login::Busy);
        // Who hangs up keeps the turn: it is what a scraper with a short time-out needs.
        crowd.iter().for_each(tokio::task::JoinHandle::abort);
        tokio::task::yield_now().await;
        assert_eq!(lock(&logins.waiting).len(), MOST_WAITING);
    }

    #[tokio::test]
    async fn the_place_rests_after_a_refusal_alone() {
        let hash = bcrypt::hash("right", 8).unwrap();
        let users = Arc::new(Users::new([("alice".to_owned(), hash)].into_iter()).unwrap());
        let logins = Arc::new(Logins::default());
        assert_eq!(logins.check(&users, HERE, "alice", b"right").await, Login::Good);
        assert!(logins.place.try_lock().is_ok());
        let began = Instant::now();
        assert_eq!(logins.check(&users, HERE, "alice", b"wrong").await, Login::Bad);
        let (took, began) = (began.elapsed(), Instant::now());
        drop(logins.place.lock().await);
        assert!(began.elapsed() >= took, "it rested for {:?} after {took:?}", began.elapsed());
    }
}
