//! What each kind of caller may call: one table for all RPCs.
//!
//! A row says who gets past the door, and how far what lies behind it goes. That a caller sees no
//! further is up to the queries, which all name the tenant.

use super::caller::{Caller, ServiceIdentity};
use super::error::ServiceError;

/// How far a kind of caller may go in an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Not past the door.
    Denied,
    /// What belongs to the caller alone.
    Own,
    /// What belongs to the caller's tenant.
    OwnTenant,
    /// Whatever the request names.
    Everything,
}

/// The row of an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Callers without credentials.
    pub anonymous: Reach,
    /// Holders of an access token.
    pub user: Reach,
    /// Other services, on nobody's behalf.
    pub service: Reach,
}

impl Access {
    /// Whether an access token makes a difference. Where everybody may call, none is looked at: an
    /// outdated one must not keep anyone from logging in.
    pub fn looks_at_users(self) -> bool {
        self.anonymous == Reach::Denied
    }
}

/// What the request holds is all that counts: a password, or a token.
const ANYBODY: Access =
    Access { anonymous: Reach::Everything, user: Reach::Everything, service: Reach::Everything };
const USERS_THEIR_OWN: Access = Access { anonymous: Reach::Denied, user: Reach::Own, service: Reach::Denied };
const USERS_THEIR_TENANT: Access =
    Access { anonymous: Reach::Denied, user: Reach::OwnTenant, service: Reach::Everything };

/// The table: each RPC by its full name, as in the path of a call.
const TABLE: [(&str, Access); 9] = [
    ("identity.v1.IdentityService/Register", ANYBODY),
    ("identity.v1.IdentityService/Login", ANYBODY),
    ("identity.v1.IdentityService/GetUser", USERS_THEIR_TENANT),
    ("identity.v1.IdentityService/RefreshSession", ANYBODY),
    ("identity.v1.IdentityService/Logout", ANYBODY),
    ("identity.v1.IdentityService/ListSessions", USERS_THEIR_OWN),
    ("identity.v1.IdentityService/RevokeSession", USERS_THEIR_OWN),
    ("identity.v1.IdentityService/ChangePassword", USERS_THEIR_OWN),
    ("identity.v1.IdentityService/VerifyToken", ANYBODY),
];

/// The row of an RPC, if the table has one.
pub fn access(rpc: &str) -> Option<Access> {
    TABLE.iter().find(|(name, _)| *name == rpc).map(|(_, access)| *access)
}

/// The full name of the RPC that `name` means: that name itself, or the method's alone.
pub fn full_name(name: &str) -> Option<&'static str> {
    let means = |full: &str| full == name || full.rsplit('/').next() == Some(name);
    TABLE.iter().map(|(full, _)| *full).find(|full| means(full))
}

/// Lets `caller` through the door of an RPC, or not.
///
/// # Errors
/// [`ServiceError::TokenInvalid`] when the RPC wants to know who calls and nobody said so;
/// [`ServiceError::PermissionDenied`] when this kind of caller may not call it.
/// [`ServiceError::Fault`] for an RPC without a row: nobody may call it.
pub fn admit(rpc: &str, caller: &Caller) -> Result<(), ServiceError> {
    let Some(access) = access(rpc) else {
        return Err(ServiceError::Fault(format!("{rpc} has no access rule")));
    };
    let (reach, refusal) = match caller {
        Caller::Anonymous => (access.anonymous, ServiceError::TokenInvalid),
        Caller::User(_) => (access.user, ServiceError::PermissionDenied),
        Caller::Service(_) => (access.service, ServiceError::PermissionDenied),
    };
    if reach == Reach::Denied { Err(refusal) } else { Ok(()) }
}

/// Lets a service make a call, be it for itself or for a user, or not.
///
/// # Errors
/// [`ServiceError::PermissionDenied`] when its credential does not allow the RPC.
pub fn admit_service(rpc: &str, service: &ServiceIdentity) -> Result<(), ServiceError> {
    if service.allowed.contain(rpc) { Ok(()) } else { Err(ServiceError::PermissionDenied) }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::domain::{AllowedRpcs, ServiceName, SessionId, TenantId, Timestamp, UserId};
    use crate::service::TokenHolder;

    /// The RPCs of the contract, by their full names.
    fn rpcs() -> Vec<String> {
        let set = FileDescriptorSet::decode(crate::proto::DESCRIPTOR_SET).unwrap();
        let ours = set.file.iter().filter(|file| file.package() == "identity.v1");
        let services = ours.flat_map(|file| {
            file.service.iter().map(|service| (format!("identity.v1.{}", service.name()), &service.method))
        });
        services
            .flat_map(|(service, methods)| {
                methods.iter().map(move |method| format!("{service}/{}", method.name()))
            })
            .collect()
    }

    fn user() -> Caller {
        let now = Timestamp::from_unix_micros(0);
        Caller::User(TokenHolder {
            tenant_id: TenantId::generate(now),
            user_id: UserId::generate(now),
            session_id: SessionId::generate(now),
        })
    }

    fn service() -> Caller {
        Caller::Service(ServiceName::parse("billing").unwrap())
    }

    #[test]
    fn every_rpc_has_exactly_one_row() {
        let mut expected = rpcs();
        let mut rows: Vec<_> = TABLE.iter().map(|(rpc, _)| (*rpc).to_owned()).collect();
        expected.sort_unstable();
        rows.sort_unstable();
        assert_eq!(rows, expected);
    }

    #[test]
    fn the_table_decides_who_gets_in() {
        for (rpc, access) in TABLE {
            let callers =
                [(Caller::Anonymous, access.anonymous), (user(), access.user), (service(), access.service)];
            for (caller, reach) in callers {
                assert_eq!(admit(rpc, &caller).is_ok(), reach != Reach::Denied, "{rpc} {caller:?}");
            }
        }
    }

    #[test]
    fn who_is_not_known_is_told_another_thing_than_who_may_not() {
        let rpc = "identity.v1.IdentityService/ChangePassword";
        assert!(matches!(admit(rpc, &Caller::Anonymous), Err(ServiceError::TokenInvalid)));
        assert!(matches!(admit(rpc, &service()), Err(ServiceError::PermissionDenied)));
    }

    #[test]
    fn an_rpc_without_a_row_is_closed_to_everybody() {
        for caller in [Caller::Anonymous, user(), service()] {
            let refusal = admit("identity.v1.IdentityService/Unheard", &caller);
            assert!(matches!(refusal, Err(ServiceError::Fault(_))));
        }
    }

    #[test]
    fn a_service_calls_what_its_credential_names() {
        let login = full_name("Login").unwrap();
        let identity = |allowed| ServiceIdentity { name: ServiceName::parse("billing").unwrap(), allowed };
        let only = identity(AllowedRpcs::Only(vec![login.to_owned()]));
        assert!(admit_service(login, &only).is_ok());
        let refusal = admit_service(full_name("GetUser").unwrap(), &only);
        assert!(matches!(refusal, Err(ServiceError::PermissionDenied)));
        assert!(admit_service(login, &identity(AllowedRpcs::All)).is_ok());
    }

    #[test]
    fn an_rpc_may_be_named_by_its_method() {
        let full = "identity.v1.IdentityService/GetUser";
        assert_eq!((full_name("GetUser"), full_name(full)), (Some(full), Some(full)));
        for name in ["", "getuser", "User", "/GetUser", "IdentityService/GetUser"] {
            assert_eq!(full_name(name), None, "{name}");
        }
    }
}
