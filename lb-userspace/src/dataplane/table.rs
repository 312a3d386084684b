//! Tables: maps whose one value is a whole table, so that its address can be in the program.
//!
//! aya makes a map of every section of zeros, as large as the section, and writes the section into it. So the sections are small, and
//! their maps are never used: before a program is loaded, which is when the kernel looks for maps by their descriptors, the
//! table takes over the descriptor.
#![expect(unsafe_code, reason = "descriptors are replaced under aya's hands")]

use std::{
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type};
use lb_common::layout::{Backend, Config, FlowSet, FragmentSlot, NatSlot, Service};
use rustix::io::{DupFlags, dup3};

use super::Error;

/// A table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    /// The name of the map, and of its pin.
    pub(super) name: &'static str,
    /// How many entries there are.
    pub(super) entries: u32,
    /// Bytes of an entry.
    entry: usize,
    /// Its section in the object file.
    section: &'static str,
}

/// All of them.
pub(super) fn all(config: &Config) -> [Table; 9] {
    macro_rules! table {
        ($name:literal, $entry:ty, $entries:expr) => {
            Table { name: $name, entries: $entries, entry: size_of::<$entry>(), section: concat!(".bss.", $name) }
        };
    }
    [
        table!("SERVICES", Service, config.service_mask + 1),
        table!("BACKENDS", Backend, config.backends),
        table!("RINGS", u64, config.rings / 2),
        table!("FLOWS", FlowSet, config.flow_sets),
        table!("NAT", NatSlot, config.nat_slots()),
        table!("FRAGMENTS", FragmentSlot, config.fragment_mask + 1),
        table!("LOADS", u64, config.backends),
        table!("HEARD", u64, config.backends),
        table!("LIMITS", u64, config.backends + 1),
    ]
}

/// Gives the programs, which are not loaded yet, the tables pinned in a directory; creates and pins those that are missing.
pub(super) fn give(ebpf: &mut Ebpf, pin_dir: &Path, config: &Config) -> Result<(), Error> {
    for table in all(config) {
        let map = table.open(pin_dir)?;
        let Some(Map::Array(section)) = ebpf.map(table.section) else { unreachable!("lb-ebpf has a section for each") };
        // SAFETY: the descriptor is that of `section`, which keeps it: it is not closed here.
        let mut place = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(section.fd().as_fd().as_raw_fd()) });
        dup3(map.fd().as_fd(), &mut place, DupFlags::CLOEXEC)
            .map_err(|errno| Error::System { what: "cannot replace a descriptor".into(), source: errno.into() })?;
    }
    Ok(())
}

impl Table {
    fn open(&self, pin_dir: &Path) -> Result<MapData, Error> {
        let path = pin_dir.join(self.name);
        if path.exists() {
            return MapData::from_pin(&path).map_err(|source| Error::Map { path, source });
        }
        let size = u32::try_from(self.entries as usize * self.entry).expect("sizes are chosen so: see `sizing`");
        let array = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
        let map = aya_obj::Map::new_from_params(array, size_of::<u32>() as u32, size, 1, BPF_F_MMAPABLE);
        let map = MapData::create(map, self.name, None).map_err(|source| Error::Map { path: path.clone(), source })?;
        map.pin(&path).map_err(|source| Error::Pin { path, source })?;
        Ok(map)
    }
}
