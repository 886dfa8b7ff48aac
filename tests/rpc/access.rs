//! How far each kind of caller gets in each RPC: as far as the access table says, and no further.

use identity::domain::{Clock as _, Email, SystemClock, UserId};
use identity::proto::v1::{
    ChangePasswordRequest, GetUserRequest, ListSessionsRequest, LoginRequest, LoginResponse, LogoutRequest,
    RefreshSessionRequest, RevokeSessionRequest, VerifyTokenRequest,
};
use identity::service::access::{Reach, access};
use identity::storage;
use tonic::{Code, Request, Status};

use crate::database::{add_member, storage};
use crate::fixture::{claim, new_id, registered, rpcs};
use crate::services::{SERVICE_TOKEN, token};
use crate::support::service::{Client, Engine, PASSWORD, TestService, on_both_databases, registration};

on_both_databases!(every_caller_reaches_what_the_table_says);

/// A user whose data a call may reach.
struct Target {
    email: &'static str,
    password: String,
}

/// The caller himself, somebody else of his tenant, and somebody of another tenant.
const TARGETS: [&str; 3] = ["ada@example.com", "member@example.com", "eve@example.com"];

/// The kinds of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Anonymous,
    User,
    Service,
}

/// Somebody who calls.
struct Caller<'c> {
    client: &'c Client,
    metadata: Option<(&'static str, String)>,
}

impl Caller<'_> {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some((name, value)) = &self.metadata {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    /// Whether a call of `rpc` reaches what belongs to `target`, of which it knows all ids and tokens.
    async fn reaches(&self, rpc: &str, target: &mut Target) -> Result<bool, Status> {
        let mut calls = self.client.service.clone();
        let of_target = self.client.login(target.email, &target.password).await.unwrap();
        let LoginResponse { user, access_token, refresh_token, .. } = of_target;
        let (user, session_id) = (user.unwrap(), claim(&access_token, "sid"));
        let is_open = async || self.client.verify_token(&access_token).await.unwrap().active;
        match rpc.rsplit('/').next().unwrap() {
            // Belongs to nobody before.
            "Register" => {
                let message = registration(&format!("{}@example.com", new_id()));
                calls.register(self.request(message)).await.map(|_| true)
            }
            "Login" => {
                let message = LoginRequest { email: target.email.into(), password: target.password.clone() };
                let opened = calls.login(self.request(message)).await?.into_inner();
                Ok(opened.user.unwrap().id == user.id)
            }
            "GetUser" => {
                let message = GetUserRequest { user_id: user.id.clone(), ..GetUserRequest::default() };
                let found = calls.get_user(self.request(message)).await?.into_inner();
                Ok(found.user == Some(user))
            }
            "RefreshSession" => {
                let next =
                    calls.refresh_session(self.request(RefreshSessionRequest { refresh_token })).await?;
                Ok(claim(&next.get_ref().access_token, "sid") == session_id)
            }
            "Logout" => {
                calls.logout(self.request(LogoutRequest { refresh_token })).await?;
                Ok(!is_open().await)
            }
            "ListSessions" => {
                let message = ListSessionsRequest { page_size: 100, ..ListSessionsRequest::default() };
                let listed = calls.list_sessions(self.request(message)).await?.into_inner().sessions;
                Ok(listed.iter().any(|session| session.id == session_id))
            }
            "RevokeSession" => {
                calls.revoke_session(self.request(RevokeSessionRequest { session_id })).await?;
                Ok(!is_open().await)
            }
            "ChangePassword" => {
                let new_password = format!("{}!", target.password);
                let message = ChangePasswordRequest {
                    current_password: target.password.clone(),
                    new_password: new_password.clone(),
                };
                calls.change_password(self.request(message)).await?;
                let is_changed = self.client.login(target.email, &new_password).await.is_ok();
                if is_changed {
                    target.password = new_password;
                }
                Ok(is_changed)
            }
            "VerifyToken" => {
                let verified = calls.verify_token(self.request(VerifyTokenRequest { access_token })).await?;
                Ok(verified.get_ref().user_id == user.id)
            }
            _ => panic!("{rpc} has no case here"),
        }
    }
}

