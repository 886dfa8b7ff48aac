//! Making, exchanging and retiring the keys in the database.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::crypto::master_key::MasterKeys;
use crate::crypto::{KeyAlgorithm, NewSigningKey, SigningKey};
use crate::domain::{Clock, Timestamp};
use crate::service::Authority;
use crate::storage::signing_keys::{self, StoredSigningKey};
use crate::storage::{self, Storage, StorageError};

use super::events;
use super::schedule::{Schedule, ScheduledKey};
use super::{KeysError, Propagation};

/// What a sealed private key is bound to, besides its key id.
const PURPOSE: &str = "signing key";

/// The keys in the database, and what is needed to change them.
#[derive(Clone)]
pub struct Custody {
    /// Where they are.
    pub storage: Storage,
    /// What they are sealed under.
    pub master_keys: MasterKeys,
    /// What new ones are made for; `None` for what the last one is for, or Ed25519.
    pub algorithm: Option<KeyAlgorithm>,
    /// When a new one signs.
    pub propagation: Propagation,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who changes them.
    pub by: Authority,
}

/// When a new key begins to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// Once everybody knows it.
    Propagated,
    /// Now, before others may know it.
    AtOnce,
}

impl Custody {
    /// The keys in use, the one that signs last first.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn list(storage: &Storage, clock: &dyn Clock) -> Result<Vec<ScheduledKey>, StorageError> {
        let stored = signing_keys::list(&mut storage.read().await?).await?;
        Ok(Schedule(stored).describe(clock.now()))
    }

    /// Makes the next key, or lets the one that is published already sign at once, unless that is for
    /// another algorithm: then it goes. Returns the id of the one that signs next.
    ///
    /// # Errors
    /// [`KeysError::RotationUnderWay`] when there is a next key already, which is to wait.
    pub async fn rotate(&self, takeover: Takeover) -> Result<String, KeysError> {
        let new = self.new_key(self.next_algorithm().await?).await;
        let delay = match takeover {
            Takeover::Propagated => self.propagation.delay(),
            Takeover::AtOnce => Duration::ZERO,
        };
        self.change("rotate signing keys", |keys, now| match (keys.clone().in_use(now).next(now), takeover) {
            (Some(next), Takeover::Propagated) => {
                Err(KeysError::RotationUnderWay { kid: next.kid.clone(), from: next.signs_from })
            }
            (Some(next), Takeover::AtOnce) if next.algorithm == new.algorithm.as_str() => {
                let kid = next.kid.clone();
                keys.advance(&kid, now);
                Ok(kid)
            }
            (next, _) => {
                // One for another algorithm would take over again, and has signed nothing yet.
                if let Some(next) = next.map(|next| next.kid.clone()) {
                    keys.remove(&next);
                }
                keys.insert(self.seal(&new, now, now.plus(delay)));
                Ok(new.kid.clone())
            }
        })
        .await
    }

    /// Takes a key out of use, with all tokens that it signed. When it is the one that signs, the next
    /// one does so from now on, made if there is none. Returns the id of the one that signs.
    ///
    /// # Errors
    /// [`KeysError::NotFound`].
    pub async fn retire(&self, kid: &str) -> Result<String, KeysError> {
        let new = self.new_key(self.next_algorithm().await?).await;
        self.change("retire a signing key", |keys, now| {
            let used = keys.clone().in_use(now);
            if !used.0.iter().any(|key| key.kid == kid) {
                return Err(KeysError::NotFound(kid.to_owned()));
            }
            if let Some(signing) = used.signing(now).filter(|key| key.kid != kid) {
                keys.remove(kid);
                return Ok(signing.kid.clone());
            }
            let successor = used.next(now).map(|next| next.kid.clone());
            keys.remove(kid);
            match successor {
                Some(next) => {
                    keys.advance(&next, now);
                    Ok(next)
                }
                None => {
                    keys.insert(self.seal(&new, now, now));
                    Ok(new.kid.clone())
                }
            }
        })
        .await
    }

    /// Encrypts all keys under the current master key, all or none; those that are already stay as they
    /// are. Returns how many were encrypted anew.
    ///
    /// # Errors
    /// [`KeysError::WrongMasterKey`] for a key that is under neither the current nor a previous one.
    pub async fn reseal(&self) -> Result<usize, KeysError> {
        self.change("reseal signing keys", |keys, _| {
            let mut resealed = 0;
            for key in &mut keys.0 {
                if self.master_keys.current.open(PURPOSE, &key.kid, &key.sealed_private_key).is_err() {
                    let pkcs8 = self.open(key)?;
                    key.sealed_private_key = self.master_keys.current.seal(PURPOSE, &key.kid, &pkcs8);
                    resealed += 1;
                }
            }
            Ok(resealed)
        })
        .await
    }

    /// The keys in use, after making what is missing: the first of all, which signs at once, or a next one
    /// when neither that nor the one that signs is for the algorithm that the settings ask for. However
    /// many processes do so at the same time, one key is made.
    pub(super) async fn provide(&self) -> Result<Schedule, KeysError> {
        let (now, keys) = (self.clock.now(), self.read().await?);
        if !self.is_wanting(&keys, now) {
            return Ok(keys.in_use(now));
        }
        let new = self.new_key(self.next_algorithm().await?).await;
        self.change("provide signing keys", |keys, now| {
            if self.is_wanting(keys, now) {
                let is_first = keys.clone().in_use(now).0.is_empty();
                let from = if is_first { now } else { now.plus(self.propagation.delay()) };
                keys.insert(self.seal(&new, now, from));
                tracing::info!(key.id = %new.kid, key.algorithm = new.algorithm.as_str(), "made a signing key");
            }
            Ok(keys.clone().in_use(now))
        })
        .await
    }

    /// All keys.
    pub(super) async fn read(&self) -> Result<Schedule, StorageError> {
        Ok(Schedule(signing_keys::list(&mut self.storage.read().await?).await?))
    }

    /// Removes the keys whose time was over at `before`.
    pub(super) async fn sweep(&self, before: Timestamp) -> Result<(), KeysError> {
        self.change("sweep signing keys", |keys, _| {
            keys.0.retain(|key| key.published_until.is_none_or(|until| until > before));
            Ok(())
        })
        .await
    }

    /// Whether `master_keys` open all keys in the database that sign or will.
    ///
    /// # Errors
    /// [`KeysError::WrongMasterKey`] names one that they do not open; [`KeysError::Storage`].
    pub(super) async fn require_openable_by(&self, master_keys: &MasterKeys) -> Result<(), KeysError> {
        let now = self.clock.now();
        let keys = self.read().await?.in_use(now);
        keys.that_sign(now).try_for_each(|key| open(master_keys, key).map(drop))
    }

    /// The private part of a key, in PKCS#8.
    pub(super) fn open(&self, key: &StoredSigningKey) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        open(&self.master_keys, key)
    }

    fn is_wanting(&self, keys: &Schedule, now: Timestamp) -> bool {
        let keys = keys.clone().in_use(now);
        let suits =
            |key: &StoredSigningKey| self.algorithm.is_none_or(|asked| key.algorithm == asked.as_str());
        // The one that signs last stays.
        !keys.0.first().is_some_and(suits)
    }

    /// What the settings ask for, or else what the last key is for.
    async fn next_algorithm(&self) -> Result<KeyAlgorithm, StorageError> {
        if let Some(asked) = self.algorithm {
            return Ok(asked);
        }
        let keys = self.read().await?;
        let last = keys.0.first().and_then(|key| KeyAlgorithm::from_name(&key.algorithm));
        Ok(last.unwrap_or(KeyAlgorithm::EdDsa))
    }

    /// Makes a key aside: one for RSA takes some tenths of a second.
    async fn new_key(&self, algorithm: KeyAlgorithm) -> NewSigningKey {
        let made = tokio::task::spawn_blocking(move || SigningKey::generate(algorithm).1).await;
        made.expect("making a key does not panic, and is waited for")
    }

    fn seal(&self, key: &NewSigningKey, created_at: Timestamp, signs_from: Timestamp) -> StoredSigningKey {
        StoredSigningKey {
            kid: key.kid.clone(),
            algorithm: key.algorithm.as_str().to_owned(),
            public_key: key.public_key.clone(),
            sealed_private_key: self.master_keys.current.seal(PURPOSE, &key.kid, &key.private_key_pkcs8),
            created_at,
            signs_from,
            published_until: None,
        }
    }

    /// Refuses to add a key under another master key than the servers have: with it they could neither
    /// start nor sign.
    fn require_master_key(
        &self,
        before: &Schedule,
        after: &Schedule,
        now: Timestamp,
    ) -> Result<(), KeysError> {
        let is_new = |key: &StoredSigningKey| before.0.iter().all(|old| old.kid != key.kid);
        if !after.0.iter().any(is_new) {
            return Ok(());
        }
        let mut kept = after.that_sign(now).filter(|key| !is_new(key));
        kept.try_for_each(|key| self.open(key).map(drop))?;
        let opened = before.0.iter().map(|key| self.open(key).map(drop));
        opened.reduce(Result::or).unwrap_or(Ok(()))
    }

    /// Changes the keys in one unit of work, while nobody else does.
    async fn change<T>(
        &self,
        unit: &'static str,
        change: impl FnOnce(&mut Schedule, Timestamp) -> Result<T, KeysError>,
    ) -> Result<T, KeysError> {
        let mut tx = self.storage.begin(unit).await?;
        signing_keys::lock(&mut tx).await?;
        let before = Schedule(signing_keys::list(&mut tx).await?);
        let mut after = before.clone();
        let now = self.clock.now();
        let outcome = change(&mut after, now)?;
        self.require_master_key(&before, &after, now)?;
        for key in before.0.iter().filter(|key| after.0.iter().all(|kept| kept.kid != key.kid)) {
            signing_keys::delete(&mut tx, &key.kid).await?;
        }
        for key in after.0.iter().filter(|key| !before.0.contains(key)) {
            if before.0.iter().any(|old| old.kid == key.kid) {
                signing_keys::update(&mut tx, key).await?;
            } else {
                signing_keys::insert(&mut tx, key).await?;
            }
        }
        for event in events::of(&self.by, &before, &after, now) {
            storage::audit::insert(&mut tx, &event).await?;
        }
        tx.commit().await?;
        Ok(outcome)
    }
}

fn open(master_keys: &MasterKeys, key: &StoredSigningKey) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    master_keys
        .open(PURPOSE, &key.kid, &key.sealed_private_key)
        .map_err(|_| KeysError::WrongMasterKey { kid: key.kid.clone() })
}
