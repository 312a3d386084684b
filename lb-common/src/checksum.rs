//! Incremental Internet checksums (RFC 1071, RFC 1624 equation 3): `HC' = ~(~HC + ~m + m')`.

use crate::wire::Address;

/// What a rewrite does to a ones' complement sum: the new words and the complements of the old ones, in more than 16 bits still.
///
/// Byte order does not matter as long as all operands are taken from memory alike (RFC 1071, section 2 (B)). Each part is less than
/// 2^18, so thousands of them fit; a sum that small is folded in half as many steps as any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change(u32);

impl Change {
    /// Two addresses take the place of two others.
    #[inline(always)]
    pub fn of_addresses<A: Address>(old: [A; 2], new: [A; 2]) -> Self {
        let [old, new] = [old.map(A::complement_sum), new.map(A::sum)].map(|[a, b]| a + b);
        Self(gather(old + new))
    }

    /// A 16-bit word takes the place of another; both in wire order.
    #[inline(always)]
    pub fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + u32::from(!old) + u32::from(new))
    }

    /// Both changes.
    #[inline(always)]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum field after the change. Never 0xffff where a computation from scratch would give 0x0000.
    #[inline(always)]
    pub fn apply(self, check: [u8; 2]) -> [u8; 2] {
        (!carry(self.0 + u32::from(!u16::from_ne_bytes(check)))).to_ne_bytes()
    }

    /// The same for UDP, where 0x0000 says that there is none, and a sum that comes out so is sent as 0xffff (RFC 768).
    #[inline(always)]
    pub fn apply_udp(self, check: [u8; 2]) -> [u8; 2] {
        match check {
            [0, 0] => [0, 0],
            check => match self.apply(check) {
                [0, 0] => [0xff, 0xff],
                check => check,
            },
        }
    }
}

/// Folds a sum of 32-bit words (fewer than 2^32 of them) to 16 bits, end-around carries included.
#[inline(always)]
pub fn fold(sum: u64) -> u16 {
    carry(gather((sum & 0xffff_ffff) + (sum >> 32)))
}

/// Adds what is beyond 16 bits back in, as often as it takes.
#[inline(always)]
fn carry(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

/// Sums up the 16-bit words of a sum of less than 2^48: less than 2^18 then.
#[inline(always)]
fn gather(sum: u64) -> u32 {
    (sum & 0xffff) as u32 + (sum >> 16 & 0xffff) as u32 + (sum >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Address4, Address6};

    fn from_scratch(words: &[u16]) -> u16 {
        !fold(words.iter().map(|&word| u64::from(word)).sum())
    }

    proptest! {
        #[test]
        fn incremental_equals_recomputed(
            old in prop::array::uniform4(any::<u16>()),
            new in prop::array::uniform4(any::<u16>()),
            rest in prop::collection::vec(any::<u16>(), 0..32),
        ) {
            prop_assume!(old.iter().chain(&rest).any(|&word| word != 0));
            prop_assume!(new.iter().chain(&rest).any(|&word| word != 0));
            let before: Vec<u16> = old.iter().chain(&rest).copied().collect();
            let after: Vec<u16> = new.iter().chain(&rest).copied().collect();
            let address = |high: u16, low: u16| Address4(u32::from(high) << 16 | u32::from(low));
            let zero = Address4(0);
            let change = Change::of_addresses([address(old[0], old[1]), zero], [address(new[0], new[1]), zero])
                .word(old[2], new[2])
                .word(old[3], new[3]);
            prop_assert_eq!(change.apply(from_scratch(&before).to_ne_bytes()), from_scratch(&after).to_ne_bytes());
        }

        #[test]
        fn incremental_equals_recomputed_over_ipv6(old: [u64; 2], new: [u64; 2], rest: u16) {
            prop_assume!(rest != 0);
            let sum = |words: [u64; 2]| !fold(Address6(words).sum() + u64::from(rest));
            let zero = Address6([0, 0]);
            let change = Change::of_addresses([zero, Address6(old)], [zero, Address6(new)]);
            prop_assert_eq!(change.apply(sum(old).to_ne_bytes()), sum(new).to_ne_bytes());
        }
    }
}
