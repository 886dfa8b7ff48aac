//! The calls.

use std::net::IpAddr;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::config::{ClientConfig, ConfigError, Timeouts};
use crate::error::Error;
use crate::model::{self, Claims, Login, Registration, SessionPage, Tokens, User};
use crate::proto;
use crate::proto::identity_service_client::IdentityServiceClient;
use crate::retry::{self, Attempts};

/// The longest device label that the service takes, in characters.
const MAX_DEVICE_CHARS: usize = 200;

/// Calls the identity service. A clone is cheap and uses the same connection.
///
/// Every call has a deadline ([`ClientConfig::timeout`]). What may be done twice is tried a second time,
/// within that deadline, when the service was unavailable, busy, or lost on the way; logins and changes of
/// a password are not.
///
/// ```no_run
/// use identity_client::{Client, ClientConfig, ErrorKind};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect(&ClientConfig::new("http://127.0.0.1:50051"))?;
/// match client.login("ada@example.com", "correct horse battery").await {
///     Ok(login) => {
///         let ada = client.with_user(&login.tokens.access_token);
///         println!("{:?}", ada.list_sessions(0, None).await?.sessions);
///     }
///     Err(error) if *error.kind() == ErrorKind::LoginFailed => println!("try again"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    grpc: IdentityServiceClient<Channel>,
    timeouts: Timeouts,
    /// Who calls, and for whom. Secret values are marked as such, so that `Debug` hides them.
    metadata: MetadataMap,
}

type Grpc = IdentityServiceClient<Channel>;

impl Client {
    /// A client that connects at its first call, and again whenever it has to. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`ConfigError`] when the configuration, or a file that it names, cannot be used.
    pub fn connect(config: &ClientConfig) -> Result<Self, ConfigError> {
        let mut metadata = MetadataMap::new();
        if let Some(token) = config.service_token_value()? {
            metadata.insert("x-identity-service-token", token);
        }
        let grpc = IdentityServiceClient::new(config.channel()?);
        Ok(Self { grpc, timeouts: config.timeouts(), metadata })
    }

    /// The same client, calling for the holder of this access token.
    #[must_use]
    pub fn with_user(&self, access_token: &str) -> Self {
        // What cannot be sent is no token; the service refuses `Bearer` as it does any other text.
        let mut bearer = MetadataValue::try_from(format!("Bearer {access_token}"))
            .unwrap_or_else(|_| MetadataValue::from_static("Bearer"));
        bearer.set_sensitive(true);
        self.with("authorization", bearer)
    }

    /// The same client, stating the end user's address. Believed of services only: of those with a service
    /// token or a client certificate.
    #[must_use]
    pub fn with_address(&self, address: IpAddr) -> Self {
        let value = address.to_string().parse().expect("an address is visible ASCII");
        self.with("x-identity-end-user-address", value)
    }

    /// The same client, stating the end user's device, such as "Firefox on Linux", in any script. Believed
    /// of services only. Control characters are left out, and what follows the 200th character.
    #[must_use]
    pub fn with_device(&self, label: &str) -> Self {
        let label = label.trim().chars().filter(|c| !is_control(*c));
        let label: String = label.take(MAX_DEVICE_CHARS).collect();
        let mut client = self.clone();
        if !label.trim().is_empty() {
            let value = MetadataValue::from_bytes(label.as_bytes());
            client.metadata.insert_bin("x-identity-end-user-device-bin", value);
        }
        client
    }

