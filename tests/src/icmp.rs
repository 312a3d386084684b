//! ICMP and ICMPv6 messages as they arrive at a node.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fd::OwnedFd,
    net::{RecvFlags, ipproto, recvfrom, sockopt},
};

use crate::{
    datagram::{checksum, raw_socket},
    node::{Family, Node},
};

/// Listens to what arrives.
#[derive(Debug)]
pub struct IcmpListener {
    socket: OwnedFd,
    family: Family,
    local: IpAddr,
}

/// An error about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// Who says so.
    pub from: IpAddr,
    /// Type and code.
    pub kind: (u8, u8),
    /// Where the packet came from.
    pub quoted_source: SocketAddr,
    /// Where it was to go.
    pub quoted_destination: SocketAddr,
}

impl IcmpListener {
    /// Listens in a node from here on.
    pub fn start_in(node: &Node, family: Family) -> Result<Self> {
        let protocol = if family == Family::V4 { ipproto::ICMP } else { ipproto::ICMPV6 };
        let socket = node.enter(|| raw_socket(family, protocol))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_millis(100)))?;
        Ok(Self { socket, family, local: node.ip(family) })
    }

    /// Waits for the next error about a TCP segment or UDP datagram. Wrong checksums are an error.
    pub fn error(&self, patience: Duration) -> Result<IcmpError> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 2048];
        while Instant::now() < deadline {
            let Ok((length, _, from)) = recvfrom(&self.socket, &mut buffer, RecvFlags::empty()) else { continue };
            let from = SocketAddr::try_from(from.context("a message has a sender")?)?.ip();
            let message = match self.family {
                Family::V4 => &buffer[usize::from(buffer[0] & 0xf) * 4..length],
                Family::V6 => &buffer[..length],
            };
            let is_error = match self.family {
                Family::V4 => matches!(message[0], 3 | 11 | 12),
                Family::V6 => message[0] < 128,
            };
            if is_error {
                return self.parse(from, message);
            }
        }
        bail!("no ICMP error within {patience:?}")
    }

    fn parse(&self, from: IpAddr, message: &[u8]) -> Result<IcmpError> {
        let quote = &message[8..];
        let (source, destination, ports) = match self.family {
            Family::V4 => {
                ensure!(ones(message) == 0xffff, "the ICMP checksum is wrong: {message:02x?}");
                ensure!(ones(&quote[..20]) == 0xffff, "the checksum of the quoted header is wrong: {quote:02x?}");
                let at = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&quote[at..at + 4]).unwrap_or_default());
                (at(12), at(16), &quote[20..24])
            }
            Family::V6 => {
                ensure!(checksum(from, self.local, 58, message) == 0, "the ICMPv6 checksum is wrong: {message:02x?}");
                let at = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&quote[at..at + 16]).unwrap_or_default());
                (at(8), at(24), &quote[40..44])
            }
        };
        let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
        Ok(IcmpError {
            from,
            kind: (message[0], message[1]),
            quoted_source: SocketAddr::new(source, port(0)),
            quoted_destination: SocketAddr::new(destination, port(2)),
        })
    }
}

/// The sum in ones' complement: 0xffff where the checksum within is right (RFC 1071).
fn ones(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from)).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
