//! What the packets of a backend tell of it: how fast it answers a SYN, whether it refuses, what its HTTP responses are.

/// Buckets of the handshake histogram. Bucket `i` counts those that took less than `2^(16 + i)` ns (65.5 µs, 131 µs, …,
/// 1.07 s), and not less than the bound before; the last counts all that took longer.
pub const HANDSHAKE_BUCKETS: usize = 16;

/// Monotonic sums over all CPUs since the backend was added. With direct return only the client's packets are seen: then all
/// but `begun` and `repeated` stay 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Flows scheduled: for TCP, SYNs that it was the first to get.
    pub begun: u64,
    /// SYNs that came again while it had not answered.
    pub repeated: u64,
    /// RSTs in answer to a SYN.
    pub refused: u64,
    /// RSTs of the backend in established flows.
    pub reset: u64,
    /// RSTs of clients in established flows.
    pub aborted: u64,
    /// From a client's SYN to the SYN-ACK, by [`HANDSHAKE_BUCKETS`].
    pub handshakes: [u64; HANDSHAKE_BUCKETS],
    /// Sum of these times.
    pub handshake_ns: u64,
    /// HTTP/1.x responses seen at the start of a segment, by class: 1xx, 2xx, 3xx, 4xx, 5xx.
    pub responses: [u64; 5],
}
