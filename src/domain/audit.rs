//! Audit events: who did what, when, and to whom.
//!
//! An event is written in the unit of work of the change that it tells of, and never changes. It holds no
//! secret: of a password it says that it was changed, of a token which one it was.

use super::clock::Timestamp;
use super::id::{AuditEventId, ServiceTokenId, SessionId, TenantId, UserId};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// Identifies the event within its tenant for ever, and orders it by time.
    pub id: AuditEventId,
    /// Whose event it is; `None` for what belongs to no tenant, such as a login with an unknown e-mail.
    pub tenant_id: Option<TenantId>,
    /// When.
    pub occurred_at: Timestamp,
    /// Who did it.
    pub actor: Actor,
    /// What was done.
    pub action: Action,
    /// To whom.
    pub target: Option<Target>,
    /// What became different, without secrets.
    pub changes: Vec<FieldChange>,
    /// Why, where the action leaves that open.
    pub reason: Option<Reason>,
    /// In which call, where from.
    pub origin: AuditOrigin,
    /// How many alike it stands for: more than 1 for refusals, which are counted.
    pub count: u64,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A caller without credentials.
    Anonymous {
        /// The service that called for him.
        via: Option<String>,
    },
    /// A user.
    User {
        /// Which.
        id: UserId,
        /// The service that called for him.
        via: Option<String>,
    },
    /// Another service, on nobody's behalf in particular.
    Service {
        /// What it is called.
        name: String,
    },
    /// Whoever ran a command on the database.
    Operator {
        /// What the machine calls him, if that is known.
        name: Option<String>,
    },
    /// The service itself.
    System,
}

impl Actor {
    /// The name of the kind: `anonymous`, `user`, `service`, `operator` or `system`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous { .. } => "anonymous",
            Self::User { .. } => "user",
            Self::Service { .. } => "service",
            Self::Operator { .. } => "operator",
            Self::System => "system",
        }
    }

    /// The user, if it is one.
    pub const fn user_id(&self) -> Option<UserId> {
        match self {
            Self::User { id, .. } => Some(*id),
            Self::Anonymous { .. } | Self::Service { .. } | Self::Operator { .. } | Self::System => None,
        }
    }

    /// The name of the service or of the operator, if there is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Anonymous { via } | Self::User { via, .. } => via.as_deref(),
            Self::Service { name } => Some(name),
            Self::Operator { name } => name.as_deref(),
            Self::System => None,
        }
    }
}

/// To whom something was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A user of the event's tenant.
    User(UserId),
    /// A tenant.
    Tenant(TenantId),
    /// A session.
    Session(SessionId),
    /// A credential of another service.
    ServiceToken(ServiceTokenId),
    /// A signing key, by its `kid`.
    SigningKey(String),
}

impl Target {
    /// The name of the kind: `user`, `tenant`, `session`, `service_token` or `signing_key`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Tenant(_) => "tenant",
            Self::Session(_) => "session",
            Self::ServiceToken(_) => "service_token",
            Self::SigningKey(_) => "signing_key",
        }
    }

    /// The UUID or the `kid`, as text.
    pub fn id(&self) -> String {
        match self {
            Self::User(id) => id.to_string(),
            Self::Tenant(id) => id.to_string(),
            Self::Session(id) => id.to_string(),
            Self::ServiceToken(id) => id.to_string(),
            Self::SigningKey(kid) => kid.clone(),
        }
    }
}

/// The words that storage and the wire have for a closed set of things.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// What the word means, if it is one.
            pub fn from_name(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| known.as_str() == word)
            }
        }
    };
}

words!(
    /// What was done.
    Action {
        /// A tenant came to be.
        TenantCreated = "tenant.created",
        /// A tenant's name was changed.
        TenantUpdated = "tenant.updated",
        /// A tenant was deleted, with its users: from then on it exists for nobody.
        TenantDeleted = "tenant.deleted",
        /// The last row of a deleted tenant was removed.
        TenantErased = "tenant.erased",
        /// A user came to be.
        UserCreated = "user.created",
        /// A user's names, e-mail or role were changed.
        UserUpdated = "user.updated",
        /// A user may do nothing any more.
        UserDisabled = "user.disabled",
        /// A user may log in again.
        UserEnabled = "user.enabled",
        /// A user was deleted.
        UserDeleted = "user.deleted",
        /// A user chose another password.
        PasswordChanged = "user.password_changed",
        /// Somebody else gave a user another password.
        PasswordSet = "user.password_set",
        /// The stored hash of the same password was replaced by one of today's form and cost.
        PasswordRehashed = "user.password_rehashed",
        /// All sessions of a user were ended.
        SessionsRevoked = "user.sessions_revoked",
        /// A user logged in, or registered.
        SessionOpened = "session.opened",
        /// A session was ended before its time.
        SessionEnded = "session.ended",
        /// A password check failed.
        LoginFailed = "login.failed",
        /// Calls were refused before anything was looked at.
        CallRefused = "call.refused",
        /// A caller was told that an e-mail is taken.
        EmailTaken = "email.taken",
        /// A credential of a service was made.
        ServiceTokenCreated = "service_token.created",
        /// A credential of a service was revoked.
        ServiceTokenRevoked = "service_token.revoked",
        /// A signing key was made.
        SigningKeyCreated = "signing_key.created",
        /// A signing key was taken to sign, or made to sign earlier.
        SigningKeyAdvanced = "signing_key.advanced",
        /// A signing key was taken out of use.
        SigningKeyRetired = "signing_key.retired",
        /// The signing keys were encrypted under another master key.
        SigningKeysResealed = "signing_key.resealed",
        /// Users and tenants were read in from elsewhere.
        Imported = "directory.imported",
        /// Users and tenants were written out, with password hashes.
        Exported = "directory.exported",
        /// Old events were deleted.
        AuditPruned = "audit.pruned",
    }
);

