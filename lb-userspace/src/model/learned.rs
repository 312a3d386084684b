//! How many connections a backend can take, learnt from what it had when its agent said that it can take no more.
//!
//! What it had at the red line is what it may have. Reports of room let that grow, slowly enough to see what each step does,
//! until it is twice what was learnt: then whatever was wrong is over. A pure function of open flows and reports.

use crate::plan::MAX_CONNECTIONS;

/// Fewer connections than this say nothing of what a backend can take.
const LEAST: u32 = 16;
/// With so much of its share, in percent, a backend is well.
const WELL: u16 = 50;
/// The part of a limit that each report of room adds to it.
const GROWTH: u32 = 10;

/// What was learnt of a backend's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learned {
    /// With so many it gets no new one.
    pub most: u32,
    /// How many it had at the red line.
    had: u32,
}

impl Learned {
    /// What a backend teaches that has so many flows open at its red line.
    pub fn at_red_line(open: u64, known: Option<Self>) -> Self {
        let had = u32::try_from(open).unwrap_or(MAX_CONNECTIONS).clamp(LEAST, MAX_CONNECTIONS);
        let had = known.map_or(had, |known| known.most.min(had));
        Self { most: had, had }
    }

    /// What is left of it after a report of a share, in percent.
    pub fn after(self, share: u16) -> Option<Self> {
        if share < WELL {
            return Some(self);
        }
        let most = self.most + (self.most / GROWTH).max(1);
        (most / 2 < self.had).then_some(Self { most, ..self })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_limit_is_what_there_was_and_grows_while_there_is_room() {
        // Open flows at the red line, the shares reported after it, and the limit by then.
        let check = |open: u64, shares: &[u16], expected: Option<u32>| {
            let start = Some(Learned::at_red_line(open, None));
            let learned = shares.iter().fold(start, |known, share| known.and_then(|known| known.after(*share)));
            assert_eq!(learned.map(|learned| learned.most), expected, "{open} {shares:?}");
        };
        check(100, &[], Some(100));
        check(0, &[], Some(LEAST));
        check(u64::MAX, &[], Some(MAX_CONNECTIONS));
        check(100, &[1, 25, 49], Some(100));
        check(100, &[50], Some(110));
        check(100, &[50, 100], Some(121));
        check(100, &[100, 20, 100], Some(121));
        check(100, &[100; 7], Some(193));
        check(100, &[100; 8], None);
        check(16, &[100], Some(17));
    }

    #[test]
    fn the_red_line_met_again_widens_nothing() {
        let learned = Learned::at_red_line(100, None).after(100);
        for (open, expected) in [(40, 40), (105, 105), (500, 110)] {
            assert_eq!(Learned::at_red_line(open, learned).most, expected, "{open}");
        }
    }

    proptest! {
        #[test]
        fn a_limit_grows_by_steps_and_room_lifts_it(open: u64, shares in prop::collection::vec(0u16..=100, 0..64)) {
            let mut learned = Learned::at_red_line(open, None);
            let had = learned.most;
            for share in shares {
                let Some(next) = learned.after(share) else { return Ok(()) };
                let grown = next.most - learned.most;
                prop_assert_eq!(grown > 0, share >= WELL);
                prop_assert!(grown <= learned.most / 10 + 1 && next.most < 2 * had + 2);
                learned = next;
            }
            let lifted = (0..16).try_fold(learned, |known, _| known.after(100));
            prop_assert_eq!(lifted, None);
        }
    }
}
