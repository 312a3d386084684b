//! What the packets of a backend tell of it: how fast it answers a SYN, whether it refuses, what its HTTP responses are.

use std::{
    collections::HashMap,
    mem::offset_of,
    net::SocketAddr,
    ops::{AddAssign, SubAssign},
    sync::atomic::Ordering,
    time::Duration,
};

use lb_common::{
    handshake,
    layout::{BACKEND_COUNTERS, Backend, BackendCounters},
};

use super::{address, maps::Maps};

/// Buckets of the handshake histogram. Bucket `i` counts those that took less than `2^(17 + i)` ns (131 µs, 262 µs, …,
/// 1.07 s), and not less than the bound before; the last counts all that took longer.
pub use lb_common::layout::HANDSHAKE_BUCKETS;

/// Monotonic sums over all CPUs since the backend was added. With direct return only the client's packets are seen: then all
/// but what clients send, `begun`, `repeated` and `aborted` stay 0; over UDP all but that and `begun`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Packets of clients.
    pub packets: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes: u64,
    /// Packets of the backend.
    pub packets_out: u64,
    /// Their bytes, Ethernet headers included.
    pub bytes_out: u64,
    /// Flows scheduled: for TCP, SYNs that it was the first to get.
    pub begun: u64,
    /// Connections that both sides know of: the client acknowledged the SYN-ACK.
    pub opened: u64,
    /// SYNs that came again while it had not accepted: whether it was silent, or its refusal was kept from the client.
    pub repeated: u64,
    /// RSTs in answer to a SYN.
    pub refused: u64,
    /// RSTs of the backend in established flows that it had not closed.
    pub reset: u64,
    /// RSTs of clients in established flows that they had not closed.
    pub aborted: u64,
    /// From a client's SYN to the SYN-ACK, by [`HANDSHAKE_BUCKETS`].
    pub handshakes: [u64; HANDSHAKE_BUCKETS],
    /// Sum of these times.
    pub handshake_ns: u64,
    /// HTTP/1.x requests seen at the start of a segment; not with direct return.
    pub requests: u64,
    /// HTTP/1.x responses seen at the start of a segment, by class: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub responses: [u64; 5],
}

/// What is seen of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSight {
    /// Its service.
    pub service: String,
    /// Its name.
    pub backend: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What is seen of it.
    pub sight: Sight,
}

/// What has been looked at already, by index.
#[derive(Debug, Default)]
pub struct Looked {
    known: Vec<Known>,
    /// What has moved by the look that is under way.
    moved: Vec<u64>,
}

/// Whose an index was, and what had moved by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    place: [u64; PLACE.len()],
    moved: u64,
}

/// The words of a backend that tell it from another one: its address, and its port beside its flags.
const PLACE: [usize; 3] = {
    let address = offset_of!(Backend, address) / 8;
    [address, address + 1, offset_of!(Backend, port) / 8]
};

/// The words of a backend's counters of which one changes whenever anything is counted: they are in two cache lines.
const MOVES: [usize; 5] = [
    offset_of!(BackendCounters, packets_in) / 8,
    offset_of!(BackendCounters, packets_out) / 8,
    offset_of!(BackendCounters, connections) / 8,
    offset_of!(BackendCounters, repeated) / 8,
    offset_of!(BackendCounters, refused) / 8,
];

/// What is seen of the backends in the maps that something has happened to since they were last looked at; they have
/// indexes below `end`.
pub(super) fn news(maps: &Maps, end: u32, looked: &mut Looked) -> Vec<BackendSight> {
    let Looked { known, moved } = looked;
    known.resize(end as usize, Known::default());
    move_by(maps, end, moved);
    let mut services = HashMap::new();
    let mut news = Vec::new();
    let rows = maps.backends.rows(0..end).zip(moved);
    for (index, (known, (row, moved))) in (0..).zip(known.iter_mut().zip(rows)) {
        let now = Known { place: PLACE.map(|word| row[word].load(Ordering::Relaxed)), moved: *moved };
        if std::mem::replace(known, now) == now {
            continue;
        }
        let Some(backend) = maps.backend(index) else { continue };
        let service = services.entry(backend.service);
        let service = service.or_insert_with(|| address::name(&maps.service_info.read(backend.service).name));
        news.push(BackendSight {
            service: service.clone(),
            backend: address::name(&maps.backend_info.read(index).name),
            address: address::of_backend(&backend),
            sight: maps.counters(index).into(),
        });
    }
    news
}

/// For each backend a number that is another one whenever anything has been counted. A CPU's rows are read in their
/// order, as the processor foresees it.
fn move_by(maps: &Maps, end: u32, moved: &mut Vec<u64>) {
    moved.clear();
    moved.resize(end as usize, 0);
    for cpu in 0..maps.config.cpus {
        let first = cpu * maps.config.backends;
        for (moved, row) in moved.iter_mut().zip(maps.counters.rows(first..first + end)) {
            for word in MOVES {
                *moved = moved.wrapping_add(row[word].load(Ordering::Relaxed));
            }
        }
    }
}

