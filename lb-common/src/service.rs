//! The service table: virtual address, port and protocol to service.
//!
//! An open-addressing table in an array. A service stands in its home slot or at most [`MAX_REACH`] slots behind it; the
//! home slot says how far to look, so that what is for no service is known by one look, and an established service
//! never moves when others come.

use crate::{
    hash,
    ip::Ip,
    layout::{Config, MAX_REACH, Service, VIRTUAL_ADDRESS},
    tables::Tables,
    wire::{Address, AddressWords, Be16},
};

/// The service of an address and port, and its slot.
#[inline(always)]
pub fn find<T: Tables>(
    tables: &T,
    address: AddressWords,
    port: Be16,
    protocol: u8,
    family: u8,
) -> Option<(u32, &Service)> {
    let config = tables.config();
    let home = home(config, address, port, protocol);
    let service = tables.service(home)?;
    if is(service, address, port, protocol, family) {
        return Some((home, service));
    }
    let reach = u32::from(service.reach);
    for step in 1..=u32::from(MAX_REACH) {
        if step > reach {
            return None;
        }
        let slot = (home + step) & config.service_mask;
        let service = tables.service(slot)?;
        if is(service, address, port, protocol, family) {
            return Some((slot, service));
        }
    }
    None
}

/// Whether an address is that of a service, whatever its port.
#[inline(always)]
pub fn is_virtual<I: Ip, T: Tables>(tables: &T, address: I::Address) -> bool {
    find(tables, address.words(), Be16::from_raw(0), VIRTUAL_ADDRESS, I::FAMILY).is_some()
}

/// The slot where a service wants to stand.
#[inline(always)]
pub fn home(config: &Config, address: AddressWords, port: Be16, protocol: u8) -> u32 {
    let rest = u32::from(port.raw()) << 16 | u32::from(protocol);
    (hash::nh(&config.place_key, address, rest) >> 32) as u32 & config.service_mask
}

#[inline(always)]
fn is(service: &Service, address: AddressWords, port: Be16, protocol: u8, family: u8) -> bool {
    service.address == address
        && transport(service.port, service.protocol, service.family) == transport(port, protocol, family)
}

/// The three in one word, compared at once.
#[inline(always)]
fn transport(port: Be16, protocol: u8, family: u8) -> u32 {
    u32::from(port.raw()) | u32::from(protocol) << 16 | u32::from(family) << 24
}
