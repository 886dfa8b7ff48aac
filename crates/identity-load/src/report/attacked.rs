//! What others notice of an attack.

use std::collections::BTreeMap;

use serde::Serialize;
use tonic::Code;

use crate::closed_loop::Reached;
use crate::memory::Resident;
use crate::tally::{Codes, Latency, Tally};
use crate::timeline::Beside;

/// What others noticed of an attack, and what became of it.
#[derive(Serialize)]
pub(crate) struct Attacked {
    /// How long the attack lasted.
    pub(crate) seconds: u32,
    /// What others did, by its name.
    pub(crate) others: BTreeMap<&'static str, Phases>,
    /// What the attackers called, by its name.
    pub(crate) calls: BTreeMap<&'static str, Answers>,
    /// What else they did, by its name.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) memory: Option<Resident>,
}

/// One kind of calls of others.
#[derive(Serialize)]
pub(crate) struct Phases {
    pub(super) per_second: u32,
    pub(super) before: Answers,
    pub(super) during: Answers,
    /// From a second after the end of the attack.
    pub(super) after: Answers,
    /// How long after they were due calls were sent.
    pub(super) sent_behind: Option<Latency>,
}

/// What became of calls.
#[derive(Serialize)]
pub(crate) struct Answers {
    /// Of all calls, whatever they were answered, from when they were due.
    pub(super) latency: Option<Latency>,
    pub(super) ok: u64,
    /// Those with another code than OK.
    pub(super) failed: u64,
    pub(super) codes: Codes,
}

impl Attacked {
    /// The report of an attack of `seconds`.
    pub(crate) fn new(
        seconds: u32,
        others: impl IntoIterator<Item = (&'static str, Beside)>,
        memory: Option<Resident>,
    ) -> Self {
        let others = others.into_iter().map(|(name, beside)| (name, beside.into())).collect();
        Self { seconds, others, calls: BTreeMap::new(), counts: BTreeMap::new(), memory }
    }

    /// With calls of the attackers.
    pub(crate) fn called(mut self, name: &'static str, calls: impl Into<Answers>) -> Self {
        self.calls.insert(name, calls.into());
        self
    }

    /// With something that the attackers did.
    pub(crate) fn counted(mut self, name: &'static str, count: u64) -> Self {
        self.counts.insert(name, count);
        self
    }
}

impl From<Beside> for Phases {
    fn from(beside: Beside) -> Self {
        Self {
            per_second: beside.rate,
            before: beside.before.into(),
            during: beside.during.into(),
            after: beside.after.into(),
            sent_behind: beside.behind.latency(),
        }
    }
}

impl From<Tally> for Answers {
    fn from(tally: Tally) -> Self {
        Self {
            latency: tally.latency(),
            ok: tally.count(Code::Ok),
            failed: tally.failed(),
            codes: tally.codes(),
        }
    }
}

impl From<Reached> for Answers {
    fn from(reached: Reached) -> Self {
        reached.measured.into()
    }
}
