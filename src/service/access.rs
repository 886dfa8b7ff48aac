//! What there is to know of each RPC before it is called: who may call it, and which budgets it takes. One table.
//!
//! A row says who may call, and how much of what is stored the call may reach. That a caller sees no further is up
//! to the queries, which all name the tenant.

use super::admission::Budget::{self, Change, Hash, Lists, Pages, Reads, Writes};
use crate::domain::Role;

use Reach::{Denied, Everything, Own, OwnTenant};

/// How far a kind of caller may go in an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// May not call it.
    Denied,
    /// What belongs to the caller alone.
    Own,
    /// What belongs to the caller's tenant.
    OwnTenant,
    /// Whatever the request names.
    Everything,
}

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody: only the password or the token counts that the request contains. An access token is not looked
    /// at, since an outdated one must not keep anyone from logging in.
    Open,
    /// Users by their role, and services on nobody's behalf; nobody without credentials.
    Limited {
        /// Members.
        member: Reach,
        /// Admins.
        admin: Reach,
        /// Owners.
        owner: Reach,
        /// Services.
        service: Reach,
    },
}

impl Access {
    /// How far a user of that role may go.
    pub fn of_role(self, role: Role) -> Reach {
        match (self, role) {
            (Self::Open, _) => Everything,
            (Self::Limited { member, .. }, Role::Member) => member,
            (Self::Limited { admin, .. }, Role::Admin) => admin,
            (Self::Limited { owner, .. }, Role::Owner) => owner,
        }
    }

    /// How far a service may go.
    pub fn of_services(self) -> Reach {
        match self {
            Self::Open => Everything,
            Self::Limited { service, .. } => service,
        }
    }

    /// Whether a user of any role may call.
    pub fn admits_users(self) -> bool {
        [Role::Member, Role::Admin, Role::Owner].iter().any(|role| self.of_role(*role) != Denied)
    }
}

const OPEN: Access = Access::Open;

const fn limited(member: Reach, admin: Reach, owner: Reach, service: Reach) -> Access {
    Access::Limited { member, admin, owner, service }
}

/// Declares the RPCs, each with its row.
macro_rules! table {
    ($($rpc:ident $name:literal $access:expr => [$($budget:ident),*];)*) => {
        /// An RPC of the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rpc {
            $(#[doc = concat!("`", $name, "`.")] $rpc,)*
        }

        impl Rpc {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$rpc),*];

            /// The full name, as in the path of a call.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$rpc => concat!("identity.v1.", $name),)* }
            }

            /// The budgets that a call takes, in this order. A call with a service token takes a connection for
            /// look-ups before, and one whose fields are invalid takes no other budget than that.
            pub const fn budgets(self) -> &'static [Budget] {
                match self { $(Self::$rpc => &[$($budget),*],)* }
            }
        }

        /// The rows of the contract, in the order of [`Rpc::ALL`].
        const ROWS: [Access; Rpc::ALL.len()] = [$($access),*];
    };
}

