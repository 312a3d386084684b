//! Frames from named fields, their checksums computed from scratch.

use core::net::{IpAddr, SocketAddr};
use std::{vec, vec::Vec};

use crate::checksum::fold;

/// FIN, of the TCP control bits.
pub const FIN: u8 = 0x01;
/// SYN, of the TCP control bits.
pub const SYN: u8 = 0x02;
/// RST, of the TCP control bits.
pub const RST: u8 = 0x04;
/// ACK, of the TCP control bits.
pub const ACK: u8 = 0x10;

/// A TCP segment or UDP datagram in an Ethernet frame.
#[derive(Clone, Copy, Debug)]
pub struct TcpFrame<'a> {
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// Source address and port; its family is the frame's.
    pub source: SocketAddr,
    /// Destination address and port, of the same family.
    pub destination: SocketAddr,
    /// Control bits.
    pub flags: u8,
    /// Differentiated services and congestion notification.
    pub class: u8,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// IPv4 options, a multiple of four bytes.
    pub options: &'a [u8],
    /// The IPv4 flags and fragment offset.
    pub fragment: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP sequence number.
    pub sequence: u32,
    /// TCP acknowledgment number.
    pub acknowledges: u32,
    /// TCP options, a multiple of four bytes.
    pub tcp_options: &'a [u8],
    /// What follows the TCP header, or the UDP header where the protocol is 17.
    pub payload: &'a [u8],
}

impl Default for TcpFrame<'_> {
    fn default() -> Self {
        Self {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            source: SocketAddr::from(([192, 0, 2, 1], 40_000)),
            destination: SocketAddr::from(([203, 0, 113, 10], 80)),
            flags: ACK,
            class: 0,
            hop_limit: 64,
            options: &[],
            fragment: 0,
            protocol: 6,
            sequence: 1,
            acknowledges: 2,
            tcp_options: &[],
            payload: &[],
        }
    }
}

impl TcpFrame<'_> {
    /// The frame's bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut segment = vec![];
        segment.extend(self.source.port().to_be_bytes());
        segment.extend(self.destination.port().to_be_bytes());
        let check_at = if self.protocol == 17 {
            segment.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            segment.extend([0, 0]);
            6
        } else {
            let offset = (5 + self.tcp_options.len() / 4) as u8;
            segment.extend(self.sequence.to_be_bytes());
            segment.extend(self.acknowledges.to_be_bytes());
            segment.extend([offset << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
            segment.extend(self.tcp_options);
            16
        };
        segment.extend(self.payload);
        let pseudo = pseudo_header(self.source.ip(), self.destination.ip(), segment.len(), self.protocol);
        let check = match checksum(&[&pseudo, &segment]) {
            [0, 0] if self.protocol == 17 => [0xff, 0xff],
            check => check,
        };
        segment[check_at..check_at + 2].copy_from_slice(&check);

        let mut frame = vec![];
        frame.extend(self.destination_mac);
        frame.extend(self.source_mac);
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                let mut header = vec![0x40 | (5 + self.options.len() / 4) as u8, self.class];
                header.extend(((20 + self.options.len() + segment.len()) as u16).to_be_bytes());
                header.extend([0x12, 0x34]);
                header.extend(self.fragment.to_be_bytes());
                header.extend([self.hop_limit, self.protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(self.options);
                let check = checksum(&[&header]);
                header[10..12].copy_from_slice(&check);
                frame.extend(header);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd, 0x60 | self.class >> 4, self.class << 4, 0, 0]);
                frame.extend((segment.len() as u16).to_be_bytes());
                frame.extend([self.protocol, self.hop_limit]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => panic!("source and destination are of different families"),
        }
        frame.extend(segment);
        frame
    }
}

/// Whether the header checksum (IPv4) and the TCP, UDP or ICMP checksum of an untagged frame are right, computed from scratch.
#[must_use]
pub fn l4_checksum_is_right(frame: &[u8]) -> bool {
    let ip = &frame[14..];
    let (pseudo, segment) = if ip[0] >> 4 == 4 {
        let header = usize::from(ip[0] & 0xf) * 4;
        if checksum(&[&ip[..header]]) != [0, 0] {
            return false;
        }
        let addresses = (<[u8; 4]>::try_from(&ip[12..16]), <[u8; 4]>::try_from(&ip[16..20]));
        let (Ok(source), Ok(destination)) = addresses else { return false };
        (pseudo_header(source.into(), destination.into(), ip.len() - header, ip[9]), &ip[header..])
    } else {
        let addresses = (<[u8; 16]>::try_from(&ip[8..24]), <[u8; 16]>::try_from(&ip[24..40]));
        let (Ok(source), Ok(destination)) = addresses else { return false };
        (pseudo_header(source.into(), destination.into(), ip.len() - 40, ip[6]), &ip[40..])
    };
    // ICMP covers no pseudo header, ICMPv6 does.
    let pseudo: &[u8] = if ip[0] >> 4 == 4 && ip[9] == 1 { &[] } else { &pseudo };
    checksum(&[pseudo, segment]) == [0, 0]
}

/// An ICMP or ICMPv6 message: type and code, the four bytes behind the checksum, and what follows them.
#[must_use]
pub fn icmp_frame(source: IpAddr, destination: IpAddr, kind: [u8; 2], rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    let protocol = if source.is_ipv4() { 1 } else { 58 };
    let mut message = vec![kind[0], kind[1], 0, 0];
    message.extend(rest);
    message.extend(body);
    let pseudo = pseudo_header(source, destination, message.len(), protocol);
    let check = if source.is_ipv4() { checksum(&[&message]) } else { checksum(&[&pseudo, &message]) };
    message[2..4].copy_from_slice(&check);
    let (source, destination) = (SocketAddr::new(source, 0), SocketAddr::new(destination, 0));
    // As a UDP datagram whose header is then the message's first eight bytes.
    let filler = vec![0; message.len() - 8];
    let mut frame = TcpFrame { source, destination, protocol: 17, payload: &filler, ..TcpFrame::default() }.bytes();
    let l4 = frame.len() - message.len();
    frame[l4..].copy_from_slice(&message);
    if source.is_ipv4() {
        frame[14 + 9] = protocol;
        frame[14 + 10..14 + 12].copy_from_slice(&[0, 0]);
        let check = checksum(&[&frame[14..34]]);
        frame[14 + 10..14 + 12].copy_from_slice(&check);
    } else {
        frame[14 + 6] = protocol;
    }
    frame
}

/// What checksums cover beside the packet (RFC 9293, section 3.1; RFC 8200, section 8.1).
#[must_use]
fn pseudo_header(source: IpAddr, destination: IpAddr, length: usize, protocol: u8) -> Vec<u8> {
    let mut header = vec![];
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => header.extend(v4.octets()),
            IpAddr::V6(v6) => header.extend(v6.octets()),
        }
    }
    header.extend((length as u32).to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    header
}

/// RFC 1071 over parts of even length, but for the last.
#[must_use]
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    (!fold(sum)).to_ne_bytes()
}
