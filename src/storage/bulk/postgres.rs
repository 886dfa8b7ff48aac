//! One statement a table, whose parameters are the columns of all rows.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{BoxedSqlQuery, SqlQuery};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::serialize::ToSql;
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, HasSqlType, Nullable, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{Batch, Keys, Known, KnownTenant, KnownUser, NewUser, Written};
use crate::domain::{Role, Tenant, TenantId};
use crate::storage::audit;
use crate::storage::columns::{DbId, DbInstant, Id, Instant};
use crate::storage::schema::{all_tenants, login_names, tenants, users};

pub(super) async fn find_known(c: &mut &AsyncPgConnection, keys: Keys) -> QueryResult<Known> {
    let mut known = Known::default();
    let of_tenants: Vec<_> = keys.tenants.into_iter().map(DbId::from).collect();
    let of_users: Vec<_> = keys.users.into_iter().map(DbId::from).collect();

    let found = tenants::table
        .filter(tenants::id.eq_any(&of_tenants))
        .select((tenants::id, tenants::created_at))
        // No tenant is deleted while users are added to it.
        .for_key_share()
        .load::<(DbId, DbInstant)>(c)
        .await?;
    for (id, created_at) in found {
        let tenant = KnownTenant { created_at: created_at.into(), has_owner: false };
        known.tenants.insert(id.into(), tenant);
    }
    let owners = users::table
        .filter(users::tenant_id.eq_any(&of_tenants))
        .filter(users::role.eq(Role::Owner.as_str()))
        .select(users::tenant_id)
        .distinct()
        .load::<DbId>(c)
        .await?;
    for id in owners {
        if let Some(tenant) = known.tenants.get_mut(&TenantId::from(id)) {
            tenant.has_owner = true;
        }
    }
    let found = users::table
        .inner_join(tenants::table)
        .filter(users::id.eq_any(&of_users))
        .select((users::id, users::tenant_id, users::created_at, users::email, users::version))
        .load::<(DbId, DbId, DbInstant, String, i64)>(c)
        .await?;
    for (id, tenant_id, created_at, email, version) in found {
        let user = KnownUser { tenant_id: tenant_id.into(), created_at: created_at.into(), email, version };
        known.users.entry(id.into()).or_default().push(user);
    }
    known.emails = login_names::table
        .inner_join(tenants::table.on(tenants::id.eq(login_names::tenant_id)))
        .filter(login_names::email_normalized.eq_any(keys.emails))
        .select(login_names::email_normalized)
        .load::<String>(c)
        .await?
        .into_iter()
        .collect();
    if !keys.external_ids.is_empty() {
        let (of_tenants, ids): (Vec<_>, Vec<_>) =
            keys.external_ids.into_iter().map(|(tenant_id, id)| (DbId::from(tenant_id), id)).unzip();
        // Each key is looked up in the index: two conditions would look up each tenant with each id.
        let found = sql_query(
            "SELECT u.tenant_id, u.external_id FROM unnest($1, $2) AS k (tenant_id, external_id)
             JOIN users u ON u.tenant_id = k.tenant_id AND u.external_id = k.external_id
             JOIN live_tenants t ON t.id = u.tenant_id",
        );
        let found = found.bind::<Array<Id>, _>(of_tenants).bind::<Array<Text>, _>(ids);
        let found = found.load::<ExternalIdRow>(c).await?.into_iter();
        known.external_ids = found.map(|row| (row.tenant_id.into(), row.external_id)).collect();
    }
    Ok(known)
}

#[derive(QueryableByName)]
struct ExternalIdRow {
    #[diesel(sql_type = Id)]
    tenant_id: DbId,
    #[diesel(sql_type = Text)]
    external_id: String,
}

pub(super) async fn make_room(c: &mut &AsyncPgConnection, keys: Keys) -> QueryResult<Vec<TenantId>> {
    let deleted = all_tenants::table.filter(all_tenants::deleted_at.is_not_null());
    if !diesel::select(diesel::dsl::exists(deleted)).get_result::<bool>(c).await? {
        return Ok(Vec::new());
    }
    let of_tenants: Vec<_> = keys.tenants.into_iter().map(DbId::from).collect();
    let in_the_way = deleted
        .filter(all_tenants::id.eq_any(of_tenants))
        .select(all_tenants::id)
        .load::<DbId>(c)
        .await?
        .into_iter()
        .map(TenantId::from)
        .collect();
    let free = login_names::table
        .filter(login_names::email_normalized.eq_any(keys.emails))
        .filter(login_names::tenant_id.eq_any(deleted.select(all_tenants::id)));
    diesel::delete(free).execute(c).await?;
    Ok(in_the_way)
}

