//! An XDP program on an interface, by a link that is pinned: it stays when this process goes.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, Xdp,
    links::{FdLink, PinnedLink},
    xdp::{XdpLink, XdpMode as Mode},
};
use rustix::io::Errno;

use super::{Attachment, Error, XdpMode};
use crate::interface;

/// Attaches a program to an interface, or puts it in the place of the one that a pinned link has.
pub(super) fn attach(program: &mut Xdp, pin_dir: &Path, interface: &str, mode: XdpMode) -> Result<Attachment, Error> {
    if interface::index(interface).is_none() {
        let existing = interface::names().unwrap_or_default().join(", ");
        return Err(Error::NoInterface { interface: interface.into(), existing });
    }
    for (pin, mode) in pins_of(pin_dir, interface) {
        let link = PinnedLink::from_pin(&pin).ok().and_then(|link| XdpLink::try_from(FdLink::from(link)).ok());
        if let Some(link) = link
            && let Ok(id) = program.attach_to_link(link)
        {
            // The pin keeps the link; our descriptor of it can go.
            drop(program.take_link(id));
            return Ok(Attachment { interface: interface.into(), mode, adopted: true });
        }
        // A link to an interface that is gone, even if there is one of the same name again.
        remove(&pin)?;
    }
    let attempts: &[XdpMode] = match mode {
        XdpMode::Auto => &[XdpMode::Native, XdpMode::Generic],
        XdpMode::Native => &[XdpMode::Native],
        XdpMode::Generic => &[XdpMode::Generic],
    };
    let mut failure = None;
    for &mode in attempts {
        let flags = if mode == XdpMode::Generic { Mode::Skb } else { Mode::Driver };
        match program.attach(interface, flags) {
            Ok(id) => {
                let link = program.take_link(id).map_err(|source| attach_error(interface, source))?;
                let link = FdLink::try_from(link).map_err(|_| Error::NoLink { interface: interface.into() })?;
                let pin = pin(pin_dir, mode, interface);
                create_dir(pin.parent().expect("in the pin directory"))?;
                link.pin(&pin).map_err(|source| Error::Pin { path: pin, source })?;
                if failure.is_some() {
                    tracing::warn!(
                        interface,
                        "the driver has no native XDP: attached in generic mode, which is slower"
                    );
                }
                return Ok(Attachment { interface: interface.into(), mode, adopted: false });
            }
            Err(error) => {
                let busy = os_error(&error) == Some(Errno::BUSY);
                failure.get_or_insert(error);
                if busy {
                    break;
                }
            }
        }
    }
    Err(attach_error(interface, failure.expect("at least one attempt was made")))
}

/// The links that are pinned: interface, mode, pin.
pub(super) fn pinned(pin_dir: &Path) -> Result<Vec<(Attachment, PathBuf)>, Error> {
    let mut found = Vec::new();
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let dir = mode_dir(pin_dir, mode);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(Error::System { what: format!("cannot list {}", dir.display()), source }),
        };
        for entry in entries.flatten() {
            let interface = entry.file_name().to_string_lossy().replace(':', ".");
            found.push((Attachment { interface, mode, adopted: true }, entry.path()));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.interface.cmp(&b.interface));
    Ok(found)
}

/// Detaches from interfaces that are no longer wanted.
pub(super) fn detach_others(pin_dir: &Path, wanted: &[String]) -> Result<(), Error> {
    let wanted: BTreeSet<&String> = wanted.iter().collect();
    for (attachment, pin) in pinned(pin_dir)? {
        if !wanted.contains(&attachment.interface) {
            tracing::info!(interface = attachment.interface, "detached: no longer configured");
            remove(&pin)?;
        }
    }
    Ok(())
}

/// The pins of links to an interface.
pub(super) fn pins_of(pin_dir: &Path, interface: &str) -> Vec<(PathBuf, XdpMode)> {
    [XdpMode::Native, XdpMode::Generic]
        .map(|mode| (pin(pin_dir, mode, interface), mode))
        .into_iter()
        .filter(|(pin, _)| pin.exists())
        .collect()
}

/// Where links of a mode are pinned.
pub(super) fn mode_dir(pin_dir: &Path, mode: XdpMode) -> PathBuf {
    pin_dir.join(if mode == XdpMode::Generic { "generic" } else { "native" })
}

/// Where the link to an interface is pinned. A bpffs has no dots in names, an interface no colons.
fn pin(pin_dir: &Path, mode: XdpMode, interface: &str) -> PathBuf {
    mode_dir(pin_dir, mode).join(interface.replace('.', ":"))
}

pub(super) fn create_dir(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|source| Error::System { what: format!("cannot create {}", dir.display()), source })
}

/// Removes a pin, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::System { what: format!("cannot remove the pin {}", path.display()), source })
        }
        _ => Ok(()),
    }
}

fn attach_error(interface: &str, source: ProgramError) -> Error {
    if os_error(&source) == Some(Errno::BUSY) {
        return Error::Busy { interface: interface.into() };
    }
    Error::Attach { interface: interface.into(), source }
}

fn os_error(error: &ProgramError) -> Option<Errno> {
    let ProgramError::SyscallError(error) = error else { return None };
    Errno::from_io_error(&error.io_error)
}
