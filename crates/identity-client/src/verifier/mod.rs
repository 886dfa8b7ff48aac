//! Verifies access tokens without asking the service about each.

mod fetch;
mod keys;
mod source;
mod token;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::ConfigError;
use crate::model::Claims;
use fetch::Fetcher;
use keys::KeySet;
use source::Keys;
use token::Expected;
pub use token::InvalidToken;

/// What the service puts into tokens unless its operator chose otherwise.
const DEFAULT_NAME: &str = "identity";

/// How soon keys are fetched again because a token names one that is not there, or because a fetch failed.
const DEFAULT_PERIOD: Duration = Duration::from_secs(10);

/// The least length of a secret for HMAC-SHA256 (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Which tokens a [`Verifier`] accepts, and where its keys come from. `Debug` shows no secret.
#[derive(Clone)]
pub struct VerifierConfig {
    origin: Origin,
    ca_file: Option<PathBuf>,
    expected: Expected,
    period: Duration,
}

#[derive(Clone)]
enum Origin {
    Jwks(String),
    Secret(Vec<u8>),
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The token is not valid. Tell callers no more than that.
    #[error(transparent)]
    Invalid(#[from] InvalidToken),
    /// Not the token's fault: no keys could be fetched yet.
    #[error("the keys that tokens are verified with could not be fetched yet")]
    KeysUnavailable,
}

impl VerifierConfig {
    /// Fetches the keys from here: `/.well-known/jwks.json` on the service's HTTP port, by `http` or
    /// `https`.
    pub fn with_jwks(uri: impl Into<String>) -> Self {
        Self::of(Origin::Jwks(uri.into()))
    }

    /// Accepts HS256 with the secret that the service has as `JWT_SECRET`, of 32 bytes or more. Whoever
    /// has it can make tokens as well: prefer [`VerifierConfig::with_jwks`].
    pub fn with_secret(secret: impl Into<Vec<u8>>) -> Self {
        Self::of(Origin::Secret(secret.into()))
    }

    fn of(origin: Origin) -> Self {
        let expected = Expected { issuer: DEFAULT_NAME.to_owned(), audience: DEFAULT_NAME.to_owned() };
        Self { origin, ca_file: None, expected, period: DEFAULT_PERIOD }
    }

    /// Trusts the authorities in this PEM file, and no others, when the keys come by `https`.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// The service's `IDENTITY_ISSUER`: `identity` unless set.
    #[must_use]
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.expected.issuer = issuer.into();
        self
    }

    /// The service's `IDENTITY_AUDIENCE`: `identity` unless set.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.expected.audience = audience.into();
        self
    }

    /// At most one fetch in this time, whatever keys tokens name: 10 seconds unless set.
    #[must_use]
    pub fn period(mut self, period: Duration) -> Self {
        self.period = period;
        self
    }
}

/// Verifies access tokens as the service does, with keys that it keeps up to date in the background. A
/// clone is cheap and shares them.
///
/// The keys are fetched anew whenever the service says that they are getting old, and at once, but at most
/// once in a period, when a token names one that is not there. When that fails, those that are there go on
/// being used. The signature of a token that was seen before is not checked again.
///
/// What it cannot know is whether the token's session was ended since: that shows within the lifetime of
/// access tokens (15 minutes, unless the operator chose another). Where it matters at once, ask
/// [`Client::verify_token`](crate::Client::verify_token).
///
/// ```no_run
/// use identity_client::{Verifier, VerifierConfig};
///
/// # async fn example(token: &str) -> Result<(), Box<dyn std::error::Error>> {
/// let verifier = Verifier::new(VerifierConfig::with_jwks("http://127.0.0.1:8081/.well-known/jwks.json"))?;
/// let claims = verifier.verify(token).await?;
/// println!("user {} of tenant {}", claims.user_id, claims.tenant_id);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Verifier {
    expected: Arc<Expected>,
    keys: Arc<Keys>,
}

impl Verifier {
    /// A verifier that begins to fetch its keys now. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ConfigError`] when the URI, the authorities' file or the secret cannot be used.
    pub fn new(config: VerifierConfig) -> Result<Self, ConfigError> {
        let keys = match config.origin {
            Origin::Jwks(uri) => Keys::fetched(Fetcher::new(&uri, config.ca_file.as_deref())?, config.period),
            Origin::Secret(secret) if secret.len() < MIN_SECRET_BYTES => {
                return Err(ConfigError::ShortSecret);
            }
            Origin::Secret(secret) => Keys::Fixed(Arc::new(KeySet::of_secret(&secret))),
        };
        Ok(Self { expected: Arc::new(config.expected), keys: Arc::new(keys) })
    }

    /// What `token` says, if it is an access token of the service that is valid now.
    ///
    /// Waits for keys only when the one that the token names is not there.
    ///
    /// # Errors
    /// [`VerifyError`]; for a token that is not valid it names the first check that fails.
    pub async fn verify(&self, token: &str) -> Result<Claims, VerifyError> {
        #[expect(clippy::disallowed_methods, reason = "tokens expire by the time of day")]
        let now = SystemTime::now();
        self.verify_at(token, now).await
    }

    /// As [`Verifier::verify`], at a time that the caller says.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub async fn verify_at(&self, token: &str, now: SystemTime) -> Result<Claims, VerifyError> {
        let keys = self.keys.current();
        let mut verdict = token::verify(token, &keys, &self.expected, now);
        if verdict == Err(InvalidToken::UnknownKey) {
            let newer = self.keys.after(&keys).await.ok_or(VerifyError::KeysUnavailable)?;
            verdict = token::verify(token, &newer, &self.expected, now);
        }
        Ok(verdict?)
    }
}

impl fmt::Debug for VerifierConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = match &self.origin {
            Origin::Jwks(uri) => uri,
            Origin::Secret(_) => "a secret",
        };
        f.debug_struct("VerifierConfig")
            .field("origin", &origin)
            .field("ca_file", &self.ca_file)
            .field("expected", &self.expected)
            .field("period", &self.period)
            .finish()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}
