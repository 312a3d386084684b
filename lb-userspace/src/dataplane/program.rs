//! The program: loading it, attaching it, taking it over, taking it away.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{DevMapHash, MapData, ProgramArray},
    programs::{
        ProgramError, Xdp,
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpMode as Mode},
    },
};
use lb_common::layout::Config;
use rustix::io::Errno;

use super::{Attachment, Error, XdpMode, maps};
use crate::interface;

/// The object file that lb-userspace/build.rs makes of lb-ebpf.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf"));

/// The entry points in lb-ebpf: the common path, and the rare one that it calls.
const PROGRAM: &str = "lb";
const RARE: &str = "lb_rare";

/// What is compiled into the program by constants: the verifier removes the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Variant {
    /// Whether dropped packets are logged.
    pub(super) log_drops: bool,
    /// Of [`lb_common::layout::features`].
    pub(super) features: u32,
}

/// Loads the program for the maps pinned in a directory; creates and pins those that are missing.
pub(super) fn load(pin_dir: &Path, config: &Config, variant: Variant) -> Result<Ebpf, Error> {
    let entries = maps::entries(config);
    let log_level = if variant.log_drops { aya_log::Level::Info as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .default_map_pin_directory(pin_dir)
        .override_global("CONFIG", bytemuck::bytes_of(config), true)
        .override_global("FEATURES", &variant.features, true)
        .override_global(aya_log::LEVEL, &log_level, true);
    for (name, entries) in entries {
        loader.map_max_entries(name, entries);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|source| Error::Load { source: Box::new(source) })?;
    for name in [PROGRAM, RARE] {
        entry_point(&mut ebpf, name)?.load().map_err(|source| Error::Load { source: Box::new(source.into()) })?;
    }
    let rare = entry_point(&mut ebpf, RARE)?
        .fd()
        .map_err(|source| Error::Load { source: Box::new(source.into()) })?
        .try_clone()
        .map_err(|source| Error::System { what: "cannot clone a program's descriptor".into(), source })?;
    let path = pin_dir.join("PROGRAMS");
    MapData::from_pin(&path)
        .and_then(aya::maps::Map::from_map_data)
        .and_then(ProgramArray::try_from)
        .and_then(|mut programs: ProgramArray<MapData>| programs.set(0, &rare, 0))
        .map_err(|source| Error::Map { path, source })?;
    Ok(ebpf)
}

pub(super) fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    entry_point(ebpf, PROGRAM)
}

fn entry_point<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let program = ebpf.program_mut(name).expect("lb-ebpf has this entry point");
    program.try_into().map_err(|source: ProgramError| Error::Load { source: Box::new(source.into()) })
}

/// Attaches to an interface, or puts the program in the place of the one that an adopted link has.
pub(super) fn attach(ebpf: &mut Ebpf, pin_dir: &Path, interface: &str, mode: XdpMode) -> Result<Attachment, Error> {
    let ifindex = interface::index(interface).ok_or_else(|| Error::NoInterface {
        interface: interface.into(),
        existing: interface::names().unwrap_or_default().join(", "),
    })?;
    for (pin, mode) in pins_of(pin_dir, interface) {
        let link = PinnedLink::from_pin(&pin).ok().and_then(|link| XdpLink::try_from(FdLink::from(link)).ok());
        if let Some(link) = link
            && let Ok(id) = program(ebpf)?.attach_to_link(link)
        {
            // The pin keeps the link; our descriptor of it can go.
            drop(program(ebpf)?.take_link(id));
            allow_device(pin_dir, ifindex)?;
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
        match program(ebpf)?.attach(interface, flags) {
            Ok(id) => {
                let link = program(ebpf)?.take_link(id).map_err(|source| attach_error(interface, source))?;
                let link = FdLink::try_from(link).map_err(|_| Error::NoLink { interface: interface.into() })?;
                let pin = pin(pin_dir, mode, interface);
                create_dir(pin.parent().expect("in the pin directory"))?;
                link.pin(&pin).map_err(|source| Error::Pin { path: pin, source })?;
                allow_device(pin_dir, ifindex)?;
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
pub(super) fn attachments(pin_dir: &Path) -> Result<Vec<(Attachment, PathBuf)>, Error> {
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
    for (attachment, pin) in attachments(pin_dir)? {
        if !wanted.contains(&attachment.interface) {
            tracing::info!(interface = attachment.interface, "detached: no longer configured");
            remove(&pin)?;
        }
    }
    Ok(())
}

/// Removes everything pinned in a directory, links first, and the directory; the interfaces detached.
pub(super) fn remove_all(pin_dir: &Path) -> Result<Vec<String>, Error> {
    let mut interfaces = Vec::new();
    for (attachment, pin) in attachments(pin_dir)? {
        remove(&pin)?;
        interfaces.push(attachment.interface);
    }
    for name in maps::PINNED {
        remove(&pin_dir.join(name))?;
    }
    for dir in [mode_dir(pin_dir, XdpMode::Native), mode_dir(pin_dir, XdpMode::Generic), pin_dir.into()] {
        match fs::remove_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::System { what: format!("cannot remove {}", dir.display()), source: error });
            }
            _ => {}
        }
    }
    Ok(interfaces)
}

/// Lets packets leave by an interface.
fn allow_device(pin_dir: &Path, ifindex: u32) -> Result<(), Error> {
    let path = pin_dir.join("DEVICES");
    let map = MapData::from_pin(&path)
        .and_then(aya::maps::Map::from_map_data)
        .and_then(DevMapHash::try_from)
        .map_err(|source| Error::Map { path: path.clone(), source })?;
    let mut devices: DevMapHash<MapData> = map;
    devices.insert(ifindex, ifindex, None, 0).map_err(|source| Error::Device { path, source })
}

fn mode_dir(pin_dir: &Path, mode: XdpMode) -> PathBuf {
    pin_dir.join(if mode == XdpMode::Generic { "generic" } else { "native" })
}

/// Where the link to an interface is pinned. A bpffs has no dots in names, an interface no colons.
fn pin(pin_dir: &Path, mode: XdpMode, interface: &str) -> PathBuf {
    mode_dir(pin_dir, mode).join(interface.replace('.', ":"))
}

fn pins_of(pin_dir: &Path, interface: &str) -> Vec<(PathBuf, XdpMode)> {
    [XdpMode::Native, XdpMode::Generic]
        .map(|mode| (pin(pin_dir, mode, interface), mode))
        .into_iter()
        .filter(|(pin, _)| pin.exists())
        .collect()
}

pub(super) fn create_dir(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|source| Error::System { what: format!("cannot create {}", dir.display()), source })
}

fn remove(path: &Path) -> Result<(), Error> {
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
