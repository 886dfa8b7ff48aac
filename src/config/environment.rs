//! Where environment variables come from, so that tests need not change the process's own.

use std::collections::HashMap;
use std::ffi::OsString;

/// Environment variables by name.
pub trait Environment {
    /// The variable's value, or `None` when it is not set.
    fn get(&self, name: &str) -> Option<OsString>;
}

/// The variables that the process was started with.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    fn get(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

/// Variables from a map.
#[derive(Clone, Default)]
pub struct MapEnvironment(HashMap<String, OsString>);

impl Environment for MapEnvironment {
    fn get(&self, name: &str) -> Option<OsString> {
        self.0.get(name).cloned()
    }
}

impl<K: Into<String>, V: Into<OsString>> FromIterator<(K, V)> for MapEnvironment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}
