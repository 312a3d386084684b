//! Silences: what somebody knows of already, for a while that ends by itself.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Kind, Subject};

/// What is silenced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Alarms of a kind.
    Kind(Kind),
    /// Alarms of a service and of its backends.
    Service(String),
    /// Alarms of a backend.
    Backend(String, String),
}

/// What nobody is to be told for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// What.
    pub scope: Scope,
    /// From when.
    pub at: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
}

impl Scope {
    /// A kind, SERVICE or SERVICE/BACKEND. A kind comes first: a service of such a name is silenced by its backends.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match (Kind::of(text), text.split_once('/')) {
            (Some(kind), _) => Self::Kind(kind),
            (None, Some((service, backend))) => Self::Backend(service.to_owned(), backend.to_owned()),
            (None, None) => Self::Service(text.to_owned()),
        }
    }

    /// Whether an alarm is meant.
    #[must_use]
    pub fn covers(&self, subject: &Subject) -> bool {
        match self {
            Self::Kind(kind) => subject.kind == *kind,
            Self::Service(service) => subject.service.as_ref() == Some(service),
            Self::Backend(service, backend) => {
                subject.service.as_ref() == Some(service) && subject.backend.as_ref() == Some(backend)
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => f.write_str(kind.word()),
            Self::Service(service) => f.write_str(service),
            Self::Backend(service, backend) => write!(f, "{service}/{backend}"),
        }
    }
}
