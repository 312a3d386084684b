//! Which share of new flows each backend gets by now: its weight, less what its agent takes off, and growing while it
//! starts slowly or its traffic is bad; for a while more than that, where it makes up for others.

use jiff::{SignedDuration, Timestamp};

use super::{Backend, Service, event::Moment};
use crate::{
    health::Health,
    plan::{BackendPlan, MAX_WEIGHT, ServicePlan},
};

/// What a weight of one is divided into when a backend takes less than its share.
const PARTS: f64 = 100.0;

impl Service {
    /// The service as the packet path has it.
    pub(super) fn plan(&self, now: Timestamp) -> ServicePlan {
        ServicePlan {
            name: self.spec.name.clone(),
            listen: self.spec.listen,
            protocol: self.spec.protocol,
            algorithm: self.spec.algorithm,
            forward: self.spec.forward,
            backends: self.shares(now),
        }
    }

    /// The backends as the packet path has them. Only the ratio of their weights counts: when one takes less than its
    /// weight, all are multiplied so that less can be said.
    fn shares(&self, now: Timestamp) -> Vec<BackendPlan> {
        let whole = self.backends.iter().all(|backend| self.share(backend, now) == 1.0);
        let highest = self.backends.iter().map(|backend| self.share(backend, now)).fold(1.0, f64::max);
        let most = self.backends.iter().map(|backend| backend.weight.value).max().unwrap_or(1).max(1);
        let parts = if whole { 1.0 } else { PARTS.min(f64::from(MAX_WEIGHT) / f64::from(most) / highest) };
        let (stand_by, open, last_resort) = (self.primary_serves(), self.fails_open(), self.is_last_resort());
        let serving = self.backends.iter().filter(|backend| backend.serves(stand_by));
        let well: Vec<&Backend> = serving.filter(|backend| !backend.is_failing()).collect();
        // Where the checks of others begin to fail as well, it may be the checks.
        let others_pass = well.iter().any(|backend| backend.health.contrary() == 0);
        let plan = |backend: &Backend| {
            let weight = part(backend.weight.value, parts, self.share(backend, now));
            let nevertheless = open && backend.is_reachable() || last_resort && backend.is_at_red_line();
            let in_rotation = backend.serves(stand_by) || nevertheless;
            let others_do_better = if backend.is_ejected() { !well.is_empty() } else { others_pass };
            let given_up = backend.is_at_fault() && !backend.is_belied && !in_rotation && others_do_better;
            BackendPlan { given_up, ..backend.plan(weight, in_rotation, backend.stands_by(stand_by)) }
        };
        self.backends.iter().map(plan).collect()
    }

    /// What a backend gets of its weight: 1 is all of it.
    pub fn share(&self, backend: &Backend, now: Timestamp) -> f64 {
        let agent = f64::from(backend.agent.value.share()) / 100.0;
        let grown = match (backend.joined, self.spec.slow_start) {
            (Some(joined), Some(period)) => {
                let passed = now.duration_since(joined).max(SignedDuration::ZERO);
                (passed.as_secs_f64() / period.as_secs_f64()).min(1.0)
            }
            _ => 1.0,
        };
        agent * grown * backend.judgement.share()
    }

    /// Has those grow slowly that serve and did not, when others served. Where nobody did, there is nobody to spare it.
    pub(super) fn start_slowly(&mut self, before: &Moment, now: Timestamp) {
        if self.spec.slow_start.is_none() || !before.anybody_serves() {
            return;
        }
        let after = self.moment();
        for backend in &mut self.backends {
            if after.serves(&backend.name) && !before.serves(&backend.name) {
                backend.joined = Some(now);
            }
        }
    }

    /// Ends what is over.
    pub(super) fn end_slow_starts(&mut self, now: Timestamp) {
        let period = self.spec.slow_start.unwrap_or_default();
        for backend in &mut self.backends {
            backend
                .joined
                .take_if(|joined| now.duration_since(*joined) >= period.try_into().unwrap_or(SignedDuration::MAX));
        }
    }

    /// Whether a share or a limit still grows, or it is yet to be seen whether somebody is given up.
    pub(super) fn is_growing(&self) -> bool {
        self.backends.iter().any(|backend| backend.joined.is_some() || backend.learned.is_some()) || self.is_in_doubt()
    }

    /// Whether the checks of somebody fail while those of another have begun to as well: then it may not be the server.
    fn is_in_doubt(&self) -> bool {
        let begins_to_fail = |backend: &Backend| backend.health.health() == Health::Up && backend.health.contrary() > 0;
        self.backends.iter().any(|backend| backend.health.health() == Health::Down)
            && self.backends.iter().any(begins_to_fail)
    }
}

/// A share of a weight in parts. Whoever is to get anything gets something.
fn part(weight: u16, parts: f64, share: f64) -> u16 {
    let whole = f64::from(weight) * parts;
    let least = f64::from(weight.min(1));
    // Between two whole numbers of 16 bits.
    (whole * share).round().clamp(least, f64::from(MAX_WEIGHT)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_more_than_a_weight_may_be_and_never_nothing() {
        for (weight, parts, share, expected) in [
            (1, 1.0, 1.0, 1),
            (3, 100.0, 0.5, 150),
            (1, 100.0, 0.0, 1),
            (1, 100.0, 0.001, 1),
            (0, 100.0, 1.0, 0),
            (2, 100.0, 1.0, 200),
            (1, 100.0, 1.5, 150),
            (100, 0.16, 16.0, 256),
            (256, 1.0, 1.5, 256),
        ] {
            assert_eq!(part(weight, parts, share), expected, "{weight} x {parts} x {share}");
        }
    }
}
