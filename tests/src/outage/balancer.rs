//! What stands between the visitors and the two servers, as far as the day is concerned.

use std::time::{Duration, Instant};

use anyhow::Result;

/// A balancer whose operator forgets things.
pub(super) trait Balancer {
    /// Takes web-02 out of rotation for a test that is meant to take `period`. Returns the words for it.
    fn detach(&mut self, period: Duration) -> Result<String>;

    /// What it has said to its operator since the last time.
    fn news(&mut self) -> Result<Vec<(Instant, String)>>;

    /// When the first alarm about redundancy was received after web-02 had been detached.
    fn alarm_after(&self, detached: Instant) -> Option<Instant>;
}
