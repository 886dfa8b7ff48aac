//! `identity tenant`: creates, lists, changes and deletes tenants.

use serde::Serialize;

use super::arguments::{Consent, TenantAction, TenantCommand};
use super::operator::{Failure, Operator, Start};
use super::streams::notify;
use super::table::{Form, Row, precise, print_list, print_one};
use super::{Outcome, prompt};
use crate::config::{Environment, Fault, Flags};
use crate::domain::{Etag, SystemClock, Tenant, TenantId};
use crate::service::directory::changes::{self, TenantChanges};
use crate::service::directory::find_tenants;
use crate::service::directory::pieces::Pieces;
use crate::service::directory::user_search::count_users;
use crate::service::{ServiceError, removal};
use crate::storage;
use crate::storage::user_lists::UserFilter;

/// Does what `command` says. What a program may read goes to standard output, the rest to standard error.
///
/// # Errors
/// The faults of the settings that it needs.
pub(super) fn run(
    command: TenantCommand,
    flags: &Flags,
    environment: &dyn Environment,
) -> Result<Outcome, Vec<Fault>> {
    let start = Start { flags, environment, form: Form::of(command.json) };
    match command.action {
        TenantAction::Create { name } => start.run(async |operator| {
            let tenant = operator
                .change("create tenant", async |tx, by, now| changes::create_tenant(tx, by, name, now).await);
            print_one(operator.form, &ShownTenant::of(&tenant.await?))
        }),
        TenantAction::List(length) => start.run(async |operator| {
            let page = async |size, after| find_tenants(&Pieces::of(&operator.storage), size, after).await;
            print_list(operator.form, length.most(), ShownTenant::of, page).await
        }),
        TenantAction::Show { id } => start
            .run(async |operator| print_one(operator.form, &ShownTenant::of(&find(&operator, id).await?))),
        TenantAction::Rename { id, name } => start.run(async |operator| {
            let changes = TenantChanges { name: Some(name) };
            let tenant = operator.change("update tenant", async |tx, by, now| {
                changes::update_tenant(tx, by, id, None, changes, now).await
            });
            print_one(operator.form, &ShownTenant::of(&tenant.await?))
        }),
        TenantAction::Delete { id, consent } => {
            start.run_deleting(consent, async |operator| delete(&operator, id, consent).await)
        }
    }
}

/// Prints the tenant as it was.
async fn delete(operator: &Operator, id: TenantId, consent: Consent) -> Outcome {
    let tenant = find(operator, id).await?;
    let all =
        UserFilter { tenant_id: id, email_prefix: None, role: None, created_from: None, created_until: None };
    let users = count_users(&Pieces::of(&operator.storage), &all).await?;
    let or_more = if users.is_estimate { " or more" } else { "" };
    let deed = format!("deletes the tenant {id} with its {}{or_more} users", users.number);
    prompt::confirm(consent, &deed, tenant.name.as_str())?;
    operator
        .change("delete tenant", async |tx, by, now| changes::delete_tenant(tx, by, id, None, now).await)
        .await?;
    notify("identity: the tenant and its users have been deleted");
    print_one(operator.form, &ShownTenant::of(&tenant))?;
    // No server may be running. Where this is interrupted, the next one goes on.
    removal::remove_now(&operator.storage, &SystemClock, id).await?;
    Ok(())
}

async fn find(operator: &Operator, id: TenantId) -> Result<Tenant, Failure> {
    let found = storage::tenants::find(&mut operator.storage.read().await?, id).await?;
    Ok(found.ok_or(ServiceError::TenantNotFound)?)
}

/// A tenant as the contract's `Tenant` has it.
#[derive(Serialize)]
pub(super) struct ShownTenant {
    id: String,
    pub(super) name: String,
    created_at: String,
    updated_at: String,
    etag: String,
}

impl ShownTenant {
    pub(super) fn of(tenant: &Tenant) -> Self {
        Self {
            id: tenant.id.to_string(),
            name: tenant.name.as_str().to_owned(),
            created_at: precise(tenant.created_at),
            updated_at: precise(tenant.updated_at),
            etag: Etag::of(tenant.version).into_string(),
        }
    }
}

impl Row for ShownTenant {
    const COLUMNS: &'static [&'static str] = &["id", "name", "created"];

    fn cells(&self) -> Vec<String> {
        vec![self.id.clone(), self.name.clone(), self.created_at.clone()]
    }
}
