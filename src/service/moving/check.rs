//! Makes domain values of a row, or says which rule it breaks: the first one that is found.

use super::{Incoming, IncomingTenant, IncomingUser, Kind, Refusal, Why};
use crate::crypto::foreign::{cost_of, derived_id, read_hash};
use crate::crypto::hasher::Cost;
use crate::domain::{
    Email, ExternalId, PersonName, Profile, Role, Tenant, TenantName, Timestamp, UserId, UserState, rfc3339,
};
use crate::storage::bulk::NewUser;
use uuid::Uuid;

/// The most bytes of an old id, none of which is known to be longer than a few dozen.
const MAX_ID_BYTES: usize = 200;

/// A row that breaks no rule by itself.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) position: u64,
    pub(super) old_id: String,
    /// Whether the id here is another one.
    pub(super) is_renamed: bool,
    pub(super) row: Row,
}

#[derive(Clone, Debug)]
pub(super) enum Row {
    Tenant(Tenant),
    User(Box<CheckedUser>),
}

/// A user whose role may be open yet.
#[derive(Clone, Debug)]
pub(super) struct CheckedUser {
    /// With the lowest role where that is open.
    pub(super) user: NewUser,
    pub(super) has_role: bool,
}

impl Candidate {
    pub(super) fn kind(&self) -> Kind {
        match self.row {
            Row::Tenant(_) => Kind::Tenant,
            Row::User(_) => Kind::User,
        }
    }

    pub(super) fn new_id(&self) -> Uuid {
        match &self.row {
            Row::Tenant(tenant) => tenant.id.as_uuid(),
            Row::User(checked) => checked.user.id.as_uuid(),
        }
    }

    pub(super) fn refusal(&self, why: Why, detail: &str) -> Refusal {
        let (position, id) = (self.position, Some(self.old_id.clone()));
        Refusal { position, kind: self.kind(), id, why, detail: detail.to_owned() }
    }
}

/// What a row is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// No time is after it.
    pub(super) latest: Timestamp,
    /// No hash asks for more.
    pub(super) max_cost: Cost,
}

/// The candidate that a row is.
pub(super) fn check(row: Incoming, bounds: Bounds) -> Result<Candidate, Refusal> {
    match row {
        Incoming::Unreadable(refusal) => Err(refusal),
        Incoming::Tenant(tenant) => {
            let (position, id) = (tenant.position, tenant.id.clone());
            check_tenant(tenant, bounds.latest).map_err(|fault| fault.of(position, Kind::Tenant, id))
        }
        Incoming::User(user) => {
            let (position, id) = (user.position, user.id.clone());
            check_user(*user, bounds).map_err(|fault| fault.of(position, Kind::User, id))
        }
    }
}

struct Fault(Why, String);

impl Fault {
    fn new(why: Why, field: &str, problem: impl std::fmt::Display) -> Self {
        Self(why, format!("{field} {problem}"))
    }

    fn of(self, position: u64, kind: Kind, id: Option<String>) -> Refusal {
        let id = id.map(|id| id.chars().take(MAX_ID_BYTES).collect());
        Refusal { position, kind, id, why: self.0, detail: self.1 }
    }
}

fn check_tenant(row: IncomingTenant, latest: Timestamp) -> Result<Candidate, Fault> {
    let (id, is_renamed, old_id) = id("id", Kind::Tenant, row.id)?;
    let name = TenantName::parse(&row.name.unwrap_or_default());
    let name = name.map_err(|problem| Fault::new(Why::BadName, "name", problem))?;
    let (created_at, updated_at) = times(row.created_at, row.updated_at, latest)?;
    let tenant = Tenant { id: id.into(), name, version: 1, created_at, updated_at };
    Ok(Candidate { position: row.position, old_id, is_renamed, row: Row::Tenant(tenant) })
}

