//! What changes a flow, as functions of their own: global ones, which the verifier goes through once, with arguments of
//! which it knows only the size (Linux, Documentation/bpf/bpf_design_QA.rst; `btf_prepare_func_args`).
#![expect(unsafe_code, reason = "arguments of global functions are pointers")]

use lb_common::{
    event::{self, Event},
    flow::{self, FlowWord, Key, State, Ticks},
    layout::Ring,
    nat::{self, Place, Ports},
    parse::Flags,
    room, schedule, service,
    verdict::DropReason,
    wire::Be16,
};

use crate::maps::Maps;

/// A flow's word, which has a state, or a reason, which leaves those bits zero.
fn encode(result: Result<FlowWord, DropReason>) -> u64 {
    match result {
        Ok(word) => word.0,
        Err(reason) => reason as u64,
    }
}

/// Back from [`encode`].
#[inline(always)]
pub(crate) fn decode(value: u64) -> Result<FlowWord, DropReason> {
    let word = FlowWord(value);
    if word.state() == State::Free { Err(DropReason::from_number(value as u8)) } else { Ok(word) }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_begin(event: *const Event, before: u64) -> u64 {
    // SAFETY: the verifier checks that it is null or an event.
    let Some(event) = (unsafe { event.as_ref() }) else { return encode(Err(DropReason::Internal)) };
    encode(event::begin(&Maps, event, FlowWord(before)))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_open(event: *const Event, backend: u32, place: u64) -> u64 {
    // SAFETY: as above.
    let Some(event) = (unsafe { event.as_ref() }) else { return encode(Err(DropReason::Internal)) };
    encode(event::open(&Maps, event, backend, decode_place(place)))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_open_plainly(tag: u64, hash: u64, service: u32, point: u64) -> u64 {
    let flow = event::open_plainly(&Maps, &Key::of_parts(tag, hash), service, point);
    encode(flow.ok_or(DropReason::Internal))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_find(tag: u64, hash: u64) -> u64 {
    encode(flow::find(&Maps, &Key::of_parts(tag, hash)).ok_or(DropReason::Internal))
}

/// An index, or a reason with a bit above.
fn encode_index(result: Result<u32, DropReason>) -> u64 {
    match result {
        Ok(index) => index.into(),
        Err(reason) => 1 << 32 | reason as u64,
    }
}

/// Back from [`encode_index`].
#[inline(always)]
pub(crate) fn decode_index(value: u64) -> Result<u32, DropReason> {
    if value >> 32 == 0 { Ok(value as u32) } else { Err(DropReason::from_number(value as u8)) }
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn service_behind(home: u32, transport: u32, a: u64, b: u64) -> u64 {
    encode_index(service::behind(&Maps, home, [a, b], transport).ok_or(DropReason::Internal))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_choose(event: *const Event, before: u64) -> u64 {
    // SAFETY: as above.
    let Some(event) = (unsafe { event.as_ref() }) else { return encode_index(Err(DropReason::Internal)) };
    encode_index(event::choose(&Maps, event, FlowWord(before)))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_take(service: u32, choice: u32, avoid: u32) -> u64 {
    encode_index(room::take(&Maps, service, choice, avoid))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_room(service: u32, avoid: u32) -> u64 {
    encode_index(room::find(&Maps, service, avoid))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_rank(entry: u32, avoid: u32, backup: u32) -> u64 {
    room::rank(&Maps, entry, avoid, backup != 0)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_load_rank(ring: u64, start: u32, step: u32, avoid: u32) -> u64 {
    schedule::load_rank(&Maps, Ring::from_word(ring), start, step, avoid)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_another(ring: u64, position: u32, avoid: u32) -> u64 {
    encode_index(schedule::another(&Maps, Ring::from_word(ring), position, avoid))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_is_ours(event: *const Event) -> u64 {
    // SAFETY: as above.
    let Some(event) = (unsafe { event.as_ref() }) else { return 0 };
    u64::from(event::is_ours(&Maps, event))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_was_heard(flow: u64) -> u64 {
    event::was_heard(&Maps, FlowWord(flow)).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_hear(before: u64, after: u64) -> u64 {
    event::hear(&Maps, FlowWord(before), FlowWord(after));
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_wish(before: u64) -> u64 {
    event::wish(&Maps, FlowWord(before)).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_advance(event: *const Event) -> u64 {
    // SAFETY: as above.
    let Some(event) = (unsafe { event.as_ref() }) else { return 0 };
    u64::from(event::advance(&Maps, event))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_answer(slot: u32, family: u32, flags: u32) -> u64 {
    u64::from(event::answer(&Maps, slot, family as u8, Flags(flags as u8)))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_after_client(word: u64, flags: u32, now: u32) -> u64 {
    FlowWord(word).after_client(Flags(flags as u8), Ticks::of(now)).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_after_backend(word: u64, flags: u32, now: u32) -> u64 {
    FlowWord(word).after_backend(Flags(flags as u8), Ticks::of(now)).0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_missed(set: u32, way: u32, now: u32) -> u64 {
    flow::missed(&Maps, set, way, Ticks::of(now)).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_move(set: u32, way: u32, now: u32) -> u64 {
    flow::move_away(&Maps, set, way, Ticks::of(now)).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_forget(set: u32, way: u32, now: u32) -> u64 {
    flow::forget(&Maps, set, way, Ticks::of(now)).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn nat_forget(slot: u32, now: u32) -> u64 {
    nat::forget(&Maps, slot, Ticks::of(now)).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_make_room(event: *const Event) -> u64 {
    // SAFETY: as above.
    let Some(event) = (unsafe { event.as_ref() }) else { return 0 };
    event::make_room(&Maps, event).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn nat_make_room(client: *const Event, backend: u32) -> u64 {
    // SAFETY: as above.
    let Some(client) = (unsafe { client.as_ref() }) else { return 0 };
    nat::make_room(&Maps, client, backend).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn nat_suits(client: *const Event, fresh: u64, ports: u64, probe: u32) -> u64 {
    // SAFETY: as above.
    let Some(client) = (unsafe { client.as_ref() }) else { return 0 };
    nat::suits(&Maps, client, FlowWord(fresh), Ports::from_word(ports), probe).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn nat_pick(client: *const Event, backend: u32) -> u64 {
    // SAFETY: as above.
    let Some(client) = (unsafe { client.as_ref() }) else { return 0 };
    encode_place(nat::pick(&Maps, client, backend))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn dnat_pick(client: *const Event, backend: u32) -> u64 {
    // SAFETY: as above.
    let Some(client) = (unsafe { client.as_ref() }) else { return 0 };
    encode_place(nat::pick_dnat(&Maps, client, backend))
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn dnat_find(client: *const Event, flow: u64, row: u32) -> u64 {
    // SAFETY: as above.
    let step = unsafe { client.as_ref() }.and_then(|client| nat::find_dnat(&Maps, client, FlowWord(flow), row));
    encode_index(step.ok_or(DropReason::Internal))
}

/// The slot's index, the port in wire order and, so that none is zero, a bit above.
#[inline(always)]
pub(crate) fn encode_place(place: Option<Place>) -> u64 {
    place.map_or(0, |place| 1 << 48 | u64::from(place.port.raw()) << 32 | u64::from(place.slot))
}

/// Back from [`encode_place`].
#[inline(always)]
pub(crate) fn decode_place(value: u64) -> Option<Place> {
    (value != 0).then_some(Place { slot: value as u32, port: Be16::from_raw((value >> 32) as u16) })
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn nat_missed(client: *const Event, fresh: u64, ports: u64, probe: u32) -> u64 {
    // SAFETY: as above.
    let Some(client) = (unsafe { client.as_ref() }) else { return u32::MAX.into() };
    nat::missed(&Maps, client, FlowWord(fresh), Ports::from_word(ports), probe).into()
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn nat_rank(slot: u32, client: *const Event, fresh: u64) -> u64 {
    // SAFETY: as above.
    let Some(client) = (unsafe { client.as_ref() }) else { return u32::MAX.into() };
    nat::rank(&Maps, slot, client, FlowWord(fresh)).into()
}
