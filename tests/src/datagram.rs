//! IP packets made by hand, sent and received through raw sockets.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, socket_with},
};

use crate::node::Family;

const TCP: u8 = 6;

/// A TCP segment without data or options.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Where it says that it comes from.
    pub from: SocketAddr,
    /// Where it goes, in the same family.
    pub to: SocketAddr,
    /// Its sequence number.
    pub seq: u32,
    /// The byte of its control bits.
    pub flags: u8,
    /// Time to live, or hop limit.
    pub hops: u8,
}

impl Segment {
    /// A SYN from nobody.
    pub const SYN: Self = Self {
        from: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
        to: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
        seq: 0,
        flags: 2,
        hops: 64,
    };

    /// An ACK from nobody.
    pub const ACK: Self = Self { flags: 16, ..Self::SYN };

    /// As an IP packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let mut tcp = [0; 20];
        tcp[..2].copy_from_slice(&self.from.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.to_be_bytes());
        tcp[12..16].copy_from_slice(&[5 << 4, self.flags, 0xff, 0xff]);
        let check = checksum(self.from.ip(), self.to.ip(), TCP, &tcp);
        tcp[16..18].copy_from_slice(&check.to_be_bytes());
        packet(self.from.ip(), self.to.ip(), TCP, self.hops, &tcp)
    }
}

/// An IP packet: a header without options before a payload. The kernel fills in the checksum and the identification of an
/// IPv4 header.
///
/// # Panics
/// When the addresses are of two families.
#[must_use]
pub fn packet(from: IpAddr, to: IpAddr, protocol: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = vec![0; 20];
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            packet[8] = hops;
            packet[9] = protocol;
            packet[12..16].copy_from_slice(&from.octets());
            packet[16..20].copy_from_slice(&to.octets());
            packet.extend_from_slice(payload);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut packet = vec![0; 40];
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            packet[6] = protocol;
            packet[7] = hops;
            packet[8..24].copy_from_slice(&from.octets());
            packet[24..40].copy_from_slice(&to.octets());
            packet.extend_from_slice(payload);
            packet
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// The checksum of a TCP segment, UDP datagram or ICMPv6 message whose own is zero (RFC 1071).
#[must_use]
pub fn checksum(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut sum = u32::from(protocol) + payload.len() as u32;
    for part in [&octets(from)[..], &octets(to)[..], payload] {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A socket of the calling thread's namespace that sends IP packets as they are.
pub(crate) fn raw_sender(family: Family) -> Result<OwnedFd> {
    raw_socket(family, ipproto::RAW)
}

pub(crate) fn raw_socket(family: Family, protocol: Protocol) -> Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).context("cannot open a raw socket")
}
