//! Users and tenants, changed and listed by those who may.
//!
//! [`changes`] makes each change in a unit of work that somebody else opened, on an authority that was
//! established before; so an operator's commands make the very same. `calls` does that for the RPCs,
//! `lists` finds and lists, by `pages` that are read in
//! `pieces` of bounded cost; [`user_search`] looks for users by a filter.

mod calls;
pub mod changes;
mod lists;
mod pages;
pub mod pieces;
pub mod user_search;

pub(in crate::service) use calls::require_unlike_email;
pub use changes::{NewUser, TenantChanges, UserChanges};
pub use lists::{UserQuery, find_tenants};
pub use pages::{PageQuery, Total};
pub use user_search::Counted;
