//! How much memory the service's process has resident.

use std::time::Duration;
use std::{fs, io};

use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::timeline::Timeline;

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// A process on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process(pub(crate) u32);

impl Process {
    /// Its resident memory in megabytes (of 1,000,000 bytes).
    ///
    /// # Errors
    /// No such process, or one without memory of its own.
    pub(crate) fn resident_mb(self) -> io::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))
            .map_err(|error| io::Error::new(error.kind(), format!("process {}: {error}", self.0)))?;
        resident_kib(&status)
            .map(|kib| kib as f64 * 1_024.0 / 1e6)
            .ok_or_else(|| io::Error::other(format!("process {} has no resident memory", self.0)))
    }
}

/// Resident memory over an attack, in megabytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Resident {
    /// When the attack began.
    pub(crate) before_mb: f64,
    /// The most since then.
    pub(crate) peak_mb: f64,
    /// When the attack ended.
    pub(crate) end_mb: f64,
    /// When others ended.
    pub(crate) after_mb: f64,
}

/// The memory of `process` over `timeline`.
///
/// # Errors
/// It ended.
pub(crate) async fn watch(process: Option<Process>, timeline: Timeline) -> io::Result<Option<Resident>> {
    let Some(process) = process else { return Ok(None) };
    timeline.attack_begins().await;
    let before_mb = process.resident_mb()?;
    let mut peak_mb = before_mb;
    let end_mb = peak_until(process, timeline.attack().end.into(), &mut peak_mb).await?;
    let after_mb = peak_until(process, timeline.end().into(), &mut peak_mb).await?;
    Ok(Some(Resident { before_mb, peak_mb, end_mb, after_mb }))
}

/// Raises `peak_mb` to the most until `end`, and returns what it is then.
async fn peak_until(process: Process, end: Instant, peak_mb: &mut f64) -> io::Result<f64> {
    loop {
        let now_mb = process.resident_mb()?;
        *peak_mb = peak_mb.max(now_mb);
        if Instant::now() >= end {
            return Ok(now_mb);
        }
        sleep_until(end.min(Instant::now() + INTERVAL)).await;
    }
}

/// Reads `VmRSS` from the text of `/proc/PID/status`; see proc_pid_status(5).
fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_found_among_the_rest() {
        let status = "Name:\tidentity\nVmHWM:\t   20000 kB\nVmRSS:\t   11000 kB\nThreads:\t4\n";
        assert_eq!(resident_kib(status), Some(11_000));
    }

    #[test]
    fn a_process_without_memory_has_none_resident() {
        assert_eq!(resident_kib("Name:\tkthreadd\nThreads:\t1\n"), None);
    }

    #[test]
    fn this_process_has_some_and_one_that_is_not_there_has_none() {
        assert!(Process(std::process::id()).resident_mb().unwrap() > 0.1);
        assert!(Process(u32::MAX).resident_mb().is_err());
    }
}
