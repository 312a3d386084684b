//! A day's visitors: few at night, more from hour to hour, many in the evening.

use std::time::Duration;

/// Parts of the day, and how busy it is then; in between, on a straight line.
const LOAD: [(f64, f64); 5] = [(0.0, 0.3), (0.2, 0.3), (0.5, 1.0), (0.85, 1.0), (1.0, 0.4)];

/// From page to page of a visitor, as a part of the day.
const THINK: f64 = 0.02;
/// Until a visitor who has left is forgotten.
const IDLE: f64 = 0.08;

/// A day of some length, with so many visitors on the site at a time at its peak.
#[derive(Clone, Copy, Debug)]
pub struct Day {
    length: Duration,
    clients: u32,
}

impl Day {
    /// Of a length, with so many visitors at the same time at the peak.
    #[must_use]
    pub fn new(length: Duration, clients: u32) -> Self {
        Self { length, clients }
    }

    /// Between two pages of a visitor.
    #[must_use]
    pub fn think(self) -> Duration {
        self.length.mul_f64(THINK)
    }

    /// Until a visitor who has left is forgotten.
    #[must_use]
    pub fn idle(self) -> Duration {
        self.length.mul_f64(IDLE)
    }

    /// Pages that are kept for visitors at the peak who view so many each, by all servers together: a page stays while its visitor
    /// views others, half of them on average, and then for [`Day::idle`].
    #[must_use]
    pub fn pages_remembered_at_peak(self, views: u32) -> f64 {
        let others = f64::from(views - 1) / 2.0;
        f64::from(self.clients) * (IDLE + others * THINK) / THINK
    }

    /// When visitors come who view so many pages each.
    pub fn arrivals(self, views: u32) -> impl Iterator<Item = Duration> + Send + 'static {
        let seconds = self.length.as_secs_f64();
        // A visitor asks for a page in every `THINK`.
        let at_peak = f64::from(self.clients) / (THINK * seconds) / f64::from(views);
        let mut at = 0.0;
        std::iter::from_fn(move || {
            at += 1.0 / (at_peak * load(at / seconds));
            (at < seconds).then(|| Duration::from_secs_f64(at))
        })
    }
}

/// How busy a part of the day is: 1 at the peak.
fn load(part: f64) -> f64 {
    LOAD.windows(2).find(|segment| part <= segment[1].0).map_or(LOAD[LOAD.len() - 1].1, |segment| {
        let ((from, low), (to, high)) = (segment[0], segment[1]);
        low + (high - low) * (part - from) / (to - from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quiet_at_night_and_busy_in_the_evening() {
        for (part, expected) in [(0.0, 0.3), (0.1, 0.3), (0.35, 0.65), (0.7, 1.0), (1.0, 0.4)] {
            assert!((load(part) - expected).abs() < 1e-9, "{part}: {}", load(part));
        }
    }

    #[test]
    fn as_many_come_at_the_peak_as_clients_are_there() {
        let day = Day::new(Duration::from_secs(40), 120);
        let peak = Duration::from_secs(24)..Duration::from_secs(32);
        let came = day.arrivals(3).filter(|at| peak.contains(at)).count();
        // 120 clients ask for a page every 0.8 s: 150 requests a second, of 50 visitors.
        assert!((395..=405).contains(&came), "{came} in 8 s");
        assert!(day.arrivals(3).is_sorted());
    }
}