/// How far somebody gets who reaches these of the [`TARGETS`].
fn reach(reached: [bool; 3]) -> Reach {
    match reached {
        [false, false, false] => Reach::Denied,
        [true, false, false] => Reach::Own,
        [true, true, false] => Reach::OwnTenant,
        [true, true, true] => Reach::Everything,
        odd => panic!("of himself, his tenant and another one: {odd:?}"),
    }
}

/// Lets the user `member@example.com` of ada's tenant log in.
async fn let_member_log_in(service: &TestService, member: &str) {
    let member = UserId::parse(member).unwrap();
    let store = storage(&service.database);
    let ada = {
        let mut conn = store.read().await.unwrap();
        let email = Email::parse(TARGETS[0]).unwrap();
        storage::logins::find_by_email(&mut conn, &email).await.unwrap().unwrap()
    };
    let mut tx = store.begin("let log in").await.unwrap();
    let email = Email::parse(TARGETS[1]).unwrap();
    let named = storage::logins::insert_name(&mut tx, &email, ada.user.tenant.id, member).await.unwrap();
    assert_eq!(named, storage::Inserted::Yes);
    let now = SystemClock.now();
    storage::logins::insert_password(&mut tx, ada.user.tenant.id, member, &ada.password, now).await.unwrap();
    tx.commit().await.unwrap();
}

async fn every_caller_reaches_what_the_table_says(engine: Engine) {
    let service = TestService::start(engine).await;
    let client = service.client();
    let ada = registered(&service, TARGETS[0]).await.user.unwrap();
    registered(&service, TARGETS[2]).await;
    let member = add_member(&service.database, &ada).await;
    let_member_log_in(&service, &member).await;
    let mut targets = TARGETS.map(|email| Target { email, password: PASSWORD.to_owned() });
    for (n, target) in targets.iter_mut().enumerate() {
        // Each a password of its own.
        let token = client.login(target.email, PASSWORD).await.unwrap().access_token;
        let password = format!("{PASSWORD} {n}");
        client.change_password(&token, PASSWORD, &password).await.unwrap();
        target.password = password;
    }
    let (_, service_token) = token(&service.database, &[]).await;

    for rpc in rpcs() {
        let row = access(&rpc).unwrap();
        for (kind, says) in
            [(Kind::Anonymous, row.anonymous), (Kind::User, row.user), (Kind::Service, row.service)]
        {
            let mut reached = [false; 3];
            for (n, reached) in reached.iter_mut().enumerate() {
                let metadata = match kind {
                    Kind::Anonymous => None,
                    Kind::User => {
                        let ada = client.login(targets[0].email, &targets[0].password).await.unwrap();
                        Some(("authorization", format!("Bearer {}", ada.access_token)))
                    }
                    Kind::Service => Some((SERVICE_TOKEN, service_token.clone())),
                };
                let caller = Caller { client: &client, metadata };
                let outcome = caller.reaches(&rpc, &mut targets[n]).await;
                let about = format!("{rpc} by {kind:?} for {}: {outcome:?}", targets[n].email);
                *reached = outcome.as_ref().is_ok_and(|reached| *reached);
                let code = outcome.err().map(|status| status.code());
                match (kind, says) {
                    (Kind::Anonymous, Reach::Denied) => {
                        assert_eq!(code, Some(Code::Unauthenticated), "{about}")
                    }
                    (_, Reach::Denied) => assert_eq!(code, Some(Code::PermissionDenied), "{about}"),
                    // What is out of reach does not exist.
                    _ if matches!(rpc.rsplit('/').next(), Some("GetUser" | "RevokeSession")) => {
                        assert_eq!(code, (!*reached).then_some(Code::NotFound), "{about}");
                    }
                    _ => assert_ne!(code, Some(Code::PermissionDenied), "{about}"),
                }
            }
            assert_eq!(reach(reached), says, "{rpc} by {kind:?}");
        }
    }
}
