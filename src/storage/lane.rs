//! Lanes: connections kept apart by what they are for, so that no kind of work waits for another.

use std::num::NonZeroU32;

/// A kind of work that has connections of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// One row or a few, found by key: look-ups, and the reads that authorise a call.
    Reads,
    /// Writes of callers, and logins.
    Writes,
    /// Lists and counts.
    Lists,
    /// The work of operators, and of the service itself in its own time.
    Operators,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Self; 4] = [Self::Reads, Self::Writes, Self::Lists, Self::Operators];

    /// What metrics call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Lists => "lists",
            Self::Operators => "operators",
        }
    }

    /// How many calls wait for a connection at most. Each holds some kilobytes.
    pub(super) const fn queue(self) -> usize {
        match self {
            Self::Reads | Self::Writes => 1024,
            Self::Lists => 128,
            Self::Operators => 128,
        }
    }
}

/// How many connections to PostgreSQL each lane has. The health probe has one besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSizes {
    /// For look-ups.
    pub reads: NonZeroU32,
    /// For writes and logins.
    pub writes: NonZeroU32,
    /// For lists.
    pub lists: NonZeroU32,
    /// For operators and the service itself.
    pub operators: NonZeroU32,
}

/// As many connections as write where there are not many.
const FEW_WRITERS: u32 = 4;

impl LaneSizes {
    /// The fewest connections that give each lane one.
    pub const MIN_TOTAL: u32 = 4;

    /// Shares out `total` connections: one for operators, a sixteenth for lists, and of the rest a third for writes,
    /// but four or half of it where that is more. Every lane gets one, whatever the total.
    ///
    /// Those that write or list are few on purpose: each has a back end that computes, and where PostgreSQL shares
    /// its processors with the service, look-ups wait for those.
    pub fn of(total: NonZeroU32) -> Self {
        let at_least_one = |size: u32| NonZeroU32::new(size).unwrap_or(NonZeroU32::MIN);
        let lists = at_least_one(total.get() / 16);
        let rest = total.get().saturating_sub(lists.get() + 1);
        let writes = at_least_one((rest / 3).max(rest.div_ceil(2).min(FEW_WRITERS)));
        let reads = at_least_one(rest.saturating_sub(writes.get()));
        Self { reads, writes, lists, operators: NonZeroU32::MIN }
    }

    /// One for each lane.
    pub const MIN: Self = Self::each(NonZeroU32::MIN);

    /// All of `total` for the work of operators: for a command, which does nothing else.
    pub const fn of_command(total: NonZeroU32) -> Self {
        Self { operators: total, ..Self::MIN }
    }

    /// As many for each lane.
    pub const fn each(size: NonZeroU32) -> Self {
        Self { reads: size, writes: size, lists: size, operators: size }
    }

    pub(super) const fn get(self, lane: Lane) -> u32 {
        match lane {
            Lane::Reads => self.reads.get(),
            Lane::Writes => self.writes.get(),
            Lane::Lists => self.lists.get(),
            Lane::Operators => self.operators.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_shared_out_to_the_last_and_every_lane_gets_one() {
        let sizes = |total| {
            let sizes = LaneSizes::of(NonZeroU32::new(total).unwrap());
            Lane::ALL.map(|lane| sizes.get(lane))
        };
        assert_eq!(sizes(4), [1, 1, 1, 1]);
        assert_eq!(sizes(10), [4, 4, 1, 1]);
        assert_eq!(sizes(16), [10, 4, 1, 1]);
        assert_eq!(sizes(64), [40, 19, 4, 1]);
        for total in LaneSizes::MIN_TOTAL..1_000 {
            assert_eq!(sizes(total).iter().sum::<u32>(), total);
        }
        assert_eq!(sizes(1), [1, 1, 1, 1]);
    }
}
