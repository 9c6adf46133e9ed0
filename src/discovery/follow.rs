//! Following the API: one list and then watches of each kind, for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rand::RngExt;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::{
    api::{Api, ApiError, Event, PAGE, Told},
    objects::{EndpointSlice, Inventory, Namespace, Node, Object, Objects, Pod, Service, ServiceCidr},
};

/// First and longest wait after an error.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Most objects of one kind.
const MOST_OBJECTS: usize = 500_000;
/// A kind that the API server does not know is asked for again after this time: it may be upgraded.
const ABSENT: Duration = Duration::from_secs(600);

/// What is known of the cluster, and since when.
#[derive(Default)]
pub struct World {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    inventory: Inventory,
    kinds: BTreeMap<&'static str, Kind>,
}

/// How it stands with one kind of objects.
#[derive(Clone, Debug, Default)]
pub struct Kind {
    /// The API's last word: nothing is known that changed before.
    pub as_of: Option<Timestamp>,
    /// The API server does not know the kind.
    pub absent: bool,
    /// Objects that are known.
    pub objects: usize,
    /// Objects that cannot be read: namespace and name.
    pub unreadable: BTreeSet<(String, String)>,
    /// What went wrong so far.
    pub errors: u64,
}

impl World {
    /// Waits until something changed that matters.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Since when nothing is known to have changed unseen: the oldest of the words of all kinds; none until all are known.
    pub fn as_of(&self) -> Option<Timestamp> {
        let state = self.state();
        let words = state.kinds.values().filter(|kind| !kind.absent).map(|kind| kind.as_of);
        words.min_by_key(|word| word.unwrap_or(Timestamp::MIN)).flatten()
    }

    /// How it stands with each kind.
    pub fn kinds(&self) -> Vec<(&'static str, Kind)> {
        self.state().kinds.iter().map(|(name, kind)| (*name, kind.clone())).collect()
    }

