//! Open flows of each backend, where something goes by them: packets count them, and what they cannot count is corrected
//! here.
//!
//! Packets see a flow begin and close, by whichever CPU swings its word, once. They do not see that one is forgotten, since
//! nothing comes, or that a flow's slot is taken by another. So the flows are counted now and then. A number that changes
//! while they are counted may differ from the count without being wrong: only what two counts in a row agree on is
//! corrected, and by addition, so that no packet's own change is lost.

use std::sync::atomic::Ordering;

use super::{maps::Maps, snapshot};

/// For how long limits hold when nobody corrects the numbers.
const HOLD_NS: u64 = 60_000_000_000;

/// By how much each number was off when last looked at.
#[derive(Debug, Default)]
pub(super) struct Loads {
    off: Vec<i64>,
}

impl Loads {
    /// Looks at all numbers and corrects those that are off.
    pub(super) fn correct(&mut self, maps: &Maps) {
        let read = || maps.loads.words().iter().map(|word| word.load(Ordering::Acquire).cast_signed());
        let before: Vec<i64> = read().collect();
        let (_, counted) = snapshot::open_flows(maps);
        let after: Vec<i64> = read().collect();
        self.off.resize(counted.len(), 0);
        let rows = before.into_iter().zip(after).zip(counted).zip(&mut self.off).zip(maps.loads.words());
        for ((((before, after), counted), off), word) in rows {
            let correction = correction(before, counted.cast_signed(), after, *off);
            *off = correction.off;
            if correction.add != 0 {
                word.fetch_add(correction.add.cast_unsigned(), Ordering::AcqRel);
            }
        }
    }

    /// Takes the numbers as they are counted: nobody has kept them so far.
    pub(super) fn begin(&mut self, maps: &Maps) {
        self.off.clear();
        let (_, counted) = snapshot::open_flows(maps);
        for (word, counted) in maps.loads.words().iter().zip(counted) {
            word.store(counted, Ordering::Release);
        }
    }
}

/// Lets limits hold from now on for a while.
pub(super) fn hold_limits(maps: &Maps) {
    maps.limits.write(maps.config.backends, &super::maps::now_ns().saturating_add(HOLD_NS));
}

/// What becomes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Correction {
    /// What is added to it.
    add: i64,
    /// By how much it is off, as far as is known.
    off: i64,
}

/// A number before and after the flows were counted, and by how much it seemed off the last time.
fn correction(before: i64, counted: i64, after: i64, last: i64) -> Correction {
    let off = match () {
        () if counted < before.min(after) => counted - before.min(after),
        () if counted > before.max(after) => counted - before.max(after),
        () => 0,
    };
    let add = match () {
        // Nothing came or went meanwhile.
        () if before == after => off,
        () if off.signum() == last.signum() => off.signum() * off.abs().min(last.abs()),
        () => 0,
    };
    Correction { add, off: off - add }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certainly_off_is_corrected() {
        let check = |(before, counted, after, last), add, off| {
            let found = correction(before, counted, after, last);
            assert_eq!(found, Correction { add, off }, "{before} {counted} {after} {last}");
        };
        // Quiet: the count is right.
        check((5, 5, 5, 0), 0, 0);
        check((5, 3, 5, 0), -2, 0);
        check((3, 5, 3, 0), 2, 0);
        check((-1, 0, -1, 0), 1, 0);
        // Busy: what lies between is as good as the number.
        check((5, 7, 9, 0), 0, 0);
        check((9, 7, 5, 4), 0, 0);
        // What lies outside may be chance once.
        check((5, 2, 9, 0), 0, -3);
        check((5, 12, 9, -3), 0, 3);
        // Twice it is not; the smaller of both is certain.
        check((5, 2, 9, -3), -3, 0);
        check((5, 4, 9, -3), -1, 0);
        check((5, 2, 9, -1), -1, -2);
    }
}
