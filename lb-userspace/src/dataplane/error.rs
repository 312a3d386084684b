//! What can go wrong between here and the kernel, in words for whoever runs the node.

use std::{
    io,
    path::{Path, PathBuf},
};

use aya::{EbpfError, maps::MapError, pin::PinError, programs::ProgramError};
use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

/// What can go wrong between here and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to read or detach.
    #[error("nothing is pinned in {}: no `lb run` has attached with this pin directory", .pin_dir.display())]
    NothingPinned {
        /// Where it was looked for.
        pin_dir: PathBuf,
    },
    /// The pin directory is not where pins can be.
    #[error("{} is not on a BPF file system; mount one with `mount -t bpf bpf /sys/fs/bpf`", .pin_dir.display())]
    NotBpffs {
        /// The directory.
        pin_dir: PathBuf,
    },
    /// Nothing can be pinned or unpinned there.
    #[error(
        "the BPF file system that {} is on is mounted read-only; `mount -o remount,rw` makes it writable, and `pin_dir` in \
         [global] names another place",
        .pin_dir.display()
    )]
    ReadOnly {
        /// The directory.
        pin_dir: PathBuf,
    },
    /// Another daemon holds the pin directory.
    #[error(
        "another lb is using {}; stop it first, or give this one a `pin_dir` of its own",
        .pin_dir.display()
    )]
    Locked {
        /// The directory.
        pin_dir: PathBuf,
    },
    /// What is to be removed is in use.
    #[error("a daemon is using {}; stop it first, then remove what it leaves", .pin_dir.display())]
    InUse {
        /// The directory.
        pin_dir: PathBuf,
    },
    /// The pinned maps are of another version.
    #[error(
        "the maps in {} have layout version {found}, this lb has {ours}; `lb xdp detach` removes them, and the flows in \
         them, and the next start makes new ones",
        .pin_dir.display()
    )]
    Layout {
        /// The directory.
        pin_dir: PathBuf,
        /// The version of the maps.
        found: u32,
        /// The version of this program.
        ours: u32,
    },
    /// An interface that is not there.
    #[error("there is no interface {interface}; there are: {existing}")]
    NoInterface {
        /// The interface.
        interface: String,
        /// Those that exist.
        existing: String,
    },
    /// The interface has another XDP program.
    #[error(
        "another XDP program is attached to {interface}; see `ip link show dev {interface}`, remove it with `ip link set dev \
         {interface} xdp off`, or with the tool that put it there"
    )]
    Busy {
        /// The interface.
        interface: String,
    },
    /// The interface does not take the program.
    #[error("cannot attach to {interface}: {source}; xdp_mode = \"generic\" works on every interface")]
    Attach {
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: ProgramError,
    },
    /// The kernel attached without a link.
    #[error(
        "the kernel attached to {interface} by netlink instead of a BPF link, which would not outlive the daemon; Linux 5.9 \
         or newer is needed"
    )]
    NoLink {
        /// The interface.
        interface: String,
    },
    /// The kernel refuses the object.
    #[error("cannot load the XDP program: {}", chain(source))]
    Load {
        /// The kernel's answer, the verifier's log included.
        source: Box<EbpfError>,
    },
    /// A map cannot be used.
    #[error("cannot use the map {}: {}", .path.display(), chain(source))]
    Map {
        /// Its pin.
        path: PathBuf,
        /// The kernel's answer.
        source: MapError,
    },
    /// Something cannot be pinned.
    #[error("cannot pin {}: {}", .path.display(), chain(source))]
    Pin {
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: PinError,
    },
    /// A table has no room.
    #[error(
        "no room for more {what}: the maps were made for {capacity}; `lb xdp detach` and a new start make larger ones for \
         what is configured then"
    )]
    Full {
        /// Of what.
        what: &'static str,
        /// How many fit.
        capacity: u32,
    },
    /// The system refuses something ordinary.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// An error and its causes on one line: aya's errors leave the kernel's answer to their source.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// Whether a directory, or the nearest one above it that exists, is on a BPF file system that can be written.
pub(super) fn check_bpffs(pin_dir: &Path) -> Result<(), Error> {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    let existing = pin_dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    match statfs(existing) {
        Ok(stat) if stat.f_type.cast_unsigned() == BPF_FS_MAGIC => {}
        _ => return Err(Error::NotBpffs { pin_dir: pin_dir.into() }),
    }
    match statvfs(existing) {
        Ok(stat) if stat.f_flag.contains(StatVfsMountFlags::RDONLY) => Err(Error::ReadOnly { pin_dir: pin_dir.into() }),
        _ => Ok(()),
    }
}
