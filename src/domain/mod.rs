//! The vocabulary of the service: types that cannot be wrong, and the rules they keep.
//!
//! Synchronous and free of I/O. Time comes in as a parameter, from [`clock`]; chance only makes new
//! identifiers unique. Nothing here knows of gRPC, SQL or a hash function.

pub mod attempts;
pub mod audit;
pub mod clock;
mod common_passwords;
pub mod email;
pub mod etag;
pub mod id;
pub mod page;
pub mod party;
pub mod password;
pub mod rfc3339;
pub mod role;
pub mod service;
pub mod session;
pub mod source;
pub mod spiffe;
pub mod tenant;
pub mod text;
pub mod user;
pub mod violation;
mod visible;

pub use attempts::{Attempts, Limit, Room};
pub use audit::{Action, Actor, AuditEvent, AuditOrigin, FieldChange, LoggedEvent, Reason, Target};
pub use clock::{Clock, SystemClock, Timestamp};
pub use email::{Email, EmailPrefix};
pub use etag::Etag;
pub use id::{AuditEventId, RequestId, ServiceTokenId, SessionId, TenantId, UserId};
pub use page::{Order, Page, PageSize};
pub use party::Party;
pub use password::{Password, PasswordHash, PasswordPolicy, PasswordScheme};
pub use role::Role;
pub use service::{AllowedRpcs, ServiceName, ServiceToken};
pub use session::{DeviceLabel, EndUser, Session};
pub use source::Source;
pub use spiffe::SpiffeId;
pub use tenant::{Tenant, TenantName};
pub use user::{ExternalId, PersonName, Profile, User, UserState};
pub use violation::{FieldViolation, Violations};

/// The retry delay for callers who found no room, or the database away, where nobody knows a better one.
pub const RETRY_SOON: std::time::Duration = std::time::Duration::from_secs(1);
