//! Frames: new flows, old flows, replies, strangers, fragments, errors; whole, tagged, cut short, and with bytes changed.

use std::net::{IpAddr, SocketAddr};

use lb_common::host::{ACK, FIN, RST, SYN, TcpFrame};

/// Ports at the virtual addresses where there is a service of either protocol; and one where there is none.
const PORTS: [u16; 11] = [80, 81, 82, 83, 84, 85, 86, 53, 54, 55, 22];

/// Frames: new flows, old flows, replies, strangers, fragments, errors; whole, tagged, cut short, and with bytes changed.
pub(crate) struct Source {
    random: fastrand::Rng,
    /// Frames that were forwarded: as they left, without tags.
    sent: Vec<Vec<u8>>,
}

impl Source {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), sent: Vec::new() }
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.random.bool()
    }

    pub(crate) fn frame(&mut self) -> Vec<u8> {
        let mut bytes = match self.random.u8(..) {
            0..12 => self.echo(),
            12..40 => self.error(),
            _ => self.datagram(),
        };
        let random = &mut self.random;
        if random.u8(..) < 24 {
            mark(&mut bytes, random);
        }
        if bytes[12..14] == [0x86, 0xdd] && random.u8(..) < 24 {
            for _ in 0..random.u8(1..4) {
                extend(&mut bytes, random);
            }
        }
        match random.u8(..) {
            0..16 => bytes.truncate(random.usize(14..bytes.len())),
            16..24 => {
                for _ in 0..random.u8(1..4) {
                    let at = random.usize(..bytes.len());
                    bytes[at] ^= 1 << random.u8(..8);
                }
            }
            24..36 => drop(bytes.splice(12..12, [0x81, 0x00, 0x00, 0x2a])),
            36..42 => drop(bytes.splice(12..12, [0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x20, 0x2a])),
            42..46 => bytes[12..14].copy_from_slice(&random.u16(..).to_be_bytes()),
            46..54 => bytes.resize(bytes.len() + random.usize(1..24), 0xa5),
            54..60 => lie(&mut bytes, random),
            60..72 => {
                let at = random.usize(14..bytes.len().min(80));
                bytes[at] = random.u8(..);
            }
            _ => {}
        }
        bytes
    }

    /// TCP or UDP, perhaps a fragment.
    fn datagram(&mut self) -> Vec<u8> {
        let (source, destination) = self.ends();
        let random = &mut self.random;
        let kinds = [SYN, SYN, SYN, ACK, ACK, ACK, ACK, SYN | ACK, FIN | ACK, RST, RST | ACK, 0, 0xff];
        let flags = kinds[random.usize(..kinds.len())];
        let hop_limit = if random.u8(..) < 8 { random.u8(0..3) } else { 64 };
        let options = vec![1; if random.u8(..) < 16 { usize::from(random.u8(1..=10)) * 4 } else { 0 }];
        let fragment = match random.u8(..) {
            0..10 => 0x2000,
            10..24 => 0x2000 | random.u16(..32),
            24..60 => 0x4000,
            _ => 0,
        };
        let protocol = match random.u8(..) {
            0..8 => random.u8(..),
            8..80 => 17,
            _ => 6,
        };
        let tcp_options: &[u8] = match random.u8(..4) {
            0 => &[2, 4, 0x05, 0xb4],
            1 => &[1, 2, 4, 0x23, 0x28, 1, 1, 0],
            2 => &[8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 2, 4, 0x05, 0xb4, 1, 0],
            _ => &[],
        };
        let mut payload = vec![0; if random.u8(..) < 40 { random.usize(500..1_400) } else { random.usize(..64) }];
        random.fill(&mut payload);
        if random.u8(..) < 100 {
            let line = [
                &b"HTTP/1.1 200 OK"[..],
                b"HTTP/1.0 503 Service Unavailable",
                b"HTTP/1.1 0",
                b"HTTP/1.1",
                b"GET / HTTP/1.1",
                b"DELETE /",
                b"GET",
            ];
            let line = line[random.usize(..line.len())];
            payload.splice(..line.len().min(payload.len()), line.iter().copied());
        }
        let frame = TcpFrame {
            source,
            destination,
            flags,
            hop_limit,
            options: &options,
            fragment,
            protocol,
            tcp_options,
            payload: &payload,
            ..Default::default()
        };
        let mut bytes = frame.bytes();
        if protocol == 17 && self.random.u8(..) < 24 {
            // No checksum: nothing is behind the header but the payload.
            let at = bytes.len() - payload.len() - 2;
            bytes[at..at + 2].fill(0);
        }
        bytes
    }

    /// An echo request.
    fn echo(&mut self) -> Vec<u8> {
        let (source, destination) = self.ends();
        let kind = if source.is_ipv4() { 8 } else { 128 };
        let body = vec![0x55; self.random.usize(..64)];
        icmp(source.ip(), destination.ip(), [kind, 0, 0x12, 0x34, 0, 1, 0, 2], &body)
    }

    /// An error about a frame that was forwarded, from a router on its way.
    fn error(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        if self.sent.is_empty() {
            return self.echo();
        }
        let about = &self.sent[random.usize(..self.sent.len())];
        let quote = &about[14..about.len().min(14 + random.usize(20..120))];
        let (v4, mtu) = (quote[0] >> 4 == 4, random.u16(500..1_600).to_be_bytes());
        let (kind, code) = match (v4, random.u8(..3)) {
            (true, 0) => (3, 4),
            (true, 1) => (11, 0),
            (true, _) => (3, 1),
            (false, 0) => (2, 0),
            (false, 1) => (3, 0),
            (false, _) => (1, 4),
        };
        let Some((source, _)) = ends(about) else { return self.echo() };
        let router = if v4 { IpAddr::from([198, 51, 100, 1]) } else { IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, 0, 1]) };
        icmp(router, source.ip(), [kind, code, 0x12, 0x34, 0, 0, mtu[0], mtu[1]], quote)
    }

    fn ends(&mut self) -> (SocketAddr, SocketAddr) {
        let random = &mut self.random;
        if !self.sent.is_empty() && random.u8(..) < 90 {
            let frame = &self.sent[random.usize(..self.sent.len())];
            if let Some((source, destination)) = ends(frame) {
                return (destination, source);
            }
        }
        let port = 30_000 + random.u16(..300);
        let host = random.u8(1..8);
        let to = PORTS[random.usize(..PORTS.len())];
        if random.u8(..) < 160 {
            let vip = [203, 0, 113, if random.u8(..) < 24 { 11 } else { 10 }];
            (SocketAddr::from(([192, 0, 2, host], port)), SocketAddr::from((vip, to)))
        } else {
            let vip = [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x10];
            (SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()], port)), SocketAddr::from((vip, to)))
        }
    }

    /// A forwarded frame can be answered, and complained about: a thousand of them.
    pub(crate) fn remember(&mut self, frame: &[u8]) {
        if frame[12..14] != [0x08, 0x00] && frame[12..14] != [0x86, 0xdd] {
            return;
        }
        if self.sent.len() < 1_000 {
            self.sent.push(frame.to_vec());
        } else {
            let at = self.random.usize(..self.sent.len());
            self.sent[at] = frame.to_vec();
        }
    }
}

