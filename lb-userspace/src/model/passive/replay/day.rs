//! A day's requests: few at night, more from hour to hour, many in the evening.

use super::Millis;

/// Parts of the day, and how busy it is then; in between, on a straight line.
const LOAD: [(f64, f64); 5] = [(0.0, 0.3), (0.2, 0.3), (0.5, 1.0), (0.85, 1.0), (1.0, 0.4)];
/// From page to page of a visitor, and until one who has left is forgotten, as parts of the day.
const THINK: f64 = 0.02;
const IDLE: f64 = 0.08;
/// Pages that a visitor views.
const VIEWS: u32 = 3;

/// How long until a visitor who has left is forgotten.
pub(super) fn idle(day: Millis) -> Millis {
    (day as f64 * IDLE) as Millis
}

/// Pages that are remembered at the peak, by all servers together.
pub(super) fn pages_at_peak(clients: u32) -> f64 {
    f64::from(clients) * (IDLE + THINK) / THINK
}

/// Who asks when, in order, with so many visitors at a time at the peak.
pub(super) fn requests(day: Millis, clients: u32) -> Vec<(Millis, u64)> {
    let length = day as f64;
    let at_peak = f64::from(clients) / (THINK * length) / f64::from(VIEWS);
    let mut requests = Vec::new();
    let (mut at, mut visitor) = (0.0, 0);
    loop {
        at += 1.0 / (at_peak * load(at / length));
        if at >= length {
            break;
        }
        visitor += 1;
        requests.extend((0..VIEWS).map(|view| ((at + THINK * length * f64::from(view)) as Millis, visitor)));
    }
    requests.sort_unstable();
    requests
}

fn load(part: f64) -> f64 {
    LOAD.windows(2).find(|segment| part <= segment[1].0).map_or(LOAD[LOAD.len() - 1].1, |segment| {
        let ((from, low), (to, high)) = (segment[0], segment[1]);
        low + (high - low) * (part - from) / (to - from)
    })
}