words!(
    /// Why something was done, or refused.
    Reason {
        /// The password was not the right one.
        WrongPassword = "wrong_password",
        /// The user may not log in.
        UserDisabled = "user_disabled",
        /// Nobody has that e-mail.
        UnknownEmail = "unknown_email",
        /// The session's user asked for it.
        Logout = "logout",
        /// A refresh token was used again after it had been replaced.
        RefreshTokenReused = "refresh_token_reused",
        /// The user has too many sessions; the oldest goes.
        TooManySessions = "too_many_sessions",
        /// Too many failed password checks of an account.
        TooManyAttempts = "too_many_attempts",
        /// Too many registrations by the source, or too many answers that an e-mail is taken.
        TooManyRegistrations = "too_many_registrations",
        /// The user, the tenant or the service had changed too much.
        TooManyChanges = "too_many_changes",
        /// Too many passwords wait to be checked.
        Overloaded = "overloaded",
        /// Read in from elsewhere.
        Imported = "imported",
    }
);

/// A field that became different. What is secret is not named by its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldChange {
    /// The field, as the contract calls it.
    pub field: String,
    /// What it was; `None` when there was nothing.
    pub before: Option<String>,
    /// What it is; `None` when there is nothing any more.
    pub after: Option<String>,
}

impl FieldChange {
    /// A field that was not there before.
    pub fn set(field: &str, after: impl Into<String>) -> Self {
        Self { field: field.to_owned(), before: None, after: Some(after.into()) }
    }

    /// A field that is there no more.
    pub fn removed(field: &str, before: impl Into<String>) -> Self {
        Self { field: field.to_owned(), before: Some(before.into()), after: None }
    }

    /// The field's change, if the two differ.
    pub fn between<'v>(
        field: &str,
        before: impl Into<Option<&'v str>>,
        after: impl Into<Option<&'v str>>,
    ) -> Option<Self> {
        let (before, after) = (before.into().map(str::to_owned), after.into().map(str::to_owned));
        (before != after).then(|| Self { field: field.to_owned(), before, after })
    }
}

/// The call that something happened in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditOrigin {
    /// The call's `x-request-id`.
    pub request_id: Option<String>,
    /// The address that it came from: the end user's, where a service states it.
    pub source: Option<String>,
}

impl AuditEvent {
    /// An event of now, without changes and reason, that stands for itself alone.
    pub fn new(now: Timestamp, tenant_id: Option<TenantId>, actor: Actor, action: Action) -> Self {
        Self {
            id: AuditEventId::generate(now),
            tenant_id,
            occurred_at: now,
            actor,
            action,
            target: None,
            changes: Vec::new(),
            reason: None,
            origin: AuditOrigin::default(),
            count: 1,
        }
    }
}

/// An event as the log holds it.
///
/// The log outlives the version that wrote it, so its words are kept as text: also those that this version does
/// not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Identifies the event within its tenant for ever, and orders it by time.
    pub id: AuditEventId,
    /// Whose event it is; `None` for what belongs to no tenant.
    pub tenant_id: Option<TenantId>,
    /// When.
    pub occurred_at: Timestamp,
    /// The kind of the actor, as [`Actor::kind`] names it.
    pub actor_kind: String,
    /// The user who did it.
    pub actor_id: Option<UserId>,
    /// The name of the service or of the operator.
    pub actor_name: Option<String>,
    /// What was done, as [`Action::as_str`] names it.
    pub action: String,
    /// The kind of the target, as [`Target::kind`] names it.
    pub target_kind: Option<String>,
    /// The UUID or the `kid` of the target.
    pub target_id: Option<String>,
    /// What became different, without secrets.
    pub changes: Vec<FieldChange>,
    /// Why, as [`Reason::as_str`] names it.
    pub reason: Option<String>,
    /// In which call, where from.
    pub origin: AuditOrigin,
    /// How many alike it stands for.
    pub count: u64,
}

impl From<AuditEvent> for LoggedEvent {
    fn from(event: AuditEvent) -> Self {
        Self {
            id: event.id,
            tenant_id: event.tenant_id,
            occurred_at: event.occurred_at,
            actor_kind: event.actor.kind().to_owned(),
            actor_id: event.actor.user_id(),
            actor_name: event.actor.name().map(str::to_owned),
            action: event.action.as_str().to_owned(),
            target_kind: event.target.as_ref().map(|target| target.kind().to_owned()),
            target_id: event.target.as_ref().map(Target::id),
            changes: event.changes,
            reason: event.reason.map(|reason| reason.as_str().to_owned()),
            origin: event.origin,
            count: event.count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_again_and_no_two_are_alike() {
        for action in Action::ALL {
            assert_eq!(Action::from_name(action.as_str()), Some(*action));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(*reason));
        }
        assert_eq!(Action::from_name("user.gone"), None);
    }

    #[test]
    fn every_word_is_explained() {
        let page = include_str!("../../docs/audit.md");
        let words = Action::ALL.iter().map(|action| action.as_str());
        for word in words.chain(Reason::ALL.iter().map(|reason| reason.as_str())) {
            assert!(page.contains(&format!("`{word}`")), "{word}");
        }
    }

    #[test]
    fn what_stayed_the_same_is_no_change() {
        assert_eq!(FieldChange::between("role", "admin", "admin"), None);
        assert!(FieldChange::between("role", "admin", "owner").is_some());
    }
}
