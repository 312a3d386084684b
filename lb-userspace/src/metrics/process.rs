//! The daemon as a process, under the names that every exporter uses.

use std::{fs, io};

/// Ticks of proc_pid_stat(5) per second: USER_HZ is 100 wherever lb runs.
const TICKS: f64 = 100.0;

/// The daemon as a process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Process {
    /// Processor time, in seconds.
    pub(super) cpu_seconds: f64,
    /// Memory that is in use, in bytes.
    pub(super) resident_bytes: u64,
    /// Open descriptors.
    pub(super) open_fds: u64,
    /// Seconds since the epoch.
    pub(super) start_seconds: f64,
}

impl Process {
    /// As the kernel says.
    pub(super) fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let status = fs::read_to_string("/proc/self/status")?;
        let boot = fs::read_to_string("/proc/stat")?;
        let open_fds = fs::read_dir("/proc/self/fd")?.count() as u64;
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat is not as proc_pid_stat(5) says");
        Self::parse(&stat, &status, &boot, open_fds).ok_or_else(odd)
    }

    /// proc_pid_stat(5): the name in parentheses may hold anything, so counting begins after it.
    fn parse(stat: &str, status: &str, boot: &str, open_fds: u64) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<u64>().ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS,
            resident_bytes: resident * 1024,
            open_fds,
            start_seconds: boot as f64 + field(22)? as f64 / TICKS,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_run_for_a_moment() {
        let process = Process::read().unwrap();
        let now = jiff::Timestamp::now().as_second() as f64;
        assert!(process.resident_bytes > 100_000 && process.open_fds >= 3, "{process:?}");
        assert!((now - 3600.0..=now + 2.0).contains(&process.start_seconds), "{process:?}");
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_confuses_nobody() {
        let stat = "1 (a) (b 9) S 0 1 1 0 -1 0 0 0 0 0 200 100 0 0 20 0 1 0 5000 0 3 0";
        let process = Process::parse(stat, "Name:\tx\nVmRSS:\t  12 kB\n", "cpu 1\nbtime 1000\n", 4).unwrap();
        assert_eq!((process.cpu_seconds, process.start_seconds, process.resident_bytes), (3.0, 1050.0, 12 * 1024));
    }
}
