//! `identity user`: creates, lists, changes and deletes users, as callers do over gRPC. Servers that run see it
//! with the next call.

use serde::Serialize;

use super::Outcome;
use super::arguments::{Consent, NewUserArguments, OneUser, UserAction, UserCommand, UserList, Whom};
use super::operator::{Failure, Operator, Start};
use super::passwords::NewPasswords;
use super::prompt;
use super::streams::notify;
use super::table::{Form, Row, precise, print_list, print_one};
use super::tenant::ShownTenant;
use crate::config::{Environment, Fault, Flags};
use crate::domain::{Etag, ExternalId, Order, Profile, User, UserState};
use crate::service::ServiceError;
use crate::service::directory::changes::{self, NewUser, UserChanges};
use crate::service::directory::pieces::Pieces;
use crate::service::directory::user_search::find_users;
use crate::storage;
use crate::storage::user_lists::UserFilter;

/// Does what `command` says. What a program may read goes to standard output, the rest to standard error.
///
/// # Errors
/// The faults of the settings that it needs.
pub(super) fn run(
    command: UserCommand,
    flags: &Flags,
    environment: &dyn Environment,
) -> Result<Outcome, Vec<Fault>> {
    let start = Start { flags, environment, form: Form::of(command.json) };
    match command.action {
        UserAction::Create(new) => {
            start.run_with_passwords(async |operator, passwords| create(&operator, &passwords, new).await)
        }
        UserAction::List(arguments) => start.run(async |operator| list(&operator, arguments).await),
        UserAction::Show(user) => start.run(async |operator| {
            let user = find(&operator, &user).await?;
            print_one(operator.form, &ShownUser::of(&user))
        }),
        UserAction::Update(arguments) => start.run(async |operator| {
            let changes = UserChanges {
                email: arguments.email,
                first_name: arguments.first_name,
                last_name: arguments.last_name,
                ..UserChanges::default()
            };
            update(&operator, &arguments.user, changes).await
        }),
        UserAction::SetRole { user, role } => start.run(async |operator| {
            update(&operator, &user, UserChanges { role: Some(role), ..UserChanges::default() }).await
        }),
        UserAction::SetPassword(user) => start
            .run_with_passwords(async |operator, passwords| set_password(&operator, &passwords, &user).await),
        UserAction::Disable(user) => {
            start.run(async |operator| set_state(&operator, &user, UserState::Disabled).await)
        }
        UserAction::Enable(user) => {
            start.run(async |operator| set_state(&operator, &user, UserState::Active).await)
        }
        UserAction::RevokeSessions(user) => {
            start.run(async |operator| revoke_sessions(&operator, &user).await)
        }
        UserAction::Delete { user, consent } => {
            start.run_deleting(consent, async |operator| delete(&operator, &user, consent).await)
        }
    }
}

async fn create(operator: &Operator, passwords: &NewPasswords, new: NewUserArguments) -> Outcome {
    let tenant_id = new.tenant;
    let profile =
        Profile { email: new.email, first_name: new.first_name, last_name: new.last_name, external_id: None };
    let new = NewUser { profile, role: new.role };
    // Before a password is asked for in vain.
    {
        let mut conn = operator.storage.read().await?;
        storage::tenants::find(&mut conn, tenant_id).await?.ok_or(ServiceError::TenantNotFound)?;
        if storage::users::find_by_email(&mut conn, &new.profile.email).await?.is_some() {
            return Err(ServiceError::EmailTaken.into());
        }
    }
    let hash = passwords.obtain(&new.profile.email).await?;
    let user = operator.change("create user", async |tx, by, now| {
        changes::create_user(tx, by, tenant_id, new, &hash, now).await?.ok_or(ServiceError::EmailTaken)
    });
    print_one(operator.form, &ShownUser::of(&user.await?))
}

async fn list(operator: &Operator, arguments: UserList) -> Outcome {
    let filter = UserFilter {
        tenant_id: arguments.tenant,
        email_prefix: arguments.email_prefix,
        role: arguments.role,
        created_from: None,
        created_until: None,
    };
    let order = if arguments.oldest_first { Order::OldestFirst } else { Order::NewestFirst };
    {
        let mut conn = operator.storage.read().await?;
        storage::tenants::find(&mut conn, filter.tenant_id).await?.ok_or(ServiceError::TenantNotFound)?;
    }
    let page =
        async |size, after| find_users(&Pieces::of(&operator.storage), &filter, order, size, after).await;
    print_list(operator.form, arguments.length.most(), ShownUser::of, page).await
}

async fn update(operator: &Operator, user: &OneUser, changes: UserChanges) -> Outcome {
    let user = find(operator, user).await?;
    let whose = (user.id, Some(user.tenant.id));
    let user = operator.change("update user", async |tx, by, now| {
        changes::update_user(tx, by, whose, None, changes, now).await?.ok_or(ServiceError::EmailTaken)
    });
    print_one(operator.form, &ShownUser::of(&user.await?))
}

