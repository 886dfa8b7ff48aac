//! What a request presents to show who calls, for whom, and until when.

use tonic::Extensions;
use tonic::metadata::MetadataMap;

use super::call::{self, CertifiedPeer, Deadline};
use super::call_id::CallId;
use crate::service::{Credential, Presented};

/// The metadata that carries a user's access token (RFC 6750, 2.1).
const ACCESS_TOKEN: &str = "authorization";
/// The metadata that carries a service's token.
const SERVICE_TOKEN: &str = "x-identity-service-token";

/// What a request presents beside its message.
pub(super) fn presented<'r>(metadata: &'r MetadataMap, extensions: &'r Extensions) -> Presented<'r> {
    Presented {
        access_token: credential(metadata, ACCESS_TOKEN, bearer),
        service_token: credential(metadata, SERVICE_TOKEN, Some),
        certificate: extensions.get::<CertifiedPeer>().map(|peer| &peer.0),
        peer: call::peer_address(extensions),
        end_user: call::end_user(metadata),
        deadline: extensions.get::<Deadline>().and_then(|deadline| deadline.of_caller()),
        request_id: extensions.get::<CallId>().map(CallId::as_str),
    }
}

/// The token in the metadata `name`, which must not be there twice. `read` takes it out of the value.
fn credential<'r>(
    metadata: &'r MetadataMap,
    name: &str,
    read: fn(&'r str) -> Option<&'r str>,
) -> Credential<'r> {
    let mut values = metadata.get_all(name).iter();
    let (value, second) = (values.next(), values.next());
    let Some(value) = value else { return Credential::Absent };
    let token = value.to_str().ok().filter(|_| second.is_none()).and_then(read);
    token.map_or(Credential::Malformed, Credential::Text)
}

/// The token of `Bearer <token>`; the scheme in any case (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bearer_scheme_carries_a_token() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc"), Some("abc"));
        for value in ["", "abc", "Basic abc", "Bearerabc", "Bearer\tabc"] {
            assert_eq!(bearer(value), None, "{value:?}");
        }
    }
}