    /// Looks at all objects as they are now.
    pub fn with<R>(&self, look: impl FnOnce(&Inventory) -> R) -> R {
        look(&self.state().inventory)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something of a kind; `change` tells whether objects changed.
    fn note<T: Object>(&self, change: impl FnOnce(&mut Objects<T>, &mut Kind) -> bool) {
        let mut state = self.state();
        let State { inventory, kinds } = &mut *state;
        let (objects, kind) = (T::all(inventory), kinds.entry(T::PLURAL).or_default());
        let was = (kind.as_of.is_some(), kind.absent);
        let changed = change(objects, kind);
        kind.objects = objects.len();
        if changed || was != (kind.as_of.is_some(), kind.absent) {
            self.changed.notify_one();
        }
    }
}

fn key<T: Object>(object: &T) -> (String, String) {
    (object.metadata().namespace.clone(), object.metadata().name.clone())
}

/// Reads everything once.
///
/// # Errors
/// What could not be read, and why.
pub async fn read_once(api: &Api, world: &World) -> Result<(), String> {
    async fn one<T: Object>(api: &Api, world: &World) -> Result<(), String> {
        match list::<T>(api, world).await {
            Err(error) if error.is(404) && !T::ALWAYS_THERE => Ok(()),
            read => read.map(|_| ()).map_err(|error| told::<T>("list", &error)),
        }
    }
    one::<Namespace>(api, world).await?;
    one::<Node>(api, world).await?;
    one::<Service>(api, world).await?;
    one::<EndpointSlice>(api, world).await?;
    one::<Pod>(api, world).await?;
    one::<ServiceCidr>(api, world).await
}

/// Follows all kinds for ever, with watches of a length.
pub async fn follow_all(api: &Api, world: &Arc<World>, watches: Duration) {
    // All are known of before the first is there.
    world.note::<Namespace>(|_, _| false);
    world.note::<Node>(|_, _| false);
    world.note::<Service>(|_, _| false);
    world.note::<EndpointSlice>(|_, _| false);
    world.note::<Pod>(|_, _| false);
    world.note::<ServiceCidr>(|_, _| false);
    tokio::join!(
        follow::<Namespace>(api, world, watches),
        follow::<Node>(api, world, watches),
        follow::<Service>(api, world, watches),
        follow::<EndpointSlice>(api, world, watches),
        follow::<Pod>(api, world, watches),
        follow::<ServiceCidr>(api, world, watches),
    );
}

/// A list, and watches from there on as long as they go well.
async fn follow<T: Object>(api: &Api, world: &World, watches: Duration) {
    let mut patience = Patience::default();
    loop {
        let mut version = match list::<T>(api, world).await {
            Ok(version) => version,
            Err(error) if error.is(404) && !T::ALWAYS_THERE => {
                info!(kind = T::PLURAL, "the API server does not know this kind");
                world.note::<T>(|_, kind| {
                    kind.absent = true;
                    false
                });
                tokio::time::sleep(ABSENT).await;
                continue;
            }
            Err(error) => {
                failed::<T>(world, "list", &error);
                patience.wait(error.retry_after()).await;
                continue;
            }
        };
        // Lists are dear, and that one went well is no reason for the next: patience is that of a watch that was heard.
        loop {
            let (mut heard, began) = (false, Instant::now());
            let ended = watch::<T>(api, world, &mut version, watches, &mut heard).await;
            if heard {
                patience = Patience::default();
            }
            match ended {
                Ok(()) if heard => {}
                // Neither an event nor a bookmark: nobody knows whether it is alive.
                Ok(()) => {
                    debug!(kind = T::PLURAL, "a watch ended without a word");
                    // One that took its time was wait enough.
                    if began.elapsed() < watches / 2 {
                        patience.wait(None).await;
                    }
                    break;
                }
                // Too old, or of a kind that is not known any more: the list tells.
                Err(error) if error.is(410) || error.is(404) => {
                    debug!(kind = T::PLURAL, error = error.to_string(), "the watch cannot go on");
                    patience.wait(error.retry_after()).await;
                    break;
                }
                Err(error) => {
                    failed::<T>(world, "watch", &error);
                    patience.wait(error.retry_after()).await;
                    // What was not understood may be in no later event either.
                    if matches!(error, ApiError::Odd(_)) {
                        break;
                    }
                }
            }
        }
    }
}

async fn list<T: Object>(api: &Api, world: &World) -> Result<String, ApiError> {
    let began = Timestamp::now();
    let (mut all, mut unreadable, mut next, mut limit) = (Objects::new(), BTreeSet::new(), String::new(), PAGE);
    loop {
        let page = match api.list::<T>(&next, limit).await {
            Err(ApiError::TooLarge(_)) if limit > 1 => {
                limit /= 2;
                continue;
            }
            page => page?,
        };
        for item in page.items {
            match item {
                Ok(object) => _ = all.insert(key(&object), object),
                Err(name) => _ = unreadable.insert(name),
            }
        }
        fit(&all, &unreadable)?;
        next = page.next;
        if next.is_empty() {
            world.note::<T>(|objects, kind| {
                let changed = *objects != all;
                *objects = all;
                (kind.as_of, kind.absent, kind.unreadable) = (Some(began), false, unreadable);
                changed
            });
            return Ok(page.version);
        }
    }
}

async fn watch<T: Object>(
    api: &Api,
    world: &World,
    version: &mut String,
    time: Duration,
    heard: &mut bool,
) -> Result<(), ApiError> {
    let mut watch = api.watch::<T>(version, time).await?;
    while let Some(event) = watch.next().await? {
        *heard = true;
        hear(world, event)?;
        version.clone_from(&watch.version);
    }
    Ok(())
}

/// Notes an event; what is too much to know is not vouched for.
fn hear<T: Object>(world: &World, event: Event<T>) -> Result<(), ApiError> {
    let mut fits = Ok(());
    world.note::<T>(|objects, kind| {
        let changed = take(objects, kind, event);
        fits = fit(objects, &kind.unreadable);
        if fits.is_ok() {
            kind.as_of = Some(Timestamp::now());
        }
        changed
    });
    fits
}

fn fit<T: Object>(objects: &Objects<T>, unreadable: &BTreeSet<(String, String)>) -> Result<(), ApiError> {
    if objects.len() + unreadable.len() > MOST_OBJECTS {
        return Err(ApiError::Odd(format!("more than {MOST_OBJECTS} objects")));
    }
    Ok(())
}

/// Takes an event into account; true when that changed what is known.
fn take<T: Object>(objects: &mut Objects<T>, kind: &mut Kind, event: Event<T>) -> bool {
    let is: Told<T> = match event {
        Event::Bookmark => return false,
        Event::IsGone(name) => {
            kind.unreadable.remove(&name);
            return objects.remove(&name).is_some();
        }
        Event::Is(told) => told,
    };
    match is {
        Ok(object) => {
            let name = key(&object);
            kind.unreadable.remove(&name);
            objects.insert(name, object.clone()).as_ref() != Some(&object)
        }
        // What it was is not what it is.
        Err(name) => {
            let was = objects.remove(&name).is_some();
            kind.unreadable.insert(name);
            was
        }
    }
}

fn failed<T: Object>(world: &World, what: &str, error: &ApiError) {
    world.note::<T>(|_, kind| {
        kind.errors += 1;
        false
    });
    warn!(kind = T::PLURAL, error = told::<T>(what, error), "the API server does not answer as it should");
}

/// Operation, object, and what would help.
fn told<T: Object>(what: &str, error: &ApiError) -> String {
    let kind = T::PLURAL;
    let remedy = match error {
        error if error.is(401) => "; is its service account's token mounted?",
        error if error.is(403) => "; see the table of rights in docs/discovery.md",
        _ => "",
    };
    format!("{what} {kind}: {error}{remedy}")
}

/// How long to wait after failures in a row.
#[derive(Default)]
struct Patience(u32);

impl Patience {
    /// Waits as long as the server wants, or longer with each failure in a row.
    async fn wait(&mut self, wanted: Option<Duration>) {
        let (first, longest) = WAITS;
        let wait = wanted.unwrap_or_else(|| (first * 2_u32.saturating_pow(self.0)).min(longest));
        self.0 = (self.0 + 1).min(16);
        // Not all at once.
        tokio::time::sleep(wait.mul_f64(rand::rng().random_range(1.0..1.3))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_as_old_as_the_oldest() {
        let world = World::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        fn word<T: Object>(world: &World, word: Option<i64>) {
            world.note::<T>(|_, kind| {
                kind.as_of = word.map(|second| Timestamp::from_second(second).unwrap());
                false
            });
        }
        word::<Node>(&world, None);
        assert_eq!(world.as_of(), None);
        word::<Node>(&world, Some(20));
        word::<Pod>(&world, None);
        assert_eq!(world.as_of(), None, "one is not known yet");
        word::<Pod>(&world, Some(10));
        assert_eq!(world.as_of(), Some(at(10)));
        world.note::<ServiceCidr>(|_, kind| {
            kind.absent = true;
            false
        });
        assert_eq!(world.as_of(), Some(at(10)), "what there is not has no word");
    }

    #[test]
    fn what_is_too_much_is_not_vouched_for() {
        let world = World::default();
        world.note::<Pod>(|_, kind| {
            kind.unreadable = (0..MOST_OBJECTS).map(|i| (String::new(), i.to_string())).collect();
            false
        });
        hear::<Pod>(&world, Event::Bookmark).unwrap();
        let last = world.as_of().unwrap();
        hear(&world, Event::Is(Ok(Pod::default()))).unwrap_err();
        hear::<Pod>(&world, Event::Bookmark).unwrap_err();
        assert_eq!(world.as_of(), Some(last));
        hear::<Pod>(&world, Event::IsGone((String::new(), "1".into()))).unwrap();
        assert!(world.as_of() > Some(last));
    }

    #[test]
    fn events_change_what_is_known() {
        let (mut objects, mut kind) = (Objects::<Service>::new(), Kind::default());
        let service = |ip: &str| {
            let json = format!(r#"{{"metadata":{{"namespace":"n","name":"s"}},"spec":{{"clusterIP":"{ip}"}}}}"#);
            serde_json::from_str::<Service>(&json).unwrap()
        };
        let name = || ("n".to_owned(), "s".to_owned());
        for (event, changes, known, unreadable) in [
            (Event::Is(Ok(service("a"))), true, 1, 0),
            (Event::Is(Ok(service("a"))), false, 1, 0),
            (Event::Bookmark, false, 1, 0),
            (Event::Is(Ok(service("b"))), true, 1, 0),
            (Event::Is(Err(name())), true, 0, 1),
            (Event::Is(Err(name())), false, 0, 1),
            (Event::Is(Ok(service("b"))), true, 1, 0),
            (Event::IsGone(name()), true, 0, 0),
            (Event::IsGone(name()), false, 0, 0),
        ] {
            let told = format!("{event:?}");
            assert_eq!(take(&mut objects, &mut kind, event), changes, "{told}");
            assert_eq!((objects.len(), kind.unreadable.len()), (known, unreadable), "{told}");
        }
    }
}