fn check_user(row: IncomingUser, bounds: Bounds) -> Result<Candidate, Fault> {
    let Bounds { latest, max_cost } = bounds;
    let (user_id, is_renamed, old_id) = id("id", Kind::User, row.id)?;
    let (tenant_id, ..) = id("tenant_id", Kind::Tenant, row.tenant_id)?;
    let email = Email::parse(&row.email.unwrap_or_default());
    let email = email.map_err(|problem| Fault::new(Why::BadEmail, "email", problem))?;
    let first_name = PersonName::parse(&row.first_name.unwrap_or_default());
    let first_name = first_name.map_err(|problem| Fault::new(Why::BadFirstName, "first_name", problem))?;
    let last_name = PersonName::parse(&row.last_name.unwrap_or_default());
    let last_name = last_name.map_err(|problem| Fault::new(Why::BadLastName, "last_name", problem))?;
    let external_id = row.external_id.filter(|id| !id.is_empty()).map(|id| ExternalId::parse(&id));
    let external_id =
        external_id.transpose().map_err(|problem| Fault::new(Why::BadExternalId, "external_id", problem))?;
    let role = row.role.map(|role| {
        Role::from_name(&role)
            .ok_or_else(|| Fault::new(Why::BadRole, "role", "must be owner, admin or member"))
    });
    let state = row.state.map_or(Ok(UserState::Active), |state| {
        UserState::from_name(&state)
            .ok_or_else(|| Fault::new(Why::BadState, "state", "must be active or disabled"))
    })?;
    let (created_at, updated_at) = times(row.created_at, row.updated_at, latest)?;
    let hash = row.password_hash.filter(|hash| !hash.is_empty());
    let hash = hash.ok_or_else(|| Fault::new(Why::BadPasswordHash, "password_hash", "is missing"))?;
    let password = read_hash(hash, row.password_scheme)
        .map_err(|problem| Fault::new(Why::BadPasswordHash, "password_hash", problem))?;
    if cost_of(&password).is_none_or(|cost| cost > max_cost) {
        let problem = format!("asks for a cost of more than {}, which needs --allow-cost", max_cost.get());
        return Err(Fault::new(Why::BadPasswordHash, "password_hash", problem));
    }
    let password_changed_at =
        time("password_changed_at", row.password_changed_at.or(Some(updated_at)), latest)?;
    let role = role.transpose()?;
    let user = NewUser {
        id: user_id.into(),
        tenant_id: tenant_id.into(),
        profile: Profile { email, first_name, last_name, external_id },
        role: role.unwrap_or(Role::Member),
        state,
        created_at,
        updated_at,
        password,
        password_changed_at,
    };
    let row_of_user = Row::User(Box::new(CheckedUser { user, has_role: role.is_some() }));
    Ok(Candidate { position: row.position, old_id, is_renamed, row: row_of_user })
}

/// The id here, whether it is another one, and the old one.
fn id(field: &str, kind: Kind, text: Option<String>) -> Result<(Uuid, bool, String), Fault> {
    let text = text.filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Fault::new(Why::BadId, field, "is missing"))?;
    if text.len() > MAX_ID_BYTES {
        return Err(Fault::new(Why::BadId, field, format_args!("must have at most {MAX_ID_BYTES} bytes")));
    }
    match UserId::parse(&text).map(UserId::as_uuid) {
        // Stands for no tenant in the audit log.
        Ok(uuid) if uuid.is_nil() => Err(Fault::new(Why::BadId, field, "must not be the nil UUID")),
        Ok(uuid) => Ok((uuid, false, text)),
        Err(_) => Ok((derived_id(kind.as_str(), &text), true, text)),
    }
}

/// When it was created and last changed. In the other system these may come from the clocks of two
/// machines; a change from before the creation was one right after it.
fn times(
    created: Option<Timestamp>,
    updated: Option<Timestamp>,
    latest: Timestamp,
) -> Result<(Timestamp, Timestamp), Fault> {
    let created = time("created_at", created, latest)?;
    Ok((created, time("updated_at", updated, latest)?.max(created)))
}

fn time(field: &str, at: Option<Timestamp>, latest: Timestamp) -> Result<Timestamp, Fault> {
    let at = at.filter(|at| rfc3339::is_writable(*at));
    let at =
        at.ok_or_else(|| Fault::new(Why::BadTime, field, "is no point in time of the years 0 to 9999"))?;
    if at > latest {
        return Err(Fault::new(Why::BadTime, field, "is in the future"));
    }
    Ok(at)
}