/// An ICMP message; its checksum is as good as any: it is changed, not verified.
fn icmp(source: IpAddr, destination: IpAddr, header: [u8; 8], body: &[u8]) -> Vec<u8> {
    let protocol = if source.is_ipv4() { 1 } else { 58 };
    let (source, destination) = (SocketAddr::new(source, 0), SocketAddr::new(destination, 0));
    let mut frame = TcpFrame { source, destination, protocol, ..Default::default() }.bytes();
    frame.truncate(if source.is_ipv4() { 34 } else { 54 });
    frame.extend(header);
    frame.extend(body);
    frame
}

/// Traffic class, flow label, identification: what routers leave as it is.
fn mark(frame: &mut [u8], random: &mut fastrand::Rng) {
    if frame[12..14] == [0x86, 0xdd] {
        frame[14] = 0x60 | random.u8(..16);
        random.fill(&mut frame[15..18]);
    } else {
        frame[15] = random.u8(..);
        random.fill(&mut frame[18..20]);
    }
}

/// A length that is not the packet's: of the packet, of an IPv4 or TCP header, of a UDP datagram.
fn lie(frame: &mut [u8], random: &mut fastrand::Rng) {
    let v6 = frame[12..14] == [0x86, 0xdd];
    let (length, l4) = if v6 { (18, 54) } else { (16, 34) };
    match random.u8(..4) {
        0 => frame[length..length + 2].copy_from_slice(&random.u16(..80).to_be_bytes()),
        1 => random.fill(&mut frame[length..length + 2]),
        2 if v6 => frame[20] = [0, 43, 44, 60, 6, 17, 58, 59][random.usize(..8)],
        2 => frame[14] = 0x40 | random.u8(..16),
        _ if frame.len() > l4 + 12 => {
            let at = l4 + if random.bool() { 12 } else { 4 };
            frame[at] = random.u8(..);
        }
        _ => {}
    }
}

/// Puts an extension header behind an IPv6 header: options, or a fragment header.
fn extend(frame: &mut Vec<u8>, random: &mut fastrand::Rng) {
    let (kind, next) = ([0, 43, 44, 60][random.usize(..4)], frame[20]);
    let header = if kind == 44 {
        let offset = if random.bool() { 1 } else { random.u16(..64) };
        let [high, low] = offset.to_be_bytes();
        [next, 0, high, low, 0, 0, 0, random.u8(..8)]
    } else {
        [next, 0, 1, 4, 0, 0, 0, 0]
    };
    let length = u16::from_be_bytes([frame[18], frame[19]]).wrapping_add(8);
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame[20] = kind;
    frame.splice(54..54, header);
}

fn ends(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ip = frame.get(14..)?;
    let port = |at: usize| Some(u16::from_be_bytes(ip.get(at..at + 2)?.try_into().ok()?));
    if ip[0] >> 4 == 4 {
        let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
        let l4 = usize::from(ip[0] & 0xf) * 4;
        Some((SocketAddr::new(address(12)?, port(l4)?), SocketAddr::new(address(16)?, port(l4 + 2)?)))
    } else {
        let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
        Some((SocketAddr::new(address(8)?, port(40)?), SocketAddr::new(address(24)?, port(42)?)))
    }
}
