//! Keeps the keys up to date.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::fetch::{FetchError, Fetched, Fetcher};
use super::keys::{InvalidKeySet, KeySet};

/// Keys that are in use are fetched at least this often, whatever the service says of their age …
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// … and no more often than this without a token that asks for it.
const MIN_AGE: Duration = Duration::from_secs(1);

/// The keys, of this moment and later on.
pub(super) enum Keys {
    /// They never change.
    Fixed(Arc<KeySet>),
    /// They are fetched, and again when they get old.
    Published { published: Arc<Published>, _background: Background },
}

pub(super) struct Published {
    fetcher: Fetcher,
    /// At most one fetch that tokens cause in this time.
    period: Duration,
    current: RwLock<Arc<KeySet>>,
    /// Held while keys are fetched: whoever has waited for it finds what was fetched meanwhile.
    progress: Arc<Mutex<Progress>>,
}

struct Progress {
    /// When the last fetch began.
    begun: Option<Instant>,
    /// When the next one is due by itself.
    due: Instant,
    /// Whether one has succeeded.
    is_complete: bool,
    /// Stands for the document that the current keys are from.
    tag: Option<HeaderValue>,
}

/// A task that ends with this value.
pub(super) struct Background(AbortHandle);

#[derive(Debug, thiserror::Error)]
enum RefreshError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Document(#[from] InvalidKeySet),
}

impl Keys {
    /// Begins to fetch the keys.
    pub(super) fn fetched(fetcher: Fetcher, period: Duration) -> Self {
        let progress = Progress { begun: None, due: Instant::now(), is_complete: false, tag: None };
        let published = Arc::new(Published {
            fetcher,
            period,
            current: RwLock::new(Arc::new(KeySet::empty())),
            progress: Arc::new(Mutex::new(progress)),
        });
        let background = tokio::spawn(Arc::clone(&published).refresh_when_due());
        Self::Published { published, _background: Background(background.abort_handle()) }
    }

    pub(super) fn current(&self) -> Arc<KeySet> {
        match self {
            Self::Fixed(keys) => Arc::clone(keys),
            Self::Published { published, .. } => published.current(),
        }
    }

    /// The keys after these, in which one was not found: they are fetched, unless that was tried a short
    /// while ago. `None` when there never were any.
    pub(super) async fn after(&self, known: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        match self {
            Self::Fixed(keys) => Some(Arc::clone(keys)),
            Self::Published { published, .. } => published.after(known).await,
        }
    }
}

impl Published {
    fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn after(self: &Arc<Self>, known: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let progress = Arc::clone(&self.progress).lock_owned().await;
        let is_new = !Arc::ptr_eq(known, &self.current());
        let is_early = progress.begun.is_some_and(|begun| begun.elapsed() < self.period);
        let is_complete = if is_new || is_early {
            progress.is_complete
        } else {
            // In a task of its own, so that a caller who leaves does not take the fetch along.
            tokio::spawn(Arc::clone(self).refresh(progress)).await.ok()?
        };
        is_complete.then(|| self.current())
    }

    async fn refresh_when_due(self: Arc<Self>) {
        loop {
            let due = self.progress.lock().await.due;
            sleep_until(due).await;
            let progress = Arc::clone(&self.progress).lock_owned().await;
            if progress.due <= Instant::now() {
                Arc::clone(&self).refresh(progress).await;
            }
        }
    }

    /// Fetches the keys. Those of before stay when that fails. Tells whether there are any.
    async fn refresh(self: Arc<Self>, mut progress: OwnedMutexGuard<Progress>) -> bool {
        let begun = Instant::now();
        progress.begun = Some(begun);
        let max_age = match self.fetch(&mut progress).await {
            Ok(max_age) => {
                progress.is_complete = true;
                max_age
            }
            Err(error) => {
                tracing::warn!(error = %error, "the keys of access tokens could not be fetched");
                self.period
            }
        };
        progress.due = begun + max_age.clamp(MIN_AGE, MAX_AGE);
        progress.is_complete
    }

    /// How long the keys that are current now may be kept.
    async fn fetch(&self, progress: &mut Progress) -> Result<Duration, RefreshError> {
        match self.fetcher.fetch(progress.tag.as_ref()).await? {
            Fetched::Same { max_age } => Ok(max_age),
            Fetched::New { document, tag, max_age } => {
                let keys = Arc::new(KeySet::parse(&document)?);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = keys;
                progress.tag = tag;
                Ok(max_age)
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}
