//! The name that everything a lab makes bears, so that what a killed run left behind can be told from what is in use.
//!
//! `lb-lab-PID-START-N`: the process that made it, when that process started (pids come around again), and a number.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{cgroup, eventually, process::run};

const PREFIX: &str = "lb-lab-";

/// The directories that hold what labs make, an entry or more for each lab.
const NAMESPACES: &str = "/run/netns";
const PINS: &str = "/sys/fs/bpf";
const FILES: &str = "/tmp";

const LOCK: &str = "/run/lb-lab.lock";

static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Owns what a lab makes in the file system and in the kernel; removes it on drop.
#[derive(Debug)]
pub(crate) struct Identity(String);

impl Identity {
    pub(crate) fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let pid = process::id();
        let started = start_of(pid).context("cannot read /proc/self/stat")?;
        let name = format!("{PREFIX}{pid}-{started}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        live().push(name.clone());
        let identity = Self(name);
        fs::create_dir(identity.dir()).with_context(|| format!("cannot create {}", identity.dir().display()))?;
        Ok(identity)
    }

    /// Makes a namespace and returns its name.
    pub(crate) fn add_namespace(&self, node: &str) -> Result<String> {
        let name = format!("{}-{node}", self.0);
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        Ok(name)
    }

    /// For configuration, logs, sockets and content.
    pub(crate) fn dir(&self) -> PathBuf {
        Path::new(FILES).join(&self.0)
    }

    /// For the daemon's pins; the daemon makes it.
    pub(crate) fn pin_dir(&self) -> PathBuf {
        Path::new(PINS).join(&self.0)
    }

    /// The memory cgroup of a node, to be made.
    pub(crate) fn cgroup_of(&self, node: &str) -> PathBuf {
        Path::new(cgroup::root()).join(format!("{}-{node}", self.0))
    }

    /// For what else is pinned for a node.
    pub(crate) fn pin_dir_of(&self, node: &str) -> PathBuf {
        Path::new(PINS).join(format!("{}-{node}", self.0))
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            eprintln!("lab {} is not quite gone: {error:#}", self.0);
        }
        live().retain(|name| *name != self.0);
    }
}

/// Removes the labs of this process; for when it is about to end without unwinding.
pub(crate) fn remove_live() {
    for name in live().drain(..) {
        // Nobody is left to tell; the next lab tries again.
        let _ = remove(&name);
    }
}

/// Removes what labs of processes that are gone have left; returns their names.
pub fn clean_leftovers() -> Result<Vec<String>> {
    // One at a time: two cleaners would stumble over each other. Closing the file unlocks it.
    let lock = fs::File::create(LOCK).with_context(|| format!("cannot create {LOCK}"))?;
    lock.lock()?;
    let mut dead = Vec::new();
    for directory in [NAMESPACES, PINS, FILES, cgroup::root()] {
        for entry in entries(directory) {
            if let Some((name, pid, started)) = parse(&entry)
                && start_of(pid).is_none_or(|of_pid| of_pid != started)
                && !dead.contains(&name)
            {
                dead.push(name);
            }
        }
    }
    for name in &dead {
        remove(name).with_context(|| format!("cannot remove the leftovers of lab {name}"))?;
    }
    Ok(dead)
}

fn live() -> std::sync::MutexGuard<'static, Vec<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lab that an entry belongs to, its process and that process's start.
fn parse(entry: &str) -> Option<(String, u32, u64)> {
    let mut parts = entry.strip_prefix(PREFIX)?.split('-');
    let (pid, started, number) = (parts.next()?, parts.next()?, parts.next()?);
    let name = format!("{PREFIX}{pid}-{started}-{number}");
    Some((name, pid.parse().ok()?, started.parse().ok()?))
}

/// Removes everything that bears the name of a lab. Removing pins detaches XDP; removing namespaces removes the veths.
fn remove(name: &str) -> Result<()> {
    let of_lab = |entry: &String| parse(entry).is_some_and(|(of, ..)| of == name);
    for namespace in entries(NAMESPACES).filter(of_lab) {
        let pids = run(Command::new("ip").args(["netns", "pids", &namespace]), "").unwrap_or_default();
        for pid in pids.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            if pid.as_raw_nonzero().get().cast_unsigned() != process::id() {
                // It may have ended meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        run(Command::new("ip").args(["netns", "delete", &namespace]), "")?;
    }
    for directory in [PINS, FILES] {
        for entry in entries(directory).filter(of_lab) {
            match fs::remove_dir_all(Path::new(directory).join(&entry)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {directory}/{entry}"));
                }
                _ => {}
            }
        }
    }
    for entry in entries(cgroup::root()).filter(of_lab) {
        remove_cgroup(&Path::new(cgroup::root()).join(entry))?;
    }
    Ok(())
}

/// A cgroup can be removed once the last of its processes, killed as they are, has gone.
fn remove_cgroup(path: &Path) -> Result<()> {
    let what = format!("the end of the processes in {}", path.display());
    eventually(&what, Duration::from_secs(5), || match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(None),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(Some(())),
    })
}

fn entries(directory: &str) -> impl Iterator<Item = String> {
    fs::read_dir(directory).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// When a process started, in clock ticks after boot, if it is alive: fields 3 and 22 of `/proc/PID/stat` (proc(5)).
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 2 is the name in parentheses and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // A zombie is dead, however long its parent takes to notice.
    let alive = !matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| alive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_names_its_lab_and_its_process() {
        let lab = Some(("lb-lab-12-345-0".to_owned(), 12, 345));
        assert_eq!(parse("lb-lab-12-345-0"), lab);
        assert_eq!(parse("lb-lab-12-345-0-web-01"), lab);
        assert_eq!(parse("lb-lab-notes"), None);
        assert_eq!(parse("lb"), None);
    }

    #[test]
    fn a_process_has_a_start_and_a_dead_one_has_none() {
        assert!(start_of(process::id()).is_some());
        assert_eq!(start_of(u32::MAX), None);
    }
}
