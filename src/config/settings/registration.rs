//! Who may register, and how often.

use std::num::NonZeroUsize;

use super::{Name, Reader};

/// Who may register, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrationSettings {
    /// Who may.
    pub mode: RegistrationMode,
    /// How often a source may within an hour, 1 to 1000; `None` for no limit.
    pub limit: Option<NonZeroUsize>,
}

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationMode {
    /// Anybody.
    Open,
    /// Other services of the company.
    Services,
    /// Nobody.
    Closed,
}

const REGISTRATION: Name = Name::with_flag("IDENTITY_REGISTRATION", |flags| flags.registration.as_deref());
const REGISTRATION_LIMIT: Name =
    Name::with_flag("IDENTITY_REGISTRATION_LIMIT", |flags| flags.registration_limit.as_deref());

pub(super) const MODES: [(&str, RegistrationMode); 3] = [
    ("open", RegistrationMode::Open),
    ("services", RegistrationMode::Services),
    ("closed", RegistrationMode::Closed),
];

pub(super) fn read(reader: &mut Reader<'_>) -> RegistrationSettings {
    RegistrationSettings {
        mode: reader.choice(REGISTRATION, &MODES).unwrap_or(RegistrationMode::Open),
        // Each is remembered for an hour, in one row a source.
        limit: reader
            .number(REGISTRATION_LIMIT, 1..=1000)
            .and_then(|limit| NonZeroUsize::new(limit as usize)),
    }
}
