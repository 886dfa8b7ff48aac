//! What each kind of caller may call: one table for all RPCs.
//!
//! A row says who gets past the door, and how far what lies behind it goes. That a caller sees no
//! further is up to the queries, which all name the tenant.

use super::caller::{Caller, ServiceIdentity};
use super::error::ServiceError;
use crate::domain::Role;

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
    /// Holders of an access token who are members now,
    pub member: Reach,
    /// who are admins,
    pub admin: Reach,
    /// and who are owners.
    pub owner: Reach,
    /// Other services, on nobody's behalf.
    pub service: Reach,
}

impl Access {
    /// How far a user of that role may go.
    pub const fn of(self, role: Role) -> Reach {
        match role {
            Role::Member => self.member,
            Role::Admin => self.admin,
            Role::Owner => self.owner,
        }
    }

    /// Whether an access token makes a difference. Where everybody may call, none is looked at: an
    /// outdated one must not keep anyone from logging in.
    pub fn looks_at_users(self) -> bool {
        self.anonymous == Reach::Denied
    }
}

/// The row of an RPC, one cell for each kind of caller.
const fn row(anonymous: Reach, member: Reach, admin: Reach, owner: Reach, service: Reach) -> Access {
    Access { anonymous, member, admin, owner, service }
}

/// Names each RPC, in full as in the path of a call, and gives the table its row.
macro_rules! table {
    ($($name:ident = $rpc:literal: $anonymous:ident $member:ident $admin:ident $owner:ident $service:ident;)*) => {
        $(
            #[doc = concat!("The full name of `", $rpc, "`.")]
            pub const $name: &str = concat!("identity.v1.", $rpc);
        )*

        /// How many RPCs there are.
        pub(super) const RPCS: usize = [$($name),*].len();

        /// The table: each RPC by its full name.
        const TABLE: &[(&str, Access)] = &[$(
            ($name, row(Reach::$anonymous, Reach::$member, Reach::$admin, Reach::$owner, Reach::$service)),
        )*];
    };
}

// Where anonymous callers reach everything, what the request holds is all that counts: a password, or a token.
#[rustfmt::skip]
table! {
    //                                                           anonymous  member     admin      owner      service
    REGISTER             = "IdentityService/Register":           Everything Everything Everything Everything Everything;
    LOGIN                = "IdentityService/Login":              Everything Everything Everything Everything Everything;
    GET_USER             = "IdentityService/GetUser":            Denied     OwnTenant  OwnTenant  OwnTenant  Everything;
    REFRESH_SESSION      = "IdentityService/RefreshSession":     Everything Everything Everything Everything Everything;
    LOGOUT               = "IdentityService/Logout":             Everything Everything Everything Everything Everything;
    LIST_SESSIONS        = "IdentityService/ListSessions":       Denied     Own        Own        Own        Denied;
    REVOKE_SESSION       = "IdentityService/RevokeSession":      Denied     Own        Own        Own        Denied;
    CHANGE_PASSWORD      = "IdentityService/ChangePassword":     Denied     Own        Own        Own        Denied;
    VERIFY_TOKEN         = "IdentityService/VerifyToken":        Everything Everything Everything Everything Everything;
    CREATE_USER          = "DirectoryService/CreateUser":        Denied     Denied     OwnTenant  OwnTenant  Everything;
    UPDATE_USER          = "DirectoryService/UpdateUser":        Denied     Own        OwnTenant  OwnTenant  Everything;
    SET_USER_STATE       = "DirectoryService/SetUserState":      Denied     Denied     OwnTenant  OwnTenant  Everything;
    SET_PASSWORD         = "DirectoryService/SetPassword":       Denied     Denied     OwnTenant  OwnTenant  Everything;
    REVOKE_USER_SESSIONS = "DirectoryService/RevokeUserSessions": Denied    Own        OwnTenant  OwnTenant  Everything;
    DELETE_USER          = "DirectoryService/DeleteUser":        Denied     Denied     OwnTenant  OwnTenant  Everything;
    BATCH_GET_USERS      = "DirectoryService/BatchGetUsers":     Denied     OwnTenant  OwnTenant  OwnTenant  Everything;
    GET_USER_BY_EMAIL    = "DirectoryService/GetUserByEmail":    Denied     Denied     OwnTenant  OwnTenant  Everything;
    LIST_USERS           = "DirectoryService/ListUsers":         Denied     OwnTenant  OwnTenant  OwnTenant  Everything;
    GET_TENANT           = "DirectoryService/GetTenant":         Denied     OwnTenant  OwnTenant  OwnTenant  Everything;
    UPDATE_TENANT        = "DirectoryService/UpdateTenant":      Denied     Denied     Denied     OwnTenant  Everything;
    DELETE_TENANT        = "DirectoryService/DeleteTenant":      Denied     Denied     Denied     OwnTenant  Everything;
    LIST_TENANTS         = "DirectoryService/ListTenants":       Denied     Denied     Denied     Denied     Everything;
    LIST_AUDIT_EVENTS    = "AuditService/ListAuditEvents":       Denied     Denied     OwnTenant  OwnTenant  Everything;
}

/// The row of an RPC, if the table has one.
pub fn access(rpc: &str) -> Option<Access> {
    TABLE.iter().find(|(name, _)| *name == rpc).map(|(_, access)| *access)
}

/// The full name of each RPC.
pub fn rpcs() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The full name of the RPC that `name` means: that name itself, or the method's alone.
pub fn full_name(name: &str) -> Option<&'static str> {
    let means = |full: &str| full == name || full.rsplit('/').next() == Some(name);
    rpcs().find(|full| means(full))
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
    let (gets_in, refusal) = match caller {
        Caller::Anonymous => (access.anonymous != Reach::Denied, ServiceError::TokenInvalid),
        // Only the database knows the role: see `Service::authorize`.
        Caller::User(_) => {
            let roles = [access.member, access.admin, access.owner];
            (roles.iter().any(|reach| *reach != Reach::Denied), ServiceError::PermissionDenied)
        }
        Caller::Service(_) => (access.service != Reach::Denied, ServiceError::PermissionDenied),
    };
    if gets_in { Ok(()) } else { Err(refusal) }
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
        for (rpc, access) in TABLE.iter().copied() {
            let callers =
                [(Caller::Anonymous, access.anonymous), (user(), access.owner), (service(), access.service)];
            for (caller, reach) in callers {
                assert_eq!(admit(rpc, &caller).is_ok(), reach != Reach::Denied, "{rpc} {caller:?}");
            }
        }
    }

    #[test]
    fn a_higher_role_reaches_no_less() {
        let far = |reach| match reach {
            Reach::Denied => 0,
            Reach::Own => 1,
            Reach::OwnTenant => 2,
            Reach::Everything => 3,
        };
        for (rpc, access) in TABLE {
            let reached = [access.member, access.admin, access.owner].map(far);
            assert!(reached.is_sorted(), "{rpc}");
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
