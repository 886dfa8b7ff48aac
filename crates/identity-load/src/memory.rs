//! How much memory the service's process has resident.

use std::{fs, io};

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
