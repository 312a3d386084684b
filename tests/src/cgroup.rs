//! A memory cgroup of a machine of the lab: what its programs may have, and what they have.
//!
//! Version 1 of the kernel's interface where the memory controller is mounted as such, version 2 elsewhere (Linux,
//! admin-guide/cgroup-v1/memory.rst and admin-guide/cgroup-v2.rst). The directory belongs to the lab and goes with it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

const V1: &str = "/sys/fs/cgroup/memory";
const V2: &str = "/sys/fs/cgroup";

/// A memory cgroup with a limit.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: PathBuf,
    usage: &'static str,
    limit: u64,
}

/// The directory that memory cgroups are made in.
pub(crate) fn root() -> &'static str {
    if is_v1() { V1 } else { V2 }
}

impl Cgroup {
    /// Makes one with a limit in bytes. Swap does not widen it.
    pub(crate) fn new(path: &Path, limit: u64) -> Result<Self> {
        if !is_v1() {
            delegate_memory()?;
        }
        fs::create_dir(path).with_context(|| format!("cannot create the memory cgroup {}", path.display()))?;
        let (file, usage, swap) = if is_v1() {
            // Memory and swap together can be limited only after memory alone.
            ("memory.limit_in_bytes", "memory.usage_in_bytes", ("memory.memsw.limit_in_bytes", limit))
        } else {
            ("memory.max", "memory.current", ("memory.swap.max", 0))
        };
        let file = path.join(file);
        fs::write(&file, limit.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
        // There is no such file where the kernel does not account swap.
        let _ = fs::write(path.join(swap.0), swap.1.to_string());
        Ok(Self { path: path.to_owned(), usage, limit })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a process id is written to move the process in.
    #[must_use]
    pub fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Bytes that its processes may have.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes that they have.
    pub fn usage(&self) -> Result<u64> {
        let file = self.path.join(self.usage);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.trim().parse().with_context(|| format!("{} says {text}", file.display()))
    }
}

fn is_v1() -> bool {
    Path::new(V1).join("cgroup.procs").exists()
}

/// Has the root of version 2 hand the memory controller down.
fn delegate_memory() -> Result<()> {
    let read = |file: &str| fs::read_to_string(Path::new(V2).join(file)).unwrap_or_default();
    let has_memory = |text: String| text.split_whitespace().any(|controller| controller == "memory");
    ensure!(
        has_memory(read("cgroup.controllers")),
        "there is no memory controller in {V1} nor in {V2}; mount one: mount -t cgroup2 none {V2}"
    );
    if has_memory(read("cgroup.subtree_control")) {
        return Ok(());
    }
    fs::write(Path::new(V2).join("cgroup.subtree_control"), "+memory").with_context(|| {
        format!("cannot hand down the memory controller in {V2}; in a container, run it with --cgroupns=host")
    })
}
