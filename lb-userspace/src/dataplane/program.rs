//! The program: loading it, attaching it, taking it away.

use std::{fs, io, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, ProgramArray},
    programs::{ProgramError, Xdp},
};
use lb_common::layout::Config;

use super::{Error, XdpMode, link, maps, table};

/// The object file that lb-userspace/build.rs makes of lb-ebpf.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf"));

/// The entry points in lb-ebpf: the common path, and the rare one that it calls.
pub(super) const ENTRY_POINTS: [&str; 2] = [PROGRAM, RARE];
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
    let mut ebpf = object(pin_dir, config, variant)?;
    for name in ENTRY_POINTS {
        load_entry_point(&mut ebpf, name)?;
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

/// The object with its maps, its entry points not yet loaded.
pub(super) fn object(pin_dir: &Path, config: &Config, variant: Variant) -> Result<Ebpf, Error> {
    let log_level = if variant.log_drops { aya_log::Level::Info as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .default_map_pin_directory(pin_dir)
        .override_global("CONFIG", bytemuck::bytes_of(config), true)
        .override_global("FEATURES", &variant.features, true)
        .override_global(aya_log::LEVEL, &log_level, true);
    for (name, entries) in maps::entries(config) {
        loader.map_max_entries(name, entries);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|source| Error::Load { source: Box::new(source) })?;
    table::give(&mut ebpf, pin_dir, config)?;
    Ok(ebpf)
}

/// Has the kernel verify and translate an entry point.
pub(super) fn load_entry_point<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let program = entry_point(ebpf, name)?;
    program.load().map_err(|source| Error::Load { source: Box::new(source.into()) })?;
    Ok(program)
}

pub(super) fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    entry_point(ebpf, PROGRAM)
}

/// A program of an object that has it.
pub(super) fn entry_point<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let program = ebpf.program_mut(name).expect("the object has this entry point");
    program.try_into().map_err(|source: ProgramError| Error::Load { source: Box::new(source.into()) })
}

/// Removes everything pinned in a directory, links first, and the directory; the interfaces detached.
pub(super) fn remove_all(pin_dir: &Path) -> Result<Vec<String>, Error> {
    let mut interfaces = Vec::new();
    for (attachment, pin) in link::pinned(pin_dir)? {
        link::remove(&pin)?;
        interfaces.push(attachment.interface);
    }
    for name in maps::FORMER.into_iter().chain(maps::PINNED) {
        link::remove(&pin_dir.join(name))?;
    }
    for dir in [link::mode_dir(pin_dir, XdpMode::Native), link::mode_dir(pin_dir, XdpMode::Generic), pin_dir.into()] {
        match fs::remove_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::System { what: format!("cannot remove {}", dir.display()), source: error });
            }
            _ => {}
        }
    }
    Ok(interfaces)
}
