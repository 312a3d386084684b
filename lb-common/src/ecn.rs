//! Explicit congestion notification through tunnels: a packet inside another learns what that one met (RFC 6040, section 4.2).

const NOT_CAPABLE: u8 = 0;
const CAPABLE_1: u8 = 1;
const CAPABLE_0: u8 = 2;
const CONGESTION: u8 = 3;
const MASK: u8 = 3;

/// The class of a packet that is taken out of one of the class `outer`. None where congestion was met by a packet that cannot say so, which
/// is to be lost instead.
#[inline(always)]
#[must_use]
pub fn decapsulated(outer: u8, inner: u8) -> Option<u8> {
    let ecn = match (inner & MASK, outer & MASK) {
        (NOT_CAPABLE, CONGESTION) => return None,
        (CAPABLE_0 | CAPABLE_1, CONGESTION) => CONGESTION,
        (CAPABLE_0, CAPABLE_1) => CAPABLE_1,
        (own, _) => own,
    };
    Some(inner & !MASK | ecn)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 4 of RFC 6040: by the inner field, then by the outer one.
    #[test]
    fn what_the_outer_header_met_is_told_inside() {
        const TABLE: [(u8, [Option<u8>; 4]); 4] = [
            (NOT_CAPABLE, [Some(NOT_CAPABLE), Some(NOT_CAPABLE), Some(NOT_CAPABLE), None]),
            (CAPABLE_1, [Some(CAPABLE_1), Some(CAPABLE_1), Some(CAPABLE_1), Some(CONGESTION)]),
            (CAPABLE_0, [Some(CAPABLE_0), Some(CAPABLE_1), Some(CAPABLE_0), Some(CONGESTION)]),
            (CONGESTION, [Some(CONGESTION); 4]),
        ];
        const INNER: u8 = 46 << 2;
        const OUTER: u8 = 10 << 2;
        for (inner, row) in TABLE {
            for (outer, expected) in (0..).zip(row) {
                let class = decapsulated(OUTER | outer, INNER | inner);
                assert_eq!(class, expected.map(|ecn| INNER | ecn), "{inner} in {outer}");
            }
        }
    }
}
