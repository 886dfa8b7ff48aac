//! Whether other processes want the core that a hash thread runs on.
//!
//! The class SCHED_IDLE counts only among threads of the same scheduling group. On Linux every session is a
//! group of its own unless cgroups say otherwise (sched(7), "The autogroup feature"), and each back end of
//! PostgreSQL is a session. Groups get equal parts of a core, and what a hash thread uses is taken from its
//! group's part: the threads of this process that answer calls then wait for the groups of the back ends, however
//! short the hash thread's slices are. A hash thread that works in short slices and sleeps for a moment after each
//! leaves its group some of its part. That costs hashes, so it is done only while a thread has to wait for its
//! core, and that for others than the threads of this process, among which SCHED_IDLE is enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Expansions of each lane between two looks at the queue: 0.1 to 0.7 ms on processors of today, so that a new job
/// begins, and an abandoned one ends, within a millisecond.
pub(super) const SLICE: u32 = 8;
/// The same while others want the core.
const SHORT_SLICE: u32 = 2;

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(25);
/// For so long after others were noticed they are expected to come again.
const MEMORY: Duration = Duration::from_millis(200);
/// A thread that waited for other processes for more than this part of a period had some beside it. Twice what
/// the threads' times are out of step.
const NOTICEABLE: u32 = 16;
/// As short as the system's timers make it, which is some fifty microseconds.
const MOMENT: Duration = Duration::from_micros(1);

/// The processor time of all hash threads of the process. All clones are the same.
#[derive(Clone, Default)]
pub(super) struct HashTime(Arc<AtomicU64>);

impl HashTime {
    fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Relaxed))
    }
}

/// What one hash thread knows of other processes that want its core.
pub(super) struct Contention {
    hash_time: HashTime,
    /// The thread's own part of it.
    own_time: Duration,
    waits: Waits,
    looked_at: Instant,
    seen: Times,
    expected_until: Option<Instant>,
}

/// Times since the start of a thread or of the process.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// How long the thread was ready to run and did not.
    waited: Duration,
    /// The processor time of the process.
    process: Duration,
    /// That of its hash threads.
    hashing: Duration,
}

impl Times {
    /// How long the thread waited for other processes since `before`, at least: all that the process did beside
    /// hashing may have kept this very thread waiting.
    fn waited_for_others(self, before: Self) -> Duration {
        let waited = self.waited.saturating_sub(before.waited);
        let process = self.process.saturating_sub(before.process);
        let hashing = self.hashing.saturating_sub(before.hashing);
        waited.saturating_sub(process.saturating_sub(hashing))
    }
}

impl Contention {
    /// Nobody was noticed yet. To be made by the thread itself.
    pub(super) fn of_this_thread(hash_time: HashTime) -> Self {
        let own_time = clock(ClockId::ThreadCPUTime);
        let (waits, looked_at) = (Waits::of_this_thread(), Instant::now());
        let mut contention =
            Self { hash_time, own_time, waits, looked_at, seen: Times::default(), expected_until: None };
        contention.seen = contention.times().unwrap_or_default();
        contention
    }

    /// Expansions of each lane until the next look at the queue.
    pub(super) fn slice(&self) -> u32 {
        if self.expects_others(Instant::now()) { SHORT_SLICE } else { SLICE }
    }

    /// Gives way for a moment where others want the core. To be called after each slice.
    pub(super) fn give_way(&mut self) {
        let own_time = clock(ClockId::ThreadCPUTime);
        self.hash_time.add(own_time.saturating_sub(self.own_time));
        self.own_time = own_time;
        let now = Instant::now();
        let period = now.duration_since(self.looked_at);
        if period >= PERIOD
            && let Some(times) = self.times()
        {
            self.note(times.waited_for_others(self.seen), period, now);
            (self.looked_at, self.seen) = (now, times);
        }
        if self.expects_others(now) {
            std::thread::sleep(MOMENT);
        }
    }

    fn note(&mut self, waited_for_others: Duration, period: Duration, now: Instant) {
        if waited_for_others > period / NOTICEABLE {
            self.expected_until = Some(now + MEMORY);
        }
    }

    fn expects_others(&self, now: Instant) -> bool {
        self.expected_until.is_some_and(|until| now < until)
    }

    /// `None` where the system keeps no such statistics.
    fn times(&mut self) -> Option<Times> {
        let waited = self.waits.read()?;
        Some(Times { waited, process: clock(ClockId::ProcessCPUTime), hashing: self.hash_time.get() })
    }
}

fn clock(id: ClockId) -> Duration {
    clock_gettime(id).try_into().unwrap_or_default()
}

/// How long a thread was ready to run and did not, altogether: proc(5), `schedstat`.
#[cfg(target_os = "linux")]
struct Waits(Option<std::fs::File>);

#[cfg(target_os = "linux")]
impl Waits {
    fn of_this_thread() -> Self {
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
struct Waits;

#[cfg(not(target_os = "linux"))]
impl Waits {
    fn of_this_thread() -> Self {
        Self
    }

    fn read(&mut self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn times(waited: u32, process: u32, hashing: u32) -> Times {
        Times { waited: waited * MS, process: process * MS, hashing: hashing * MS }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_tells_how_long_a_thread_waited_for_its_core() {
        let mut waits = Waits::of_this_thread();
        let first = waits.read().unwrap();
        assert!(waits.read().unwrap() >= first);
    }

    #[test]
    fn what_the_process_does_beside_hashing_explains_a_wait() {
        let before = times(10, 100, 80);
        // Ten milliseconds of the process beside hashing, and as long or longer a wait.
        assert_eq!(times(20, 140, 110).waited_for_others(before), Duration::ZERO);
        assert_eq!(times(35, 140, 110).waited_for_others(before), 15 * MS);
        // Out of step: a hash thread has counted what it did before.
        assert_eq!(times(12, 120, 110).waited_for_others(before), 2 * MS);
    }

    #[test]
    fn slices_are_short_for_a_while_after_others_were_noticed() {
        let mut contention = Contention::of_this_thread(HashTime::default());
        let now = Instant::now();
        contention.note(PERIOD / NOTICEABLE, PERIOD, now);
        assert_eq!(contention.slice(), SLICE);
        contention.note(PERIOD / NOTICEABLE + MS, PERIOD, now);
        assert!(contention.expects_others(now + MEMORY - MS));
        assert!(!contention.expects_others(now + MEMORY));
        assert_eq!(contention.slice(), SHORT_SLICE);
    }

    #[test]
    fn all_threads_count_their_time_together() {
        let hash_time = HashTime::default();
        let mut contentions = [0, 1].map(|_| Contention::of_this_thread(hash_time.clone()));
        let began = clock(ClockId::ThreadCPUTime);
        while clock(ClockId::ThreadCPUTime) < began + 2 * MS {}
        contentions.iter_mut().for_each(Contention::give_way);
        assert!(hash_time.get() >= 4 * MS, "{:?}", hash_time.get());
    }
}
