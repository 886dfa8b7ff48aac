//! A random message for each RPC.

use identity::proto::v1::{
    BatchGetUsersRequest, ChangePasswordRequest, CreateUserRequest, DeleteTenantRequest, DeleteUserRequest,
    GetTenantRequest, GetUserByEmailRequest, GetUserByExternalIdRequest, GetUserRequest,
    ListAuditEventsRequest, ListSessionsRequest, ListTenantsRequest, ListUsersRequest, LoginRequest,
    LogoutRequest, RefreshSessionRequest, RegisterRequest, RevokeSessionRequest, RevokeUserSessionsRequest,
    SetPasswordRequest, SetUserStateRequest, Tenant, UpdateTenantRequest, UpdateUserRequest, User,
    VerifyTokenRequest,
};
use prost::Message as _;
use prost_types::FieldMask;

use super::{Facts, Random};
use crate::fixture::new_id;
use crate::support::service::{PASSWORD, registration};
use crate::world::House;

const WRONG_PASSWORD: &str = "wrong horse battery";

/// What messages are mixed of: what is A's, what is B's, and what is nobody's.
pub(super) struct Mix<'m> {
    pub(super) random: &'m mut Random,
    pub(super) home: &'m House,
    pub(super) a: &'m Facts,
    pub(super) b: &'m Facts,
}

