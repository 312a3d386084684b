//! Addresses, ports and MAC addresses of a frame exchanged for others, checksums and hop limit with them.

use crate::{
    checksum::Change,
    header::{Checksum, MacPair, Ports},
    ip::{Ip, L3, UDP},
    layout::Path,
    packet::Packet,
    parse::Datagram,
    verdict::{DropReason, Verdict},
    wire::{Address, Be16},
};

/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
pub const UDP_CHECKSUM: usize = 6;

/// What a forwarded packet gets instead of what it came with.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
    /// Where it leaves.
    pub path: Path,
}

impl<A: Address> Rewrite<A> {
    /// Rewrites a whole datagram, or the first fragment of one.
    #[inline(always)]
    pub fn apply<I: Ip<Address = A>, P: Packet>(
        &self,
        packet: &mut P,
        datagram: &Datagram<I>,
    ) -> Result<Verdict, DropReason> {
        let addresses = self.addresses(datagram.source, datagram.destination);
        let change = addresses
            .word(datagram.source_port.raw(), self.source_port.raw())
            .word(datagram.destination_port.raw(), self.destination_port.raw());
        let ports = packet.at_mut::<Ports>(datagram.l4).ok_or(DropReason::Internal)?;
        ports.source = self.source_port.to_bytes();
        ports.destination = self.destination_port.to_bytes();
        if datagram.protocol == UDP {
            let check = packet.at_mut::<Checksum>(datagram.l4 + UDP_CHECKSUM).ok_or(DropReason::Internal)?;
            check.0 = change.apply_udp(check.0);
        } else {
            let check = packet.at_mut::<Checksum>(datagram.l4 + TCP_CHECKSUM).ok_or(DropReason::Internal)?;
            check.0 = change.apply(check.0);
        }
        self.apply_to_ip::<I, P>(packet, addresses)
    }

    /// Rewrites a fragment without a transport header.
    #[inline(always)]
    pub fn apply_to_fragment<I: Ip<Address = A>, P: Packet>(&self, packet: &mut P) -> Result<Verdict, DropReason> {
        let ip = packet.at::<I>(L3).ok_or(DropReason::Internal)?;
        let addresses = self.addresses(ip.source(), ip.destination());
        self.apply_to_ip::<I, P>(packet, addresses)
    }

    #[inline(always)]
    fn addresses(&self, source: A, destination: A) -> Change {
        Change::of_addresses([source, destination], [self.source, self.destination])
    }

    #[inline(always)]
    fn apply_to_ip<I: Ip<Address = A>, P: Packet>(
        &self,
        packet: &mut P,
        addresses: Change,
    ) -> Result<Verdict, DropReason> {
        let ip = packet.at_mut::<I>(L3).ok_or(DropReason::Internal)?;
        ip.forward(self.source, self.destination, addresses);
        leave(packet, self.path)
    }
}

/// Sets the MAC addresses and says which way the frame leaves.
#[inline(always)]
pub fn leave<P: Packet>(packet: &mut P, path: Path) -> Result<Verdict, DropReason> {
    let [m0, m1, m2, ifindex]: [u32; 4] = bytemuck::cast(path);
    *packet.at_mut::<MacPair>(0).ok_or(DropReason::Internal)? = MacPair(bytemuck::cast([m0, m1, m2]));
    if ifindex == packet.ingress_ifindex() { Ok(Verdict::Transmit) } else { Ok(Verdict::Redirect(ifindex)) }
}

/// Back by the way that the packet came: its MAC addresses swapped, its interface.
#[inline(always)]
pub fn return_path(packet: &impl Packet) -> Option<Path> {
    let MacPair([d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5]) = *packet.at::<MacPair>(0)?;
    let [i0, i1, i2, i3] = packet.ingress_ifindex().to_ne_bytes();
    Some(bytemuck::cast([s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5, i0, i1, i2, i3]))
}
