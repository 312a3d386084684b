//! Full NAT: which source port towards a backend stands for which client.
//!
//! A slot belongs to one (backend address, backend port, source port): its place in the array follows from these three,
//! so a reply finds it by one look, and whoever swings its word from free to taken owns the port, on whatever CPU. Two
//! backends may share slots; then a port that is taken at one is not offered at the other.

use core::sync::atomic::AtomicU64;

use network_types::tcp::TcpHdr;

use crate::{
    checksum::Change,
    flow::{self, FlowWord, State, Ticks},
    hash,
    header::MacPair,
    ip::{Ip, L3},
    layout::{Backend, Config, NatSlot, Path, backend_flags},
    packet::Packet,
    parse::Segment,
    tables::Tables,
    verdict::{DropReason, Verdict},
    wire::{Address, AddressWords, Be16},
};

/// Ports tried for a new flow before it is refused. With 9 of 10 ports taken one flow in a thousand is refused.
const PROBES: u32 = 64;

/// The index of a backend's slot for the first port.
#[inline(always)]
pub fn base(config: &Config, address: AddressWords, port: Be16) -> u32 {
    hash::scale(hash::nh(&config.place_key, address, u32::from(port.raw())), config.nat_slots)
}

/// The index of the slot for the port `offset` ports above the first.
#[inline(always)]
fn index(config: &Config, base: u32, offset: u32) -> u32 {
    let index = base.wrapping_add(offset);
    if index < config.nat_slots { index } else { index.wrapping_sub(config.nat_slots) }
}

/// How far above the first NAT port a port lies; none where it is not one of them.
#[inline(always)]
fn offset(config: &Config, port: Be16) -> Option<u32> {
    let offset = port.get().wrapping_sub(config.nat_port_base);
    (offset < config.nat_port_count).then_some(u32::from(offset))
}

/// Back by the way that the packet came: its MAC addresses swapped, its interface.
#[inline(always)]
pub fn return_path(packet: &impl Packet) -> Option<Path> {
    let MacPair([d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5]) = *packet.at::<MacPair>(0)?;
    let [i0, i1, i2, i3] = packet.ingress_ifindex().to_ne_bytes();
    Some(bytemuck::cast([s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5, i0, i1, i2, i3]))
}

/// Takes a source port for a new flow: the flow's word, its slot written.
///
/// The first port tried follows from the client's: a client's ports map to as many ports, and the one client that comes
/// again from a port of its own meets the sequence numbers that the backend may still remember.
#[inline(always)]
pub fn open<I: Ip, T: Tables>(
    tables: &T,
    segment: &Segment<I>,
    path: Path,
    service: u32,
    index: u32,
    backend: &Backend,
    now: Ticks,
) -> Result<FlowWord, DropReason> {
    let config = tables.config();
    let count = u32::from(config.nat_port_count);
    let client = segment.source.words();
    let hash = hash::nh(&config.flow_key, client, service);
    let stride = 1 + hash::scale(hash << 32, count.wrapping_sub(1));
    let mut offset = (u32::from(segment.source_port.get()) + hash::scale(hash, count)) % count.max(1);
    for _ in 0..PROBES {
        let slot = tables.nat_slot(self::index(config, backend.nat_base, offset)).ok_or(DropReason::Internal)?;
        let old = FlowWord(tables.load(&slot.word));
        if old.is_free(now, config.established_ticks) {
            let port = Be16::new(config.nat_port_base.wrapping_add(offset as u16));
            let claim = FlowWord::new(index, port, State::Claimed, now);
            if tables.compare_exchange(&slot.word, old.0, claim.0) == old.0 {
                let word = FlowWord::new(index, port, State::Opening, now);
                set_client(tables, slot, client, segment.source_port, service);
                set(tables, &slot.path, path);
                tables.store(&slot.word, word.0);
                return Ok(word);
            }
        }
        offset += stride;
        if offset >= count {
            offset -= count;
        }
    }
    Err(DropReason::NatPortsExhausted)
}

/// Gives a port back that no flow came to use.
#[inline(always)]
pub fn release<T: Tables>(tables: &T, backend: &Backend, word: FlowWord) {
    if let Some(slot) = slot(tables, backend.nat_base, word.port()) {
        tables.store(&slot.word, 0);
    }
}

/// Keeps the slot of a flow in step with the flow after a packet from the client. False where the slot is another's.
#[inline(always)]
pub fn keep<I: Ip, T: Tables>(
    tables: &T,
    segment: &Segment<I>,
    path: Path,
    service: u32,
    backend: &Backend,
    flow: FlowWord,
    now: Ticks,
) -> bool {
    let Some(slot) = slot(tables, backend.nat_base, flow.port()) else { return false };
    let word = FlowWord(tables.load(&slot.word));
    if word.backend() != flow.backend()
        || word.port() != flow.port()
        || client(tables, slot) != (segment.source.words(), segment.source_port, service)
    {
        return false;
    }
    if get(tables, &slot.path) != path {
        set(tables, &slot.path, path);
    }
    tables.compare_exchange(&slot.word, word.0, word.after_client(segment.flags, now).0);
    true
}

/// A reply's flow: its slot, its word, and the backend that sent it.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'t> {
    slot: &'t NatSlot,
    word: FlowWord,
    /// The backend.
    pub backend: &'t Backend,
}

impl Reply<'_> {
    /// The backend's index.
    #[inline(always)]
    pub fn backend_index(&self) -> u32 {
        self.word.backend()
    }
}

