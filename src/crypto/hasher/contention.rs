//! Whether others want the core that a hash thread runs on.
//!
//! The class SCHED_IDLE counts only among threads of the same scheduling group. On Linux every session is a
//! group of its own unless cgroups say otherwise (sched(7), "The autogroup feature"), and each back end of
//! PostgreSQL is a session: one that wakes then waits for the rest of a hash thread's time slice, some
//! milliseconds. A thread that sleeps for a moment lets it run at once. That costs hashes, so it is done only
//! while the system says that the thread itself had to wait for its core.

use std::time::{Duration, Instant};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(4);
/// For so long after others were noticed they are expected to come again.
const MEMORY: Duration = Duration::from_millis(100);
/// A thread that had to wait for more than this part of a period had others beside it.
const NOTICEABLE: u32 = 50;
/// As short as the system's timers make it, which is some fifty microseconds.
const MOMENT: Duration = Duration::from_micros(1);

/// What a thread knows of others that want its core.
pub(super) struct Contention {
    delays: Delays,
    looked_at: Instant,
    delay: Duration,
    expected_until: Option<Instant>,
}

impl Contention {
    /// Nobody was noticed yet. To be made by the thread itself.
    pub(super) fn of_this_thread() -> Self {
        let mut delays = Delays::of_this_thread();
        let delay = delays.read().unwrap_or_default();
        Self { delays, looked_at: Instant::now(), delay, expected_until: None }
    }

    /// Gives way for a moment where others want the core.
    pub(super) fn give_way(&mut self) {
        let now = Instant::now();
        if now.duration_since(self.looked_at) >= PERIOD {
            self.look(now);
        }
        if self.expected_until.is_some_and(|until| now < until) {
            std::thread::sleep(MOMENT);
        }
    }

    fn look(&mut self, now: Instant) {
        let Some(delay) = self.delays.read() else { return };
        let waited = delay.saturating_sub(self.delay);
        if waited > now.duration_since(self.looked_at) / NOTICEABLE {
            self.expected_until = Some(now + MEMORY);
        }
        (self.looked_at, self.delay) = (now, delay);
    }
}

/// How long a thread was ready to run and did not, altogether: proc(5), `schedstat`.
#[cfg(target_os = "linux")]
struct Delays(Option<std::fs::File>);

#[cfg(target_os = "linux")]
impl Delays {
    fn of_this_thread() -> Self {
        // Not there where the kernel keeps no such statistics.
        Self(std::fs::File::open("/proc/thread-self/schedstat").ok())
    }

    fn read(&mut self) -> Option<Duration> {
        let mut text = [0; 64];
        let length = std::os::unix::fs::FileExt::read_at(self.0.as_ref()?, &mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
    }
}

#[cfg(not(target_os = "linux"))]
struct Delays;

#[cfg(not(target_os = "linux"))]
impl Delays {
    fn of_this_thread() -> Self {
        Self
    }

    fn read(&mut self) -> Option<Duration> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_how_long_a_thread_waited_for_its_core() {
        let mut delays = Delays::of_this_thread();
        let first = delays.read().unwrap();
        assert!(delays.read().unwrap() >= first);
    }

    #[test]
    fn others_are_expected_for_a_while_once_they_were_noticed() {
        let mut contention = Contention::of_this_thread();
        let now = Instant::now();
        // As if the thread had waited since its start.
        contention.delay = Duration::ZERO;
        contention.looked_at = now;
        contention.look(now);
        let waited = contention.delay > Duration::ZERO;
        assert_eq!(contention.expected_until, waited.then_some(now + MEMORY));
    }
}
