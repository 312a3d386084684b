//! What holds of every frame that `lb` sends, whatever came in: the laws of forwarding.
//!
//! They are read off two frames alone, by another parser than the pipeline's, and know nothing of services, flows or backends. So they
//! hold for frames that nobody thought of, and an error of thought in the pipeline is not repeated here. Checksums are
//! held to what they were, right or wrong: a sum that covers both the fields that changed and the checksum stays the same.

use std::ops::Range;

use anyhow::{Context as _, Result, bail, ensure};
use lb_common::host::{ACK, FIN, RST, SYN};

const MACS: Range<usize> = 0..12;

const TCP: u8 = 6;
const UDP: u8 = 17;
const GUE_PORT: [u8; 2] = 6080_u16.to_be_bytes();

/// Lengths of headers.
const ICMP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Refuses a frame `after` that was sent because `before` came in.
///
/// # Errors
/// The law that it breaks.
pub(crate) fn check(before: &[u8], after: &[u8]) -> Result<()> {
    let (old, new) = (Packet::of(before)?, Packet::of(after)?);
    ensure!(before[MACS.end..old.l3 - 2] == after[MACS.end..new.l3 - 2], "other VLAN tags");
    if let Some(inner) = new.inner()
        && after.len() - inner == before.len() - old.l3
    {
        return encapsulated(&old, &new, inner).context("encapsulated");
    }
    match (old.is_icmp(), new.is_icmp()) {
        (false, true) => complained(&old, &new).context("answered with an error"),
        (true, true) if old.kind() != new.kind() => echoed(&old, &new).context("echoed"),
        (true, true) if !matches!(new.kind(), 0 | 8 | 128 | 129) => {
            error_forwarded(&old, &new).context("an error, forwarded")
        }
        _ if new.is_reset() && !old.is_reset() => reset(&old, &new).context("answered with a RST"),
        _ => forwarded(&old, &new, is_readdressed(&old, &new)).context("forwarded"),
    }
}

/// An IP packet in its frame.
#[derive(Clone, Copy, Debug)]
struct Packet<'f> {
    frame: &'f [u8],
    v6: bool,
    /// Where the IP header begins, and what it and its extensions carry.
    l3: usize,
    l4: usize,
    protocol: u8,
    /// Whether it is a fragment other than the first.
    later: bool,
}

impl<'f> Packet<'f> {
    fn of(frame: &'f [u8]) -> Result<Self> {
        Self::parsed(frame).context("no IP packet, or headers cut short")
    }

    fn parsed(frame: &'f [u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        let mut l3 = 14;
        while matches!(word(l3 - 2)?, 0x8100 | 0x88a8) {
            l3 += 4;
        }
        let v6 = match (word(l3 - 2)?, frame.get(l3)? >> 4) {
            (0x0800, 4) => false,
            (0x86dd, 6) => true,
            _ => return None,
        };
        let mut packet = Self { frame, v6, l3, l4: l3 + 40, protocol: *frame.get(l3 + 6)?, later: false };
        if !v6 {
            packet.l4 = l3 + usize::from(frame[l3] & 0xf) * 4;
            packet.protocol = *frame.get(l3 + 9)?;
            packet.later = word(l3 + 6)? & 0x1fff != 0;
        }
        while v6 && !packet.later && matches!(packet.protocol, 0 | 43 | 44 | 60) {
            let (kind, [next, length]) = (packet.protocol, word(packet.l4)?.to_be_bytes());
            packet.later = kind == 44 && word(packet.l4 + 2)? >> 3 != 0;
            packet.protocol = next;
            packet.l4 += if kind == 44 { 8 } else { 8 + usize::from(length) * 8 };
        }
        (packet.l4 >= l3 + 20 && packet.l4 <= frame.len()).then_some(packet)
    }

    fn is_icmp(&self) -> bool {
        !self.later && self.protocol == if self.v6 { 58 } else { 1 } && self.frame.len() >= self.l4 + ICMP_HEADER
    }

    /// The type of an ICMP message.
    fn kind(&self) -> u8 {
        self.frame[self.l4]
    }

    fn is_tcp(&self) -> bool {
        !self.later && self.protocol == TCP && self.frame.len() >= self.l4 + TCP_HEADER
    }

    fn tcp_flags(&self) -> u8 {
        self.frame[self.l4 + 13]
    }

    fn is_reset(&self) -> bool {
        self.is_tcp() && self.tcp_flags() & RST != 0
    }

    /// Where the packet inside this one begins, if it may be one that carries another.
    fn inner(&self) -> Option<usize> {
        let is_gue = || self.frame.get(self.l4 + 2..self.l4 + 4) == Some(&GUE_PORT);
        match self.protocol {
            4 | 41 => Some(self.l4),
            UDP if is_gue() => Some(self.l4 + UDP_HEADER),
            _ => None,
        }
    }