/// From the words of [`lb_common::layout::BackendCounters`].
impl From<[u64; BACKEND_COUNTERS]> for Sight {
    fn from(words: [u64; BACKEND_COUNTERS]) -> Self {
        let [
            packets,
            bytes,
            packets_out,
            bytes_out,
            requests,
            informational,
            success,
            redirection,
            client_error,
            server_error,
            rest @ ..,
        ] = words;
        let responses = [informational, success, redirection, client_error, server_error];
        let [begun, repeated, refused, reset, aborted, handshake_ns, opened, handshakes @ ..] = rest;
        Self {
            packets,
            bytes,
            packets_out,
            bytes_out,
            begun,
            opened,
            repeated,
            refused,
            reset,
            aborted,
            handshakes,
            handshake_ns,
            requests,
            responses,
        }
    }
}

impl Sight {
    /// The bounds of the buckets but for the last, which has none.
    pub fn bounds() -> impl Iterator<Item = Duration> {
        (0..HANDSHAKE_BUCKETS as u32 - 1).map(|bucket| Duration::from_nanos(1 << (handshake::FIRST_SHIFT + bucket)))
    }

    /// What the given part of all handshakes took less than; none where that is in the last bucket, or there was no
    /// handshake.
    #[must_use]
    pub fn handshake_quantile(&self, part: f64) -> Option<Duration> {
        let total: u64 = self.handshakes.iter().sum();
        let mut below = 0;
        let bound = Self::bounds().zip(self.handshakes).find(|(_, count)| {
            below += count;
            below as f64 >= part * total as f64
        });
        bound.filter(|_| total > 0).map(|(bound, _)| bound)
    }

    /// Each sum.
    fn sums(&mut self) -> impl Iterator<Item = &mut u64> {
        let Self { packets, bytes, packets_out, bytes_out, begun, opened, .. } = self;
        let Self { repeated, refused, reset, aborted, handshakes, handshake_ns, requests, responses, .. } = self;
        let traffic = [packets, bytes, packets_out, bytes_out, begun, opened, requests];
        let single = [repeated, refused, reset, aborted, handshake_ns];
        traffic.into_iter().chain(single).chain(handshakes).chain(responses)
    }

    /// Combines each sum with the other's.
    fn combine(&mut self, mut other: Self, with: fn(&mut u64, u64)) {
        self.sums().zip(other.sums()).for_each(|(mine, other)| with(mine, *other));
    }
}

impl AddAssign for Sight {
    fn add_assign(&mut self, other: Self) {
        self.combine(other, |mine, other| *mine += other);
    }
}

impl SubAssign for Sight {
    fn sub_assign(&mut self, other: Self) {
        self.combine(other, |mine, other| *mine -= other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words in the order of the packet path, each with its place as its value.
    fn numbered() -> Sight {
        std::array::from_fn::<u64, BACKEND_COUNTERS, _>(|place| place as u64).into()
    }

    #[test]
    fn every_word_is_where_the_packet_path_puts_it() {
        use lb_common::layout::BackendCounters as Words;
        let place = |offset: usize| (offset / 8) as u64;
        let sight = numbered();
        assert_eq!(sight.packets, place(offset_of!(Words, packets_in)));
        assert_eq!(sight.bytes, place(offset_of!(Words, bytes_in)));
        assert_eq!(sight.packets_out, place(offset_of!(Words, packets_out)));
        assert_eq!(sight.bytes_out, place(offset_of!(Words, bytes_out)));
        assert_eq!(sight.begun, place(offset_of!(Words, connections)));
        assert_eq!(sight.opened, place(offset_of!(Words, opened)));
        assert_eq!(sight.repeated, place(offset_of!(Words, repeated)));
        assert_eq!(sight.refused, place(offset_of!(Words, refused)));
        assert_eq!(sight.reset, place(offset_of!(Words, reset)));
        assert_eq!(sight.aborted, place(offset_of!(Words, aborted)));
        assert_eq!(sight.handshake_ns, place(offset_of!(Words, handshake_ns)));
        assert_eq!(sight.handshakes[0], place(offset_of!(Words, handshakes)));
        assert_eq!(sight.requests, place(offset_of!(Words, requests)));
        assert_eq!(sight.responses[0], place(offset_of!(Words, responses)));
        assert_eq!(sight.handshakes[14] - sight.handshakes[0], 14);
        assert_eq!(sight.responses[4] - sight.responses[0], 4);
    }

    #[test]
    fn a_quantile_is_the_bound_of_the_bucket_where_it_lies() {
        let sight = |counts: &[(usize, u64)]| {
            let mut sight = Sight::default();
            counts.iter().for_each(|&(bucket, count)| sight.handshakes[bucket] = count);
            sight
        };
        let micros = |sight: Sight, part| sight.handshake_quantile(part).map(|bound| bound.as_micros());
        assert_eq!(micros(sight(&[]), 0.5), None);
        assert_eq!(micros(sight(&[(0, 1)]), 0.5), Some(131));
        assert_eq!(micros(sight(&[(0, 98), (3, 2)]), 0.5), Some(131));
        assert_eq!(micros(sight(&[(0, 98), (3, 2)]), 0.99), Some(1048));
        assert_eq!(micros(sight(&[(0, 98), (14, 2)]), 0.99), None);
    }

    #[test]
    fn what_is_added_and_taken_away_again_leaves_what_was() {
        let mut sum = numbered();
        sum += numbered();
        assert_eq!((sum.responses[2], sum.handshakes[3], sum.aborted), (14, 40, 28));
        sum -= numbered();
        assert_eq!(sum, numbered());
    }
}
