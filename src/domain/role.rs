//! What a user may do within the tenant.

/// A user's role. Higher roles may do all that lower ones may: `Owner > Admin > Member`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sees the tenant and its members.
    Member,
    /// Manages members and other admins.
    Admin,
    /// Manages everybody and the tenant itself. Every tenant has at least one.
    Owner,
}

impl Role {
    /// The role's name in tokens and in storage: `owner`, `admin` or `member`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The role of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Owner, Self::Admin, Self::Member].into_iter().find(|role| role.as_str() == name)
    }
}
