//! Register, Login and GetUser over the wire, on both databases.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::service::{Engine, PASSWORD, TestService, on_both_databases, reason, registration};
use tonic::Code;

on_both_databases!(a_registered_user_logs_in_and_is_found);

async fn a_registered_user_logs_in_and_is_found(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let registered = client.register(registration("ada@example.com")).await.unwrap();
    let logged_in = client.login("ADA@example.com", PASSWORD).await.unwrap();
    assert_eq!(logged_in.user, registered.user);
    let found = client.get_user(Some(&logged_in.access_token), "").await.unwrap();
    assert_eq!(found.user, registered.user);

    let refused = client.get_user(None, "").await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "TOKEN_INVALID"));
}