/// The flow that a segment from a backend belongs to; none where it is not such a segment.
#[inline(always)]
pub fn find_reply<'t, I: Ip, T: Tables>(tables: &'t T, segment: &Segment<I>) -> Option<Reply<'t>> {
    let config = tables.config();
    let offset = offset(config, segment.destination_port)?;
    let source = segment.source.words();
    let slot = tables.nat_slot(index(config, base(config, source, segment.source_port), offset))?;
    let word = FlowWord(tables.load(&slot.word));
    if word.port() != segment.destination_port || matches!(word.state(), State::Free | State::Claimed) {
        return None;
    }
    let backend = tables.backend(word.backend())?;
    let ours = backend.address == source
        && backend.port == segment.source_port
        && backend.source == segment.destination.words()
        && backend.flags & backend_flags::PRESENT != 0;
    ours.then_some(Reply { slot, word, backend })
}

/// Sends a client's packet to its backend.
#[inline(always)]
pub fn to_backend<I: Ip, P: Packet>(
    packet: &mut P,
    segment: &Segment<I>,
    backend: &Backend,
    port: Be16,
) -> Result<Verdict, DropReason> {
    let rewrite = Rewrite {
        source: I::Address::from_words(backend.source),
        destination: I::Address::from_words(backend.address),
        source_port: port,
        destination_port: backend.port,
        path: backend.path,
    };
    rewrite.apply(packet, segment)
}

/// Sends a backend's packet to its client.
#[inline(always)]
pub fn to_client<I: Ip, P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    segment: &Segment<I>,
    reply: &Reply<'_>,
) -> Result<Verdict, DropReason> {
    let (client, client_port, service_slot) = client(tables, reply.slot);
    let service = tables.service(service_slot).ok_or(DropReason::Internal)?;
    let path = get(tables, &reply.slot.path);
    let now = Ticks::from_ns(tables.now_ns());
    let word = reply.word.after_backend(segment.flags, now);
    if word != reply.word {
        tables.compare_exchange(&reply.slot.word, reply.word.0, word.0);
    }
    if word.state() != reply.word.state() {
        let key = flow::Key::new(tables.config(), I::FAMILY, client, client_port, service_slot);
        if let Some((slot, flow)) = flow::find(tables, &key)
            && (flow.backend(), flow.port()) == (word.backend(), word.port())
        {
            tables.compare_exchange(&slot.word, flow.0, flow.after_backend(segment.flags, now).0);
        }
    }
    let rewrite = Rewrite {
        source: I::Address::from_words(service.address),
        destination: I::Address::from_words(client),
        source_port: service.port,
        destination_port: client_port,
        path,
    };
    rewrite.apply(packet, segment)
}

/// What a forwarded packet gets instead of what it came with.
struct Rewrite<A> {
    source: A,
    destination: A,
    source_port: Be16,
    destination_port: Be16,
    path: Path,
}

impl<A: Address> Rewrite<A> {
    #[inline(always)]
    fn apply<I: Ip<Address = A>, P: Packet>(
        &self,
        packet: &mut P,
        segment: &Segment<I>,
    ) -> Result<Verdict, DropReason> {
        if segment.hop_limit <= 1 {
            return Err(DropReason::HopLimit);
        }
        let addresses =
            Change::default().address(segment.source, self.source).address(segment.destination, self.destination);
        let tcp = packet.at_mut::<TcpHdr>(segment.l4).ok_or(DropReason::Internal)?;
        tcp.check = addresses
            .word(segment.source_port.raw(), self.source_port.raw())
            .word(segment.destination_port.raw(), self.destination_port.raw())
            .apply(tcp.check);
        tcp.source = self.source_port.to_bytes();
        tcp.dest = self.destination_port.to_bytes();
        let ip = packet.at_mut::<I>(L3).ok_or(DropReason::Internal)?;
        ip.forward(self.source, self.destination, addresses);
        let [m0, m1, m2, ifindex]: [u32; 4] = bytemuck::cast(self.path);
        *packet.at_mut::<MacPair>(0).ok_or(DropReason::Internal)? = MacPair(bytemuck::cast([m0, m1, m2]));
        if ifindex == packet.ingress_ifindex() { Ok(Verdict::Transmit) } else { Ok(Verdict::Redirect(ifindex)) }
    }
}

#[inline(always)]
fn slot<T: Tables>(tables: &T, base: u32, port: Be16) -> Option<&NatSlot> {
    let config = tables.config();
    tables.nat_slot(index(config, base, offset(config, port)?))
}

#[inline(always)]
fn set_client<T: Tables>(tables: &T, slot: &NatSlot, client: AddressWords, port: Be16, service: u32) {
    set(tables, &slot.client, bytemuck::cast(client));
    tables.store(&slot.port_service, u64::from(service << 16 | u32::from(port.raw())));
}

/// Address, port, and service.
#[inline(always)]
fn client<T: Tables>(tables: &T, slot: &NatSlot) -> (AddressWords, Be16, u32) {
    let port_service = tables.load(&slot.port_service);
    (bytemuck::cast(get(tables, &slot.client)), Be16::from_raw(port_service as u16), (port_service >> 16) as u32)
}

#[inline(always)]
fn set<T: Tables>(tables: &T, [a, b]: &[AtomicU64; 2], [x, y]: [u64; 2]) {
    tables.store(a, x);
    tables.store(b, y);
}

#[inline(always)]
fn get<T: Tables>(tables: &T, [a, b]: &[AtomicU64; 2]) -> [u64; 2] {
    [tables.load(a), tables.load(b)]
}
