//! The lab: a client, a front node and web servers in network namespaces of their own, joined by veth pairs.
//!
//! It drives the `lb` binary as its users do, through the configuration file, the command line and packets; it knows
//! nothing of the inside. The end-to-end tests and `cargo xtask run` stand on it.
//!
//! What is always true: nothing outside the lab's namespaces carries traffic; everything a lab makes bears its
//! name, so labs run side by side; and everything is removed when the [`Lab`] is dropped, when the process is
//! interrupted, or, after SIGKILL, when the next lab starts.
//!
//! ```no_run
//! use lab::{Daemon, Family, Lab, Layout, Nginx, Service};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::new(&Layout::default())?;
//! let _servers = Nginx::start_all(&lab)?;
//! let daemon = Daemon::start(&lab, &[Service::web(&lab, Family::V4)])?;
//! let tally = lab.client().curl(Lab::VIP.url(Family::V4), 100)?;
//! assert_eq!(tally.answers["web-01"], 50);
//! println!("{}", daemon.status()?);
//! # Ok(())
//! # }
//! ```

mod agent;
mod cgroup;
mod client;
mod config;
mod crowd;
mod daemon;
mod datagram;
mod eater;
mod eventually;
mod flood;
mod hook;
mod http;
mod icmp;
mod identity;
mod interrupt;
mod load;
mod machine;
mod nginx;
mod node;
mod outage;
mod paced;
mod pass;
pub mod peers;
mod process;
mod server;
pub mod site;
mod stream;
mod test;
mod topology;
mod transfer;
mod udp;
mod visitors;
mod webhook;
mod wiring;

pub use agent::Agent;
pub use cgroup::Cgroup;
pub use client::{Client, Tally};
pub use config::{Health, Service, configuration, unjudging};
pub use crowd::{Crowd, CrowdReport};
pub use daemon::{Daemon, Outcome, backend, lb_binary, rebuilt_binary};
pub use datagram::{Segment, checksum, packet};
pub use eater::Eater;
pub use eventually::eventually;
pub use flood::Flood;
pub use hook::{Hook, Post};
pub use http::{Answer, Connection};
pub use icmp::{IcmpError, IcmpListener};
pub use identity::clean_leftovers;
pub use load::{Failure, Load, Progress};
pub use machine::machine;
pub use nginx::Nginx;
pub use node::{Family, Node};
pub use outage::{Course, DETACHED_AT, Day, Moment, PATIENCE, Replay, Scene};
pub use paced::Paced;
pub use process::{Process, run};
pub use server::Server;
pub use stream::Stream;
pub use test::test;
pub use topology::{Address, Front, Lab, Layout, Router, is_root};
pub use transfer::{curl, transfer};
pub use udp::UdpEcho;
pub use visitors::{AGAIN, VIEWS};
pub use webhook::{Delivery, Webhook};

/// What `lb -o json` prints.
pub use serde_json::Value as Json;
