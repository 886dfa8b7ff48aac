//! Which budgets a call takes, and in which order.
//!
//! The server has taken a connection, a stream and the bytes of both before a use case begins. What a use case
//! takes after that is in the table of [`access`](super::access), from left to right. Each budget has a limit in
//! total and is shared out fairly among [parties](Party); it is taken before the work that it is for is queued or
//! spawned, held by the call itself, and given back when that ends, however it ends. A call that finds no room is
//! refused at once, or after two seconds in a queue: [`ServiceError::Overloaded`], or
//! [`ServiceError::TooManyChanges`].

use std::time::{Duration, Instant};

use super::attempts::LimitKind;
use super::call::Call;
use super::caller::{CallContext, Caller};
use super::{Service, ServiceError};
use crate::budget::{Charge, Rate, Rates};
use crate::crypto::hasher::Slot;
use crate::domain::{Party, ServiceName, TenantId, UserId};
use crate::storage::{Conn, Lane, Listing, Permit};

/// Something that there is so much of, for all calls together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// A change of data, of so many a second: `Service::charge_change`.
    Change,
    /// A password hash, held to the end of the call: `Service::reserve_hash`.
    Hash,
    /// A connection for look-ups: `Service::reader`.
    Reads,
    /// A connection for a unit of work that writes: `Service::unit`.
    Writes,
    /// A page of a list, held until it is together: `Service::listing`.
    Pages,
    /// A connection for lists, for each piece of a page anew: `Listing::connection`.
    Lists,
}

impl Service {
    /// Takes one change of data. Whoever changes nothing gets it back: [`Changing::made`] keeps it.
    ///
    /// # Errors
    /// [`ServiceError::TooManyChanges`] when the user, the tenant or the service has made too many lately;
    /// [`ServiceError::TokenInvalid`] when nobody calls.
    pub(super) fn charge_change(&self, call: &Call) -> Result<Changing, ServiceError> {
        let changes = &self.0.changes;
        let charged = match call.caller() {
            Caller::Anonymous => return Err(ServiceError::TokenInvalid),
            Caller::Service(name) => changes.charge_service(name),
            Caller::User(holder) => changes.charge_user(holder.tenant_id, holder.user_id),
        };
        charged.map_err(|retry_after| {
            self.0.refusals.count(LimitKind::Changes);
            ServiceError::TooManyChanges { retry_after }
        })
    }

    /// Takes a password hash, to be kept until everything about the password is done.
    ///
    /// # Errors
    /// [`ServiceError::Overloaded`] when it would come too late, or the caller has had their share.
    pub(super) fn reserve_hash(&self, context: &CallContext) -> Result<Slot, ServiceError> {
        Ok(self.0.hasher.reserve(&context.terms())?)
    }

    /// Takes a connection for a look-up.
    ///
    /// # Errors
    /// [`ServiceError::Overloaded`]; [`ServiceError::Storage`] when the database is away.
    pub(super) async fn reader(&self, context: &CallContext) -> Result<Conn, ServiceError> {
        Ok(self.0.storage.reader(Lane::Reads, context.party).await?)
    }

    /// Takes a page of a list, whose connections are asked for as they are needed.
    ///
    /// # Errors
    /// As `Service::reader`.
    pub(super) async fn listing(&self, context: &CallContext) -> Result<Listing, ServiceError> {
        Ok(self.0.storage.listing(context.party).await?)
    }

    /// Takes the right to a unit of work that writes: to be awaited by the caller's own future, and handed to
    /// [`UnitsOfWork::run`](super::UnitsOfWork::run).
    ///
    /// # Errors
    /// As `Service::reader`.
    pub(super) async fn unit(&self, context: &CallContext) -> Result<Permit, ServiceError> {
        self.unit_of(context.party).await
    }

    /// As [`Service::unit`], for what is left to do when the call has ended.
    pub(super) async fn unit_of(&self, party: Party) -> Result<Permit, ServiceError> {
        Ok(self.0.storage.permit(Lane::Writes, party).await?)
    }
}

/// How many changes there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeRules {
    /// Of one user. All users of a tenant together, and each service, have ten times that.
    pub user: Rate,
}

/// How much more a tenant or a service may change than a user.
const TIMES_USER: u32 = 10;

/// Who has changed how much lately, in this process.
pub struct Changes {
    rules: ChangeRules,
    users: Rates<(TenantId, UserId)>,
    tenants: Rates<TenantId>,
    services: Rates<u64>,
    /// Makes a service's name a key that nobody outside can choose.
    names: std::hash::RandomState,
}

/// A change that is being made. Taken back when dropped before [`Changing::made`].
#[must_use]
pub(super) enum Changing {
    OfUser(Charge<(TenantId, UserId)>, Charge<TenantId>),
    OfService(Charge<u64>),
}

impl Changes {
    /// Nobody has changed anything yet.
    pub fn new(rules: ChangeRules) -> Self {
        Self {
            rules,
            users: Rates::default(),
            tenants: Rates::default(),
            services: Rates::default(),
            names: std::hash::RandomState::new(),
        }
    }

    fn charge_user(&self, tenant_id: TenantId, user_id: UserId) -> Result<Changing, Duration> {
        let now = Instant::now();
        let user = self.users.take((tenant_id, user_id), self.rules.user, now)?;
        let tenant = self.tenants.take(tenant_id, self.rules.user.times(TIMES_USER), now)?;
        Ok(Changing::OfUser(user, tenant))
    }

    fn charge_service(&self, name: &ServiceName) -> Result<Changing, Duration> {
        let key = std::hash::BuildHasher::hash_one(&self.names, name.as_str());
        self.services.take(key, self.rules.user.times(TIMES_USER), Instant::now()).map(Changing::OfService)
    }
}

impl Changing {
    /// Keeps the charge, since something was changed.
    pub(super) fn made(self) {
        match self {
            Self::OfUser(user, tenant) => {
                user.spend();
                tenant.spend();
            }
            Self::OfService(service) => service.spend(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    fn changes() -> Changes {
        Changes::new(ChangeRules { user: Rate { burst: 3, per_second: 1 } })
    }

    fn user(tenant_id: TenantId) -> (TenantId, UserId) {
        (tenant_id, UserId::generate(Timestamp::from_unix_micros(0)))
    }

    #[test]
    fn a_user_and_all_users_of_a_tenant_have_a_limit() {
        let changes = changes();
        let tenant = TenantId::generate(Timestamp::from_unix_micros(0));
        let (_, ada) = user(tenant);
        for _ in 0..3 {
            changes.charge_user(tenant, ada).unwrap().made();
        }
        assert!(changes.charge_user(tenant, ada).is_err());
        let others = (0..100).filter(|_| {
            let (tenant, other) = user(tenant);
            changes.charge_user(tenant, other).map(Changing::made).is_ok()
        });
        assert_eq!(others.count(), 27);
        let elsewhere = TenantId::generate(Timestamp::from_unix_micros(1));
        assert!(changes.charge_user(elsewhere, ada).is_ok());
    }

    #[test]
    fn a_service_has_a_limit_of_its_own_and_what_changes_nothing_costs_nothing() {
        let changes = changes();
        let name = |name| ServiceName::parse(name).unwrap();
        for _ in 0..100 {
            drop(changes.charge_service(&name("billing")).unwrap());
        }
        for _ in 0..30 {
            changes.charge_service(&name("billing")).unwrap().made();
        }
        assert!(changes.charge_service(&name("billing")).is_err());
        assert!(changes.charge_service(&name("orders")).is_ok());
    }
}
