//! The outage, again: two servers, one of them taken out of rotation for a test and forgotten, and a day's load that needs
//! both.
//!
//! The day is as long as one likes; everything in it scales: when visitors come, how long they are remembered, what a
//! page takes. So one server can carry two thirds of the peak, however long the day and however many the visitors.
//! What is told of a day was counted by its visitors or read from the kernel.

mod balancer;
mod course;
mod day;
mod historical;
mod servers;
mod watched;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use self::{balancer::Balancer, course::Recorder, historical::Historical, servers::Servers, watched::Watched};
pub use self::{
    course::{Course, Moment, Scene},
    day::Day,
};
use crate::{
    Family, Lab,
    site::Failure,
    visitors::{Habit, Visitors},
};

/// When web-02 is detached, as a part of the day.
pub const DETACHED_AT: f64 = 0.15;

/// How long a visitor waits for a page.
pub const PATIENCE: Duration = Duration::from_secs(2);

const TICK: Duration = Duration::from_millis(100);

/// What is replayed.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The program that is the site.
    pub site: PathBuf,
    /// What it does when it runs out of memory.
    pub failure: Failure,
    /// Visitors on the site at the same time, at the peak.
    pub clients: u32,
    /// How long the day is.
    pub day: Duration,
    /// The time that web-02's detachment is given; where nobody keeps time, it stays out.
    pub detached_for: Duration,
    /// How many pages a visitor views.
    pub views: u32,
    /// Whether visitors keep their connection from page to page.
    pub keep_alive: bool,
    /// Whether visitors who get no page ask for it once more; that is another request.
    pub retries: bool,
    /// Set by whoever wants it to end at once.
    pub interrupted: Arc<AtomicBool>,
}

impl Replay {
    /// As it was: nginx spreads connections, and nobody watches.
    pub fn historical(&self, lab: &Lab, watch: &mut dyn FnMut(&Scene)) -> Result<Course> {
        let servers = Servers::start(lab, self)?;
        self.play(lab, &servers, Historical::start(lab)?, watch)
    }

    /// The same day with `lb`.
    pub fn with_lb(&self, lab: &Lab, watch: &mut dyn FnMut(&Scene)) -> Result<Course> {
        let servers = Servers::start(lab, self)?;
        self.play(lab, &servers, Watched::start(lab)?, watch)
    }

    fn play(
        &self,
        lab: &Lab,
        servers: &Servers,
        mut balancer: impl Balancer,
        watch: &mut dyn FnMut(&Scene),
    ) -> Result<Course> {
        let day = self.load();
        let habit = Habit {
            views: self.views,
            keeps: self.keep_alive,
            think: day.think(),
            patience: PATIENCE,
            retries: self.retries,
        };
        let began = Instant::now();
        let visitors =
            Visitors::start(lab.client().node(), Lab::VIP.socket(Family::V4), habit, began, day.arrivals(self.views));
        let mut recorder = Recorder::new(self.day, servers.limits(), watch);
        let mut detached = None;
        while began.elapsed() < self.day {
            if self.interrupted.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            thread::sleep(TICK);
            if detached.is_none() && began.elapsed() >= self.day.mul_f64(DETACHED_AT) {
                let at = began.elapsed();
                let words = balancer.detach(self.detached_for)?;
                recorder.event(at, words);
                detached = Some(at);
            }
            for (at, words) in balancer.news()? {
                recorder.event(at.saturating_duration_since(began), words);
            }
            recorder.tick(began.elapsed(), &servers.memory()?, || visitors.so_far());
        }
        let mut course = recorder.finish(&visitors.finish());
        course.detached = detached;
        course.time_up = detached.map(|at| at + self.detached_for).filter(|at| *at < self.day);
        course.alarm = detached.and_then(|at| Some(balancer.alarm_after(began + at)? - began));
        Ok(course)
    }

    fn load(&self) -> Day {
        Day::new(self.day, self.clients)
    }
}
