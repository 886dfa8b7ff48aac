//! How often something is tried again, and after which pauses.

use std::time::Duration;

use tokio::time::sleep;

/// Until a PostgreSQL that is away can be used, however long that takes.
pub const REACH_DATABASE: Schedule = Schedule::endless(&[250, 500, 1_000, 2_000]);

/// Until one of the places is free that other password checks hold. Its caller's deadline ends it.
pub(super) const RESERVE_ATTEMPT: Schedule = Schedule::endless(&[5, 10, 20, 40, 80, 160]);

/// Until the database takes the end of a password check: ten minutes, for which its place keeps others waiting.
pub(super) const SETTLE_ATTEMPT: Schedule = Schedule::limited(&[100, 300, 1_000, 2_000, 4_000, 5_000], 124);

/// Pauses between attempts, the last one repeated.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    milliseconds: &'static [u64],
    most: usize,
}

/// The pauses that are left of a schedule.
#[derive(Debug)]
pub struct Pauses {
    schedule: Schedule,
    taken: usize,
}

impl Schedule {
    const fn endless(milliseconds: &'static [u64]) -> Self {
        Self::limited(milliseconds, usize::MAX)
    }

    const fn limited(milliseconds: &'static [u64], most: usize) -> Self {
        assert!(!milliseconds.is_empty(), "there is a pause to repeat");
        Self { milliseconds, most }
    }

    /// All its pauses.
    pub const fn pauses(self) -> Pauses {
        Pauses { schedule: self, taken: 0 }
    }
}

impl Pauses {
    /// Waits for the next pause; false when none is left.
    pub async fn wait(&mut self) -> bool {
        let Schedule { milliseconds, most } = self.schedule;
        if self.taken == most {
            return false;
        }
        let pause = milliseconds[self.taken.min(milliseconds.len() - 1)];
        self.taken += 1;
        sleep(Duration::from_millis(pause)).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_pause_is_repeated_until_the_schedule_ends() {
        let began = Instant::now();
        let mut pauses = Schedule::limited(&[10, 20], 4).pauses();
        let mut waited = Vec::new();
        while pauses.wait().await {
            waited.push(began.elapsed().as_millis());
        }
        assert_eq!(waited, [10, 30, 50, 70]);
        assert!(!pauses.wait().await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_password_check_is_tried_for_ten_minutes() {
        let began = Instant::now();
        let mut pauses = SETTLE_ATTEMPT.pauses();
        while pauses.wait().await {}
        assert_eq!(began.elapsed().as_secs() / 60, 10);
    }
}
