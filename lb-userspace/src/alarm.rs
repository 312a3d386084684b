//! Alarms: what nobody may have to remember to look at.
//!
//! Facts (a value, made of the model once a second) -> `rules` -> conditions -> [`Engine`] -> notices -> couriers, which
//! carry them to the log, to webhooks and to programs. Rules and engine are pure: functions of facts and time. What
//! fires, who has been told of it, what is silenced and what is not delivered yet survives the daemon in
//! `alarms.json`, so that nobody is paged twice for the same thing, and whoever was paged hears of the end.

pub mod courier;
mod desk;
mod engine;
mod exec;
mod facts;
mod kind;
mod notice;
mod rules;
mod silence;
mod store;
mod webhook;

pub use desk::{Desk, Tally, check};
pub use engine::{Active, Engine, Step, Target, Told};
pub use facts::{BackendFacts, Facts, ServiceFacts, TableFacts};
pub use kind::{Kind, Severity};
pub use notice::{Notice, Status, Subject};
pub use rules::{Condition, conditions, is_notable};
pub use silence::{Scope, Silence};

/// Nobody needs nanoseconds.
fn whole_second(at: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(at.as_second()).unwrap_or(at)
}
