//! The configuration file: TOML in, checked values out.
//!
//! A [`Config`] that exists is valid: every rule that can be checked without looking at the machine has been. What the
//! file gets wrong is reported all at once, each mistake with its line, column and a caret. The model and everything
//! after it rely on these values and check nothing again.

mod address;
mod alarm;
mod check;
pub mod document;
mod error;
mod expect;
mod passive;
mod raw;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

pub use address::{AddressError, parse_backend};
pub use alarm::{AlarmRules, AlarmTarget, Alarms, Channel, Secret, Webhook};
pub(crate) use check::check_pair;
pub use check::{NameError, check_name};
pub use error::{Error, Problem};
pub use expect::StatusRanges;
pub use passive::Passive;
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    config::error::Source,
    dataplane::XdpMode,
    plan::{Algorithm, Forward, Protocol},
};

/// Where `lb run` looks for its configuration.
pub const DEFAULT_PATH: &str = "/etc/lb/lb.toml";
/// Where the control API listens.
pub const DEFAULT_SOCKET: &str = "/run/lb/lb.sock";
/// Where run-time changes are kept.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/lb";
/// Where maps and links are pinned.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/lb";
/// How long a backend that is taken out stays out, where nobody says.
pub const DEFAULT_DETACHED_FOR: Duration = Duration::from_secs(60 * 60);
/// How long it may stay out at most.
pub const LONGEST_DETACHMENT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Where `lb agent` is asked.
pub const DEFAULT_AGENT_PORT: u16 = 9634;
/// Where metrics are served.
pub const DEFAULT_HTTP: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9633));
/// Capacity of the flow table.
pub const DEFAULT_FLOWS: u32 = 1 << 20;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What concerns the daemon as a whole.
    pub global: Global,
    /// When something is an alarm, and who is told.
    pub alarms: Alarms,
    /// Ordered by name.
    pub services: Vec<Service>,
    source: Source,
    interface_spans: Vec<Range<usize>>,
}

/// `[global]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Global {
    /// Where XDP attaches; at least one, no name twice.
    pub interfaces: Vec<String>,
    /// How it attaches.
    pub xdp_mode: XdpMode,
    /// The socket of the control API; absolute.
    pub socket: PathBuf,
    /// Where run-time changes are kept; absolute.
    pub state_dir: PathBuf,
    /// Where maps and links are pinned; absolute.
    pub pin_dir: PathBuf,
    /// Capacity of the flow table.
    pub flows: u32,
    /// How long a backend that is taken out stays out, where neither the operator nor its service says.
    #[serde(serialize_with = "document::serialize_duration")]
    pub detached_for: Duration,
    /// Where metrics, readiness and the status page are served; nowhere, when absent.
    #[serde(serialize_with = "or_off")]
    pub http: Option<SocketAddr>,
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn or_off<S: Serializer>(http: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match http {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_str("off"),
    }
}

/// `[service.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The key of the table.
    pub name: String,
    /// The virtual address; with the protocol, unique among the services.
    pub listen: SocketAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// How a new flow finds its backend.
    pub algorithm: Algorithm,
    /// How a packet reaches its backend.
    pub forward: Forward,
    /// Fewer backends in rotation than this is an alarm.
    pub min_healthy: usize,
    /// What becomes of new flows when no backend is in rotation.
    pub fail: Fail,
    /// How long a backend that joins others takes to get to its whole share.
    pub slow_start: Option<Duration>,
    /// How long a backend that is taken out stays out, where the operator does not say.
    pub detached_for: Option<Duration>,
    /// What becomes of a backend whose time out is up.
    pub after_detachment: AfterDetachment,
    /// When a backend that was taken out is called back before its time.
    pub recall: Recall,
    /// How backends are checked.
    pub health: HealthCheck,
    /// How agents beside the checks are asked, if there are any.
    pub agent: Option<AgentCheck>,
    /// What the traffic of a backend must say for it to get less of it.
    pub passive: Passive,
    /// At least one; names and addresses are unique.
    pub backends: Vec<Backend>,
}

/// What becomes of new flows when no backend is in rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fail {
    /// They fail.
    #[default]
    Closed,
    /// Every backend that an operator has not taken out gets its share: a check that is wrong does no harm then.
    Open,
}

/// What becomes of a backend that an operator took out when its time is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterDetachment {
    /// It returns as soon as it is healthy.
    #[default]
    Return,
    /// It stays out, and the alarm repeats until somebody acts.
    Alarm,
}

/// When a healthy backend that an operator took out is called back before its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Recall {
    /// Never.
    Never,
    /// When no other is in rotation any more.
    Last,
    /// Also when another that is to serve is out of rotation, fails checks, or is at the limit of what it can take.
    #[default]
    Pressure,
}

/// `[service.NAME.health]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked of a backend.
    pub probe: Probe,
    /// From one check to the next.
    pub interval: Duration,
    /// A check that has no answer by then has failed.
    pub timeout: Duration,
    /// Checks in a row that must pass before a backend is up again.
    pub rise: u32,
    /// Checks in a row that must fail before a backend is down.
    pub fall: u32,
    /// Where the check connects, when not where the service does.
    pub port: Option<u16>,
    /// From one check to the next while the results contradict what is known; half of `interval` when absent.
    pub fast_interval: Option<Duration>,
    /// By how many percent an interval is longer or shorter, at random.
    pub jitter: u8,
}

impl HealthCheck {
    /// From one check to the next; `settled` says whether it is up without a doubt. All else is looked into at twice the pace: a server
    /// that fails costs requests until it is known, and one that is well again is missed.
    #[must_use]
    pub fn pace(&self, settled: bool) -> Duration {
        if settled { self.interval } else { self.fast_interval.unwrap_or(self.interval / 2) }
    }
}

