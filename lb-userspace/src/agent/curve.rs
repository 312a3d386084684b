//! From what is measured to a share in percent: pure functions.
//!
//! Each measure leaves the whole share while there is room, less of it linearly towards the red line, and nothing from there
//! on. The least of them counts. Load alone sheds nothing: it says that work waits, not that it fails.

/// The share that is back when a server leaves the red line: so much room must be there, or it would meet the line again at
/// once.
const RETURN: u16 = 25;
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

    /// The share in percent to say, when something else was said before.
    pub fn settle(&self, measures: Measures, before: u16) -> u16 {
        let share = self.share(measures);
        match (share, before) {
            (0 | 100, _) => share,
            (_, 0) if share < RETURN => 0,
            (_, 0) => share,
            _ if share.abs_diff(before) < STEP => before,
            _ => share,
        }
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
    fn what_is_said_does_not_flap() {
        // Memory available one measurement after the other, and what is said of it.
        let check = |memory: &[f64], expected: &[u16]| {
            let mut before = 100;
            let said = memory.iter().map(|memory| {
                before = Curve::default().settle(Measures { memory: *memory, ..IDLE }, before);
                before
            });
            assert_eq!(said.collect::<Vec<_>>(), expected, "{memory:?}");
        };
        check(&[19.7, 19.4, 19.2, 19.0], &[100, 100, 95, 95]);
        check(&[12.5, 12.9, 12.1, 13.2, 20.0], &[50, 50, 50, 55, 100]);
        check(&[5.0, 5.1, 4.9, 8.0, 8.6, 8.75, 8.0], &[0, 0, 0, 0, 0, 25, 20]);
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

        /// Nothing that wobbles by less than a step is told more than once, wherever it stands, and the red line is told
        /// at once.
        #[test]
        fn a_wobble_is_told_once(middle in 0.0..100.0, wobbles in prop::collection::vec(-0.29..0.29, 2..40)) {
            let curve = Curve::default();
            let measures = wobbles.iter().map(|wobble| Measures { memory: middle + wobble, ..IDLE });
            let mut said: Vec<u16> = Vec::new();
            for measures in measures {
                let before = said.last().copied().unwrap_or_else(|| curve.share(measures));
                said.push(curve.settle(measures, before));
                prop_assert_eq!(said.last() == Some(&0), curve.share(measures) == 0 || before == 0);
            }
            said.dedup();
            // Both ends are told exactly: there and back is one change more.
            prop_assert!(said.len() <= 3, "{:?}", said);
        }
    }
}