    /// The same client, whose calls may take this long, a repetition included.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeouts: Timeouts { usual: timeout, password: timeout }, ..self.clone() }
    }

    /// Creates a tenant and its first user, and opens a session.
    ///
    /// # Errors
    /// [`InvalidFields`](crate::ErrorKind::InvalidFields), `EmailTaken`, `RequestIdReused`, `LoginFailed`
    /// (the request id is known, and its user may not log in any more), `RegistrationClosed`,
    /// `TooManyRegistrations`, `Overloaded`; and those that any call can have.
    pub async fn register(&self, registration: Registration) -> Result<Login, Error> {
        let message = proto::RegisterRequest {
            email: registration.email,
            password: registration.password,
            first_name: registration.first_name,
            last_name: registration.last_name,
            tenant_name: registration.tenant_name,
            request_id: registration.request_id.unwrap_or_else(Uuid::new_v4).to_string(),
        };
        let send = |mut grpc: Grpc, request| async move { grpc.register(request).await };
        let answer = self.call(message, self.timeouts.password, Attempts::Two, send).await?;
        let tokens =
            model::tokens(answer.access_token, answer.access_token_expires_at, answer.refresh_token)?;
        Ok(Login { user: model::user(answer.user)?, tokens })
    }

    /// Checks a password and opens a session. Never repeated by itself: each attempt may count.
    ///
    /// # Errors
    /// [`LoginFailed`](crate::ErrorKind::LoginFailed), `InvalidFields`, `TooManyAttempts`, `Overloaded`;
    /// and those that any call can have.
    pub async fn login(&self, email: &str, password: &str) -> Result<Login, Error> {
        let message = proto::LoginRequest { email: email.to_owned(), password: password.to_owned() };
        let send = |mut grpc: Grpc, request| async move { grpc.login(request).await };
        let answer = self.call(message, self.timeouts.password, Attempts::One, send).await?;
        let tokens =
            model::tokens(answer.access_token, answer.access_token_expires_at, answer.refresh_token)?;
        Ok(Login { user: model::user(answer.user)?, tokens })
    }

    /// The user who calls ([`Client::with_user`]).
    ///
    /// # Errors
    /// [`TokenInvalid`](crate::ErrorKind::TokenInvalid), and those that any call can have.
    pub async fn get_caller(&self) -> Result<User, Error> {
        self.find_user(proto::GetUserRequest::default()).await
    }

    /// A user: for users one of their own tenant, for services any.
    ///
    /// # Errors
    /// [`UserNotFound`](crate::ErrorKind::UserNotFound), `TokenInvalid`, and those that any call can have.
    pub async fn get_user(&self, user_id: Uuid) -> Result<User, Error> {
        let user_id = user_id.to_string();
        self.find_user(proto::GetUserRequest { user_id, ..Default::default() }).await
    }

    /// A user of this tenant, and of no other.
    ///
    /// # Errors
    /// As [`Client::get_user`].
    pub async fn get_user_of_tenant(&self, tenant_id: Uuid, user_id: Uuid) -> Result<User, Error> {
        let (user_id, tenant_id) = (user_id.to_string(), tenant_id.to_string());
        self.find_user(proto::GetUserRequest { user_id, tenant_id }).await
    }

    async fn find_user(&self, message: proto::GetUserRequest) -> Result<User, Error> {
        let send = |mut grpc: Grpc, request| async move { grpc.get_user(request).await };
        model::user(self.call(message, self.timeouts.usual, Attempts::Two, send).await?.user)
    }

    /// Exchanges a refresh token for its successor and a new access token. Keep what comes back before
    /// anything else: an older refresh token that is used again ends the session.
    ///
    /// # Errors
    /// [`RefreshTokenInvalid`](crate::ErrorKind::RefreshTokenInvalid), and those that any call can have.
    pub async fn refresh_session(&self, refresh_token: &str) -> Result<Tokens, Error> {
        let message = proto::RefreshSessionRequest { refresh_token: refresh_token.to_owned() };
        let send = |mut grpc: Grpc, request| async move { grpc.refresh_session(request).await };
        let answer = self.call(message, self.timeouts.usual, Attempts::Two, send).await?;
        model::tokens(answer.access_token, answer.access_token_expires_at, answer.refresh_token)
    }

    /// Ends the session that a refresh token stands for. One that has ended already is no error.
    ///
    /// # Errors
    /// [`RefreshTokenInvalid`](crate::ErrorKind::RefreshTokenInvalid), and those that any call can have.
    pub async fn logout(&self, refresh_token: &str) -> Result<(), Error> {
        let message = proto::LogoutRequest { refresh_token: refresh_token.to_owned() };
        let send = |mut grpc: Grpc, request| async move { grpc.logout(request).await };
        self.call(message, self.timeouts.usual, Attempts::Two, send).await.map(drop)
    }

    /// The caller's open sessions, the newest first: `page_size` at most (0: 50; never more than 1,000),
    /// from the beginning or from where [`SessionPage::next_page_token`] says. A page may have fewer sessions, or
    /// none, and not be the last: the list ends where there is no token.
    ///
    /// # Errors
    /// [`TokenInvalid`](crate::ErrorKind::TokenInvalid), `InvalidFields` (the page token is none of this
    /// list), and those that any call can have.
    pub async fn list_sessions(
        &self,
        page_size: u16,
        page_token: Option<&str>,
    ) -> Result<SessionPage, Error> {
        let page_token = page_token.unwrap_or_default().to_owned();
        let message = proto::ListSessionsRequest { page_size: page_size.into(), page_token };
        let send = |mut grpc: Grpc, request| async move { grpc.list_sessions(request).await };
        model::session_page(self.call(message, self.timeouts.usual, Attempts::Two, send).await?)
    }

    /// Ends one of the caller's sessions.
    ///
    /// # Errors
    /// [`SessionNotFound`](crate::ErrorKind::SessionNotFound), `TokenInvalid`, and those that any call can
    /// have.
    pub async fn revoke_session(&self, session_id: Uuid) -> Result<(), Error> {
        let message = proto::RevokeSessionRequest { session_id: session_id.to_string() };
        let send = |mut grpc: Grpc, request| async move { grpc.revoke_session(request).await };
        self.call(message, self.timeouts.usual, Attempts::Two, send).await.map(drop)
    }

    /// Gives the caller another password, and ends all of the caller's other sessions. Never repeated by
    /// itself: each attempt may count.
    ///
    /// # Errors
    /// [`LoginFailed`](crate::ErrorKind::LoginFailed) (the current password is wrong), `TokenInvalid`,
    /// `InvalidFields`, `TooManyAttempts`, `Overloaded`; and those that any call can have.
    pub async fn change_password(&self, current: &str, new: &str) -> Result<(), Error> {
        let message = proto::ChangePasswordRequest {
            current_password: current.to_owned(),
            new_password: new.to_owned(),
        };
        let send = |mut grpc: Grpc, request| async move { grpc.change_password(request).await };
        self.call(message, self.timeouts.password, Attempts::One, send).await.map(drop)
    }

    /// What an access token says, if it is in force at this moment; `None` for any other text. Knows of a
    /// session that was ended a moment ago, where a [`Verifier`](crate::Verifier), which asks nobody, does
    /// not.
    ///
    /// # Errors
    /// Those that any call can have.
    pub async fn verify_token(&self, access_token: &str) -> Result<Option<Claims>, Error> {
        let message = proto::VerifyTokenRequest { access_token: access_token.to_owned() };
        let send = |mut grpc: Grpc, request| async move { grpc.verify_token(request).await };
        model::claims(&self.call(message, self.timeouts.usual, Attempts::Two, send).await?)
    }

    fn with(&self, name: &'static str, value: MetadataValue<Ascii>) -> Self {
        let mut client = self.clone();
        client.metadata.insert(name, value);
        client
    }

    async fn call<M: Clone, R, F>(
        &self,
        message: M,
        timeout: Duration,
        attempts: Attempts,
        send: impl Fn(Grpc, Request<M>) -> F,
    ) -> Result<R, Error>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        retry::call(timeout, attempts, |time_left| {
            let mut request = Request::new(message.clone());
            *request.metadata_mut() = self.metadata.clone();
            request.set_timeout(time_left);
            send(self.grpc.clone(), request)
        })
        .await
    }
}

/// What the service takes for a control character: U+2028 and U+2029 break lines as those do.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}
