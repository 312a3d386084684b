//! The decapsulating program on a backend: attached, pinned, and left to itself.

use std::path::{Path, PathBuf};

use aya::EbpfLoader;

use super::{Attachment, Error, XdpMode, error, link, program};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-decap"));

/// Attaches the program to an interface, or puts it in the place of the one that is there. It stays until
/// [`detach`] or the next start of the machine.
///
/// # Errors
///
/// Where the interface does not exist or does not take the program, or the directory cannot hold a pin.
pub fn attach(pin_dir: &Path, interface: &str, mode: XdpMode) -> Result<Attachment, Error> {
    error::check_bpffs(pin_dir)?;
    let mut ebpf = EbpfLoader::new().load(OBJECT).map_err(|source| Error::Load { source: Box::new(source) })?;
    let program = program::load_entry_point(&mut ebpf, "lb_decap")?;
    link::attach(program, pin_dir, interface, mode)
}

/// Takes the program off an interface; the pins removed.
///
/// # Errors
///
/// Where there is none.
pub fn detach(pin_dir: &Path, interface: &str) -> Result<(), Error> {
    let pins: Vec<(PathBuf, XdpMode)> = link::pins_of(pin_dir, interface);
    if pins.is_empty() {
        return Err(Error::NothingPinned { pin_dir: pin_dir.into() });
    }
    pins.iter().try_for_each(|(pin, _)| link::remove(pin))
}
