//! Writes rows as JSON lines.

use std::io::{self, Write as _};

use serde::Serialize;

use super::{END, FORMAT, VERSION};
use crate::domain::{TenantId, rfc3339};
use crate::service::moving::Exported;
use crate::storage::snapshot::{StoredUser, TenantRow};

/// The first line.
pub(in crate::cli::moving) fn header() -> Vec<u8> {
    format!("{{\"type\":\"{FORMAT}\",\"version\":{VERSION}}}\n").into_bytes()
}

/// The last line of an export of so many rows.
pub(in crate::cli::moving) fn end(rows: u64) -> Vec<u8> {
    format!("{{\"type\":\"{END}\",\"rows\":{rows}}}\n").into_bytes()
}

#[derive(Serialize)]
struct TenantLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    name: &'a str,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize)]
struct UserLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: String,
    tenant_id: String,
    email: &'a str,
    first_name: &'a str,
    last_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a str>,
    role: &'a str,
    state: &'a str,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_scheme: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_changed_at: Option<String>,
}

/// Adds the line of a tenant or a user. RFC 3339 ends at the year 9999: a time beyond is written as the nearest one
/// that it has.
pub(in crate::cli::moving) fn write(text: &mut Vec<u8>, row: &Exported) -> io::Result<()> {
    match row {
        Exported::Tenant(tenant) => serde_json::to_writer(&mut *text, &tenant_line(tenant))?,
        Exported::User(user) => serde_json::to_writer(&mut *text, &user_line(user))?,
    }
    text.write_all(b"\n")
}

fn tenant_line(tenant: &TenantRow) -> TenantLine<'_> {
    TenantLine {
        kind: "tenant",
        id: TenantId::from(tenant.id).to_string(),
        name: &tenant.name,
        created_at: rfc3339::format_nearest(tenant.created_at.into()),
        updated_at: rfc3339::format_nearest(tenant.updated_at.into()),
    }
}

fn user_line(user: &StoredUser) -> UserLine<'_> {
    let (row, password) = (&user.row, user.password.as_ref());
    let (tenant_id, id) = user.key();
    UserLine {
        kind: "user",
        id: id.to_string(),
        tenant_id: tenant_id.to_string(),
        email: &row.email,
        first_name: &row.first_name,
        last_name: &row.last_name,
        external_id: row.external_id.as_deref(),
        role: &row.role,
        state: &row.state,
        created_at: rfc3339::format_nearest(row.created_at.into()),
        updated_at: rfc3339::format_nearest(row.updated_at.into()),
        password_hash: password.map(|password| password.hash.as_str()),
        password_scheme: password.map(|password| password.scheme.as_str()),
        password_changed_at: password.map(|password| rfc3339::format_nearest(password.changed_at)),
    }
}
