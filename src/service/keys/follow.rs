//! Keeps the keys of a running process those of the database.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::crypto::keyring::Keyring;
use crate::crypto::master_key::{MasterKey, MasterKeys};
use crate::crypto::{KeyAlgorithm, SigningKey, VerifyingKey};
use crate::domain::Timestamp;
use crate::service::Service;
use crate::storage::signing_keys::StoredSigningKey;

use super::custody::Custody;
use super::schedule::Schedule;
use super::{KeysError, unreadable};

/// The least time between two looks at the database, whatever keys tokens name.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// How long a key is left in the database after it is of no more use, for processes whose clocks are
/// behind.
const SWEPT_AFTER: Duration = Duration::from_secs(60 * 60);

/// A key, and from when on it signs.
type Signer = (Timestamp, Arc<SigningKey>);

/// Makes rings of the keys in the database, one after the other.
pub struct KeyFollower {
    custody: Custody,
    /// The master keys that the operator named besides the current one.
    named_previous: Vec<MasterKey>,
    /// What the operator gave to sign with.
    secret: Option<Arc<SigningKey>>,
    /// What the last ring was made of.
    loaded: Schedule,
    /// What the last ring signs with.
    signing: (Signer, Vec<Signer>),
    is_failing: bool,
    /// Whether a key that shall sign cannot be opened.
    is_unusable: bool,
}

impl KeyFollower {
    /// The ring to start with: the secret signs, or else the key in the database whose time has come.
    /// Makes keys that are missing when there is no secret.
    ///
    /// Keys in the database are accepted beside a secret, so that tokens which they signed before the
    /// secret was set go on being good until they expire. They are opened even then: that shows a
    /// wrong master key, under which no refresh token of before would count.
    ///
    /// # Errors
    /// [`KeysError`]; trying again helps only when storage is to blame.
    pub async fn load(custody: Custody, secret: Option<SigningKey>) -> Result<(Self, Keyring), KeysError> {
        let now = custody.clock.now();
        let secret = secret.map(Arc::new);
        let loaded = match secret {
            Some(_) => custody.read().await?.in_use(now),
            None => custody.provide().await?,
        };
        let mut stored = Vec::new();
        for key in loaded.that_sign(now) {
            stored.push((key.signs_from, Arc::new(unseal(&custody, key)?)));
        }
        let mut signing = match &secret {
            Some(secret) => vec![(now, Arc::clone(secret))],
            None => stored,
        };
        let first = signing.pop().ok_or(KeysError::None)?;
        let follower = Self {
            named_previous: custody.master_keys.previous.clone(),
            custody,
            secret,
            loaded,
            signing: (first, signing),
            is_failing: false,
            is_unusable: false,
        };
        let ring = follower.ring();
        Ok((follower, ring))
    }

