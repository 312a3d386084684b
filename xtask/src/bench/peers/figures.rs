//! What was measured, and how contenders compare. A value of one contender is set against that of routing in the same
//! round, and what counts is the median of all rounds.

use std::{collections::BTreeMap, time::Duration};

use lab::peers::{Contender, Report};

/// One run of requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slice {
    /// Requests in a second.
    pub(crate) rate: f64,
    /// Microseconds within which half of the requests were answered.
    pub(crate) median: f64,
    /// The same for 99 of 100.
    pub(crate) p99: f64,
    /// Microseconds that all cores together were busy for each request.
    pub(crate) processor: f64,
    /// What went wrong, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Slice {
    pub(crate) fn of(report: &Report, busy: Duration) -> Self {
        let microseconds = |time: Duration| 1e6 * time.as_secs_f64();
        Self {
            rate: report.rate(),
            median: microseconds(report.median),
            p99: microseconds(report.p99),
            processor: microseconds(busy) / report.requests as f64,
            errors: report.errors.clone(),
        }
    }
}

/// One contender in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// Requests over kept connections.
    pub(crate) kept: Slice,
    /// The same with pauses.
    pub(crate) paced: Slice,
    /// Requests over connections of their own.
    pub(crate) new: Slice,
}

/// New connections for a longer time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hold {
    /// Accepted in each second.
    pub(crate) rates: Vec<f64>,
    /// What went wrong, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Hold {
    /// In half of the seconds it was less, in the other half more.
    pub(crate) fn rate(&self) -> f64 {
        median(self.rates.iter().copied())
    }

    /// The worst second as a part of that: 1 where all are alike.
    pub(crate) fn steadiness(&self) -> f64 {
        self.rates.iter().copied().fold(f64::INFINITY, f64::min) / self.rate()
    }
}

/// Which number of a sample.
pub(crate) type Measure = fn(&Sample) -> f64;

/// Everything of a run.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    samples: BTreeMap<Contender, Vec<Sample>>,
    holds: BTreeMap<Contender, Hold>,
}

impl Figures {
    pub(crate) fn add(&mut self, contender: Contender, sample: Sample) {
        self.samples.entry(contender).or_default().push(sample);
    }

    pub(crate) fn held(&mut self, contender: Contender, hold: Hold) {
        self.holds.insert(contender, hold);
    }

    pub(crate) fn hold(&self, contender: Contender) -> &Hold {
        &self.holds[&contender]
    }

    /// Of all rounds.
    pub(crate) fn median(&self, contender: Contender, measure: Measure) -> f64 {
        median(self.samples[&contender].iter().map(measure))
    }

    /// How many times that of routing.
    pub(crate) fn ratio(&self, contender: Contender, measure: Measure) -> f64 {
        median(self.beside_direct(contender, measure).map(|(own, direct)| own / direct))
    }

    /// How much more than that of routing.
    pub(crate) fn added(&self, contender: Contender, measure: Measure) -> f64 {
        median(self.beside_direct(contender, measure).map(|(own, direct)| own - direct))
    }

    fn beside_direct(&self, contender: Contender, measure: Measure) -> impl Iterator<Item = (f64, f64)> {
        let (own, direct) = (&self.samples[&contender], &self.samples[&Contender::Direct]);
        own.iter().zip(direct).map(move |(own, direct)| (measure(own), measure(direct)))
    }

    /// What went wrong with a contender in all of the run.
    pub(crate) fn errors(&self, contender: Contender) -> BTreeMap<String, u64> {
        let slices = self.samples[&contender].iter().flat_map(|Sample { kept, paced, new }| [kept, paced, new]);
        let mut sum = BTreeMap::new();
        for (kind, count) in slices.map(|slice| &slice.errors).chain([&self.holds[&contender].errors]).flatten() {
            *sum.entry(kind.clone()).or_default() += count;
        }
        sum
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    (values[last / 2] + values[values.len() / 2]) / 2.0
}
