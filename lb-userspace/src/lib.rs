//! The controller, the control API and the command line of `lb`.
//!
//! Three ways lead through here. Configuration: [`config`] or [`api`] -> [`model`] -> [`plan`] -> [`dataplane`].
//! Health: [`probe`] -> [`health`] -> [`model`] and on as before. Counters: [`dataplane`] -> [`status`] or [`cli`].
//! [`controller`] is where they meet; [`config`], [`health`] and [`model`] are pure. What happened is in the [`journal`].

pub mod agent;
pub mod alarm;
pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod controller;
pub mod daemon;
pub mod dataplane;
pub mod doctor;
mod exchange;
pub mod health;
pub mod http;
pub mod interface;
pub mod journal;
pub mod judge;
pub mod metrics;
pub mod model;
pub mod nexthop;
pub mod notify;
pub mod plan;
pub mod privileges;
pub mod probe;
pub mod state;
pub mod status;