/// `[service.NAME.agent]`: an agent on each server, which says how much more the server can take, whatever its check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCheck {
    /// Where it is asked.
    pub port: u16,
    /// From one time to the next.
    pub interval: Duration,
    /// An agent that has not answered by then was not heard.
    pub timeout: Duration,
    /// What it is told first.
    pub send: String,
}

/// What is asked of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nothing: it counts as up.
    None,
    /// That it accepts a connection.
    Tcp,
    /// That nothing says that its port is closed and, where an answer is expected, that it comes.
    Udp {
        /// What it is told.
        send: String,
        /// A text that the answer must contain; when absent, none need come.
        body: Option<String>,
    },
    /// That it answers GET as wanted.
    Http(HttpCheck),
    /// The same over TLS.
    Https(HttpCheck, TlsCheck),
    /// That its agent says so: a line in the words of HAProxy's agent-check.
    Agent {
        /// What the agent is told first.
        send: String,
    },
}

impl Probe {
    /// As it is written.
    pub fn word(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tcp => "tcp",
            Self::Udp { .. } => "udp",
            Self::Http(_) => "http",
            Self::Https(..) => "https",
            Self::Agent { .. } => "agent",
        }
    }
}

/// How GET is to be answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpCheck {
    /// Path and query.
    pub path: String,
    /// The statuses that pass.
    pub expect: StatusRanges,
    /// The Host header; the backend's address when absent.
    pub host: Option<String>,
    /// A text that the answer must contain.
    pub body: Option<String>,
}

/// Whom to take for the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsCheck {
    /// The name in its certificate; when absent the Host header, or else the backend's address.
    pub server_name: Option<String>,
    /// The authorities to trust; when absent those of the system.
    pub ca_file: Option<PathBuf>,
    /// Whether anybody is taken for the server.
    pub insecure_skip_verify: bool,
}

/// `[[service.NAME.backend]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The address when the file gives no name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of new flows; 0 takes none.
    pub weight: u16,
    /// Where its check connects, when not where those of the other backends do.
    pub health_port: Option<u16>,
    /// Where its agent is asked, when not where those of the other backends are.
    pub agent_port: Option<u16>,
    /// Whether it serves only while no other does.
    pub backup: bool,
    /// With so many connections it gets no new one.
    pub max_connections: Option<u32>,
}

impl Backend {
    /// One of which only this is said.
    pub fn new(name: impl Into<String>, address: SocketAddr, weight: u16) -> Self {
        let name = name.into();
        Self { name, address, weight, health_port: None, agent_port: None, backup: false, max_connections: None }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            probe: Probe::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            port: None,
            fast_interval: None,
            jitter: 10,
        }
    }
}

impl Service {
    /// One of which only this is said; without backends.
    pub fn new(name: impl Into<String>, listen: SocketAddr) -> Self {
        Self {
            name: name.into(),
            listen,
            protocol: Protocol::default(),
            algorithm: Algorithm::default(),
            forward: Forward::default(),
            min_healthy: 1,
            fail: Fail::default(),
            slow_start: None,
            detached_for: None,
            after_detachment: AfterDetachment::default(),
            recall: Recall::default(),
            health: HealthCheck::default(),
            agent: None,
            passive: Passive::default(),
            backends: Vec::new(),
        }
    }

    /// Whether both would take the same packets.
    pub fn listens_like(&self, other: &Self) -> bool {
        self.listen == other.listen && self.protocol == other.protocol
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When the file cannot be read or anything in it is wrong.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// What is allowed and yet hardly meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let unlikely = |service: &&Service| {
            let elsewhere = |backend: &Backend| backend.health_port.or(service.health.port).is_some();
            let tcp = service.protocol == Protocol::Udp && service.health.probe == Probe::Tcp;
            tcp && !service.backends.iter().all(elsewhere)
        };
        let warn = |service: &Service| {
            format!(
                "service {0} is udp and its backends are checked by a TCP connection to the same port, which few accept; \
                 write type = \"udp\", or a port, in [service.{0}.health]",
                service.name
            )
        };
        let idle = self.services.iter().flat_map(|service| {
            service.backends.iter().filter(|backend| backend.weight == 0).map(|backend| {
                format!(
                    "backend {} of service {} has weight 0: it takes no connections and nothing brings it back; to take \
                     it out for a while use `lb backend drain`, which ends by itself",
                    backend.name, service.name
                )
            })
        });
        self.services.iter().filter(unlikely).map(warn).chain(idle).collect()
    }

    /// Checks the text of a file; the path is only for messages.
    ///
    /// # Errors
    /// With every mistake found.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        let file = raw::parse(text).map_err(|problem| Error::invalid(&source, vec![problem]))?;
        let interface_spans = file.global.get_ref().interfaces.get_ref().iter().map(toml::Spanned::span).collect();
        let (global, alarms, services) = check::check(file).map_err(|problems| Error::invalid(&source, problems))?;
        Ok(Self { global, alarms, services, source, interface_spans })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// Checks that the interfaces are among those of this machine.
    ///
    /// # Errors
    /// Naming those that are missing and listing those that exist.
    pub fn check_interfaces(&self, existing: &[String]) -> Result<(), Error> {
        let missing: Vec<Problem> = self
            .global
            .interfaces
            .iter()
            .zip(&self.interface_spans)
            .filter(|(name, _)| !existing.contains(name))
            .map(|(name, span)| Problem {
                span: span.clone(),
                message: format!(
                    "there is no interface {name} here; `ip link` shows those there are: {}",
                    existing.join(", ")
                ),
            })
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(Error::invalid(&self.source, missing)) }
    }
}

#[cfg(test)]
mod tests;
