//! Metrics: everything that is counted, at one moment, as OpenMetrics.
//!
//! What packets count comes out of the maps, and so goes on counting over a restart of the daemon; what removed backends
//! had counted stays in the sums of their service, as the backend `(removed)`. What the daemon itself counts begins with it.

mod classic;
mod families;
mod process;
mod tallies;

use jiff::Timestamp;
use prometheus_client::{collector::Collector, encoding::text, registry::Registry};

pub use self::tallies::{BackendTally, Durations, Tallies};
use crate::{
    alarm::Tally,
    api::types::{AlarmStatus, ChecksStatus, ServiceStatus, SilenceStatus},
    dataplane::{Attachment, Snapshot},
};

/// The media type of [`Scrape::openmetrics`].
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The media type of [`Scrape::classic`].
pub const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is exported, at one moment.
#[derive(Debug)]
pub struct Scrape {
    /// What the maps count.
    pub snapshot: Snapshot,
    /// Where the program is attached.
    pub attachments: Vec<Attachment>,
    /// What the daemon knows and counts.
    pub overview: Overview,
}

/// What the daemon knows and counts.
#[derive(Clone, Debug)]
pub struct Overview {
    /// Where every service stands.
    pub services: Vec<ServiceStatus>,
    /// How the checks are doing.
    pub checks: ChecksStatus,
    /// What the daemon counts.
    pub tallies: Tallies,
    /// Where the program is to be attached.
    pub interfaces: Vec<String>,
    /// What fires.
    pub alarms: Vec<AlarmStatus>,
    /// What is silenced.
    pub silences: Vec<SilenceStatus>,
    /// How those fare who carry alarms, by name.
    pub couriers: Vec<(String, Tally)>,
    /// Whether the maps say what the model says.
    pub maps_current: bool,
    /// The moment.
    pub at: Timestamp,
}

impl Scrape {
    /// As OpenMetrics 1.0.
    #[must_use]
    pub fn openmetrics(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self) as Box<dyn Collector>);
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("a string takes whatever is written");
        text
    }

    /// In the text format of Prometheus, which was there before, and which is what tools read that ask for nothing.
    #[must_use]
    pub fn classic(self) -> String {
        classic::from_openmetrics(&self.openmetrics())
    }
}

#[cfg(test)]
pub(crate) mod tests;
