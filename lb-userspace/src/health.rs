//! When a backend counts as up: a pure state machine over the results of its checks.
//!
//! It knows neither clock nor network. A single odd result changes nothing: a backend goes down after `fall` failures in a
//! row and comes back after `rise` passes in a row. Only the first result of all decides at once, so that a fresh
//! start need not wait.

use serde::{Deserialize, Serialize};

/// What the checks of a backend say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not checked yet.
    #[default]
    Unknown,
    /// Takes connections.
    Up,
    /// Does not.
    Down,
}

impl Health {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// How many results in a row it takes to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passes, from down to up.
    pub rise: u32,
    /// Failures, from up to down.
    pub fall: u32,
}

/// The health of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    health: Health,
    /// Results in a row that contradict `health`.
    contrary: u32,
}

impl Machine {
    /// Starts from a known state.
    pub fn new(health: Health) -> Self {
        Self { health, contrary: 0 }
    }

    /// The health by now.
    pub fn health(self) -> Health {
        self.health
    }

    /// Whether it is up, and the last result said so; otherwise the health may be about to change, or is hoped to.
    pub fn is_settled(self) -> bool {
        self.contrary == 0 && self.health == Health::Up
    }

    /// How many results in a row contradict the health.
    pub fn contrary(self) -> u32 {
        self.contrary
    }

    /// Whether a result would change the health.
    pub fn flips(mut self, passed: bool, thresholds: Thresholds) -> bool {
        self.observe(passed, thresholds)
    }

    /// Takes a result; says whether it changed the health.
    pub fn observe(&mut self, passed: bool, thresholds: Thresholds) -> bool {
        let (seen, needed) = if passed { (Health::Up, thresholds.rise) } else { (Health::Down, thresholds.fall) };
        if seen == self.health {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        if self.health != Health::Unknown && self.contrary < needed {
            return false;
        }
        *self = Self::new(seen);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { rise: 2, fall: 3 };

    #[test]
    fn health_follows_results_in_a_row() {
        // "+" is a pass, "-" a failure; the state after each: unknown "?", up "U", down "D".
        let check = |start: Health, results: &str, expected: &str| {
            let mut machine = Machine::new(start);
            let states: String = results
                .chars()
                .map(|result| {
                    let before = machine.health();
                    let flipped = machine.observe(result == '+', THRESHOLDS);
                    assert_eq!(flipped, before != machine.health(), "{results}");
                    match machine.health() {
                        Health::Unknown => '?',
                        Health::Up => 'U',
                        Health::Down => 'D',
                    }
                })
                .collect();
            assert_eq!(states, expected, "{results}");
        };
        check(Health::Unknown, "+", "U");
        check(Health::Unknown, "-", "D");
        check(Health::Up, "---", "UUD");
        check(Health::Up, "--+--", "UUUUU");
        check(Health::Up, "--+---", "UUUUUD");
        check(Health::Down, "++", "DU");
        check(Health::Down, "+-+-+", "DDDDD");
        check(Health::Unknown, "+---++", "UUUDDU");
        check(Health::Unknown, "-+-++--", "DDDDUUU");
    }

    proptest! {
        /// Once decided, the health differs from what it was only when the last results, as many as the threshold,
        /// all said so.
        #[test]
        fn a_flip_needs_a_full_run(results in prop::collection::vec(any::<bool>(), 1..64), rise in 1u32..5, fall in 1u32..5) {
            let mut machine = Machine::default();
            for (index, passed) in results.iter().enumerate() {
                let flipped = machine.observe(*passed, Thresholds { rise, fall });
                if flipped && index > 0 {
                    let run = if *passed { rise } else { fall } as usize;
                    prop_assert!(run <= index + 1);
                    prop_assert!(results[index + 1 - run..=index].iter().all(|result| result == passed));
                }
            }
        }
    }
}
