//! The keys of one kind of MAC: one to make them with, and those under which older ones are recognised.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;

use super::master_key::MasterKeys;

/// Keys for HMAC-SHA256, derived from the master keys by one label. They can be exchanged while they are in use.
pub(super) struct MacKeys {
    label: &'static str,
    keys: ArcSwap<Derived>,
}

struct Derived {
    current: hmac::Key,
    previous: Vec<hmac::Key>,
}

impl MacKeys {
    /// Keys for the purpose that `label` names.
    pub(super) fn new(master_keys: &MasterKeys, label: &'static str) -> Self {
        Self { label, keys: ArcSwap::from_pointee(derive(master_keys, label)) }
    }

    /// Takes the keys that belong to other master keys from now on.
    pub(super) fn exchange(&self, master_keys: &MasterKeys) {
        self.keys.store(Arc::new(derive(master_keys, self.label)));
    }

    /// What `make` makes with the current key.
    pub(super) fn with_current<T>(&self, make: impl FnOnce(&hmac::Key) -> T) -> T {
        make(&self.keys.load().current)
    }

    /// Whether `holds` is true of any key. The current one comes first.
    pub(super) fn any(&self, holds: impl FnMut(&hmac::Key) -> bool) -> bool {
        let keys = self.keys.load();
        std::iter::once(&keys.current).chain(&keys.previous).any(holds)
    }
}

fn derive(master_keys: &MasterKeys, label: &str) -> Derived {
    let key = |master_key: &super::MasterKey| {
        hmac::Key::new(hmac::HMAC_SHA256, master_key.derive(label).as_bytes())
    };
    Derived { current: key(&master_keys.current), previous: master_keys.previous.iter().map(key).collect() }
}
