//! The network interfaces of the network namespace that this process is in.
//!
//! Asked of the kernel by socket and procfs: a sysfs that was mounted in another namespace shows that one's interfaces.

use std::io;

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

/// The names of all interfaces, sorted.
///
/// # Errors
///
/// Where procfs cannot be read.
pub fn names() -> io::Result<Vec<String>> {
    let table = std::fs::read_to_string("/proc/self/net/dev")?;
    let mut names: Vec<String> =
        table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect();
    names.sort();
    Ok(names)
}

/// The index of an interface; none where there is no such interface.
#[must_use]
pub fn index(name: &str) -> Option<u32> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(&socket, name).ok()
}
