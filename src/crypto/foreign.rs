//! What other systems made: their password hashes, and identifiers that are no UUIDs.

use aws_lc_rs::digest::{SHA256, digest};
use uuid::{Builder, Uuid};

use super::hasher::Cost;
use super::scheme::StoredHash;
use crate::domain::{PasswordHash, PasswordScheme};

/// Parts the derived identifiers of this program from all others.
const NAMESPACE: &str = "identity:import:1";

/// The identifier that stands for `old_id`, which is no UUID: the same one each time.
///
/// A UUIDv8 (RFC 9562, 5.8) of the first bytes of SHA-256 over the namespace `identity:import:1`, `kind`
/// (`tenant` or `user`) and `old_id`, each ended by a NUL, so that others can compute it as well.
pub fn derived_id(kind: &str, old_id: &str) -> Uuid {
    let name = [NAMESPACE, "\0", kind, "\0", old_id, "\0"].concat();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(&SHA256, name.as_bytes()).as_ref()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// Why a hash of another system cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignHashRefused {
    /// In no notation that is known here, or in another one than the scheme that was named.
    #[error("is neither bcrypt ($2a$, $2b$ or $2y$) nor passlib's $bcrypt-sha256$v=2,t=2b,…")]
    Notation,
    /// bcrypt's does not allow of it, or it would keep a core busy for everybody else.
    #[error("has a cost that is not from {} to {}", Cost::MIN.get(), Cost::MAX.get())]
    Cost,
}

/// A hash that was computed elsewhere, by `scheme` or by the one that its notation tells.
///
/// # Errors
/// [`ForeignHashRefused`] when no password could be checked against it here.
pub fn read_hash(text: String, scheme: Option<PasswordScheme>) -> Result<PasswordHash, ForeignHashRefused> {
    let by_notation = if text.starts_with("$bcrypt-sha256$") {
        PasswordScheme::BcryptSha256
    } else {
        PasswordScheme::Bcrypt
    };
    let hash = PasswordHash { scheme: scheme.unwrap_or(by_notation), text };
    match StoredHash::read(&hash) {
        Ok(_) => Ok(hash),
        Err(_) if is_bcrypt(&hash) => Err(ForeignHashRefused::Cost),
        Err(_) => Err(ForeignHashRefused::Notation),
    }
}

/// The cost that a stored hash asks for; `None` where no password can be checked against it.
pub fn cost_of(hash: &PasswordHash) -> Option<Cost> {
    StoredHash::read(hash).ok().map(|stored| stored.cost)
}

/// Whether it is in its scheme's notation, whatever cost it asks for.
fn is_bcrypt(hash: &PasswordHash) -> bool {
    let cheap = |text: &str, before: &str, digits: usize| {
        let rest = text.strip_prefix(before)?;
        let (cost, rest) = rest.split_at_checked(digits)?;
        cost.bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| format!("{before}{:02}{rest}", Cost::MIN.get()))
    };
    let text = match hash.scheme {
        PasswordScheme::BcryptSha256 => cheap(&hash.text, "$bcrypt-sha256$v=2,t=2b,r=", 2),
        PasswordScheme::Bcrypt | PasswordScheme::BcryptTruncated => {
            hash.text.get(..4).and_then(|variant| cheap(&hash.text, variant, 2))
        }
    };
    text.is_some_and(|text| StoredHash::read(&PasswordHash { scheme: hash.scheme, text }).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_id_always_becomes_the_same_uuid_of_its_kind() {
        let id = derived_id("user", "clh3xk2v10000mh08d5q2w4y7");
        assert_eq!(id.get_version_num(), 8);
        assert_eq!(id, derived_id("user", "clh3xk2v10000mh08d5q2w4y7"));
        assert_ne!(id, derived_id("tenant", "clh3xk2v10000mh08d5q2w4y7"));
        assert_ne!(id, derived_id("user", "clh3xk2v10000mh08d5q2w4y8"));
    }

    #[test]
    fn bcrypt_in_all_its_notations_is_taken_over() {
        const BODY: &str = "abcdefghijklmnopqrstuuMFdJu9yVgmagVAIC24fOZkaFqd3s9JC";
        const SHA256: &str = "abcdefghijklmnopqrstuu$OYmkCAUS7UhE7Tk12Tb2qKwg9I4Ye/e";
        let read = |text: &str, scheme| read_hash(text.to_owned(), scheme).map(|hash| hash.scheme);
        for variant in ["2a", "2b", "2y"] {
            let text = format!("${variant}$04${BODY}");
            assert_eq!(read(&text, None), Ok(PasswordScheme::Bcrypt));
            let truncated = PasswordScheme::BcryptTruncated;
            assert_eq!(read(&text, Some(truncated)), Ok(truncated));
            assert_eq!(read(&text, Some(PasswordScheme::BcryptSha256)), Err(ForeignHashRefused::Notation));
            for cost in ["00", "03", "17", "31"] {
                assert_eq!(read(&format!("${variant}${cost}${BODY}"), None), Err(ForeignHashRefused::Cost));
            }
        }
        let sha256 = |cost| read(&format!("$bcrypt-sha256$v=2,t=2b,r={cost}${SHA256}"), None);
        assert_eq!(sha256("4"), Ok(PasswordScheme::BcryptSha256));
        assert_eq!(sha256("12"), Ok(PasswordScheme::BcryptSha256));
        assert_eq!(sha256("17"), Err(ForeignHashRefused::Cost));
        for text in
            ["", "secret", "$2x$04$abc", "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA", "$2b$\u{e9}4$"]
        {
            assert_eq!(read(text, None), Err(ForeignHashRefused::Notation), "{text}");
        }
    }
}
