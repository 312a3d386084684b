//! A copy of the maps in plain memory, for the packet path on the host.

use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::{
    host::HostTables,
    layout::{BackendCounters, FlowSet, FragmentSlot, NatSlot, ServiceState},
};

use super::{
    maps::{Maps, now_ns},
    region::Region,
};

/// A copy of the maps as the given CPU sees them, with every feature.
pub(super) fn tables(maps: &Maps, cpu: u32) -> HostTables {
    let config = maps.config;
    let services = config.service_mask + 1;
    let mut tables = HostTables::new(config);
    for (slot, service) in maps.services() {
        tables.services[slot as usize] = service;
    }
    for (index, backend) in maps.backends() {
        tables.backends[index as usize] = backend;
    }
    for (pair, word) in tables.rings.chunks_mut(2).zip(maps.rings.words()) {
        let word = word.load(Ordering::Relaxed);
        pair.iter_mut().zip([word as u32, (word >> 32) as u32]).for_each(|(entry, value)| *entry = value);
    }
    for (set, index) in tables.flows.iter_mut().zip(0..) {
        copy(&maps.flows, index, set.ways.iter_mut().flat_map(|way| [&mut way.tag, &mut way.word]));
    }
    for (slot, index) in tables.nat.iter_mut().zip(0..) {
        let NatSlot { word, client: [a, b], port_service, path: [c, d], opened, left } = slot;
        copy::<NatSlot>(&maps.nat, index, [word, a, b, port_service, c, d, opened, left]);
    }
    for (slot, index) in tables.fragments.iter_mut().zip(0..) {
        let FragmentSlot { tag, note } = slot;
        copy(&maps.fragments, index, [tag, note]);
    }
    for (load, index) in tables.loads.iter_mut().zip(0..) {
        *load.get_mut() = maps.loads.read(index);
    }
    for (heard, index) in tables.heard.iter_mut().zip(0..) {
        *heard.get_mut() = maps.heard.read(index);
    }
    for (limits, index) in tables.limits.iter_mut().zip(0..) {
        *limits.get_mut() = maps.limits.read(index);
    }
    for (counters, index) in tables.counters.iter_mut().zip(cpu * config.backends..) {
        let BackendCounters { packets_in, bytes_in, packets_out, bytes_out, requests, responses, .. } = counters;
        let common = [packets_in, bytes_in, packets_out, bytes_out, requests].into_iter().chain(responses);
        let BackendCounters { connections, repeated, refused, reset, aborted, handshake_ns, opened, .. } = counters;
        let rare = [connections, repeated, refused, reset, aborted, handshake_ns, opened];
        let rare = rare.into_iter().chain(&mut counters.handshakes);
        copy(&maps.counters, index, common.chain(rare));
    }
    for (state, index) in tables.states.iter_mut().zip(cpu * services..) {
        let ServiceState { cursor, .. } = state;
        copy(&maps.states, index, [cursor]);
    }
    tables.now_ns = now_ns();
    tables
}

fn copy<'a, T>(region: &Region<T>, index: u32, to: impl IntoIterator<Item = &'a mut AtomicU64>) {
    for (to, from) in to.into_iter().zip(region.row(index)) {
        *to.get_mut() = from.load(Ordering::Relaxed);
    }
}

const _: () = assert!(size_of::<FlowSet>() == 64 && size_of::<NatSlot>() == 64);
