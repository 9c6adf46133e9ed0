//! The places that connections and answers have, and what becomes of those who lose theirs.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::body::{Body, Bytes, HttpBody};
use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::crowd::{Crowd, Id};

/// What is handed over of an answer at once, in bytes: the rest waits until the peer has read this.
const PIECE: usize = 8 << 10;

/// The places of one listener. Whoever holds one has a token that says when he has to go.
#[derive(Clone, Debug)]
pub struct Places(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    connections: Crowd<CancellationToken>,
    answers: Crowd<CancellationToken>,
}

impl Places {
    /// For so many connections, and so many answers under way to all of them.
    pub fn new(connections: usize, answers: usize) -> Self {
        let taken = Taken { connections: Crowd::new(connections), answers: Crowd::new(answers) };
        Self(Arc::new(Mutex::new(taken)))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection, whomever it costs his.
    pub fn connect(&self, ip: IpAddr) -> Connected {
        let cut = CancellationToken::new();
        let (id, victim) = self.taken().connections.enter(ip, Instant::now(), cut.clone());
        victim.iter().for_each(CancellationToken::cancel);
        Connected { places: self.clone(), id, ip, cut }
    }

    /// Nobody is connected: there is nothing to cut.
    pub fn is_empty(&self) -> bool {
        self.taken().connections.is_empty()
    }

    /// Cuts the connections that were made before `connected`, and those of answers that began before `answered`.
    pub fn cut_overdue(&self, connected: Option<Instant>, answered: Option<Instant>) {
        let mut taken = self.taken();
        let mut overdue = connected.map(|then| taken.connections.overstayed(then)).unwrap_or_default();
        overdue.extend(answered.map(|then| taken.answers.overstayed(then)).unwrap_or_default());
        drop(taken);
        overdue.iter().for_each(CancellationToken::cancel);
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct Connected {
    places: Places,
    id: Id,
    ip: IpAddr,
    cut: CancellationToken,
}

impl Connected {
    /// Cancelled when the connection has to go.
    pub const fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// A place for an answer on this connection, whomever it costs his.
    pub fn answer(self: &Arc<Self>) -> Answering {
        let mut taken = self.places.taken();
        taken.connections.answer_begins(self.id);
        let (id, victim) = taken.answers.enter(self.ip, Instant::now(), self.cut.clone());
        drop(taken);
        victim.iter().for_each(CancellationToken::cancel);
        Answering { connected: self.clone(), id }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.places.taken().connections.leave(self.id);
    }
}

/// An answer's place, until it is dropped.
#[derive(Debug)]
pub struct Answering {
    connected: Arc<Connected>,
    id: Id,
}

impl Answering {
    /// The body in pieces, which keeps the place until the last one is taken.
    pub fn hold(self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let pieces = body.into_data_stream().flat_map(|data| {
            let (data, error) = data.map_or_else(|e| (Bytes::new(), Some(Err(e))), |data| (data, None));
            stream::iter(split(data).map(Ok).chain(error))
        });
        Body::from_stream(pieces.inspect(move |_| {
            let _ = &self;
        }))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut taken = self.connected.places.taken();
        taken.answers.leave(self.id);
        taken.connections.answer_ends(self.connected.id);
    }
}

fn split(mut data: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!data.is_empty()).then(|| data.split_to(data.len().min(PIECE))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    #[tokio::test]
    async fn an_answer_comes_whole_in_pieces_and_keeps_its_place_until_then() {
        let places = Places::new(9, 1);
        let (first, second) = (Arc::new(places.connect(ip(1))), Arc::new(places.connect(ip(1))));
        let text: String = (0..3_000).map(|n| format!("line {n}\n")).collect();
        let mut body = first.answer().hold(text.clone().into());
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(piece.len() == PIECE && !first.cut().is_cancelled());
        let whole = [piece, body.collect().await.unwrap().to_bytes()].concat();
        assert_eq!(whole, text.as_bytes());
        let mut other = second.answer().hold(text.into());
        assert!(!first.cut().is_cancelled(), "it has left its place");
        assert!(other.frame().await.is_some());
        drop(first.answer());
        assert!(second.cut().is_cancelled(), "there is one place for answers, and it is held");
    }

    #[test]
    fn connections_lose_their_places_to_others_and_to_the_clock() {
        let places = Places::new(2, 9);
        let (old, new) = (places.connect(ip(1)), places.connect(ip(1)));
        let other = Arc::new(places.connect(ip(2)));
        assert!(old.cut().is_cancelled() && !new.cut().is_cancelled());
        drop(new);
        let sole = places.connect(ip(2));
        assert!(!other.cut().is_cancelled(), "a place was left");
        let answer = other.answer();
        let later = Instant::now() + Duration::from_secs(1);
        places.cut_overdue(None, None);
        assert!(!other.cut().is_cancelled());
        places.cut_overdue(None, Some(later));
        assert!(other.cut().is_cancelled() && !sole.cut().is_cancelled(), "its answer took too long");
        places.cut_overdue(Some(later), None);
        assert!(sole.cut().is_cancelled());
        drop(answer);
    }
}
