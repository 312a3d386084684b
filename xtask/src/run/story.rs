//! What the demonstration shows, stage after stage, and whether it went as it should.

use std::time::{Duration, Instant};

use lab::{Failure, Progress};

/// Where the story is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Both servers are in rotation.
    Balanced,
    /// web-01 is dead and `lb` does not know yet.
    Failing,
    /// web-01 is out of rotation.
    Without,
    /// web-01 is alive and `lb` does not trust it yet.
    Recovering,
}

/// The stages so far, the last one still going on.
pub(crate) struct Story(Vec<Part>);

/// A stage that took place.
struct Part {
    stage: Stage,
    from: Instant,
    /// Answers of web-01 and web-02 before it.
    before: [u64; 2],
    /// Its end, and the answers up to there.
    end: Option<(Instant, [u64; 2])>,
}

/// The servers of the story; the first one is its victim.
pub(crate) const SERVERS: [&str; 2] = ["web-01", "web-02"];

/// Longer than a request takes here.
const GRACE: Duration = Duration::from_millis(200);

impl Story {
    pub(crate) fn begin(progress: &Progress) -> Self {
        let mut story = Self(Vec::new());
        story.enter(Stage::Balanced, progress);
        story
    }

    pub(crate) fn stage(&self) -> Stage {
        self.0.last().map_or(Stage::Balanced, |part| part.stage)
    }

    /// Whether web-01 has died before.
    pub(crate) fn has_failed(&self) -> bool {
        self.parts(Stage::Failing).next().is_some()
    }

    /// How long the stage has been going on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.last().map_or(Duration::ZERO, |part| part.from.elapsed())
    }

    /// Ends the stage that is going on and begins the next one.
    pub(crate) fn enter(&mut self, stage: Stage, progress: &Progress) {
        self.end(progress);
        self.0.push(Part { stage, from: Instant::now(), before: answers(progress), end: None });
    }

    /// Ends the stage that is going on.
    pub(crate) fn end(&mut self, progress: &Progress) {
        if let Some(part) = self.0.last_mut() {
            part.end = Some((Instant::now(), answers(progress)));
        }
    }

    /// How long each stage of a kind took.
    pub(crate) fn durations(&self, stage: Stage) -> impl Iterator<Item = Duration> {
        self.parts(stage).filter_map(|part| Some(part.end?.0 - part.from))
    }

    /// What each answered while both were in rotation.
    pub(crate) fn shares(&self) -> [u64; 2] {
        self.parts(Stage::Balanced).map(Part::answers).fold([0, 0], |sum, part| [sum[0] + part[0], sum[1] + part[1]])
    }

    /// Whether a request met web-01 dead, before any probe could tell.
    pub(crate) fn explains(&self, failure: &Failure) -> bool {
        self.parts(Stage::Failing).any(|part| {
            let until = part.end.map_or_else(Instant::now, |(end, _)| end);
            (part.from - GRACE..=until).contains(&failure.began)
        })
    }

    /// What did not go as it should; `in_flight` requests may be on either side of a border between stages.
    pub(crate) fn objections(&self, in_flight: u64) -> Vec<String> {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        let tolerance = 2 * cpus + in_flight;
        let mut objections = Vec::new();
        for part in &self.0 {
            let [first, second] = part.answers();
            match part.stage {
                Stage::Balanced if first.abs_diff(second) > tolerance => {
                    objections.push(format!("with both in rotation, web-01 answered {first} and web-02 {second}"));
                }
                Stage::Without if first > 0 => {
                    objections.push(format!("web-01 answered {first} while it was out of rotation"));
                }
                Stage::Without if second == 0 => objections.push("web-02 answered nothing while alone".to_owned()),
                _ => {}
            }
        }
        objections
    }

    /// Whether web-01 has died and come back.
    pub(crate) fn is_complete(&self) -> bool {
        self.parts(Stage::Balanced).count() > 1
    }

    fn parts(&self, stage: Stage) -> impl Iterator<Item = &Part> {
        self.0.iter().filter(move |part| part.stage == stage)
    }
}

impl Part {
    fn answers(&self) -> [u64; 2] {
        let (_, after) = self.end.unwrap_or((self.from, self.before));
        [after[0] - self.before[0], after[1] - self.before[1]]
    }
}

fn answers(progress: &Progress) -> [u64; 2] {
    SERVERS.map(|server| progress.tally.of(server))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(first: u64, second: u64) -> Progress {
        let mut progress = Progress::default();
        progress.tally.answers = [("web-01".to_owned(), first), ("web-02".to_owned(), second)].into();
        progress
    }

    fn told(at_stop: (u64, u64), while_out: (u64, u64)) -> Story {
        let mut story = Story::begin(&progress(0, 0));
        story.enter(Stage::Failing, &progress(at_stop.0, at_stop.1));
        story.enter(Stage::Without, &progress(at_stop.0, at_stop.1));
        let (first, second) = (at_stop.0 + while_out.0, at_stop.1 + while_out.1);
        story.enter(Stage::Recovering, &progress(first, second));
        story.enter(Stage::Balanced, &progress(first, second));
        story.end(&progress(first + 1000, second + 1000));
        story
    }

    #[test]
    fn a_story_without_objections_is_balanced_and_spares_the_dead() {
        assert_eq!(told((1000, 1000), (0, 500)).objections(4), Vec::<String>::new());
        assert_eq!(told((1000, 2000), (0, 500)).objections(4).len(), 1);
        assert_eq!(told((1000, 1000), (1, 500)).objections(4).len(), 1);
        assert!(told((1000, 1000), (0, 500)).is_complete());
        assert!(!Story::begin(&progress(0, 0)).is_complete());
    }

    #[test]
    fn only_requests_that_met_the_dead_server_unnoticed_are_explained() {
        let story = told((1, 1), (0, 1));
        let failure = |began| Failure { began, why: String::new() };
        assert!(story.explains(&failure(story.0[1].from)));
        assert!(!story.explains(&failure(Instant::now() + Duration::from_secs(1))));
        assert!(!story.explains(&failure(story.0[1].from - 2 * GRACE)));
    }
}