    /// Differentiated services and congestion notification.
    fn class(&self) -> u8 {
        if self.v6 { (self.number(self.l3) >> 4) as u8 } else { self.frame[self.l3 + 1] }
    }

    /// Where in the frame things are.
    fn hop_limit(&self) -> usize {
        self.l3 + if self.v6 { 7 } else { 8 }
    }

    /// That of an IPv4 header.
    fn identification(&self) -> Range<usize> {
        self.l3 + 4..self.l3 + 6
    }

    fn source(&self) -> Range<usize> {
        if self.v6 { self.l3 + 8..self.l3 + 24 } else { self.l3 + 12..self.l3 + 16 }
    }

    fn destination(&self) -> Range<usize> {
        let Range { start, end } = self.source();
        end..end + (end - start)
    }

    fn addresses(&self) -> Range<usize> {
        self.source().start..self.destination().end
    }

    fn ports(&self) -> Range<usize> {
        self.l4..self.l4 + 4
    }

    /// The checksum of the IPv4 header; nothing for IPv6.
    fn header_checksum(&self) -> Range<usize> {
        if self.v6 { self.l3..self.l3 } else { self.l3 + 10..self.l3 + 12 }
    }

    fn transport_checksum(&self) -> Range<usize> {
        let at = self.l4 + if self.protocol == TCP { 16 } else { 6 };
        at..at + 2
    }

    /// The value of the segment size option of a SYN.
    fn segment_size(&self) -> Option<Range<usize>> {
        let end = self.l4 + usize::from(self.frame[self.l4 + 12] >> 4) * 4;
        let mut at = self.l4 + TCP_HEADER;
        while at < end {
            match *self.frame.get(at)? {
                0 => return None,
                1 => at += 1,
                2 if self.frame.get(at + 1) == Some(&4) && at + 4 <= self.frame.len() => return Some(at + 2..at + 4),
                _ => at += usize::from((*self.frame.get(at + 1)?).max(2)),
            }
        }
        None
    }

    /// Bytes of header and payload, as the header has it.
    fn length(&self) -> u16 {
        if self.v6 { self.number(self.l3 + 4).wrapping_add(40) } else { self.number(self.l3 + 2) }
    }

    fn number(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.frame[at], self.frame[at + 1]])
    }

    fn number32(&self, at: usize) -> u32 {
        u32::from(self.number(at)) << 16 | u32::from(self.number(at + 2))
    }

    /// What the checksum of the IPv4 header is of, itself included: 0 where it is right, and for IPv6.
    fn header_sum(&self) -> u16 {
        let header = self.l3..self.l3 + usize::from(self.frame[self.l3] & 0xf) * 4;
        if self.v6 { 0 } else { sum(&[&self.frame[header]]) }
    }

    /// What the checksum of TCP, UDP or ICMP is of, itself included: 0 where it is right and nothing follows the packet.
    fn transport_sum(&self) -> u16 {
        let segment = &self.frame[self.l4..];
        if self.is_icmp() && !self.v6 {
            return sum(&[segment]);
        }
        let length = self.length().wrapping_sub((self.l4 - self.l3) as u16);
        sum(&[segment, &self.frame[self.addresses()], &[0, self.protocol], &length.to_be_bytes()])
    }
}

/// The complement of the parts' sum (RFC 1071), whose two zeros are one.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0))).sum();
    (0xffff - sum % 0xffff) as u16 % 0xffff
}

/// The frame `after`, so far as it may differ from `before`: there, it is taken as it is.
fn allow(expected: &mut [u8], after: &[u8], fields: impl IntoIterator<Item = Range<usize>>) {
    for field in fields {
        if let (Some(expected), Some(after)) = (expected.get_mut(field.clone()), after.get(field)) {
            expected.copy_from_slice(after);
        }
    }
}

fn same(expected: &[u8], after: &[u8]) -> Result<()> {
    ensure!(expected.len() == after.len(), "{} bytes instead of {}", after.len(), expected.len());
    match (0..expected.len()).find(|&at| expected[at] != after[at]) {
        Some(at) => bail!("byte {at} is {:02x} instead of {:02x}", after[at], expected[at]),
        None => Ok(()),
    }
}

/// Whether a packet has other ends: a MAC rewrite leaves it as it is.
fn is_readdressed(old: &Packet<'_>, new: &Packet<'_>) -> bool {
    old.frame[old.addresses()] != new.frame[new.addresses()]
}

