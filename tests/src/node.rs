//! A machine of the lab: a network namespace with a name and addresses.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context, Result};
use rustix::{
    fd::AsFd,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::process::run;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A machine of the lab. A handle: the namespace belongs to the [`Lab`](crate::Lab).
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    namespace: PathBuf,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Node {
    /// A handle for the namespace at `/run/netns/{namespace}`, which exists.
    pub(crate) fn new(name: &str, namespace: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Self {
        Self { name: name.to_owned(), namespace: Path::new("/run/netns").join(namespace), v4, v6 }
    }

    /// `client`, `front`, `web-01`, …
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own address.
    #[must_use]
    pub fn ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Its own address with a port.
    #[must_use]
    pub fn address(&self, family: Family, port: u16) -> SocketAddr {
        (self.ip(family), port).into()
    }

    /// Where the kernel shows the namespace: `nsenter --net=PATH` enters it.
    #[must_use]
    pub fn namespace(&self) -> &Path {
        &self.namespace
    }

    /// A command that will run in the namespace. The mounts stay those of the host: bpffs is where it was, which
    /// `ip netns exec` would hide.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.display())).arg("--").arg(program);
        command
    }

    /// Runs `work` on a thread inside the namespace. Sockets and threads made there stay there.
    ///
    /// # Panics
    /// When the namespace is gone, or when `work` panics.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let namespace = File::open(&self.namespace).expect("the namespace lives as long as the lab");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("the lab was made by root, and so was this process");
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Sets a value under `/proc/sys/net` of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        self.enter(|| std::fs::write(&path, value))
            .with_context(|| format!("cannot set {} to {value} in {}", path.display(), self.name))
    }

    /// Runs lines of `ip` in the namespace: `"link set eth0 mtu 1400\n"`.
    pub fn ip_batch(&self, lines: &str) -> Result<()> {
        run(self.command("ip").args(["-batch", "-"]), lines).map(drop)
    }

    /// Switches features of an interface: `("eth0", &["tx", "off"])`.
    pub(crate) fn ethtool(&self, interface: &str, features: &[&str]) -> Result<()> {
        run(self.command("ethtool").args(["-K", interface]).args(features), "").map(drop)
    }
}