#[rustfmt::skip]
table! {
    //                                                               member     admin      owner      service
    Register           "IdentityService/Register"            OPEN                                                  => [Hash, Writes];
    Login              "IdentityService/Login"               OPEN                                                  => [Hash, Writes];
    GetUser            "IdentityService/GetUser"             limited(OwnTenant, OwnTenant, OwnTenant, Everything)  => [Reads];
    RefreshSession     "IdentityService/RefreshSession"      OPEN                                                  => [Writes];
    Logout             "IdentityService/Logout"              OPEN                                                  => [Writes];
    ListSessions       "IdentityService/ListSessions"        limited(Own, Own, Own, Denied)                        => [Pages, Lists];
    RevokeSession      "IdentityService/RevokeSession"       limited(Own, Own, Own, Denied)                        => [Change, Writes];
    ChangePassword     "IdentityService/ChangePassword"      limited(Own, Own, Own, Denied)                        => [Change, Hash, Reads, Writes];
    VerifyToken        "IdentityService/VerifyToken"         OPEN                                                  => [Reads];
    CreateUser         "DirectoryService/CreateUser"         limited(Denied, OwnTenant, OwnTenant, Everything)     => [Change, Hash, Reads, Writes];
    UpdateUser         "DirectoryService/UpdateUser"         limited(Own, OwnTenant, OwnTenant, Everything)        => [Change, Writes];
    SetUserState       "DirectoryService/SetUserState"       limited(Denied, OwnTenant, OwnTenant, Everything)     => [Change, Writes];
    SetPassword        "DirectoryService/SetPassword"        limited(Denied, OwnTenant, OwnTenant, Everything)     => [Change, Hash, Reads, Writes];
    RevokeUserSessions "DirectoryService/RevokeUserSessions" limited(Own, OwnTenant, OwnTenant, Everything)        => [Change, Writes];
    DeleteUser         "DirectoryService/DeleteUser"         limited(Denied, OwnTenant, OwnTenant, Everything)     => [Change, Writes];
    BatchGetUsers      "DirectoryService/BatchGetUsers"      limited(OwnTenant, OwnTenant, OwnTenant, Everything)  => [Pages, Lists];
    GetUserByEmail     "DirectoryService/GetUserByEmail"     limited(Denied, OwnTenant, OwnTenant, Everything)     => [Reads];
    GetUserByExternalId "DirectoryService/GetUserByExternalId" limited(Denied, OwnTenant, OwnTenant, Everything)  => [Reads];
    ListUsers          "DirectoryService/ListUsers"          limited(OwnTenant, OwnTenant, OwnTenant, Everything)  => [Pages, Lists];
    GetTenant          "DirectoryService/GetTenant"          limited(OwnTenant, OwnTenant, OwnTenant, Everything)  => [Reads];
    UpdateTenant       "DirectoryService/UpdateTenant"       limited(Denied, Denied, OwnTenant, Everything)        => [Change, Writes];
    DeleteTenant       "DirectoryService/DeleteTenant"       limited(Denied, Denied, OwnTenant, Everything)        => [Change, Writes];
    ListTenants        "DirectoryService/ListTenants"        limited(Denied, Denied, Denied, Everything)           => [Pages, Lists];
    ListAuditEvents    "AuditService/ListAuditEvents"        limited(Denied, OwnTenant, OwnTenant, Everything)     => [Pages, Lists];
}

impl Rpc {
    /// The RPC that `name` means: its full name, or the method's alone.
    pub fn find(name: &str) -> Option<Self> {
        let means = |full: &str| full == name || full.rsplit('/').next() == Some(name);
        Self::ALL.iter().copied().find(|rpc| means(rpc.name()))
    }
}

/// Who may call which RPC. The default is the contract's table.
#[derive(Clone, Debug)]
pub struct AccessTable([Access; Rpc::ALL.len()]);

impl Default for AccessTable {
    fn default() -> Self {
        Self(ROWS)
    }
}

impl AccessTable {
    /// Who may call `rpc`.
    pub fn of(&self, rpc: Rpc) -> Access {
        self.0[rpc as usize]
    }

    /// The table with another row for `rpc`.
    pub fn with(mut self, rpc: Rpc, access: Access) -> Self {
        self.0[rpc as usize] = access;
        self
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

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

    #[test]
    fn every_rpc_has_exactly_one_row() {
        let mut expected = rpcs();
        let mut rows: Vec<_> = Rpc::ALL.iter().map(|rpc| rpc.name().to_owned()).collect();
        expected.sort_unstable();
        rows.sort_unstable();
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_higher_role_reaches_no_less() {
        let far = |reach| match reach {
            Denied => 0,
            Own => 1,
            OwnTenant => 2,
            Everything => 3,
        };
        for rpc in Rpc::ALL {
            let access = AccessTable::default().of(*rpc);
            let reached = [Role::Member, Role::Admin, Role::Owner].map(|role| far(access.of_role(role)));
            assert!(reached.is_sorted(), "{rpc:?}");
        }
    }

    #[test]
    fn every_rpc_has_its_budgets() {
        for rpc in Rpc::ALL {
            assert!(!rpc.budgets().is_empty(), "{rpc:?}");
        }
    }

    #[test]
    fn an_rpc_may_be_named_by_its_method() {
        let full = "identity.v1.IdentityService/GetUser";
        assert_eq!((Rpc::find("GetUser"), Rpc::find(full)), (Some(Rpc::GetUser), Some(Rpc::GetUser)));
        for name in ["", "getuser", "User", "/GetUser", "IdentityService/GetUser"] {
            assert_eq!(Rpc::find(name), None, "{name}");
        }
    }
}
