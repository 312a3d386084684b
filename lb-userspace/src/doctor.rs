//! What would stop this from working here: a look at the kernel, the interfaces and the way to every backend.
//!
//! Each look is two steps: what the system says is read into plain values, and a pure function judges them. A finding
//! says what is there, why it matters, and the command that puts it right.

mod host;
mod interface;
mod service;
mod system;

use serde::Serialize;

use crate::config::Config;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It may hurt.
    Warning,
    /// It does not work like this.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Of what: "kernel", "eth0", "web/web-01".
    pub subject: String,
    /// What is there.
    pub found: String,
    /// Why that matters; nothing when all is well.
    pub why: Option<String>,
    /// The command that puts it right, if one does.
    pub fix: Option<String>,
}

impl Finding {
    fn ok(subject: &str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), found: found.into(), why: None, fix: None }
    }

    fn warning(subject: &str, found: impl Into<String>, why: &str) -> Self {
        Self { level: Level::Warning, why: Some(why.into()), ..Self::ok(subject, found) }
    }

    fn problem(subject: &str, found: impl Into<String>, why: &str) -> Self {
        Self { level: Level::Problem, ..Self::warning(subject, found, why) }
    }

    fn fixed_by(self, command: impl Into<String>) -> Self {
        Self { fix: Some(command.into()), ..self }
    }
}

/// Looks at everything that the configuration needs.
pub fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = host::examine(&config.global);
    for name in &config.global.interfaces {
        findings.extend(interface::examine(name, &config.global));
    }
    for service in &config.services {
        findings.extend(service::examine(service, &config.global));
    }
    findings
}
