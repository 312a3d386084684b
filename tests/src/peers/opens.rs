//! Connections that the web servers' kernels accept, second by second.

use std::{
    fs,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::node::Node;

const SECOND: Duration = Duration::from_secs(1);

/// Does `work` and counts meanwhile: the rate of every second of `duration` but the first, in which the work begins.
pub(super) fn per_second<T>(
    webs: &[Node],
    duration: Duration,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<f64>)> {
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let counter = scope.spawn(move || -> Result<Vec<(Instant, u64)>> {
            let begin = Instant::now();
            let mut counts = Vec::new();
            for n in 1..=duration.as_secs() as u32 + 1 {
                let due = (begin + SECOND * n).saturating_duration_since(Instant::now());
                if ended.recv_timeout(due) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
                counts.push((Instant::now(), accepted(webs)?));
            }
            Ok(counts)
        });
        let done = work();
        drop(end);
        let counts = counter.join().expect("the counter does not panic")?;
        Ok((done?, rates(&counts)))
    })
}

fn rates(counts: &[(Instant, u64)]) -> Vec<f64> {
    let rate = |pair: &[(Instant, u64)]| (pair[1].1 - pair[0].1) as f64 / (pair[1].0 - pair[0].0).as_secs_f64();
    counts.windows(2).map(rate).collect()
}

fn accepted(webs: &[Node]) -> Result<u64> {
    webs.iter().map(accepted_by).sum()
}

/// `/proc/net` would be that of the process.
fn accepted_by(web: &Node) -> Result<u64> {
    let snmp = web.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
    passive_opens(&snmp).with_context(|| format!("no passive opens of {} in {snmp}", web.name()))
}

/// Of two lines that begin with `Tcp:`, the first has names and the second has numbers.
fn passive_opens(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (mut names, mut numbers) = (lines.next()?, lines.next()?);
    numbers.nth(names.position(|name| name == "PassiveOpens")?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passive_opens_are_found_by_their_name() {
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoMin ActiveOpens PassiveOpens\nTcp: 200 7 42\n";
        assert_eq!(passive_opens(snmp), Some(42));
        assert_eq!(passive_opens("Tcp: RtoMin\nTcp: 200\n"), None);
    }

    #[test]
    fn a_rate_is_of_the_time_that_passed() {
        let begin = Instant::now();
        let counts = [(begin, 100), (begin + SECOND, 150), (begin + SECOND * 3, 250)];
        assert_eq!(rates(&counts), [50.0, 50.0]);
    }
}
