//! Writes rows as JSON lines.

use std::io::{self, Write as _};

use serde::Serialize;

use super::{FORMAT, VERSION};
use crate::domain::{Tenant, Timestamp, rfc3339};
use crate::service::moving::Exported;
use crate::storage::snapshot::WholeUser;

/// The first line.
pub(in crate::cli::moving) fn header() -> Vec<u8> {
    format!("{{\"type\":\"{FORMAT}\",\"version\":{VERSION}}}\n").into_bytes()
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
    role: &'static str,
    state: &'static str,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_scheme: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password_changed_at: Option<String>,
}

/// Adds the line of a tenant or a user.
pub(in crate::cli::moving) fn write(text: &mut Vec<u8>, row: &Exported) -> io::Result<()> {
    match row {
        Exported::Tenant(tenant) => write_tenant(text, tenant)?,
        Exported::User(user) => write_user(text, user)?,
    }
    text.write_all(b"\n")
}

fn write_tenant(text: &mut Vec<u8>, tenant: &Tenant) -> io::Result<()> {
    let line = TenantLine {
        kind: "tenant",
        id: tenant.id.to_string(),
        name: tenant.name.as_str(),
        created_at: shown(tenant.created_at)?,
        updated_at: shown(tenant.updated_at)?,
    };
    Ok(serde_json::to_writer(text, &line)?)
}

fn write_user(text: &mut Vec<u8>, user: &WholeUser) -> io::Result<()> {
    let password = user.password.as_ref();
    let line = UserLine {
        kind: "user",
        id: user.id.to_string(),
        tenant_id: user.tenant_id.to_string(),
        email: user.email.as_given(),
        first_name: user.first_name.as_str(),
        last_name: user.last_name.as_str(),
        role: user.role.as_str(),
        state: user.state.as_str(),
        created_at: shown(user.created_at)?,
        updated_at: shown(user.updated_at)?,
        password_hash: password.map(|(hash, _)| hash.text.as_str()),
        password_scheme: password.map(|(hash, _)| hash.scheme.as_str()),
        password_changed_at: password.map(|(_, at)| shown(*at)).transpose()?,
    };
    Ok(serde_json::to_writer(text, &line)?)
}

fn shown(at: Timestamp) -> io::Result<String> {
    rfc3339::format(at).ok_or_else(|| io::Error::other("a point in time is beyond the year 9999"))
}
