//! How many threads hash, and how hard, on the machine that this is.

use std::num::NonZeroUsize;

use super::worker::Duty;

/// Threads that hash, and whether they pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Staffing {
    /// How many.
    pub threads: NonZeroUsize,
    /// Whether they pause.
    pub duty: Duty,
}

impl Staffing {
    /// A thread for each core that the process may run on. Under a quota of processor time (cgroups,
    /// as containers have) one less than it pays for: a quota charges threads of low priority like all
    /// others, and once it is used up, calls wait as well. Of a quota of one core they take half.
    pub fn of_this_machine() -> Self {
        // Of the quota, whole cores; of cores, those that the process is bound to.
        let allowed = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self::sharing(allowed, cores().unwrap_or(allowed))
    }

    /// That many threads, which do not pause.
    pub const fn of(threads: NonZeroUsize) -> Self {
        Self { threads, duty: Duty::Full }
    }

    fn sharing(allowed: NonZeroUsize, cores: NonZeroUsize) -> Self {
        if allowed >= cores {
            return Self::of(cores);
        }
        match NonZeroUsize::new(allowed.get() - 1) {
            Some(threads) => Self::of(threads),
            None => Self { threads: NonZeroUsize::MIN, duty: Duty::Half },
        }
    }
}

/// The cores that the process may run on, quotas aside.
#[cfg(target_os = "linux")]
fn cores() -> Option<NonZeroUsize> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    NonZeroUsize::new(usize::try_from(set.count()).ok()?)
}

#[cfg(not(target_os = "linux"))]
fn cores() -> Option<NonZeroUsize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_a_quota_a_core_s_worth_stays_free() {
        let of = |allowed, cores| {
            let [allowed, cores] = [allowed, cores].map(|n| NonZeroUsize::new(n).unwrap());
            let Staffing { threads, duty } = Staffing::sharing(allowed, cores);
            (threads.get(), duty)
        };
        assert_eq!(of(8, 8), (8, Duty::Full));
        assert_eq!(of(4, 8), (3, Duty::Full));
        assert_eq!(of(2, 8), (1, Duty::Full));
        assert_eq!(of(1, 8), (1, Duty::Half));
        assert_eq!(of(1, 1), (1, Duty::Full));
    }

    #[test]
    fn this_machine_has_cores() {
        assert!(Staffing::of_this_machine().threads.get() >= 1);
    }
}
