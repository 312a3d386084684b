//! From what is measured to a share in percent: pure functions.
//!
//! Each measure leaves the whole share while there is room, less of it linearly towards the red line, and nothing from there
//! on. The least of them counts. Load alone sheds nothing: it says that work waits, not that it fails.

use std::collections::VecDeque;

/// The share that is back when a server leaves the red line: so much room must be there, or it would meet the line again at
/// once.
const RETURN: u16 = 25;
/// So many measurements in a row must leave more before more is said.
const WINDOW: usize = 10;
/// By how much the share must differ from what was said before to be said: who listens acts on every word.
const STEP: u16 = 5;

/// Where a measure begins to cost share, and where it leaves none. The red line may be above that or below.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Up to here the whole share is left.
    pub begin: f64,
    /// From here on nothing is.
    pub red: f64,
}

impl Band {
    /// What is left, 0 to 1.
    fn left(self, value: f64) -> f64 {
        ((value - self.red) / (self.begin - self.red)).clamp(0.0, 1.0)
    }
}

/// How much each measure costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Curve {
    /// Memory available, in percent.
    pub memory: Band,
    /// Time in which something waits for memory, in percent.
    pub pressure: Band,
    /// Tasks that run or wait, for each CPU.
    pub load: Band,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measures {
    /// Memory available, in percent.
    pub memory: f64,
    /// Time in which something waits for memory, in percent; 0 where the kernel does not say.
    pub pressure: f64,
    /// Tasks that run or wait, for each CPU.
    pub load: f64,
}

impl Default for Curve {
    fn default() -> Self {
        Self {
            memory: Band { begin: 20.0, red: 5.0 },
            pressure: Band { begin: 10.0, red: 50.0 },
            load: Band { begin: 2.0, red: 20.0 },
        }
    }
}

impl Curve {
    /// The share in percent, whatever was said before. 0 is the red line.
    pub fn share(&self, measures: Measures) -> u16 {
        let memory = self.memory.left(measures.memory).min(self.pressure.left(measures.pressure));
        if memory == 0.0 {
            return 0;
        }
        // Between 0 and 100.
        let percent = (memory.min(self.load.left(measures.load)) * 100.0).round() as u16;
        percent.max(1)
    }
}

/// Shares one after the other, and what is said of them: less at once, and more only when all of the last measurements leave
/// more. Memory that goes up and down, as with garbage that is collected now and then, is said to be what it is at its worst.
#[derive(Clone, Debug, Default)]
pub struct Steady {
    last: VecDeque<u16>,
    said: Option<u16>,
}

impl Steady {
    /// What to say after another measurement, in percent.
    pub fn say(&mut self, share: u16) -> u16 {
        if self.last.len() == WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(share);
        let least = self.last.iter().copied().min().unwrap_or(share);
        let say = match (least, self.said.unwrap_or(least)) {
            (0 | 100, _) => least,
            (_, 0) if least < RETURN => 0,
            (_, before) if before > 0 && least.abs_diff(before) < STEP => before,
            _ => least,
        };
        self.said = Some(say);
        say
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Measures = Measures { memory: 100.0, pressure: 0.0, load: 0.0 };

    #[test]
    fn the_share_shrinks_towards_the_red_line() {
        let check = |measures: Measures, expected: u16| {
            assert_eq!(Curve::default().share(measures), expected, "{measures:?}");
        };
        let memory = |memory, expected| check(Measures { memory, ..IDLE }, expected);
        memory(100.0, 100);
        memory(20.0, 100);
        memory(12.5, 50);
        memory(8.0, 20);
        memory(5.01, 1);
        memory(5.0, 0);
        memory(0.0, 0);
        let pressure = |pressure, expected| check(Measures { pressure, ..IDLE }, expected);
        pressure(10.0, 100);
        pressure(30.0, 50);
        pressure(50.0, 0);
        pressure(100.0, 0);
        let load = |load, expected| check(Measures { load, ..IDLE }, expected);
        load(2.0, 100);
        load(11.0, 50);
        load(20.0, 1);
        load(1000.0, 1);
        // The least counts.
        check(Measures { memory: 12.5, pressure: 40.0, load: 11.0 }, 25);
        check(Measures { memory: 4.0, pressure: 0.0, load: 0.0 }, 0);
    }

    #[test]
    fn less_is_said_at_once_and_more_when_it_lasts() {
        // Memory available for so many measurements, and what is said after them.
        let check = |steps: &[(f64, usize, u16)]| {
            let mut steady = Steady::default();
            for (memory, times, expected) in steps {
                let share = Curve::default().share(Measures { memory: *memory, ..IDLE });
                let said = (0..*times).map(|_| steady.say(share)).last();
                assert_eq!(said, Some(*expected), "{memory} of {steps:?}");
            }
        };
        check(&[(100.0, 1, 100), (12.5, 1, 50), (100.0, 9, 50), (100.0, 1, 100)]);
        check(&[(12.5, 1, 50), (18.0, 3, 50), (12.6, 1, 50), (18.0, 9, 50), (12.5, 1, 50), (18.0, 10, 87)]);
        // Less than a step is not worth a word, but both ends are.
        check(&[(19.4, 1, 96), (100.0, 9, 96), (100.0, 1, 100), (19.4, 1, 100), (19.2, 1, 95), (19.4, 20, 95)]);
        check(&[(6.0, 1, 7), (5.5, 1, 7), (5.0, 1, 0)]);
        // Back from the red line with room only.
        check(&[(5.0, 1, 0), (5.1, 20, 0), (8.6, 20, 0), (8.75, 9, 0), (8.75, 1, 25)]);
        check(&[(8.0, 1, 20)]);
    }

    proptest! {
        #[test]
        fn less_room_is_never_more_share(
            a in (0.0..100.0, 0.0..100.0, 0.0..50.0), b in (0.0..100.0, 0.0..100.0, 0.0..50.0)
        ) {
            let measures = |memory: f64, pressure: f64, load: f64| Measures { memory, pressure, load };
            let worse = measures(f64::min(a.0, b.0), f64::max(a.1, b.1), f64::max(a.2, b.2));
            let better = measures(f64::max(a.0, b.0), f64::min(a.1, b.1), f64::min(a.2, b.2));
            let curve = Curve::default();
            prop_assert!(curve.share(worse) <= curve.share(better));
        }

        /// Nobody is told of more room than the last measurements left, but for less than a step; and of the red line at once.
        #[test]
        fn no_more_is_said_than_there_was(shares in prop::collection::vec(0u16..=100, 1..60)) {
            let mut steady = Steady::default();
            for (index, share) in shares.iter().enumerate() {
                let said = steady.say(*share);
                let least = *shares[(index + 1).saturating_sub(WINDOW)..=index].iter().min().unwrap();
                prop_assert!(said < least + STEP && (least > 0 || said == 0), "{} of {:?}", said, &shares[..=index]);
            }
        }

        #[test]
        fn what_goes_up_and_down_is_told_once(low in 1u16..=100, high in 1u16..=100, rounds in 2usize..40) {
            let mut steady = Steady::default();
            let mut said: Vec<u16> = (0..rounds).flat_map(|_| [steady.say(low), steady.say(high)]).collect();
            said.dedup();
            prop_assert!(said.len() <= 2, "{:?}", said);
        }
    }
}
