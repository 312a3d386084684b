//! How long a backend takes to answer a SYN: from the client's first SYN that went to it to its SYN-ACK.
//!
//! A SYN that is repeated to the same backend does not start the clock again: what the client waited for is what is
//! counted, also where the backend had lost its SYN because its queue was full. Only the first SYN-ACK of a flow counts.

use crate::layout::HANDSHAKE_BUCKETS;

/// What the first bucket's times are less than: nanoseconds, as a shift. Each further bound is twice the one before.
pub const FIRST_SHIFT: u32 = 17;

/// The bucket of a time; the last has all that took longer than the bound before.
#[inline(always)]
pub const fn bucket(ns: u64) -> usize {
    let bits = u64::BITS - ns.leading_zeros();
    let bucket = bits.saturating_sub(FIRST_SHIFT) as usize;
    if bucket < HANDSHAKE_BUCKETS { bucket } else { HANDSHAKE_BUCKETS - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_is_above_it() {
        let rows = [
            (0, 0),
            (131_071, 0),
            (131_072, 1),
            (262_143, 1),
            (262_144, 2),
            ((1 << 30) - 1, 13),
            (1 << 30, 14),
            (1 << 31, 14),
            (u64::MAX, 14),
        ];
        for (ns, expected) in rows {
            assert_eq!(bucket(ns), expected, "{ns} ns");
        }
    }
}
