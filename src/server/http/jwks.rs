//! The keys that others verify access tokens with (RFC 7517, 5).

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::rpc::Backend;

/// RFC 7517 has a type of its own, `application/jwk-set+json`; some clients take nothing but this.
const JSON: &str = "application/json";

/// The set, or 304 to who has it already. 503 before the keys were read.
pub(super) async fn answer(
    State((backend, max_age)): State<(Backend, Duration)>,
    headers: HeaderMap,
) -> Response {
    let Some(keys) = backend.published_keys() else {
        let head = [(header::CACHE_CONTROL, "no-store")];
        return (StatusCode::SERVICE_UNAVAILABLE, head, "not ready\n").into_response();
    };
    let head = [
        (header::CACHE_CONTROL, format!("public, max-age={}", max_age.as_secs())),
        (header::ETAG, keys.entity_tag.clone()),
    ];
    if has(&headers, &keys.entity_tag) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, [(header::CONTENT_TYPE, JSON)], keys.json.clone()).into_response()
}

/// Whether the client names this entity tag as one that it has (RFC 9110, 13.1.2).
fn has(headers: &HeaderMap, entity_tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == entity_tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_any_form_of_if_none_match() {
        let named = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_NONE_MATCH, value.parse().unwrap());
            }
            has(&headers, "\"a\"")
        };
        for values in [&["\"a\""][..], &["W/\"a\""], &["\"b\", \"a\""], &["\"b\"", "\"a\""], &["*"]] {
            assert!(named(values), "{values:?}");
        }
        for values in [&[][..], &[""], &["a"], &["\"b\""], &["\"A\""]] {
            assert!(!named(values), "{values:?}");
        }
    }
}
