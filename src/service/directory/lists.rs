//! Users and tenants, found and listed.
//!
//! A list is authorised on one connection and read on others: see [`super::pieces`].

use std::collections::HashMap;

use super::super::call::Call;
use super::super::{Service, ServiceError};
use super::pages::{PageQuery, Total};
use super::pieces::{Cursor, Found, Piece, Pieced, Pieces};
use super::user_search::{self, Counted, MOST_COUNTED};
use crate::domain::{
    Email, EmailPrefix, ExternalId, Order, Page, PageSize, Role, Tenant, TenantId, Timestamp, User, UserId,
};
use crate::storage::user_lists::UserFilter;
use crate::storage::{self, Conn, StorageError};

/// What is asked of a list of users.
#[derive(Clone, Debug)]
pub struct UserQuery {
    /// Whose users; `None` for those of the caller's tenant.
    pub tenant_id: Option<TenantId>,
    /// How the e-mail begins.
    pub email_prefix: Option<EmailPrefix>,
    /// What they may do.
    pub role: Option<Role>,
    /// Not created before then.
    pub created_from: Option<Timestamp>,
    /// Created before then.
    pub created_until: Option<Timestamp>,
    /// Which come first.
    pub order: Order,
}

impl Service {
    /// Finds users by their ids, in that order; those that the caller may not see do not exist.
    ///
    /// # Errors
    /// Those of an unauthorised caller.
    pub async fn batch_get_users(
        &self,
        call: &Call,
        tenant_id: Option<TenantId>,
        ids: &[UserId],
    ) -> Result<Vec<User>, ServiceError> {
        let listing = self.listing(call).await?;
        let mut conn = listing.connection().await?;
        let by = self.authorize(&mut conn, call).await?;
        let tenant_id = match (by.bound_to(), tenant_id) {
            (Some(own), Some(named)) if own != named => return Ok(Vec::new()),
            (Some(own), _) => Some(own),
            (None, named) => named,
        };
        let found = storage::user_lists::list_by_ids(&mut conn, tenant_id, ids).await?;
        let mut by_id: HashMap<_, Vec<_>> = HashMap::new();
        for user in found {
            by_id.entry(user.id).or_default().push(user);
        }
        // Taken out, so that who was asked for twice is there once.
        Ok(ids.iter().filter_map(|id| by_id.remove(id)).flatten().collect())
    }

    /// Finds the user of an e-mail.
    ///
    /// # Errors
    /// Those of an unauthorised caller; [`ServiceError::UserNotFound`] when the caller may see no such user.
    pub async fn get_user_by_email(&self, call: &Call, email: &Email) -> Result<User, ServiceError> {
        let mut conn = self.reader(call).await?;
        let by = self.authorize(&mut conn, call).await?;
        let found = storage::users::find_by_email(&mut conn, email).await?;
        let visible = found.filter(|user| by.bound_to().is_none_or(|own| own == user.tenant.id));
        visible.ok_or(ServiceError::UserNotFound)
    }

    /// Finds the user of a tenant who has an external id.
    ///
    /// # Errors
    /// Those of an unauthorised caller; [`ServiceError::UserNotFound`] when the caller may see no such user;
    /// [`ServiceError::FieldInvalid`] when a service names no tenant.
    pub async fn get_user_by_external_id(
        &self,
        call: &Call,
        tenant_id: Option<TenantId>,
        external_id: &ExternalId,
    ) -> Result<User, ServiceError> {
        let mut conn = self.reader(call).await?;
        let by = self.authorize(&mut conn, call).await?;
        let tenant_id = match by.tenant("tenant_id", tenant_id) {
            // Nobody of another tenant is there.
            Err(ServiceError::TenantNotFound) => return Err(ServiceError::UserNotFound),
            tenant_id => tenant_id?,
        };
        let found = storage::users::find_by_external_id(&mut conn, tenant_id, external_id).await?;
        found.ok_or(ServiceError::UserNotFound)
    }

