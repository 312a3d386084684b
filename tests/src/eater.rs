//! A program that takes memory as it is told, in a cgroup.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use rustix::fs::OFlags;

use crate::{
    cgroup::Cgroup,
    node::Node,
    process::{Process, run},
    topology::Lab,
};

/// It holds at most so much; nobody grants more here.
const MOST: &str = "1G";
/// The most that it is given at a time.
static BITE: [u8; 64 << 10] = [0; 64 << 10];
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that keeps whatever it is given in memory. Dropping it kills it and frees that.
#[derive(Debug)]
pub struct Eater {
    process: Process,
    cgroup: Cgroup,
    fifo: File,
}

impl Eater {
    /// Starts one in a cgroup.
    pub fn start(lab: &Lab, node: &Node, cgroup: &Cgroup) -> Result<Self> {
        let path = lab.dir().join(format!("eater-{}", node.name()));
        // There may have been another.
        let _ = fs::remove_file(&path);
        run(Command::new("mkfifo").arg(&path), "")?;
        // `tail` cannot print the end before it knows it, and this end stays open.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let fifo = File::options().read(true).write(true).custom_flags(nonblocking).open(&path)?;
        let log = lab.dir().join(format!("eater-{}.log", node.name()));
        let process = Process::start(node, "sh".as_ref(), &log, |command| {
            let script = "echo $$ > \"$0\" && exec tail --bytes \"$1\" \"$2\"";
            command.args(["-c", script]).arg(cgroup.procs()).arg(MOST).arg(&path);
        })?;
        Ok(Self { process, cgroup: cgroup.clone(), fifo })
    }

    /// Takes memory until the cgroup has used so many percent of what it may.
    pub fn eat_to(&mut self, percent: u64) -> Result<()> {
        let wanted = self.cgroup.limit() / 100 * percent;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let missing = wanted.saturating_sub(self.cgroup.usage()?);
            if missing == 0 {
                return Ok(());
            }
            if let Some(status) = self.process.exited()? {
                bail!("the eater ended with {status}: {}", self.process.log());
            }
            ensure!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {percent} % in use");
            // What lies in the pipe is not in the cgroup yet: bites get smaller, or it would be too much in the end.
            let bite = (missing / 2).clamp(4096, BITE.len() as u64) as usize;
            match self.fifo.write(&BITE[..bite]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
                result => drop(result?),
            }
        }
    }
}
