//! What the daemon itself counts: checks, time out of rotation, reloads, repairs.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use crate::{model::Model, probe};

/// Upper bounds of what checks take, in seconds: from a server in the same rack to the longest timeout.
const BOUNDS: [f64; 12] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, f64::INFINITY];

/// What the daemon itself counts.
#[derive(Clone, Debug)]
pub struct Tallies {
    /// By service and backend.
    pub backends: HashMap<Arc<probe::Key>, BackendTally>,
    /// Map entries that somebody else had changed and that were repaired.
    pub repaired: u64,
    /// Why the last reload failed; nothing, when it did not.
    pub reload_failed: Option<String>,
    /// When the running configuration was read.
    pub configured: Timestamp,
    /// Reloads: those that were taken over, and those that were not.
    pub reloads: [u64; 2],
    /// The last look at the model.
    last: Timestamp,
}

/// What is counted of one backend.
#[derive(Clone, Debug, Default)]
pub struct BackendTally {
    /// Checks that passed, and that failed.
    pub checks: [u64; 2],
    /// How long they took.
    pub durations: Durations,
    /// How long it has been out of rotation, by cause.
    pub out: BTreeMap<&'static str, Duration>,
}

/// A histogram of durations.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    counts: [u64; BOUNDS.len()],
    sum: Duration,
}

impl Tallies {
    /// Nothing is counted yet.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let backends = HashMap::new();
        Self { backends, repaired: 0, reload_failed: None, configured: now, reloads: [0; 2], last: now }
    }

    /// Takes note of a check.
    pub fn check(&mut self, key: &Arc<probe::Key>, passed: bool, took: Duration) {
        let tally = match self.backends.get_mut(key) {
            Some(tally) => tally,
            None => self.backends.entry(Arc::clone(key)).or_default(),
        };
        tally.checks[usize::from(!passed)] += 1;
        tally.durations.add(took);
    }

    /// Lets time pass for those that are out of rotation.
    pub fn pass(&mut self, model: &Model, now: Timestamp) {
        let passed = now.duration_since(self.last).max(SignedDuration::ZERO).unsigned_abs();
        self.last = now;
        for (name, service) in &model.services {
            for backend in &service.backends {
                let Some(cause) = service.obstacle(backend) else { continue };
                let key = Arc::new((name.clone(), backend.name.clone()));
                *self.backends.entry(key).or_default().out.entry(cause).or_default() += passed;
            }
        }
    }

    /// Forgets those that are gone.
    pub fn forget(&mut self, model: &Model) {
        let present: HashSet<(&str, &str)> = model
            .services
            .iter()
            .flat_map(|(name, service)| service.backends.iter().map(|backend| (name.as_str(), backend.name.as_str())))
            .collect();
        self.backends.retain(|key, _| present.contains(&(key.0.as_str(), key.1.as_str())));
    }

    /// Takes note of a reload.
    pub fn reload(&mut self, result: Result<(), String>, now: Timestamp) {
        self.reloads[usize::from(result.is_err())] += 1;
        if result.is_ok() {
            self.configured = now;
        }
        self.reload_failed = result.err();
    }

    /// What is counted of a backend.
    #[must_use]
    pub fn of(&self, service: &str, backend: &str) -> Option<&BackendTally> {
        self.backends.get(&(service.to_owned(), backend.to_owned()))
    }
}

impl Durations {
    fn add(&mut self, took: Duration) {
        let place = BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
        self.counts[place.min(BOUNDS.len() - 1)] += 1;
        self.sum += took;
    }

    /// Seconds altogether.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum.as_secs_f64()
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Upper bounds in seconds, and how many were up to each, those up to the one before excepted.
    #[must_use]
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        BOUNDS.into_iter().zip(self.counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_up_to_its_bound() {
        let mut durations = Durations::default();
        for micros in [500, 501, 1_000, 90_000, 20_000_000] {
            durations.add(Duration::from_micros(micros));
        }
        let counted: Vec<_> = durations.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(0.000_5, 1), (0.001, 2), (0.1, 1), (f64::INFINITY, 1)]);
        assert_eq!((durations.count(), durations.sum()), (5, 20.092_001));
    }
}