/// Other ends, a hop less where it is routed, segments that may be smaller; and what follows for the checksums.
fn forwarded(old: &Packet<'_>, new: &Packet<'_>, is_routed: bool) -> Result<()> {
    let mut expected = old.frame.to_vec();
    allow(&mut expected, new.frame, [MACS, new.addresses(), new.header_checksum()]);
    if !old.later {
        allow(&mut expected, new.frame, [new.ports(), new.transport_checksum()]);
        if old.is_tcp() && old.tcp_flags() & SYN != 0 {
            may_shrink(&mut expected, old, new)?;
        }
    }
    if !old.v6 && is_readdressed(old, new) && old.number(old.l3 + 6) & 0x3fff != 0 {
        // Fragments of several senders that get one address.
        allow(&mut expected, new.frame, [old.identification()]);
    }
    let hops = old.frame[old.hop_limit()];
    ensure!(!is_routed || hops > 1, "with {hops} hops left");
    expected[old.hop_limit()] -= u8::from(is_routed);
    same(&expected, new.frame)?;
    sums(old, new)
}

/// The segment size that a SYN asks for is not raised.
fn may_shrink(expected: &mut [u8], old: &Packet<'_>, new: &Packet<'_>) -> Result<()> {
    if let Some(field) = old.segment_size() {
        ensure!(new.number(field.start) <= old.number(field.start), "a larger segment size");
        allow(expected, new.frame, [field]);
    }
    Ok(())
}

/// Checksums are as right as they were.
fn sums(old: &Packet<'_>, new: &Packet<'_>) -> Result<()> {
    ensure!(
        old.header_sum() == new.header_sum(),
        "header sum {:04x} instead of {:04x}",
        new.header_sum(),
        old.header_sum()
    );
    let checksum = |packet: &Packet<'_>| packet.frame.get(packet.transport_checksum()).map(<[u8]>::to_vec);
    let is_none = |packet| checksum(packet) == Some(vec![0, 0]);
    if old.later {
        return Ok(());
    }
    if old.protocol == UDP {
        ensure!(is_none(old) == is_none(new), "UDP checksum {:?} instead of {:?}", checksum(new), checksum(old));
    }
    let is_covered = old.protocol == TCP || old.is_icmp() || old.protocol == UDP && !is_none(old);
    ensure!(
        !is_covered || old.transport_sum() == new.transport_sum(),
        "transport sum {:04x} instead of {:04x}",
        new.transport_sum(),
        old.transport_sum()
    );
    Ok(())
}

/// The packet, forwarded, inside another.
fn encapsulated(old: &Packet<'_>, new: &Packet<'_>, inner: usize) -> Result<()> {
    ensure!(new.header_sum() == 0, "header sum {:04x}", new.header_sum());
    let length = old.length().wrapping_add((inner - new.l3) as u16);
    ensure!(new.length() == length, "length {} instead of {length}", new.length());
    ensure!(new.protocol == UDP || new.protocol == if old.v6 { 41 } else { 4 }, "protocol {}", new.protocol);
    ensure!(new.class() == old.class(), "class {:02x} instead of {:02x}", new.class(), old.class());
    if new.protocol == UDP {
        let length = old.length().wrapping_add(UDP_HEADER as u16);
        ensure!(new.number(new.l4 + 4) == length, "UDP length {} instead of {length}", new.number(new.l4 + 4));
        ensure!(new.number(new.l4 + 6) == 0, "UDP checksum {:04x}", new.number(new.l4 + 6));
    }
    ensure!(new.frame[new.hop_limit()] == 64, "{} hops", new.frame[new.hop_limit()]);
    let mut frame = new.frame[..new.l3].to_vec();
    frame[new.l3 - 2..].copy_from_slice(&old.frame[old.l3 - 2..old.l3]);
    frame.extend_from_slice(&new.frame[inner..]);
    let carried = Packet::of(&frame)?;
    ensure!(old.frame[old.addresses()] == carried.frame[carried.addresses()], "other addresses inside");
    ensure!(old.later || old.frame.get(old.ports()) == carried.frame.get(carried.ports()), "other ports inside");
    forwarded(old, &carried, true)
}

/// An echo request comes back as a reply.
fn echoed(old: &Packet<'_>, new: &Packet<'_>) -> Result<()> {
    ensure!((old.kind(), new.kind()) == if old.v6 { (128, 129) } else { (8, 0) }, "type {}", new.kind());
    let mut expected = old.frame.to_vec();
    let type_and_checksum = [new.l4..new.l4 + 1, new.l4 + 2..new.l4 + 4];
    allow(&mut expected, new.frame, [new.header_checksum(), new.hop_limit()..new.hop_limit() + 1]);
    allow(&mut expected, new.frame, type_and_checksum);
    turn(&mut expected, old);
    same(&expected, new.frame)?;
    sums(old, new)
}

