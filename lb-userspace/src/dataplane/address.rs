//! Addresses between the standard library and the maps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::{
    ip,
    layout::{Backend, backend_flags},
    wire::{AddressWords, Be16},
};

use crate::plan::Protocol;

/// IP protocol number.
pub(super) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => ip::TCP,
        Protocol::Udp => ip::UDP,
    }
}

/// Back from [`protocol_number`]; none where the number is no service's.
pub(super) fn protocol(number: u8) -> Option<Protocol> {
    match number {
        ip::TCP => Some(Protocol::Tcp),
        ip::UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// As map values hold an address.
pub(super) fn words(address: IpAddr) -> AddressWords {
    match address {
        IpAddr::V4(v4) => [u32::from_ne_bytes(v4.octets()).into(), 0],
        IpAddr::V6(v6) => bytemuck::cast(v6.octets()),
    }
}

/// 4 or 6.
pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// Back from [`words`].
pub(super) fn socket(words: AddressWords, family: u8, port: Be16) -> SocketAddr {
    let address = if family == 4 {
        IpAddr::V4(Ipv4Addr::from((words[0] as u32).to_ne_bytes()))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytemuck::cast::<_, [u8; 16]>(words)))
    };
    SocketAddr::new(address, port.get())
}

/// Where a backend listens.
pub(super) fn of_backend(backend: &Backend) -> SocketAddr {
    let family = if backend.flags & backend_flags::IPV6 == 0 { 4 } else { 6 };
    socket(backend.address, family, backend.port)
}

/// A name as maps hold it; longer ones are cut, which the configuration does not let happen.
pub(super) fn name_bytes<const SIZE: usize>(name: &str) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    let length = name.len().min(SIZE - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

/// Back from [`name_bytes`].
pub(super) fn name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_survive_the_maps() {
        for text in ["203.0.113.10:80", "[2001:db8::1]:65535", "0.0.0.0:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let back = socket(words(address.ip()), family(address.ip()), Be16::new(address.port()));
            assert_eq!(back, address);
        }
        assert_eq!(name(&name_bytes::<64>("web-01")), "web-01");
        assert_eq!(name(&name_bytes::<4>("web-01")), "web");
    }
}
