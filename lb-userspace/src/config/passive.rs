//! `[service.NAME.passive]`: what the traffic of a backend must say for it to get less of it, or nothing.

use std::{ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{
    check::{Problems, duration, integer},
    document::serialize_duration,
};

/// Beyond a second all handshakes look the same: [`crate::dataplane::Sight`].
const LATENCIES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(1);
/// Between what says anything and what anybody waits for.
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(5 * 60);
const EJECTIONS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// What the traffic of a backend must say for it to get less of it, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Passive {
    /// Whether the traffic is judged at all.
    pub enabled: bool,
    /// More than so many percent of 5xx responses, or of connections without a response where they had one, is too much.
    pub errors: u8,
    /// More than so many percent of connections refused, unanswered or reset is too much, and of handshakes that took longer
    /// than `latency`.
    pub connect_failures: u8,
    /// A handshake that takes longer is slow.
    #[serde(serialize_with = "serialize_duration")]
    pub latency: Duration,
    /// So many times worse than its peers stands out.
    pub factor: u8,
    /// How far back a judgement looks.
    #[serde(serialize_with = "serialize_duration")]
    pub window: Duration,
    /// How long a server is ejected that has been ill for `window`; each further time twice as long, up to 16 times.
    #[serde(serialize_with = "serialize_duration")]
    pub eject_for: Duration,
    /// No more than so many percent of a service's backends are ejected at the same time.
    pub max_ejected: u8,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    enabled: Option<Spanned<bool>>,
    errors: Option<Spanned<i64>>,
    connect_failures: Option<Spanned<i64>>,
    latency: Option<Spanned<String>>,
    factor: Option<Spanned<i64>>,
    window: Option<Spanned<String>>,
    eject_for: Option<Spanned<String>>,
    max_ejected: Option<Spanned<i64>>,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            enabled: true,
            errors: 20,
            connect_failures: 20,
            latency: Duration::from_secs(1),
            factor: 3,
            window: Duration::from_secs(10),
            eject_for: Duration::from_secs(30),
            max_ejected: 50,
        }
    }
}

pub(super) fn check(raw: Raw, problems: &mut Problems) -> Passive {
    let default = Passive::default();
    Passive {
        enabled: raw.enabled.map_or(default.enabled, Spanned::into_inner),
        errors: integer(raw.errors.as_ref(), "errors", 1..=100, default.errors, problems),
        connect_failures: integer(
            raw.connect_failures.as_ref(),
            "connect_failures",
            1..=100,
            default.connect_failures,
            problems,
        ),
        latency: duration(raw.latency, LATENCIES, default.latency, problems),
        factor: integer(raw.factor.as_ref(), "factor", 2..=100, default.factor, problems),
        window: duration(raw.window, WINDOWS, default.window, problems),
        eject_for: duration(raw.eject_for, EJECTIONS, default.eject_for, problems),
        max_ejected: integer(raw.max_ejected.as_ref(), "max_ejected", 0..=100, default.max_ejected, problems),
    }
}