/// Back to where it came from.
fn turn(expected: &mut [u8], old: &Packet<'_>) {
    expected[..6].copy_from_slice(&old.frame[6..12]);
    expected[6..12].copy_from_slice(&old.frame[..6]);
    expected[old.source()].copy_from_slice(&old.frame[old.destination()]);
    expected[old.destination()].copy_from_slice(&old.frame[old.source()]);
}

/// A packet of ours: right in itself, and addressed to who sent the old one.
fn is_answer(old: &Packet<'_>, new: &Packet<'_>) -> Result<()> {
    ensure!(old.frame[..6] == new.frame[6..12] && old.frame[6..12] == new.frame[..6], "other MAC addresses");
    ensure!(old.frame[old.source()] == new.frame[new.destination()], "to somebody else");
    ensure!(old.frame[old.destination()] == new.frame[new.source()], "from somebody else");
    let length = new.frame.len() - new.l3;
    ensure!(usize::from(new.length()) == length, "length {} instead of {length}", new.length());
    ensure!(new.header_sum() == 0, "header sum {:04x}", new.header_sum());
    ensure!(new.transport_sum() == 0, "transport sum {:04x}", new.transport_sum());
    Ok(())
}

/// A packet that is too large is not answered by anything but what says so and quotes it.
fn complained(old: &Packet<'_>, new: &Packet<'_>) -> Result<()> {
    is_answer(old, new)?;
    ensure!([new.frame[new.l4], new.frame[new.l4 + 1]] == if old.v6 { [2, 0] } else { [3, 4] }, "another error");
    let quote = &new.frame[new.l4 + ICMP_HEADER..];
    ensure!(quote.len() >= old.l4 - old.l3 + 8 && old.frame[old.l3..].starts_with(quote), "another packet quoted");
    Ok(())
}

/// A segment is answered by the RST that RFC 9293, section 3.10.7.1, has for it.
fn reset(old: &Packet<'_>, new: &Packet<'_>) -> Result<()> {
    ensure!(old.is_tcp(), "no TCP");
    is_answer(old, new)?;
    let [ports, ports_back] = [old, new].map(|packet| packet.number32(packet.l4));
    ensure!(ports.rotate_left(16) == ports_back, "other ports");
    let [seq, ack] = [new.number32(new.l4 + 4), new.number32(new.l4 + 8)];
    let flags = old.tcp_flags();
    if flags & ACK != 0 {
        ensure!((new.tcp_flags(), seq) == (RST, old.number32(old.l4 + 8)), "sequence number {seq}");
    } else {
        let headers = old.l4 - old.l3 + usize::from(old.frame[old.l4 + 12] >> 4) * 4;
        let length = u32::from(old.length()).saturating_sub(headers as u32);
        let length = length + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let expected = old.number32(old.l4 + 4).wrapping_add(length);
        ensure!((new.tcp_flags(), seq, ack) == (RST | ACK, 0, expected), "acknowledgement {ack} instead of {expected}");
    }
    Ok(())
}

/// An error is forwarded as packets are, and so is the packet that it quotes, but for its hops.
fn error_forwarded(old: &Packet<'_>, new: &Packet<'_>) -> Result<()> {
    let mut expected = old.frame.to_vec();
    let checksum = new.l4 + 2..new.l4 + 4;
    allow(&mut expected, new.frame, [MACS, new.addresses(), new.header_checksum(), checksum]);
    let quote = [old, new].map(|packet| packet.l4 + ICMP_HEADER);
    let quoted = [(old, quote[0]), (new, quote[1])].map(|(packet, l3)| {
        let header = match packet.frame.get(l3 + 6) {
            Some(44) if packet.v6 => 48,
            _ if packet.v6 => 40,
            _ => usize::from(packet.frame.get(l3).unwrap_or(&0) & 0xf) * 4,
        };
        Packet { l3, l4: l3 + header, ..*packet }
    });
    let [old_quote, new_quote] = &quoted;
    allow(&mut expected, new.frame, [new_quote.addresses(), new_quote.header_checksum(), new_quote.ports()]);
    let hops = old.frame[old.hop_limit()];
    let is_routed = is_readdressed(old, new);
    ensure!(!is_routed || hops > 1, "with {hops} hops left");
    expected[old.hop_limit()] -= u8::from(is_routed);
    same(&expected, new.frame)?;
    if old_quote.l4 <= old.frame.len() {
        ensure!(old_quote.header_sum() == new_quote.header_sum(), "another header sum in the quote");
    }
    sums(old, new)
}
