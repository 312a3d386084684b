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
    let transport = transport(port, protocol, family);
    let home = home(tables.config(), address, port, protocol);
    let service = tables.service(home)?;
    if is(service, address, transport) {
        return Some((home, service));
    }
    if service.reach == 0 {
        return None;
    }
    let slot = tables.service_behind(home, address, transport)?;
    Some((slot, tables.service(slot)?))
}

/// The slot of a service that does not stand in its home slot. The verifier goes through it once, as a function of its own in
/// the BPF program.
#[inline(always)]
pub fn behind<T: Tables>(tables: &T, home: u32, address: AddressWords, transport: u32) -> Option<u32> {
    let mask = tables.config().service_mask;
    let reach = u32::from(tables.service(home)?.reach);
    for step in 1..=u32::from(MAX_REACH) {
        let slot = (home + step) & mask;
        if step > reach {
            return None;
        }
        if is(tables.service(slot)?, address, transport) {
            return Some(slot);
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
    (hash::nh(&config.place_key, address, transport(port, protocol, 0)) >> 32) as u32 & config.service_mask
}

#[inline(always)]
fn is(service: &Service, address: AddressWords, transport: u32) -> bool {
    let own = self::transport(service.port, service.protocol, service.family);
    (service.address[0] ^ address[0]) | (service.address[1] ^ address[1]) | u64::from(own ^ transport) == 0
}

/// The three in one word, compared at once and with the address.
#[inline(always)]
fn transport(port: Be16, protocol: u8, family: u8) -> u32 {
    u32::from(port.raw()) | u32::from(protocol) << 16 | u32::from(family) << 24
}
