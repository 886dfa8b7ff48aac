//! Which method a call is for, as far as the edge treats methods differently.

use http::uri::PathAndQuery;
use http::{Request, Uri};

use crate::server::budgets::StreamKind;

/// The most bytes of a method that are logged: more than any that exists has.
const MAX_LOGGED_BYTES: usize = 128;

/// A method as a request names it: `package.Service/Method`. It need not exist.
#[derive(Clone, Debug)]
pub(super) struct Method(Option<PathAndQuery>);

impl Method {
    /// The method that `request` names.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        // Shares the path's bytes; copies nothing.
        Self(request.uri().path_and_query().cloned())
    }

    /// The name without the leading slash, cut off where it is absurdly long. Without control
    /// characters, since it was part of a URI.
    pub(super) fn name(&self) -> &str {
        let name = self.0.as_ref().map_or("", PathAndQuery::path).trim_start_matches('/');
        &name[..name.floor_char_boundary(MAX_LOGGED_BYTES)]
    }

    /// Whether the call serves the operation of the service rather than its users: health checks
    /// and reflection.
    pub(super) fn is_operational(&self) -> bool {
        let name = self.name();
        name.starts_with("grpc.health.") || name.starts_with("grpc.reflection.")
    }
}

/// Whether a call of the method that `uri` names ends only when its client wants.
pub(super) fn is_open_ended(uri: &Uri) -> bool {
    stream_kind(uri) == Some(StreamKind::Watch)
}

/// Which kind of stream a call of the method that `uri` names is, if it is one.
pub(super) fn stream_kind(uri: &Uri) -> Option<StreamKind> {
    let path = uri.path();
    if path == "/grpc.health.v1.Health/Watch" {
        Some(StreamKind::Watch)
    } else {
        path.starts_with("/grpc.reflection.").then_some(StreamKind::Reflection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(uri: &str) -> Method {
        Method::of(&Request::builder().uri(uri).body(()).unwrap())
    }

    #[test]
    fn the_name_has_no_slash_before_it_and_no_query_after_it() {
        let method = method("http://host/identity.v1.IdentityService/Login?password=secret");
        assert_eq!(method.name(), "identity.v1.IdentityService/Login");
    }

    #[test]
    fn an_absurdly_long_name_is_cut_off() {
        let long = method(&format!("http://host/{}", "a".repeat(10_000)));
        assert_eq!(long.name().len(), 128);
        assert_eq!(method(&format!("http://host/{}", "a".repeat(10))).name().len(), 10);
        let letters = method(&format!("http://host/a{}", "\u{e9}".repeat(5_000)));
        assert_eq!(letters.name().len(), 127);
    }

    #[test]
    fn watch_and_reflection_are_streams_and_only_watch_is_open_ended() {
        let of = |path: &'static str| {
            let uri = Uri::from_static(path);
            (stream_kind(&uri), is_open_ended(&uri))
        };
        assert_eq!(of("/grpc.health.v1.Health/Watch"), (Some(StreamKind::Watch), true));
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert_eq!(of(reflection), (Some(StreamKind::Reflection), false));
        assert_eq!(of("/grpc.health.v1.Health/Check"), (None, false));
        assert_eq!(of("/identity.v1.IdentityService/Login"), (None, false));
    }
}
