//! Numbers from 0 on, given out in runs.

use std::collections::BTreeMap;

/// What is free, and what is given up but perhaps still referred to.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    size: u32,
    /// Free runs: start to length; no two touch.
    free: BTreeMap<u32, u32>,
    /// Given up.
    resting: Vec<(u32, u32)>,
}

impl Space {
    /// All of `0..size` is free.
    pub(crate) fn new(size: u32) -> Self {
        Self { size, free: BTreeMap::from([(0, size)]), resting: Vec::new() }
    }

    /// Nothing from there on is given out.
    pub(crate) fn end(&self) -> u32 {
        self.free
            .last_key_value()
            .filter(|(start, run)| **start + **run == self.size)
            .map_or(self.size, |(start, _)| *start)
    }

    /// The first run of that length.
    pub(crate) fn allocate(&mut self, length: u32) -> Option<u32> {
        let (start, _) = self.free.iter().find(|(_, run)| **run >= length)?;
        let start = *start;
        self.take(start, length);
        Some(start)
    }

    /// Takes a run that is known to be in use; what of it is not free stays as it is.
    pub(crate) fn take(&mut self, start: u32, length: u32) {
        let end = start.saturating_add(length);
        let touched: Vec<(u32, u32)> =
            self.free.range(..end).filter(|(first, run)| *first + **run > start).map(|(a, b)| (*a, *b)).collect();
        for (first, run) in touched {
            self.free.remove(&first);
            if first < start {
                self.free.insert(first, start - first);
            }
            if first + run > end {
                self.free.insert(end, first + run - end);
            }
        }
    }

    /// Gives a run up.
    pub(crate) fn give(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.resting.push((start, length));
        }
    }

    /// Makes everything that was given up free.
    pub(crate) fn reclaim(&mut self) {
        for (start, length) in std::mem::take(&mut self.resting) {
            self.release(start, length);
        }
    }

    fn release(&mut self, mut start: u32, mut length: u32) {
        if let Some((&before, &run)) = self.free.range(..start).next_back()
            && before + run == start
        {
            self.free.remove(&before);
            start = before;
            length += run;
        }
        if let Some(run) = self.free.remove(&(start + length)) {
            length += run;
        }
        self.free.insert(start, length);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_given_up_rests_until_it_is_reclaimed() {
        let mut space = Space::new(10);
        assert_eq!(space.allocate(6), Some(0));
        assert_eq!(space.allocate(6), None);
        space.give(0, 6);
        assert_eq!(space.allocate(6), None);
        space.reclaim();
        assert_eq!(space.allocate(10), Some(0));
    }

    #[test]
    fn nothing_is_given_out_behind_the_end() {
        let mut space = Space::new(10);
        assert_eq!(space.end(), 0);
        space.allocate(4);
        space.take(7, 1);
        assert_eq!(space.end(), 8);
        space.allocate(2);
        space.give(7, 1);
        assert_eq!(space.end(), 8);
        space.reclaim();
        assert_eq!(space.end(), 6);
        space.take(6, 4);
        assert_eq!(space.end(), 10);
    }

    proptest! {
        #[test]
        fn runs_never_overlap_and_come_back_whole(lengths in prop::collection::vec(1u32..50, 1..60)) {
            let mut space = Space::new(1000);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (turn, length) in lengths.into_iter().enumerate() {
                if turn % 3 == 2 && !held.is_empty() {
                    let (start, length) = held.swap_remove(turn % held.len());
                    space.give(start, length);
                    space.reclaim();
                }
                if let Some(start) = space.allocate(length) {
                    prop_assert!(start + length <= 1000);
                    prop_assert!(held.iter().all(|(s, l)| start + length <= *s || s + l <= start));
                    held.push((start, length));
                }
            }
            for (start, length) in held {
                space.give(start, length);
            }
            space.reclaim();
            prop_assert_eq!(space.allocate(1000), Some(0));
        }
    }
}