    /// Gives `service` the keys that the database holds, again and again: after an interval, and sooner
    /// when a token names a key that is unknown. Made-up names cause no more than one query a second.
    ///
    /// `offers` are master keys to go on with.
    pub async fn follow(
        mut self,
        service: Service,
        mut offers: mpsc::Receiver<MasterKey>,
    ) -> std::convert::Infallible {
        let interval = self.custody.propagation.reload_interval();
        let pause = LEAST_PAUSE.min(interval);
        loop {
            let read_at = Instant::now();
            loop {
                let early = async {
                    sleep_until(read_at + pause).await;
                    service.0.access_tokens.unknown_key().await;
                };
                tokio::select! {
                    () = sleep_until(read_at + interval) => break,
                    () = early => break,
                    Some(offered) = offers.recv() => self.exchange_master_key(offered, &service).await,
                }
            }
            match self.reload().await {
                Ok(ring) => {
                    ring.into_iter().for_each(|ring| service.0.access_tokens.exchange(ring));
                    self.is_failing = false;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(error = %error, "the signing keys cannot be read; those known are used");
                    }
                }
            }
        }
    }

    /// Makes `offered` the master key, if it and those that the operator named open the signing keys in the
    /// database. Otherwise the next start would fail, so the server logs an error and keeps its key: somebody put the
    /// other one in place by mistake, or too early. What was made under the master key before goes on counting in this process.
    async fn exchange_master_key(&mut self, offered: MasterKey, service: &Service) {
        let MasterKeys { current, previous } = &self.custody.master_keys;
        if offered.is(current) {
            tracing::info!("the master key file holds the same key as before");
            return;
        }
        let as_after_a_start = MasterKeys { current: offered, previous: self.named_previous.clone() };
        if let Err(error) = self.custody.require_openable_by(&as_after_a_start).await {
            if matches!(error, KeysError::WrongMasterKey { .. }) {
                tracing::error!(
                    %error,
                    "the master key file holds another key, which does not open the signing keys in the \
                     database: the server keeps its master key. To exchange it, run `identity keys master --reseal` \
                     with the new key and with the old one as IDENTITY_MASTER_KEY_PREVIOUS, then send SIGHUP again"
                );
            } else {
                tracing::error!(
                    %error,
                    "the master key file holds another key, which could not be checked: the server keeps its \
                     master key. Send SIGHUP again"
                );
            }
            return;
        }
        let MasterKeys { current: offered, .. } = as_after_a_start;
        let others = std::iter::once(current).chain(previous).filter(|key| !key.is(&offered));
        let master_keys = MasterKeys { previous: others.cloned().collect(), current: offered };
        service.exchange_master_keys(&master_keys);
        self.custody.master_keys = master_keys;
        tracing::info!(
            "the master key was exchanged; what was made under the one before counts until this process ends"
        );
    }

    /// Another ring, when the keys have changed.
    async fn reload(&mut self) -> Result<Option<Keyring>, KeysError> {
        let (now, all) = (self.custody.clock.now(), self.custody.read().await?);
        self.sweep(&all, now.minus(SWEPT_AFTER)).await;
        let keys = all.in_use(now);
        let have_changed = keys != self.loaded;
        if !have_changed && !self.is_unusable {
            return Ok(None);
        }
        self.loaded = keys;
        // Whatever becomes of those that sign, what was retired counts no more.
        match self.signers(now) {
            Ok(signing) => {
                self.is_unusable = false;
                self.signing = signing.unwrap_or_else(|| self.signing.clone());
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_unusable, true) {
                    tracing::error!(error = %error, "the next signing key cannot be used; it will be tried again");
                }
                if !have_changed {
                    return Ok(None);
                }
            }
        }
        tracing::info!(keys = self.loaded.0.len(), "the signing keys have changed");
        Ok(Some(self.ring()))
    }

    /// Deletes keys that have been of no use since `over`. A failure is no reason not to go on.
    async fn sweep(&self, all: &Schedule, over: Timestamp) {
        if all.0.iter().any(|key| key.published_until.is_some_and(|until| until <= over))
            && let Err(error) = self.custody.sweep(over).await
        {
            tracing::warn!(error = %error, "signing keys that are of no more use stay in the database");
        }
    }

    /// What is to sign from now on, as far as that changes.
    fn signers(&self, now: Timestamp) -> Result<Option<(Signer, Vec<Signer>)>, KeysError> {
        if self.secret.is_some() {
            return Ok(None);
        }
        let mut signers = Vec::new();
        for key in self.loaded.that_sign(now) {
            let known = std::iter::once(&self.signing.0).chain(&self.signing.1);
            // A key that is known needs no opening, under which master key it may be by now.
            let known = known.map(|(_, signer)| signer).find(|signer| signer.kid() == key.kid);
            let signer = match known {
                Some(signer) => Arc::clone(signer),
                None => Arc::new(unseal(&self.custody, key)?),
            };
            signers.push((key.signs_from, signer));
        }
        Ok(signers.pop().map(|first| (first, signers)))
    }

    /// A key that cannot be read verifies nothing, and keeps no other from being exchanged.
    fn ring(&self) -> Keyring {
        let read = |key| {
            let read = verifying_key(key);
            read.inspect_err(|error| tracing::error!(error = %error, "a signing key is left out")).ok()
        };
        let stored = self.loaded.0.iter().filter_map(read);
        let verifying = stored.chain(self.secret.iter().map(|secret| secret.verifying_key())).collect();
        let (first, others) = &self.signing;
        Keyring::scheduled(first.clone(), others.clone(), verifying)
    }
}

fn algorithm(key: &StoredSigningKey) -> Result<KeyAlgorithm, KeysError> {
    KeyAlgorithm::from_name(&key.algorithm).ok_or_else(|| KeysError::Unusable {
        kid: key.kid.clone(),
        reason: format!("its algorithm is {:?}", key.algorithm),
    })
}

fn unseal(custody: &Custody, key: &StoredSigningKey) -> Result<SigningKey, KeysError> {
    SigningKey::from_pkcs8(algorithm(key)?, &custody.open(key)?).map_err(|error| unreadable(&key.kid, error))
}

fn verifying_key(key: &StoredSigningKey) -> Result<VerifyingKey, KeysError> {
    VerifyingKey::from_public_key(algorithm(key)?, &key.public_key)
        .map_err(|error| unreadable(&key.kid, error))
}
