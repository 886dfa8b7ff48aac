//! Writes rows as JSON lines.

use std::io::{self, Write as _};

use serde::Serialize;

use super::{END, FORMAT, VERSION};
use crate::domain::rfc3339;
use crate::service::moving::Exported;
use crate::storage::snapshot::{StoredTenant, StoredUser};

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

fn tenant_line(tenant: &StoredTenant) -> TenantLine<'_> {
    TenantLine {
        kind: "tenant",
        id: tenant.id.to_string(),
        name: &tenant.name,
        created_at: rfc3339::format_nearest(tenant.created_at),
        updated_at: rfc3339::format_nearest(tenant.updated_at),
    }
}

fn user_line(user: &StoredUser) -> UserLine<'_> {
    let password = user.password.as_ref();
    UserLine {
        kind: "user",
        id: user.id.to_string(),
        tenant_id: user.tenant_id.to_string(),
        email: &user.email,
        first_name: &user.first_name,
        last_name: &user.last_name,
        role: &user.role,
        state: &user.state,
        created_at: rfc3339::format_nearest(user.created_at),
        updated_at: rfc3339::format_nearest(user.updated_at),
        password_hash: password.map(|password| password.hash.as_str()),
        password_scheme: password.map(|password| password.scheme.as_str()),
        password_changed_at: password.map(|password| rfc3339::format_nearest(password.changed_at)),
    }
}
