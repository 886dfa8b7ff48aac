//! Which rows of a batch go in: compares them with what is there, and with each other.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use super::Why;
use super::check::{Candidate, CheckedUser, Row};
use crate::domain::{Role, Tenant, TenantId, Timestamp, UserId};
use crate::storage::bulk::{Keys, Known, NewUser};

/// What happens with a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Import,
    /// Is there already.
    There,
    Refuse(Why, &'static str),
}

/// What is decided of a batch.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// One for each row.
    pub(super) verdicts: Vec<Verdict>,
    pub(super) tenants: Vec<Tenant>,
    pub(super) users: Vec<NewUser>,
}

/// What rows before have taken that a look into the database may not show yet: those of the same batch and
/// of the one before it, and in a dry run all of the same run, which is why texts are remembered by a hash of
/// theirs.
#[derive(Default)]
pub(super) struct Taken {
    now: Generation,
    before: Generation,
    hashes: RandomState,
}

#[derive(Default)]
struct Generation {
    tenants: HashMap<TenantId, Timestamp>,
    owned: HashSet<TenantId>,
    users: HashMap<UserId, u64>,
    emails: HashSet<u64>,
    external_ids: HashSet<u64>,
}

impl Taken {
    /// Forgets what the batch before the last one took: it is in the database.
    pub(super) fn begin_batch(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    fn tenant(&self, id: TenantId) -> Option<Timestamp> {
        self.now.tenants.get(&id).or_else(|| self.before.tenants.get(&id)).copied()
    }

    fn user(&self, id: UserId) -> Option<u64> {
        self.now.users.get(&id).or_else(|| self.before.users.get(&id)).copied()
    }

    fn has_email(&self, email: u64) -> bool {
        self.now.emails.contains(&email) || self.before.emails.contains(&email)
    }

    fn has_external_id(&self, id: u64) -> bool {
        self.now.external_ids.contains(&id) || self.before.external_ids.contains(&id)
    }

    fn is_owned(&self, id: TenantId) -> bool {
        self.now.owned.contains(&id) || self.before.owned.contains(&id)
    }
}

/// What has to be looked up to decide on `batch`.
pub(super) fn keys(batch: &[Candidate]) -> Keys {
    let mut keys = Keys::default();
    let mut tenants = HashSet::new();
    for candidate in batch {
        let tenant_id = match &candidate.row {
            Row::Tenant(tenant) => tenant.id,
            Row::User(checked) => {
                let user = &checked.user;
                keys.users.push(user.id);
                keys.emails.push(user.profile.email.as_normalized().to_owned());
                keys.external_ids.extend(external_key(user));
                user.tenant_id
            }
        };
        if tenants.insert(tenant_id) {
            keys.tenants.push(tenant_id);
        }
    }
    keys
}

/// What an external id is told apart by.
fn external_key(user: &NewUser) -> Option<(TenantId, String)> {
    user.profile.external_id.as_ref().map(|id| (user.tenant_id, id.as_str().to_owned()))
}

/// Decides in the order of the rows: whoever comes first has the id, the e-mail or the external id.
pub(super) fn decide(batch: &[Candidate], known: &Known, taken: &mut Taken) -> Decision {
    let mut decision = Decision::default();
    for candidate in batch {
        let verdict = match &candidate.row {
            Row::Tenant(tenant) => decide_tenant(tenant, known, taken),
            Row::User(checked) => decide_user(&checked.user, known, taken),
        };
        if verdict == Verdict::Import {
            match &candidate.row {
                Row::Tenant(tenant) => decision.tenants.push(tenant.clone()),
                Row::User(checked) => decision.users.push(taken.with_role(checked, known)),
            }
        }
        decision.verdicts.push(verdict);
    }
    decision
}

fn decide_tenant(tenant: &Tenant, known: &Known, taken: &mut Taken) -> Verdict {
    let there = known.tenants.get(&tenant.id).map(|tenant| tenant.created_at);
    match there.or_else(|| taken.tenant(tenant.id)) {
        // The name may have been changed since.
        Some(created_at) if created_at == tenant.created_at => Verdict::There,
        Some(_) => Verdict::Refuse(Why::DuplicateId, "another tenant has the id"),
        None => {
            taken.now.tenants.insert(tenant.id, tenant.created_at);
            Verdict::Import
        }
    }
}

fn decide_user(user: &NewUser, known: &Known, taken: &mut Taken) -> Verdict {
    const DUPLICATE: Verdict = Verdict::Refuse(Why::DuplicateId, "another user has the id");

    if let Some(users) = known.users.get(&user.id) {
        // The e-mail may have been changed since.
        let is_there = users.iter().any(|there| {
            there.tenant_id == user.tenant_id
                && there.created_at == user.created_at
                && (there.version > 1 || there.email == user.profile.email.as_given())
        });
        return if is_there { Verdict::There } else { DUPLICATE };
    }
    let whole = taken.hashes.hash_one((user.tenant_id, user.created_at, user.profile.email.as_given()));
    match taken.user(user.id) {
        Some(before) if before == whole => return Verdict::There,
        Some(_) => return DUPLICATE,
        None => {}
    }
    if !known.tenants.contains_key(&user.tenant_id) && taken.tenant(user.tenant_id).is_none() {
        return Verdict::Refuse(Why::UnknownTenant, "the tenant is not there");
    }
    let email = taken.hashes.hash_one(user.profile.email.as_normalized());
    if known.emails.contains(user.profile.email.as_normalized()) || taken.has_email(email) {
        return Verdict::Refuse(Why::EmailTaken, "another user has the e-mail, perhaps in another case");
    }
    if let Some(key) = external_key(user) {
        let id = taken.hashes.hash_one(&key);
        if known.external_ids.contains(&key) || taken.has_external_id(id) {
            return Verdict::Refuse(Why::ExternalIdTaken, "another user of the tenant has the external_id");
        }
        taken.now.external_ids.insert(id);
    }
    taken.now.emails.insert(email);
    taken.now.users.insert(user.id, whole);
    Verdict::Import
}

impl Taken {
    /// The user as it goes in. Without a role of its own, the first one of a tenant without an owner becomes
    /// that.
    fn with_role(&mut self, CheckedUser { user, has_role }: &CheckedUser, known: &Known) -> NewUser {
        let mut user = user.clone();
        let has_owner = known.tenants.get(&user.tenant_id).is_some_and(|tenant| tenant.has_owner)
            || self.is_owned(user.tenant_id);
        if !has_role && !has_owner {
            user.role = Role::Owner;
        }
        if user.role == Role::Owner {
            self.now.owned.insert(user.tenant_id);
        }
        user
    }
}