    /// A page of a tenant's users, and how many there are in all when that was asked for.
    ///
    /// # Errors
    /// Those of an unauthorised caller; [`ServiceError::TenantNotFound`]; [`ServiceError::FieldInvalid`] when
    /// a service names no tenant, or the page token was not issued for this list.
    pub async fn list_users(
        &self,
        call: &Call,
        query: UserQuery,
        page: PageQuery,
        total: Total,
    ) -> Result<(Page<User>, Option<Counted>), ServiceError> {
        let listing = self.listing(call).await?;
        let by = {
            let mut conn = listing.connection().await?;
            let by = self.authorize(&mut conn, call).await?;
            let tenant_id = by.tenant("tenant_id", query.tenant_id)?;
            if !by.is_user() {
                storage::tenants::find(&mut conn, tenant_id).await?.ok_or(ServiceError::TenantNotFound)?;
            }
            by
        };
        let order = query.order;
        let filter = UserFilter {
            tenant_id: by.tenant("tenant_id", query.tenant_id)?,
            email_prefix: query.email_prefix,
            role: query.role,
            created_from: query.created_from,
            created_until: query.created_until,
        };
        let scope = user_scope(&by.scope(), &filter, order);
        let after = self.cursor(&scope, page.token.as_deref())?;
        let found = user_search::find_users(&Pieces::on(&listing), &filter, order, page.size, after).await?;
        let total = match total {
            Total::Counted => Some(user_search::count_users(&Pieces::on(&listing), &filter).await?),
            Total::Unasked => None,
        };
        Ok((self.page(&scope, found), total))
    }

    /// Finds a tenant: the caller's, or the one named.
    ///
    /// # Errors
    /// Those of an unauthorised caller; [`ServiceError::TenantNotFound`] when the caller may see no such
    /// tenant; [`ServiceError::FieldInvalid`] when a service names none.
    pub async fn get_tenant(&self, call: &Call, tenant_id: Option<TenantId>) -> Result<Tenant, ServiceError> {
        let mut conn = self.reader(call).await?;
        let by = self.authorize(&mut conn, call).await?;
        let tenant_id = by.tenant("tenant_id", tenant_id)?;
        storage::tenants::find(&mut conn, tenant_id).await?.ok_or(ServiceError::TenantNotFound)
    }

    /// A page of all tenants, and how many there are in all when that was asked for.
    ///
    /// # Errors
    /// Those of an unauthorised caller; [`ServiceError::FieldInvalid`] when the page token was not issued for
    /// this list.
    pub async fn list_tenants(
        &self,
        call: &Call,
        page: PageQuery,
        total: Total,
    ) -> Result<(Page<Tenant>, Option<Counted>), ServiceError> {
        let listing = self.listing(call).await?;
        let by = {
            let mut conn = listing.connection().await?;
            self.authorize(&mut conn, call).await?
        };
        let scope = ["tenants".to_owned(), by.scope()];
        let after = self.cursor(&scope, page.token.as_deref())?;
        let found = find_tenants(&Pieces::on(&listing), page.size, after).await?;
        let total = match total {
            Total::Counted => {
                let mut conn = listing.connection().await?;
                let count = storage::tenants::count(&mut conn, MOST_COUNTED + 1).await?;
                Some(Counted::up_to_most(count))
            }
            Total::Unasked => None,
        };
        Ok((self.page(&scope, found), total))
    }
}

/// Finds a page of all tenants, the newest first.
///
/// # Errors
/// [`StorageError`] when the database fails or a row makes no sense.
pub async fn find_tenants(
    pieces: &Pieces<'_>,
    size: PageSize,
    after: Option<Cursor>,
) -> Result<Found<Tenant>, StorageError> {
    pieces.page(&Tenants, size, after).await
}

/// All tenants, the newest first.
struct Tenants;

impl Pieced for Tenants {
    type Entry = Tenant;

    async fn read(
        &self,
        conn: &mut Conn,
        after: Option<Cursor>,
        most: usize,
    ) -> Result<Piece<Tenant>, StorageError> {
        let after = after.map(|(at, id)| (at, TenantId::from(id)));
        Ok(Piece::whole(storage::tenants::list(conn, after, most).await?, most))
    }
}

/// The list that a page token is good for: whose, of whom, and what is asked of it.
fn user_scope(whose: &str, filter: &UserFilter, order: Order) -> [String; 8] {
    let time = |at: Option<Timestamp>| at.map(|at| at.as_unix_micros().to_string()).unwrap_or_default();
    let UserFilter { tenant_id, email_prefix, role, created_from, created_until } = filter;
    [
        "users".to_owned(),
        whose.to_owned(),
        tenant_id.to_string(),
        email_prefix
            .as_ref()
            .map(|prefix| format!("{} {:?}", prefix.as_str(), prefix.going_on()))
            .unwrap_or_default(),
        role.map(|role| role.as_str().to_owned()).unwrap_or_default(),
        time(*created_from),
        time(*created_until),
        format!("{order:?}"),
    ]
}