async fn set_password(operator: &Operator, passwords: &NewPasswords, user: &OneUser) -> Outcome {
    let user = find(operator, user).await?;
    let hash = passwords.obtain(&user.profile.email).await?;
    let whose = (user.id, Some(user.tenant.id));
    operator
        .change("set password", async |tx, by, now| changes::set_password(tx, by, whose, &hash, now).await)
        .await?;
    notify("identity: the password is another one, and all sessions have ended");
    print_one(operator.form, &ShownUser::of(&user))
}

async fn set_state(operator: &Operator, user: &OneUser, state: UserState) -> Outcome {
    let user = find(operator, user).await?;
    let whose = (user.id, Some(user.tenant.id));
    let user = operator.change("set user state", async |tx, by, now| {
        changes::set_user_state(tx, by, whose, None, state, now).await
    });
    print_one(operator.form, &ShownUser::of(&user.await?))
}

async fn revoke_sessions(operator: &Operator, user: &OneUser) -> Outcome {
    let user = find(operator, user).await?;
    let whose = (user.id, Some(user.tenant.id));
    let revoke = async |tx: &mut _, by: &_, now| changes::revoke_user_sessions(tx, by, whose, now).await;
    operator.change("revoke user sessions", revoke).await?;
    notify("identity: all sessions have ended");
    print_one(operator.form, &ShownUser::of(&user))
}

/// Prints the user as he was.
async fn delete(operator: &Operator, user: &OneUser, consent: Consent) -> Outcome {
    let user = find(operator, user).await?;
    let deed = format!("deletes the user {} of the tenant {:?}", user.id, user.tenant.name.as_str());
    prompt::confirm(consent, &deed, user.profile.email.as_given())?;
    let whose = (user.id, Some(user.tenant.id));
    operator
        .change("delete user", async |tx, by, now| changes::delete_user(tx, by, whose, None, now).await)
        .await?;
    notify("identity: the user has been deleted");
    print_one(operator.form, &ShownUser::of(&user))
}

/// Finds the user that is meant.
async fn find(operator: &Operator, OneUser { user, tenant }: &OneUser) -> Result<User, Failure> {
    let mut conn = operator.storage.read().await?;
    let found = match user {
        Whom::Email(email) => storage::users::find_by_email(&mut conn, email).await?,
        Whom::Id(id) => {
            let found = storage::users::list_by_id(&mut conn, *id).await?;
            match (tenant, found.len()) {
                (Some(tenant), _) => storage::users::find(&mut conn, *tenant, *id).await?,
                (None, 0 | 1) => found.into_iter().next(),
                (None, _) => return Err("several tenants have a user of that id: add --tenant".into()),
            }
        }
    };
    let found = found.filter(|user| tenant.is_none_or(|tenant| tenant == user.tenant.id));
    Ok(found.ok_or(ServiceError::UserNotFound)?)
}

/// A user as the contract's `User` has him, but for role and state, whose names are those of tokens.
#[derive(Serialize)]
struct ShownUser {
    id: String,
    tenant_id: String,
    email: String,
    first_name: String,
    last_name: String,
    role: &'static str,
    state: &'static str,
    created_at: String,
    updated_at: String,
    etag: String,
    external_id: String,
    tenant: ShownTenant,
}

impl ShownUser {
    fn of(user: &User) -> Self {
        Self {
            id: user.id.to_string(),
            tenant_id: user.tenant.id.to_string(),
            email: user.profile.email.as_given().to_owned(),
            first_name: user.profile.first_name.as_str().to_owned(),
            last_name: user.profile.last_name.as_str().to_owned(),
            role: user.role.as_str(),
            state: user.state.as_str(),
            created_at: precise(user.created_at),
            updated_at: precise(user.updated_at),
            etag: Etag::of(user.version).into_string(),
            external_id: user.profile.external_id.as_ref().map_or("", ExternalId::as_str).to_owned(),
            tenant: ShownTenant::of(&user.tenant),
        }
    }
}

impl Row for ShownUser {
    const COLUMNS: &'static [&'static str] =
        &["id", "e-mail", "first name", "last name", "role", "state", "created"];

    fn cells(&self) -> Vec<String> {
        let cells = [&self.id, &self.email, &self.first_name, &self.last_name];
        let words = [self.role, self.state, &self.created_at];
        cells.into_iter().map(String::as_str).chain(words).map(str::to_owned).collect()
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let tenant = format!("{} {}", self.tenant_id, self.tenant.name);
        let more = [
            ("changed", self.updated_at.clone()),
            ("external id", self.external_id.clone()),
            ("tenant", tenant),
        ];
        Self::COLUMNS.iter().copied().zip(self.cells()).chain(more).collect()
    }
}
