//! Keyed hashing of flows.
//!
//! NH (Black, Halevi, Krawczyk, Krovetz, Rogaway: UMAC, CRYPTO '99, section 4.2): for a random key, two given inputs
//! collide with probability 2^-32 whatever the inputs are. It needs one 32 by 32 bit multiplication per 64 bits, which BPF
//! has; SipHash would cost as much as the rest of the packet's way.

use crate::wire::AddressWords;

/// Key words that one hash uses.
pub const KEY_WORDS: usize = 6;

/// A secret chosen when the maps are created, or [`PUBLIC_KEY`].
pub type Key = [u32; KEY_WORDS];

/// The key of hashes that several front nodes must agree on: the choice of a Maglev slot. Digits of pi.
pub const PUBLIC_KEY: Key = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344, 0xa409_3822, 0x299f_31d0];

/// Hash of an address and 32 more bits.
#[inline(always)]
pub fn nh(key: &Key, address: AddressWords, rest: u32) -> u64 {
    let [ab, cd] = address;
    let (a, b, c, d) = (ab as u32, (ab >> 32) as u32, cd as u32, (cd >> 32) as u32);
    let mut sum = multiply(a.wrapping_add(key[0]), rest.wrapping_add(key[1]));
    // All zero for IPv4, whose hash is then one multiplication: known when compiled, for each family has its own code.
    if b | c | d != 0 {
        sum = sum
            .wrapping_add(multiply(b.wrapping_add(key[2]), c.wrapping_add(key[3])))
            .wrapping_add(multiply(d.wrapping_add(key[4]), key[5]));
    }
    finish(sum)
}

/// Hash of 64 bits.
#[inline(always)]
pub fn word(key: &Key, word: u64) -> u64 {
    finish(multiply((word as u32).wrapping_add(key[2]), ((word >> 32) as u32).wrapping_add(key[3])))
}

#[inline(always)]
fn multiply(a: u32, b: u32) -> u64 {
    u64::from(a).wrapping_mul(u64::from(b))
}

/// Spreads the product's bits over the whole word: a bijection (the middle of MurmurHash3's fmix64).
#[inline(always)]
fn finish(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^ (x >> 29)
}

/// A hash scaled to `0..length`, without a division.
#[inline(always)]
pub fn scale(hash: u64, length: u32) -> u32 {
    (((hash >> 32) * u64::from(length)) >> 32) as u32
}
