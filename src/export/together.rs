//! One page for all who ask at the same time: however many scrapers there are, it is made once.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

type Page<T> = BoxFuture<'static, T>;

/// The page that is about to be made, for those who ask until it is begun: nobody gets one that is older than his question. Nothing is
/// kept of it.
#[derive(Debug)]
pub struct Together<T: Clone>(Arc<Mutex<Option<WeakShared<Page<T>>>>>);

impl<T: Clone> Clone for Together<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Clone> Default for Together<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + Sync + 'static> Together<T> {
    /// The next page, made by `make` or by that of who asked just before.
    pub async fn next(&self, make: impl FnOnce() -> T + Send + 'static) -> T {
        let page = self.join(make);
        // Whose requests have come already are read first.
        tokio::task::yield_now().await;
        page.await
    }

    fn join(&self, make: impl FnOnce() -> T + Send + 'static) -> Shared<Page<T>> {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = next.as_ref().and_then(WeakShared::upgrade) {
            return page;
        }
        let slot = self.0.clone();
        let begin = async move {
            slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            make()
        };
        let page = begin.boxed().shared();
        *next = page.downgrade();
        page
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn who_asks_at_once_gets_one_page_and_who_asks_later_another() {
        let (together, made) = (Together::default(), Arc::new(AtomicU32::new(0)));
        let ask = || {
            let (together, made) = (together.clone(), made.clone());
            tokio::spawn(async move { together.next(move || made.fetch_add(1, Ordering::Relaxed)).await })
        };
        // One of them does not wait for it.
        let impatient = ask();
        let patient: Vec<_> = (0..50).map(|_| ask()).collect();
        tokio::task::yield_now().await;
        impatient.abort();
        let pages: Vec<u32> = join_all(patient).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(pages, [0; 50]);
        assert_eq!(ask().await.unwrap(), 1);
        assert!(together.0.lock().unwrap().is_none(), "nothing is kept");
    }
}
