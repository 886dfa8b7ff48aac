//! Every call, against the real service.

use identity_client::{Client, ErrorKind, Role, Uuid};

use crate::service::{PASSWORD, Service, register, registration};

#[tokio::test(flavor = "multi_thread")]
async fn who_registers_is_the_owner_of_a_tenant_and_logged_in() {
    let service = Service::start(&[]).await;
    let client = service.client();
    let login = register(&client, "Ada@Example.com").await;
    let user = &login.user;
    assert_eq!((user.email.as_str(), user.role, user.is_active), ("Ada@Example.com", Role::Owner, true));
    assert_eq!((user.first_name.as_str(), user.last_name.as_str()), ("Ada", "Lovelace"));
    assert_eq!(user.tenant.name, "Analytical Engines");
    assert!(login.tokens.access_token_expires_at > user.created_at);
    let again = client.login("ada@example.com", PASSWORD).await.unwrap();
    assert_eq!(again.user, login.user);
    assert_eq!(client.with_user(&again.tokens.access_token).get_caller().await.unwrap(), login.user);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_can_be_repeated_under_its_request_id() {
    let service = Service::start(&[]).await;
    let client = service.client();
    let attempt = || {
        let mut attempt = registration("ada@example.com");
        attempt.request_id = Some(Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001));
        client.register(attempt)
    };
    assert_eq!(attempt().await.unwrap().user, attempt().await.unwrap().user);
    let other = client.register(registration("ada@example.com")).await.unwrap_err();
    assert_eq!(*other.kind(), ErrorKind::EmailTaken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_is_listed_and_ends() {
    let service = Service::start(&[]).await;
    let client = service.client();
    let first = register(&client, "ada@example.com").await;
    let second = client.login("ada@example.com", PASSWORD).await.unwrap();
    let tokens = client.refresh_session(&second.tokens.refresh_token).await.unwrap();
    let ada = client.with_user(&tokens.access_token);

    let page = ada.list_sessions(1, None).await.unwrap();
    let rest = ada.list_sessions(1, page.next_page_token.as_deref()).await.unwrap();
    assert_eq!((rest.sessions.len(), &rest.next_page_token), (1, &None));
    let (newest, oldest) = (&page.sessions[0], &rest.sessions[0]);
    assert_eq!((newest.is_current, oldest.is_current), (true, false));
    assert_eq!((&newest.device, newest.address), (&None, None));
    assert!(newest.created_at <= newest.last_used_at && newest.last_used_at < newest.expires_at);

    ada.revoke_session(oldest.id).await.unwrap();
    let error = client.with_user(&first.tokens.access_token).get_caller().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::TokenInvalid);
    let error = ada.revoke_session(Uuid::nil()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::SessionNotFound);

    client.logout(&tokens.refresh_token).await.unwrap();
    let error = client.refresh_session(&tokens.refresh_token).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::RefreshTokenInvalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_changed_by_who_knows_it() {
    let service = Service::start(&[]).await;
    let client = service.client();
    let ada = client.with_user(&register(&client, "ada@example.com").await.tokens.access_token);
    let error = ada.change_password("not it", "another horse battery").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::LoginFailed);
    ada.change_password(PASSWORD, "another horse battery").await.unwrap();
    client.login("ada@example.com", "another horse battery").await.unwrap();
    let error = client.login("ada@example.com", PASSWORD).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::LoginFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_token_tells_what_a_token_in_force_says() {
    let service = Service::start(&[]).await;
    let client = service.client();
    let login = register(&client, "ada@example.com").await;
    let claims = client.verify_token(&login.tokens.access_token).await.unwrap().unwrap();
    assert_eq!((claims.user_id, claims.tenant_id), (login.user.id, login.user.tenant.id));
    assert_eq!((claims.role, claims.expires_at), (Role::Owner, login.tokens.access_token_expires_at));
    client.logout(&login.tokens.refresh_token).await.unwrap();
    assert_eq!(client.verify_token(&login.tokens.access_token).await.unwrap(), None);
    assert_eq!(client.verify_token("nonsense").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_says_what_it_is_and_which_call_it_was() {
    let service = Service::start(&[]).await;
    let client = service.client();
    let mut invalid = registration("nonsense");
    invalid.tenant_name.clear();
    let error = client.register(invalid).await.unwrap_err();
    let ErrorKind::InvalidFields(fields) = error.kind() else { panic!("{error}") };
    let names: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["email", "tenant_name"]);
    let text = error.to_string();
    assert!(text.contains("email") && text.contains(&fields[1].description), "{text}");
    assert!(error.request_id().is_some_and(|id| !id.is_empty()));

    let ada = client.with_user(&register(&client, "ada@example.com").await.tokens.access_token);
    let stranger = register(&client, "eve@example.com").await.user.id;
    let error = ada.get_user(stranger).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::UserNotFound);
    for token in ["", "nonsense", "line\nbreak", "\u{e9}"] {
        let error = client.with_user(token).get_caller().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::TokenInvalid, "{token:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_kept_out_is_told_why_and_for_how_long() {
    let service = Service::start(&[("IDENTITY_REGISTRATION_LIMIT", "1")]).await;
    let client = service.client();
    register(&client, "ada@example.com").await;
    let error = client.register(registration("eve@example.com")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::TooManyRegistrations);
    assert!(error.retry_after().is_some_and(|delay| !delay.is_zero()));
    for _ in 0..10 {
        let error = client.login("ada@example.com", "not it").await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::LoginFailed);
    }
    let error = client.login("ada@example.com", PASSWORD).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::TooManyAttempts);
    assert!(error.retry_after().is_some_and(|delay| !delay.is_zero()));

    let closed = Service::start(&[("IDENTITY_REGISTRATION", "closed")]).await;
    let error = closed.client().register(registration("ada@example.com")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::RegistrationClosed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_says_who_it_is_and_for_whom_it_calls() {
    let service = Service::start(&[]).await;
    let stranger = service.client();
    let token = service.service_token(&["GetUser", "Login"]).await;
    let client = Client::connect(&service.config().service_token(token.as_str())).unwrap();
    let ada = register(&stranger, "ada@example.com").await.user;
    let tenant = ada.tenant.id;
    assert_eq!(client.get_user(ada.id).await.unwrap(), ada);
    assert_eq!(client.get_user_of_tenant(tenant, ada.id).await.unwrap(), ada);
    let error = client.get_user_of_tenant(Uuid::nil(), ada.id).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::UserNotFound);

    let front = client.with_address("192.0.2.7".parse().unwrap()).with_device(" Adas\tGerät ");
    let login = front.login("ada@example.com", PASSWORD).await.unwrap();
    let sessions = stranger.with_user(&login.tokens.access_token).list_sessions(0, None).await.unwrap();
    assert_eq!(sessions.sessions[0].device.as_deref(), Some("AdasGerät"));
    assert_eq!(sessions.sessions[0].address, Some("192.0.2.7".parse().unwrap()));
    // However long it is, and whatever is in it, a label is never refused.
    for label in [&"ä".repeat(500), "\r\n", ""] {
        front.with_device(label).login("ada@example.com", PASSWORD).await.unwrap();
    }

    let error = client.register(registration("eve@example.com")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::PermissionDenied);
    let wrong = Client::connect(&service.config().service_token("nonsense")).unwrap();
    let error = wrong.get_user(ada.id).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::ServiceCredentialInvalid);
    for shown in [format!("{client:?}"), format!("{:?}", service.config().service_token(token.as_str()))] {
        assert!(!shown.contains(&token), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_shows_no_secret() {
    let service = Service::start(&[]).await;
    let client = service.client();
    let login = register(&client, "ada@example.com").await;
    let client = client.with_user(&login.tokens.access_token);
    let shown = format!("{:?} {login:?} {client:?}", registration("ada@example.com"));
    for secret in [PASSWORD, &login.tokens.access_token, &login.tokens.refresh_token] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