impl Mix<'_> {
    /// A message for `method`. B's tokens and passwords are B's own, so none of them is in it.
    pub(super) fn message(&mut self, method: &str) -> Vec<u8> {
        match method {
            "Register" => RegisterRequest {
                email: self.email(),
                tenant_name: self.made_up_name(),
                request_id: self.random.one_of(&["", "", "x", &new_id()]).to_owned(),
                ..registration("")
            }
            .encode_to_vec(),
            "Login" => {
                let email = self.email();
                let is_ours = self.a.emails.contains(&email) && self.random.percent(30);
                let password = if is_ours { PASSWORD } else { WRONG_PASSWORD };
                LoginRequest { email, password: password.into() }.encode_to_vec()
            }
            "GetUser" => {
                GetUserRequest { user_id: self.user_id(), tenant_id: self.tenant_id() }.encode_to_vec()
            }
            "RefreshSession" => RefreshSessionRequest { refresh_token: self.refresh_token() }.encode_to_vec(),
            "Logout" => LogoutRequest { refresh_token: self.refresh_token() }.encode_to_vec(),
            "ListSessions" => {
                ListSessionsRequest { page_size: self.page_size(), page_token: self.page_token() }
                    .encode_to_vec()
            }
            "RevokeSession" => RevokeSessionRequest { session_id: self.session_id() }.encode_to_vec(),
            "ChangePassword" => {
                let current = if self.random.percent(30) { PASSWORD } else { WRONG_PASSWORD };
                ChangePasswordRequest { current_password: current.into(), new_password: PASSWORD.into() }
                    .encode_to_vec()
            }
            "VerifyToken" => {
                let people = self.home.people();
                let access_token = match self.random.percent(80) {
                    true => people[self.random.below(people.len())].access_token.clone(),
                    false => "x".to_owned(),
                };
                VerifyTokenRequest { access_token }.encode_to_vec()
            }
            "ListAuditEvents" => ListAuditEventsRequest {
                tenant_id: self.tenant_id(),
                page_size: self.page_size(),
                page_token: self.page_token(),
                actions: self
                    .random
                    .one_of(&["", "", "user.created", "x"])
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect(),
                actor_id: self.optional(Self::user_id),
                target_id: self.optional(Self::any_id),
                ..ListAuditEventsRequest::default()
            }
            .encode_to_vec(),
            _ => self.directory_message(method),
        }
    }

    fn directory_message(&mut self, method: &str) -> Vec<u8> {
        match method {
            "CreateUser" => CreateUserRequest {
                tenant_id: self.tenant_id(),
                email: self.email(),
                password: PASSWORD.into(),
                first_name: self.made_up_name(),
                last_name: self.made_up_name(),
                role: self.number(),
                external_id: self.optional(Self::external_id),
            }
            .encode_to_vec(),
            "UpdateUser" => self.user_update().encode_to_vec(),
            "SetUserState" => SetUserStateRequest {
                user_id: self.victim_id(),
                state: self.number(),
                tenant_id: self.tenant_id(),
                etag: self.etag(),
            }
            .encode_to_vec(),
            "SetPassword" => SetPasswordRequest {
                user_id: self.victim_id(),
                new_password: PASSWORD.into(),
                tenant_id: self.tenant_id(),
            }
            .encode_to_vec(),
            "RevokeUserSessions" => {
                RevokeUserSessionsRequest { user_id: self.victim_id(), tenant_id: self.tenant_id() }
                    .encode_to_vec()
            }
            "DeleteUser" => DeleteUserRequest {
                user_id: self.victim_id(),
                tenant_id: self.tenant_id(),
                etag: self.etag(),
            }
            .encode_to_vec(),
            "BatchGetUsers" => {
                let user_ids = (0..self.random.below(6)).map(|_| self.user_id()).collect();
                BatchGetUsersRequest { user_ids, tenant_id: self.tenant_id() }.encode_to_vec()
            }
            "GetUserByEmail" => GetUserByEmailRequest { email: self.email() }.encode_to_vec(),
            "GetUserByExternalId" => {
                GetUserByExternalIdRequest { tenant_id: self.tenant_id(), external_id: self.external_id() }
                    .encode_to_vec()
            }
            "ListUsers" => {
                let prefix = match self.random.percent(50) {
                    true => self.email(),
                    false => self.random.one_of(&[&self.a.name, &self.b.name, ""]).to_owned(),
                };
                ListUsersRequest {
                    tenant_id: self.tenant_id(),
                    page_size: self.page_size(),
                    page_token: self.page_token(),
                    count_total: self.random.percent(50),
                    email_prefix: if self.random.percent(50) { prefix } else { String::new() },
                    role: self.number(),
                    order: self.number(),
                    ..ListUsersRequest::default()
                }
                .encode_to_vec()
            }
            "GetTenant" => GetTenantRequest { tenant_id: self.tenant_id() }.encode_to_vec(),
            "UpdateTenant" => {
                let tenant = Tenant {
                    id: self.tenant_id(),
                    name: self.made_up_name(),
                    etag: self.etag(),
                    ..Tenant::default()
                };
                let paths = vec![self.random.one_of(&["name", "name", "name", "id"]).to_owned()];
                let update_mask = Some(FieldMask { paths });
                UpdateTenantRequest { tenant: Some(tenant), update_mask }.encode_to_vec()
            }
            "DeleteTenant" => {
                let tenant_id = match self.random.below(100) {
                    0..15 => self.a.tenant_id.clone(),
                    15..80 => self.b.tenant_id.clone(),
                    _ => self.nobodys_id(),
                };
                DeleteTenantRequest { tenant_id, etag: self.etag() }.encode_to_vec()
            }
            "ListTenants" => ListTenantsRequest {
                page_size: self.page_size(),
                page_token: self.page_token(),
                count_total: self.random.percent(50),
            }
            .encode_to_vec(),
            _ => panic!("{method} has no messages here"),
        }
    }

    /// A change of one or two fields; the others are empty, since they do not count.
    fn user_update(&mut self) -> UpdateUserRequest {
        let mut user =
            User { id: self.user_id(), tenant_id: self.tenant_id(), etag: self.etag(), ..User::default() };
        let mut paths = Vec::new();
        for _ in 0..=self.random.below(2) {
            let path =
                self.random.one_of(&["email", "first_name", "last_name", "role", "external_id", "tenant_id"]);
            match path {
                "email" => user.email = self.email(),
                "first_name" => user.first_name = self.made_up_name(),
                "last_name" => user.last_name = self.made_up_name(),
                "role" => user.role = self.number(),
                "external_id" => user.external_id = self.external_id(),
                _ => {}
            }
            paths.push(path.to_owned());
        }
        UpdateUserRequest {
            user: Some(user),
            update_mask: Some(FieldMask { paths }),
            current_password: PASSWORD.to_owned(),
        }
    }

    fn optional(&mut self, value: fn(&mut Self) -> String) -> String {
        if self.random.percent(30) { value(self) } else { String::new() }
    }

    fn nobodys_id(&mut self) -> String {
        self.random.one_of(&[&new_id(), &new_id(), "", "x"]).to_owned()
    }

    fn user_id(&mut self) -> String {
        match self.random.below(100) {
            0..40 => self.random.of(&self.a.user_ids).to_owned(),
            40..85 => self.random.of(&self.b.user_ids).to_owned(),
            _ => self.nobodys_id(),
        }
    }

    /// A user to whom something is done after which A may be of no more use.
    fn victim_id(&mut self) -> String {
        match self.random.below(100) {
            0..12 => self.random.of(&self.a.user_ids).to_owned(),
            12..80 => self.random.of(&self.b.user_ids).to_owned(),
            _ => self.nobodys_id(),
        }
    }

    fn tenant_id(&mut self) -> String {
        match self.random.below(100) {
            0..40 => String::new(),
            40..65 => self.a.tenant_id.clone(),
            65..92 => self.b.tenant_id.clone(),
            _ => self.nobodys_id(),
        }
    }

    fn session_id(&mut self) -> String {
        match self.random.below(100) {
            0..20 => self.random.of(&self.a.session_ids).to_owned(),
            20..80 => self.random.of(&self.b.session_ids).to_owned(),
            _ => self.nobodys_id(),
        }
    }

    fn any_id(&mut self) -> String {
        match self.random.below(3) {
            0 => self.user_id(),
            1 => self.tenant_id(),
            _ => self.session_id(),
        }
    }

    fn email(&mut self) -> String {
        match self.random.below(100) {
            0..30 => self.random.of(&self.a.emails).to_owned(),
            30..75 => self.random.of(&self.b.emails).to_owned(),
            75..95 => format!("{}@example.com", new_id()),
            _ => "x".to_owned(),
        }
    }

    fn external_id(&mut self) -> String {
        format!("x-{}", self.email())
    }

    /// Of A's own sessions only: B's are B's credentials.
    fn refresh_token(&mut self) -> String {
        let people = self.home.people();
        match self.random.percent(20) {
            true => people[self.random.below(people.len())].refresh_token.clone(),
            false => "x".to_owned(),
        }
    }

    fn page_token(&mut self) -> String {
        match self.random.below(100) {
            0..60 => String::new(),
            60..75 => self.random.of(&self.a.page_tokens).to_owned(),
            75..95 => self.random.of(&self.b.page_tokens).to_owned(),
            _ => "x".to_owned(),
        }
    }

    /// Which versions there are is no secret: those of B are those of A.
    fn etag(&mut self) -> String {
        match self.random.below(100) {
            0..60 => String::new(),
            60..75 => self.random.of(&self.a.etags).to_owned(),
            75..90 => self.random.of(&self.b.etags).to_owned(),
            _ => "x".to_owned(),
        }
    }

    fn page_size(&mut self) -> i32 {
        [0, 1, 3, 1_000, i32::MAX, -1][self.random.below(6)]
    }

    /// Of an enum, now and then one that is not known.
    fn number(&mut self) -> i32 {
        [0, 1, 2, 3, 1, 2, 3, 77][self.random.below(8)]
    }

    fn made_up_name(&mut self) -> String {
        format!("Made up {}", self.random.below(1_000))
    }
}
