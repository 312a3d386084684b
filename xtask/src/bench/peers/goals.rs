//! What `lb` is to reach: it costs less than the routing that it replaces, and less than half of any other balancer.

use lab::peers::Contender;

use super::figures::Figures;

/// The worst second of new connections, as a part of the usual one, that still is steady.
const STEADY: f64 = 0.9;

/// A goal, and how far `lb` got.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goal {
    /// What is compared with what.
    pub(crate) words: String,
    /// What came of it.
    pub(crate) value: f64,
    /// What it is to be at least, or at most.
    pub(crate) limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub(crate) fn is_met(&self) -> bool {
        match self.limit {
            Limit::AtLeast(least) => self.value >= least,
            Limit::AtMost(most) => self.value <= most,
        }
    }
}

/// All of them, for each of its modes.
pub(crate) fn goals(figures: &Figures) -> Vec<Goal> {
    Contender::LB.into_iter().flat_map(|lb| goals_of(figures, lb)).collect()
}

fn goals_of(figures: &Figures, lb: Contender) -> [Goal; 5] {
    let best =
        Contender::PEERS.map(|peer| figures.median(peer, |sample| sample.new.rate)).into_iter().fold(0.0, f64::max);
    let goal = |words: &str, value, limit| Goal { words: format!("{lb}: {words}"), value, limit };
    [
        goal(
            "requests a second over kept connections, of those of direct",
            figures.ratio(lb, |sample| sample.kept.rate),
            Limit::AtLeast(1.0),
        ),
        goal(
            "new connections a second, of those of direct",
            figures.ratio(lb, |sample| sample.new.rate),
            Limit::AtLeast(1.0),
        ),
        goal(
            "new connections a second, of those of the best peer",
            figures.median(lb, |sample| sample.new.rate) / best,
            Limit::AtLeast(2.0),
        ),
        goal(
            "new connections in the worst second, of those in the usual one",
            figures.hold(lb).steadiness(),
            Limit::AtLeast(STEADY),
        ),
        goal(
            "99th percentile of latency, of that of direct",
            figures.ratio(lb, |sample| sample.paced.p99),
            Limit::AtMost(1.0),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::{
        super::figures::{Hold, Sample, Slice},
        *,
    };

    fn figures(lb: f64) -> Figures {
        let mut figures = Figures::default();
        for contender in Contender::ALL {
            let speed = match contender {
                _ if Contender::LB.contains(&contender) => lb,
                Contender::Direct => 1.0,
                _ => 0.5,
            };
            let slice = Slice { rate: speed, p99: 1.0 / speed, ..Slice::default() };
            figures.add(contender, Sample { kept: slice.clone(), paced: slice.clone(), new: slice });
            figures.held(contender, Hold { rates: vec![1.0, speed.min(1.0), 1.0], ..Hold::default() });
        }
        figures
    }

    #[test]
    fn a_balancer_as_fast_as_routing_and_twice_as_fast_as_its_peers_meets_them_all() {
        assert!(goals(&figures(1.0)).iter().all(Goal::is_met));
    }

    #[test]
    fn a_balancer_that_is_slower_than_routing_misses_them_all() {
        assert!(!goals(&figures(0.8)).iter().any(Goal::is_met));
    }
}
