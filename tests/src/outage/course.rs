//! What a day was like: what visitors got, what the servers needed, what happened when.

use std::{collections::BTreeMap, time::Duration};

use crate::visitors::Request;

/// The picture has so many points, and the printed timeline a line for every fifth.
const POINTS: u32 = 100;
const LINE: u32 = 5;

/// A day from its first to its last request.
#[derive(Clone, Debug, Default)]
pub struct Course {
    /// How long it was.
    pub day: Duration,
    /// Requests that visitors sent.
    pub sent: u64,
    /// Those that failed.
    pub failed: u64,
    /// Why, and how many.
    pub reasons: BTreeMap<String, u64>,
    /// Every hundredth of the day.
    pub moments: Vec<Moment>,
    /// What happened when.
    pub events: Vec<(Duration, String)>,
    /// When web-02 was detached.
    pub detached: Option<Duration>,
    /// When that should have been over.
    pub time_up: Option<Duration>,
    /// When the alarm about it was received, if it was.
    pub alarm: Option<Duration>,
}

/// A part of the day that ends at a moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Its end.
    pub at: Duration,
    /// Requests of that part.
    pub sent: u64,
    /// Those that failed.
    pub failed: u64,
    /// What each server had of its memory at the end, from 0 to 1.
    pub memory: Vec<f64>,
}

/// What is seen while it happens.
#[derive(Clone, Debug)]
pub enum Scene<'a> {
    /// How it goes: requests are those that were over.
    Moment(&'a Moment),
    /// Something happened.
    Event(Duration, &'a str),
}

impl Course {
    /// The share of all requests that failed.
    #[must_use]
    pub fn failed_share(&self) -> f64 {
        share(self.failed, self.sent)
    }

    /// Seconds from the end of the detachment's time to the alarm about it; negative when it came before.
    #[must_use]
    pub fn alarm_seconds(&self) -> Option<f64> {
        Some(self.alarm?.as_secs_f64() - self.time_up?.as_secs_f64())
    }

    /// When the share of failed requests first exceeded one in a hundred, if it did.
    #[must_use]
    pub fn first_trouble(&self) -> Option<Duration> {
        self.moments.iter().find(|moment| moment.failed_share() > 0.01).map(|moment| moment.at)
    }
}

impl Moment {
    /// The share of its requests that failed.
    #[must_use]
    pub fn failed_share(&self) -> f64 {
        share(self.failed, self.sent)
    }
}

fn share(failed: u64, sent: u64) -> f64 {
    if sent == 0 { 0.0 } else { failed as f64 / sent as f64 }
}

/// Writes a day down while it passes.
pub(super) struct Recorder<'a> {
    day: Duration,
    limits: Vec<u64>,
    moments: Vec<Moment>,
    events: Vec<(Duration, String)>,
    /// Requests that were over at the last line, and those of them that had failed.
    told: (u64, u64),
    watch: &'a mut dyn FnMut(&Scene),
}

impl<'a> Recorder<'a> {
    pub(super) fn new(day: Duration, limits: Vec<u64>, watch: &'a mut dyn FnMut(&Scene)) -> Self {
        Self { day, limits, moments: Vec::new(), events: Vec::new(), told: (0, 0), watch }
    }

    pub(super) fn event(&mut self, at: Duration, words: String) {
        (self.watch)(&Scene::Event(at, &words));
        self.events.push((at, words));
    }

    /// Takes down what it is like, when it is time for it: bytes that each server has, and how many requests are
    /// over so far, and how many of them failed.
    pub(super) fn tick(&mut self, at: Duration, memory: &[u64], over: impl FnOnce() -> (u64, u64)) {
        let next = self.day / POINTS * (self.moments.len() as u32 + 1);
        if at < next {
            return;
        }
        let memory: Vec<_> =
            memory.iter().zip(&self.limits).map(|(used, limit)| *used as f64 / *limit as f64).collect();
        let mut moment = Moment { at, memory, ..Moment::default() };
        self.moments.push(moment.clone());
        if (self.moments.len() as u32).is_multiple_of(LINE) {
            let over = over();
            (moment.sent, moment.failed) = (over.0 - self.told.0, over.1 - self.told.1);
            self.told = over;
            (self.watch)(&Scene::Moment(&moment));
        }
    }

    /// The whole day, each request where it was sent.
    pub(super) fn finish(mut self, requests: &[Request]) -> Course {
        let mut reasons = BTreeMap::new();
        for request in requests {
            let index = self.moments.partition_point(|moment| moment.at < request.began);
            let mut of = self.moments.get_mut(index);
            if let Some(moment) = &mut of {
                moment.sent += 1;
            }
            if let Some(reason) = &request.failure {
                *reasons.entry(reason.clone()).or_default() += 1;
                if let Some(moment) = of {
                    moment.failed += 1;
                }
            }
        }
        self.events.sort_by_key(|(at, _)| *at);
        let Self { day, moments, events, .. } = self;
        let failed = reasons.values().sum();
        let sent = requests.len() as u64;
        Course { day, sent, failed, reasons, moments, events, detached: None, time_up: None, alarm: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_where_it_was_sent_and_the_share_is_of_all() {
        let second = Duration::from_secs(1);
        let request = |began: f64, failed: bool| Request {
            began: second.mul_f64(began),
            failure: failed.then(|| "status 500".to_owned()),
        };
        let mut lines = 0;
        let mut watch = |_: &Scene| lines += 1;
        let mut recorder = Recorder::new(second * 100, vec![200], &mut watch);
        for at in 1..=10 {
            recorder.tick(second * at, &[100], || (0, 0));
        }
        let course = recorder.finish(&[request(0.5, false), request(2.5, true), request(2.6, false)]);
        assert_eq!((course.sent, course.failed), (3, 1));
        assert_eq!((course.moments[2].sent, course.moments[2].failed), (2, 1));
        assert_eq!(course.moments[2].memory, [0.5]);
        assert_eq!(course.first_trouble(), Some(second * 3));
        assert_eq!(course.reasons["status 500"], 1);
        assert_eq!(lines, 2);
    }
}
