//! The movie site on both servers, each in a memory cgroup of its own.

use std::time::Duration;

use anyhow::{Result, bail};

use super::Replay;
use crate::{Family, Lab, cgroup::Cgroup, eventually, http::Connection, node::Node, process::Process, site::room};

/// What each server is granted.
const MEMORY: u64 = 128 << 20;

/// The peak of the day, in terms of what one server can carry.
const PEAK: f64 = 1.5;

/// The servers at work. Dropping it kills them.
#[derive(Debug)]
pub(super) struct Servers(Vec<(Process, Cgroup)>);

impl Servers {
    /// One in each web node.
    pub(super) fn start(lab: &Lab, replay: &Replay) -> Result<Self> {
        let webs = lab.webs();
        let start = |(n, web)| start(lab, replay, web, f64::from(n) / webs.len() as f64);
        Ok(Self((0..).zip(webs).map(start).collect::<Result<_>>()?))
    }

    /// Bytes that each may have.
    pub(super) fn limits(&self) -> Vec<u64> {
        self.0.iter().map(|(_, cgroup)| cgroup.limit()).collect()
    }

    /// Bytes that each has.
    pub(super) fn memory(&self) -> Result<Vec<u64>> {
        self.0.iter().map(|(_, cgroup)| cgroup.usage()).collect()
    }
}

/// `phase` is the part of the time between two leaks that passes before the first.
fn start(lab: &Lab, replay: &Replay, web: &Node, phase: f64) -> Result<(Process, Cgroup)> {
    let cgroup = lab.limit_memory(web, MEMORY)?;
    let day = replay.load();
    let page = room(MEMORY) as f64 * PEAK / day.pages_remembered_at_peak(replay.views);
    // Bursts come in the second half of each quarter of the day, in one server after the other.
    let every = replay.day / 4;
    let options = [
        ("--name", web.name().to_owned()),
        ("--memory", MEMORY.to_string()),
        ("--page", (page as u64).to_string()),
        ("--idle", day.idle().as_millis().to_string()),
        ("--failure", replay.failure.to_string()),
        ("--leak-every", every.as_millis().to_string()),
        ("--leak-after", every.mul_f64(phase).as_millis().to_string()),
    ];
    let log = lab.dir().join(format!("site-{}.log", web.name()));
    let mut process = Process::start(web, "sh".as_ref(), &log, |command| {
        // From its first page on, its memory is that of the cgroup.
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(cgroup.procs()).arg(&replay.site);
        command.args(options.iter().flat_map(|(key, value)| [*key, value.as_str()]));
    })?;
    let address = web.address(Family::V4, 80);
    eventually(&format!("the site in {}", web.name()), Duration::from_secs(10), || {
        if let Some(status) = process.exited()? {
            bail!("the site in {} ended with {status}: {}", web.name(), process.log());
        }
        Ok(web.enter(|| Connection::open(address, None)?.last_get()).ok())
    })?;
    Ok((process, cgroup))
}
