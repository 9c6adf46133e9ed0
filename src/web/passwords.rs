//! Passwords and their bcrypt hashes: pure work, and an account of it. A refusal costs the same whoever was asked for.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use bcrypt::HashParts;

/// Largest cost of a hash: about a second on a whole core, and an agent has less.
pub const MOST_COST: u32 = 14;
const LEAST_COST: u32 = 4;

/// The cost of a hash; none where it is not one that anything can match.
pub fn cost_of(hash: &str) -> Option<u32> {
    // `$2x$` is of a broken implementation.
    let known = ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix));
    let cost = hash.parse::<HashParts>().ok().filter(|_| known)?.get_cost();
    (LEAST_COST..=31).contains(&cost).then_some(cost)
}

/// Who may log in.
pub struct Users {
    /// Hashes by name, with their costs.
    hashes: BTreeMap<String, (String, u32)>,
    /// The largest of the costs.
    cost: u32,
}

/// How many hashes were computed, and how many rounds they took.
#[derive(Debug, Default)]
pub struct Work {
    hashes: AtomicU64,
    rounds: AtomicU64,
}

impl Work {
    /// Hashes and rounds.
    pub fn done(&self) -> (u64, u64) {
        (self.hashes.load(Ordering::Relaxed), self.rounds.load(Ordering::Relaxed))
    }

    fn count(&self, cost: u32) {
        self.hashes.fetch_add(1, Ordering::Relaxed);
        self.rounds.fetch_add(1 << cost, Ordering::Relaxed);
    }
}

impl Users {
    /// None where there is nobody. What is no hash is left out: it was told.
    pub fn new(users: impl Iterator<Item = (String, String)>) -> Option<Self> {
        let hashes: BTreeMap<_, _> = users
            .filter_map(|(user, hash)| {
                let cost = cost_of(&hash)?;
                Some((user, (hash, cost)))
            })
            .collect();
        let cost = hashes.values().map(|(_, cost)| *cost).max()?;
        Some(Self { hashes, cost })
    }

    /// The hash of a user.
    pub fn hash(&self, user: &str) -> Option<&str> {
        self.hashes.get(user).map(|(hash, _)| hash.as_str())
    }

    /// Whether the password is the user's. A refusal takes 2^cost rounds, with the largest cost of all, also for a user who is not there.
    pub fn verify(&self, user: &str, password: &[u8], work: &Work) -> bool {
        let own = self.hashes.get(user);
        if let Some((hash, cost)) = own {
            work.count(*cost);
            if bcrypt::verify(password, hash).unwrap_or(false) {
                return true;
            }
        }
        // 2^c + (2^c + 2^(c+1) + … + 2^(max-1)) = 2^max.
        for cost in own.map_or(self.cost..self.cost + 1, |(_, cost)| *cost..self.cost) {
            work.count(cost);
            let _ = std::hint::black_box(bcrypt::hash_with_salt(password, cost, [0; 16]));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(list: &[(&str, u32)]) -> Users {
        let hash =
            |(user, cost): &(&str, u32)| ((*user).to_owned(), bcrypt::hash(format!("of {user}"), *cost).unwrap());
        Users::new(list.iter().map(hash)).unwrap()
    }

    #[test]
    fn a_refusal_costs_the_same_whoever_it_is() {
        let users = users(&[("cheap", 4), ("middle", 6), ("dear", 9)]);
        for user in ["cheap", "middle", "dear", "nobody", ""] {
            let work = Work::default();
            assert!(!users.verify(user, b"wrong", &work), "{user}");
            assert_eq!(work.done().1, 1 << 9, "{user}");
        }
        for (user, cost) in [("cheap", 4), ("dear", 9)] {
            let work = Work::default();
            assert!(users.verify(user, format!("of {user}").as_bytes(), &work), "{user}");
            assert_eq!(work.done(), (1, 1 << cost), "{user}");
        }
        assert!(!users.verify("cheap", b"of dear", &Work::default()));
    }

    /// Hashes that others made: htpasswd writes `$2y$`, Python `$2b$`.
    #[test]
    fn hashes_of_others_are_read() {
        let hash = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG";
        assert_eq!(cost_of(hash), Some(10));
        let fake = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
        let users = Users::new([("a".to_owned(), fake.to_owned())].into_iter()).unwrap();
        assert!(users.verify("a", b"fakepassword", &Work::default()));
        for not in [
            "",
            "secret",
            &hash[..59],
            &hash.replace("$2y", "$2x"),
            &hash.replace("$10", "$03"),
            &hash.replace("$10", "$32"),
        ] {
            assert_eq!(cost_of(not), None, "{not}");
        }
        assert_eq!(cost_of(&hash.replacen('X', "é", 1)), None);
        assert!(Users::new(std::iter::empty()).is_none());
    }
}