pub(super) async fn insert(c: &mut &AsyncPgConnection, batch: &Batch) -> QueryResult<Written> {
    let written = async {
        insert_tenants(c, &batch.tenants).await?;
        if !batch.users.is_empty() {
            insert_users(c, &batch.users).await?;
            insert_login_names(c, &batch.by_login_name()).await?;
            insert_passwords(c, &batch.users).await?;
        }
        audit::write::postgres(c, &batch.events).await
    };
    // No `ON CONFLICT DO NOTHING`: it would search every index once more.
    match written.await {
        Ok(()) => Ok(Written::All),
        Err(DieselError::DatabaseError(
            DatabaseErrorKind::UniqueViolation | DatabaseErrorKind::ForeignKeyViolation,
            _,
        )) => Ok(Written::Conflict),
        Err(error) => Err(error),
    }
}

/// An INSERT of many rows.
struct Insert<'r> {
    table: &'static str,
    columns: Vec<&'static str>,
    statement: BoxedSqlQuery<'r, Pg, SqlQuery>,
}

impl<'r> Insert<'r> {
    fn into(table: &'static str) -> Self {
        Self { table, columns: Vec::new(), statement: sql_query("").into_boxed() }
    }

    /// Adds a column with its value in each row.
    fn column<ST, V>(mut self, name: &'static str, values: impl Iterator<Item = V>) -> Self
    where
        Pg: HasSqlType<ST>,
        Vec<V>: ToSql<Array<ST>, Pg> + Send + 'r,
        ST: Send + 'static,
    {
        self.columns.push(name);
        self.statement = self.statement.bind::<Array<ST>, _>(values.collect::<Vec<_>>());
        self
    }

    async fn execute(self, c: &mut &AsyncPgConnection) -> QueryResult<()> {
        let places: Vec<_> = (1..=self.columns.len()).map(|number| format!("${number}")).collect();
        let (table, columns, places) = (self.table, self.columns.join(", "), places.join(", "));
        let text = format!("INSERT INTO {table} ({columns}) SELECT * FROM unnest({places})");
        self.statement.sql(text).execute(c).await.map(drop)
    }
}

async fn insert_tenants(c: &mut &AsyncPgConnection, rows: &[Tenant]) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    Insert::into("tenants")
        .column::<Id, _>("id", rows.iter().map(|row| DbId::from(row.id)))
        .column::<Text, _>("name", rows.iter().map(|row| row.name.as_str()))
        .column::<BigInt, _>("version", rows.iter().map(|row| row.version))
        .column::<Instant, _>("created_at", rows.iter().map(|row| DbInstant::from(row.created_at)))
        .column::<Instant, _>("updated_at", rows.iter().map(|row| DbInstant::from(row.updated_at)))
        .execute(c)
        .await
}

async fn insert_users(c: &mut &AsyncPgConnection, users: &[NewUser]) -> QueryResult<()> {
    let rows: Vec<_> = users.iter().map(NewUser::row).collect();
    Insert::into("users")
        .column::<Id, _>("tenant_id", rows.iter().map(|row| row.tenant_id))
        .column::<Id, _>("id", rows.iter().map(|row| row.id))
        .column::<Text, _>("email", rows.iter().map(|row| row.email.as_str()))
        .column::<Text, _>("first_name", rows.iter().map(|row| row.first_name.as_str()))
        .column::<Text, _>("last_name", rows.iter().map(|row| row.last_name.as_str()))
        .column::<Text, _>("role", rows.iter().map(|row| row.role.as_str()))
        .column::<Text, _>("state", rows.iter().map(|row| row.state.as_str()))
        .column::<BigInt, _>("version", rows.iter().map(|row| row.version))
        .column::<Instant, _>("created_at", rows.iter().map(|row| row.created_at))
        .column::<Instant, _>("updated_at", rows.iter().map(|row| row.updated_at))
        .column::<Nullable<Text>, _>("external_id", rows.iter().map(|row| row.external_id.as_deref()))
        .execute(c)
        .await
}

async fn insert_login_names(c: &mut &AsyncPgConnection, rows: &[&NewUser]) -> QueryResult<()> {
    Insert::into("login_names")
        .column::<Text, _>("email_normalized", rows.iter().map(|row| row.profile.email.as_normalized()))
        .column::<Id, _>("tenant_id", rows.iter().map(|row| DbId::from(row.tenant_id)))
        .column::<Id, _>("user_id", rows.iter().map(|row| DbId::from(row.id)))
        .execute(c)
        .await
}

async fn insert_passwords(c: &mut &AsyncPgConnection, rows: &[NewUser]) -> QueryResult<()> {
    Insert::into("passwords")
        .column::<Id, _>("tenant_id", rows.iter().map(|row| DbId::from(row.tenant_id)))
        .column::<Id, _>("user_id", rows.iter().map(|row| DbId::from(row.id)))
        .column::<Text, _>("scheme", rows.iter().map(|row| row.password.scheme.as_str()))
        .column::<Text, _>("hash", rows.iter().map(|row| row.password.text.as_str()))
        .column::<Instant, _>("changed_at", rows.iter().map(|row| DbInstant::from(row.password_changed_at)))
        .execute(c)
        .await
}
