//! What an alarm can be about.

use serde::{Deserialize, Serialize};

/// What an alarm is about; in the configuration under `on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// No backend of a service takes new flows.
    NoneHealthy,
    /// One backend of several is left, or fewer than `min_healthy`, and not because an operator planned it.
    RedundancyLost,
    /// Checks of a backend fail, or there is no way to it.
    BackendDown,
    /// A backend has been out of rotation for too long, or for longer than its operator said.
    OutOfRotation,
    /// The traffic itself says that a backend fails its clients, and it is in rotation all the same; or that most of a service do, together or
    /// in turn.
    Failing,
    /// For what its traffic says a backend is out of rotation.
    Ejected,
    /// The flow table or the source ports towards a backend are nearly used up.
    TablePressure,
    /// The configuration file was to be read again and could not be taken over.
    ReloadFailed,
    /// Checks have gone silent: nobody watches.
    ProbeLoopStopped,
    /// Somebody else changed the maps; they were repaired.
    MapDrift,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Users are served, with less between them and an outage.
    Warning,
    /// Users are not served, or the next failure is an outage.
    Critical,
}

impl Kind {
    /// Every kind, the worst first.
    pub const ALL: [Self; 10] = [
        Self::NoneHealthy,
        Self::Failing,
        Self::RedundancyLost,
        Self::BackendDown,
        Self::OutOfRotation,
        Self::Ejected,
        Self::TablePressure,
        Self::ReloadFailed,
        Self::ProbeLoopStopped,
        Self::MapDrift,
    ];

    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NoneHealthy => "none-healthy",
            Self::RedundancyLost => "redundancy-lost",
            Self::BackendDown => "backend-down",
            Self::OutOfRotation => "out-of-rotation",
            Self::Failing => "failing",
            Self::Ejected => "ejected",
            Self::TablePressure => "table-pressure",
            Self::ReloadFailed => "reload-failed",
            Self::ProbeLoopStopped => "probe-loop-stopped",
            Self::MapDrift => "map-drift",
        }
    }

    /// The kind of a word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::NoneHealthy | Self::Failing | Self::RedundancyLost | Self::TablePressure | Self::ProbeLoopStopped => {
                Severity::Critical
            }
            Self::BackendDown | Self::OutOfRotation | Self::Ejected | Self::ReloadFailed | Self::MapDrift => {
                Severity::Warning
            }
        }
    }
}

impl Severity {
    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_written_as_it_is_read() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
            assert_eq!(Kind::of(kind.word()), Some(kind));
        }
    }
}
