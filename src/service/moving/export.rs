//! All tenants, each followed by its users, as they were at one moment.

use std::collections::VecDeque;

use crate::domain::{Action, Actor, AuditEvent, Clock, TenantId, UserId};
use crate::storage::snapshot::{LogGrowth, Snapshot, StoredUser, TenantRow, list_tenants, list_users};
use crate::storage::{Storage, StorageError, audit};

/// How many tenants or users are read at once.
const PAGE: usize = 5_000;

/// A tenant or a user.
#[derive(Clone, Debug)]
pub enum Exported {
    /// A tenant; its users follow.
    Tenant(TenantRow),
    /// A user of the tenant before.
    User(StoredUser),
}

/// An export under way.
pub struct Export {
    snapshot: Snapshot,
    tenants: VecDeque<TenantRow>,
    last_tenant: Option<TenantId>,
    users: VecDeque<StoredUser>,
    last_user: Option<(TenantId, UserId)>,
    /// Whose users come now.
    tenant: Option<TenantId>,
    has_more_users: bool,
}

impl Export {
    /// Writes to the audit log that `actor` exports, and begins.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn begin(storage: &Storage, clock: &dyn Clock, actor: Actor) -> Result<Self, StorageError> {
        let event = AuditEvent::new(clock.now(), None, actor, Action::Exported);
        let mut tx = storage.begin("record export").await?;
        audit::insert(&mut tx, &event).await?;
        tx.commit().await?;
        Ok(Self {
            snapshot: storage.snapshot("export").await?,
            tenants: VecDeque::new(),
            last_tenant: None,
            users: VecDeque::new(),
            last_user: None,
            tenant: None,
            has_more_users: true,
        })
    }

    /// How much SQLite's log has grown since the beginning; `None` on PostgreSQL.
    pub fn log_growth(&self) -> Option<LogGrowth> {
        self.snapshot.log_growth()
    }

    /// The next tenants and users; none at the end.
    ///
    /// # Errors
    /// [`StorageError`] when the database fails.
    pub async fn next(&mut self) -> Result<Vec<Exported>, StorageError> {
        let mut page = Vec::with_capacity(PAGE);
        while page.len() < PAGE {
            if self.users.is_empty() && self.has_more_users {
                self.users = list_users(&mut self.snapshot, self.last_user, PAGE).await?.into();
                self.last_user = self.users.back().map(StoredUser::key);
                self.has_more_users = self.last_user.is_some();
            }
            if let Some(user) = self.users.pop_front_if(|user| Some(user.key().0) == self.tenant) {
                page.push(Exported::User(user));
                continue;
            }
            if self.tenants.is_empty() {
                self.tenants = list_tenants(&mut self.snapshot, self.last_tenant, PAGE).await?.into();
                self.last_tenant = self.tenants.back().map(|tenant| tenant.id.into()).or(self.last_tenant);
            }
            let Some(tenant) = self.tenants.pop_front() else { break };
            self.tenant = Some(tenant.id.into());
            page.push(Exported::Tenant(tenant));
        }
        Ok(page)
    }
}
