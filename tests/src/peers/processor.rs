//! What the processors of the whole machine do: XDP and routing work in softirqs, which no process is charged for.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// The time that all cores together have been busy since boot.
#[derive(Clone, Copy, Debug)]
pub struct Processor(Duration);

impl Processor {
    /// Up to this moment.
    pub fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let ticks = busy(&stat).with_context(|| format!("/proc/stat begins unusually: {stat:.80}"))?;
        Ok(Self(Duration::from_secs(ticks) / rustix::param::clock_ticks_per_second() as u32))
    }

    /// The busy time since then.
    pub fn busy(self) -> Result<Duration> {
        Ok(Self::now()?.0.saturating_sub(self.0))
    }
}

/// user, nice, system, irq and softirq of the first line (proc(5)); idle, iowait and steal are not spent here, guest
/// time is in user time.
fn busy(stat: &str) -> Option<u64> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map(str::parse);
    let mut next = || fields.next()?.ok();
    let [user, nice, system, _idle, _iowait, irq, softirq]: [u64; 7] =
        [next()?, next()?, next()?, next()?, next()?, next()?, next()?];
    Some(user + nice + system + irq + softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_busy_with_programs_kernel_and_interrupts_but_not_with_waiting() {
        assert_eq!(busy("cpu  1 20 300 9999 9999 4000 50000 9999 0 0\ncpu0 7 7 7 7 7 7 7 7 0 0\n"), Some(54321));
        assert_eq!(busy("cpu  1 20 300 9999\n"), None);
    }
}
