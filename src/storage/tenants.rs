//! Tenants.

use diesel::ExpressionMethods as _;
use diesel_async::RunQueryDsl as _;

use super::columns::{DbId, DbInstant};
use super::connection::{Conn, query};
use super::error::StorageError;
use super::schema::tenants;
use super::transaction::Tx;
use crate::domain::Tenant;

/// Whether there is any tenant.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn find_any(conn: &mut Conn) -> Result<bool, StorageError> {
    let any = diesel::select(diesel::dsl::exists(diesel::QueryDsl::select(tenants::table, tenants::id)));
    query!(conn, |c| any.get_result::<bool>(c))
}

/// Adds a tenant.
///
/// # Errors
/// [`StorageError::Refused`] when the id is taken.
pub async fn insert(tx: &mut Tx, tenant: &Tenant) -> Result<(), StorageError> {
    let row = (
        tenants::id.eq(DbId::from(tenant.id)),
        tenants::name.eq(tenant.name.as_str()),
        tenants::version.eq(tenant.version),
        tenants::created_at.eq(DbInstant::from(tenant.created_at)),
        tenants::updated_at.eq(DbInstant::from(tenant.updated_at)),
    );
    query!(tx, |c| diesel::insert_into(tenants::table).values(row).execute(c)).map(drop)
}

/// Deletes a tenant with everything that belongs to it; true when there was one.
///
/// # Errors
/// [`StorageError`] when the database fails.
pub async fn delete(tx: &mut Tx, id: crate::domain::TenantId) -> Result<bool, StorageError> {
    let row = diesel::QueryDsl::find(tenants::table, DbId::from(id));
    query!(tx, |c| diesel::delete(row).execute(c)).map(|rows| rows > 0)
}
