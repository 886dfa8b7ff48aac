//! Two tenants full of people, and everybody who might call.

use std::fmt;

use identity::proto::v1::{
    CreateUserRequest, LoginResponse, RegisterRequest, RegisterResponse, Role, Tenant, User,
};
use tonic::{Request, Response};

use crate::fixture::new_id;
use crate::support::service::{Client, PASSWORD, TestService, registration};

/// Lets a test register many tenants.
pub(crate) const REGISTRATIONS: (&str, &str) = ("IDENTITY_REGISTRATION_LIMIT", "1000");

/// A user who is logged in.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) user: User,
    pub(crate) password: String,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user.email)
    }
}

impl Person {
    pub(crate) fn id(&self) -> &str {
        &self.user.id
    }

    /// A request by this user.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer().parse().unwrap());
        request
    }

    /// What goes into `authorization`.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.access_token)
    }
}

/// A tenant whose people are all logged in.
#[derive(Clone, Debug)]
pub(crate) struct House {
    pub(crate) tenant: Tenant,
    pub(crate) owner: Person,
    pub(crate) second_owner: Person,
    pub(crate) admin: Person,
    pub(crate) member: Person,
    pub(crate) other_member: Person,
}

impl House {
    /// A new tenant. The names of its people begin with what is unique to it.
    pub(crate) async fn build(client: &Client) -> Self {
        let name = new_id();
        let owner = founder(client, &format!("{name}-owner@example.com")).await;
        let person =
            async |who: &str, role| hire(client, &owner, &format!("{name}-{who}@example.com"), role).await;
        Self {
            second_owner: person("second", Role::Owner).await,
            admin: person("admin", Role::Admin).await,
            member: person("member", Role::Member).await,
            other_member: person("other", Role::Member).await,
            tenant: owner.user.tenant.clone().unwrap(),
            owner,
        }
    }

    /// Everybody in it.
    pub(crate) fn people(&self) -> [&Person; 5] {
        [&self.owner, &self.second_owner, &self.admin, &self.member, &self.other_member]
    }
}

/// Registers the owner of a new tenant.
pub(crate) async fn founder(client: &Client, email: &str) -> Person {
    let message = RegisterRequest { tenant_name: format!("{email}'s"), ..registration(email) };
    let RegisterResponse { user, access_token, refresh_token, .. } = client.register(message).await.unwrap();
    Person { user: user.unwrap(), password: PASSWORD.to_owned(), access_token, refresh_token }
}

/// A user of the tenant of `by`, who creates him, logged in.
pub(crate) async fn hire(client: &Client, by: &Person, email: &str, role: Role) -> Person {
    create(client, by, email, role).await;
    log_in(client, email, PASSWORD).await
}

/// A user of the tenant of `by`, who creates him.
pub(crate) async fn create(client: &Client, by: &Person, email: &str, role: Role) -> User {
    let message = newcomer(email, role);
    let created = client.directory.clone().create_user(by.request(message)).await;
    created.map(Response::into_inner).unwrap().user.unwrap()
}

/// What creates a user of the caller's tenant.
pub(crate) fn newcomer(email: &str, role: Role) -> CreateUserRequest {
    CreateUserRequest {
        tenant_id: String::new(),
        email: email.to_owned(),
        password: PASSWORD.to_owned(),
        first_name: "Grace".to_owned(),
        last_name: "Hopper".to_owned(),
        role: role.into(),
        external_id: String::new(),
    }
}

pub(crate) async fn log_in(client: &Client, email: &str, password: &str) -> Person {
    let LoginResponse { user, access_token, refresh_token, .. } =
        client.login(email, password).await.unwrap();
    Person { user: user.unwrap(), password: password.to_owned(), access_token, refresh_token }
}

/// Whether somebody's session is open still.
pub(crate) async fn is_in(service: &TestService, person: &Person) -> bool {
    service.client().verify_token(&person.access_token).await.unwrap().active
}
