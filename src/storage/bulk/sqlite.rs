//! Row by row, all of a batch on the thread of the database: a statement costs little there.

use diesel::prelude::*;

use super::{Batch, Keys, Known, KnownTenant, KnownUser, NewUser, Written};
use crate::domain::{Role, Tenant, TenantId};
use crate::storage::audit;
use crate::storage::columns::{DbId, DbInstant};
use crate::storage::rows::WrittenTenant;
use crate::storage::schema::{all_tenants, login_names, passwords, tenants, users};

pub(super) fn find_known(c: &mut SqliteConnection, keys: &Keys) -> QueryResult<Known> {
    let mut known = Known::default();
    for id in &keys.tenants {
        let tenant = tenants::table.find(DbId::from(*id)).select(tenants::created_at);
        if let Some(created_at) = tenant.get_result::<DbInstant>(c).optional()? {
            let owners = users::table
                .filter(users::tenant_id.eq(DbId::from(*id)))
                .filter(users::role.eq(Role::Owner.as_str()));
            let has_owner = diesel::select(diesel::dsl::exists(owners)).get_result(c)?;
            known.tenants.insert(*id, KnownTenant { created_at: created_at.into(), has_owner });
        }
    }
    for id in &keys.users {
        let found = users::table
            .inner_join(tenants::table)
            .filter(users::id.eq(DbId::from(*id)))
            .select((users::tenant_id, users::created_at, users::email, users::version))
            .load::<(DbId, DbInstant, String, i64)>(c)?;
        for (tenant_id, created_at, email, version) in found {
            let user =
                KnownUser { tenant_id: tenant_id.into(), created_at: created_at.into(), email, version };
            known.users.entry(*id).or_default().push(user);
        }
    }
    for email in &keys.emails {
        let name = login_names::table
            .find(email)
            .inner_join(tenants::table.on(tenants::id.eq(login_names::tenant_id)))
            .select(login_names::email_normalized);
        if let Some(email) = name.get_result::<String>(c).optional()? {
            known.emails.insert(email);
        }
    }
    for (tenant_id, id) in &keys.external_ids {
        let users = users::table
            .inner_join(tenants::table)
            .filter(users::tenant_id.eq(DbId::from(*tenant_id)))
            .filter(users::external_id.eq(id));
        if diesel::select(diesel::dsl::exists(users)).get_result(c)? {
            known.external_ids.insert((*tenant_id, id.clone()));
        }
    }
    Ok(known)
}

pub(super) fn make_room(c: &mut SqliteConnection, keys: &Keys) -> QueryResult<Vec<TenantId>> {
    let deleted = all_tenants::table.filter(all_tenants::deleted_at.is_not_null());
    if !diesel::select(diesel::dsl::exists(deleted)).get_result::<bool>(c)? {
        return Ok(Vec::new());
    }
    let mut in_the_way = Vec::new();
    for id in &keys.tenants {
        let found = deleted.filter(all_tenants::id.eq(DbId::from(*id))).select(all_tenants::id);
        in_the_way.extend(found.get_result::<DbId>(c).optional()?.map(TenantId::from));
    }
    for email in &keys.emails {
        let is_free = login_names::tenant_id.eq_any(deleted.select(all_tenants::id));
        diesel::delete(login_names::table.find(email).filter(is_free)).execute(c)?;
    }
    Ok(in_the_way)
}

/// The transaction has the write lock, so that nobody else can have been first since the look.
pub(super) fn insert(c: &mut SqliteConnection, batch: &Batch) -> QueryResult<Written> {
    for tenant in &batch.tenants {
        insert_tenant(c, tenant)?;
    }
    for user in &batch.users {
        insert_user(c, user)?;
        insert_password(c, user)?;
    }
    for user in batch.by_login_name() {
        insert_login_name(c, user)?;
    }
    audit::write::sqlite(c, &batch.events)?;
    Ok(Written::All)
}

fn insert_tenant(c: &mut SqliteConnection, tenant: &Tenant) -> QueryResult<()> {
    diesel::insert_into(all_tenants::table).values(WrittenTenant::of(tenant)).execute(c).map(drop)
}

fn insert_user(c: &mut SqliteConnection, user: &NewUser) -> QueryResult<()> {
    diesel::insert_into(users::table).values(user.row()).execute(c).map(drop)
}

fn insert_login_name(c: &mut SqliteConnection, user: &NewUser) -> QueryResult<()> {
    let row = (
        login_names::email_normalized.eq(user.profile.email.as_normalized()),
        login_names::tenant_id.eq(DbId::from(user.tenant_id)),
        login_names::user_id.eq(DbId::from(user.id)),
    );
    diesel::insert_into(login_names::table).values(row).execute(c).map(drop)
}

fn insert_password(c: &mut SqliteConnection, user: &NewUser) -> QueryResult<()> {
    let row = (
        passwords::tenant_id.eq(DbId::from(user.tenant_id)),
        passwords::user_id.eq(DbId::from(user.id)),
        passwords::scheme.eq(user.password.scheme.as_str()),
        passwords::hash.eq(user.password.text.as_str()),
        passwords::changed_at.eq(DbInstant::from(user.password_changed_at)),
    );
    diesel::insert_into(passwords::table).values(row).execute(c).map(drop)
}
