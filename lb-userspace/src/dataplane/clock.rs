//! Which nanosecond a jiffy is: packets tell the time by jiffies, the controller by the monotonic clock.
//!
//! The kernel counts jiffies by its monotonic clock (Linux, kernel/time/tick-sched.c, `tick_do_update_jiffies64`), so what holds once
//! holds until the next start of the machine.

use aya::{
    EbpfLoader,
    programs::{ProgramError, TestRun, TestRunOptions, Xdp},
};
use rustix::time::{ClockId, clock_getres};

use super::{Error, maps::now_ns, program};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-clock"));

/// The least that the kernel runs an XDP program with.
const FRAME: [u8; 14] = [0; 14];

/// Jiffies that packets are behind: what they note is never later than what the controller then takes for now.
const BEHIND: u64 = 1;

/// The kernel's tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// Nanoseconds of a jiffy.
    pub(super) jiffy_ns: u32,
    /// The jiffy at which the monotonic clock was zero: five minutes before the counter has 33 bits (`INITIAL_JIFFIES`).
    pub(super) first_jiffy: u32,
}

/// Asks the kernel, to a jiffy or two.
pub(super) fn ask() -> Result<Clock, Error> {
    let load = |source: aya::EbpfError| Error::Load { source: Box::new(source) };
    let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(load)?;
    let program = program::load_entry_point(&mut ebpf, "lb_clock")?;
    // What the coarse clock goes forward by with each (posix_get_coarse_res); less than a second.
    let jiffy_ns = clock_getres(ClockId::MonotonicCoarse).tv_nsec as u32;
    loop {
        let before = now_ns();
        let jiffy = jiffies(program).map_err(|source| load(source.into()))?;
        // Otherwise the next one may have begun between the two.
        if now_ns() == before {
            let first = jiffy.wrapping_sub(before / u64::from(jiffy_ns)) + BEHIND;
            let first_jiffy = u32::try_from(first).map_err(|_| Error::System {
                what: format!("the kernel's clocks contradict each other: jiffy {jiffy} at {before} ns"),
                source: std::io::ErrorKind::InvalidData.into(),
            })?;
            return Ok(Clock { jiffy_ns, first_jiffy });
        }
    }
}

fn jiffies(program: &Xdp) -> Result<u64, ProgramError> {
    let mut frame = FRAME;
    program.test_run(TestRunOptions { data_in: Some(&FRAME), data_out: Some(&mut frame), ..Default::default() })?;
    let [a, b, c, d, e, f, g, h, ..] = frame;
    Ok(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
}
