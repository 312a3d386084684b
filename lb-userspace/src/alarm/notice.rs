//! What somebody is told.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Kind, Severity};

/// What an alarm is about, and of whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// What it is about.
    #[serde(rename = "alarm")]
    pub kind: Kind,
    /// The service, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Its backend, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does.
    Firing,
    /// It is over.
    Resolved,
    /// Nothing has happened: somebody tries whether this arrives.
    Test,
}

/// One message about one alarm: the body of a webhook, and what a program reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Whether the alarm goes on.
    pub status: Status,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// How bad it is.
    pub severity: Severity,
    /// In a sentence.
    pub summary: String,
    /// Since when.
    pub since: Timestamp,
    /// When it was noticed, or, at its end, when that was.
    pub at: Timestamp,
    /// Whether this was told before.
    pub repeated: bool,
}

impl Subject {
    /// Of the daemon as a whole.
    #[must_use]
    pub const fn of_daemon(kind: Kind) -> Self {
        Self { kind, service: None, backend: None }
    }

    /// Of a service.
    #[must_use]
    pub fn of_service(kind: Kind, service: &str) -> Self {
        Self { kind, service: Some(service.to_owned()), backend: None }
    }

    /// Of a backend.
    #[must_use]
    pub fn of_backend(kind: Kind, service: &str, backend: &str) -> Self {
        Self { kind, service: Some(service.to_owned()), backend: Some(backend.to_owned()) }
    }

    /// Whom it is about: "web/web-01", "web", or "lb" for the daemon as a whole.
    #[must_use]
    pub fn whom(&self) -> String {
        match (&self.service, &self.backend) {
            (Some(service), Some(backend)) => format!("{service}/{backend}"),
            (Some(service), None) => service.clone(),
            (None, _) => "lb".into(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.whom())
    }
}

impl Status {
    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}
