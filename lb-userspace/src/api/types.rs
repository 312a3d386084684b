//! The JSON of the control API, for the daemon and for the command line.

use std::{net::SocketAddr, path::PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    alarm::{Kind, Severity},
    config::{AfterDetachment, Fail, Recall},
    health::Health,
    journal::Entry,
    model::{Admin, AgentMode, Change, Checked, Ending, Held, LimitSource, Passive, Verdict},
    plan::{Algorithm, Forward, Protocol},
};

/// The version of every document; it changes when a reader of the old one would misread the new one.
pub const SCHEMA_VERSION: u32 = 1;

/// What `lb status -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Ordered by name.
    pub services: Vec<ServiceStatus>,
    /// How the checks are doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<ChecksStatus>,
    /// What fires, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<AlarmStatus>,
    /// What nobody is told of for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silences: Vec<SilenceStatus>,
}

/// An alarm that fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmStatus {
    /// What it is about.
    pub alarm: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// The service, when it is about one.
    pub service: Option<String>,
    /// Its backend, when it is about one.
    pub backend: Option<String>,
    /// In a sentence.
    pub summary: String,
    /// Since when it holds.
    pub since: Timestamp,
    /// Since when it fires: some things must hold for a while.
    pub firing_since: Timestamp,
    /// Until when nobody is told of it, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silenced_until: Option<Timestamp>,
}

/// Something that nobody is told of for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceStatus {
    /// A kind of alarm, SERVICE or SERVICE/BACKEND.
    pub scope: String,
    /// Since when.
    pub at: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
}

/// What `lb alarm list -o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmsDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What fires, the worst first.
    pub alarms: Vec<AlarmStatus>,
    /// What nobody is told of for a while.
    pub silences: Vec<SilenceStatus>,
    /// Those who carry alarms, beside the log.
    pub couriers: Vec<CourierStatus>,
}

/// How one of those fares who carry alarms, since the daemon started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CourierStatus {
    /// The name of the `[[alarm]]`, and how it is told.
    pub name: String,
    /// "webhook" or "exec".
    pub channel: String,
    /// What waits.
    pub pending: usize,
    /// What arrived.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// What was given up.
    pub lost: u64,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
}

/// A silence to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSilence {
    /// A kind of alarm, SERVICE or SERVICE/BACKEND.
    pub scope: String,
    /// Until when; one that is over already ends another.
    pub until: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Whom to tell that this is a test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlarmTest {
    /// The name of an `[[alarm]]`; everybody, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Whether a test arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmTestDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// By name.
    pub couriers: Vec<TestedCourier>,
}

/// Whether a test arrived by one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestedCourier {
    /// The name of the `[[alarm]]`, and how it is told.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// Why it did not arrive, if it did not.
    pub error: Option<String>,
}

/// How the checks are doing: whether anybody watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChecksStatus {
    /// Backends that are checked.
    pub running: usize,
    /// When the last result came in.
    pub heartbeat: Option<Timestamp>,
    /// Backends whose result is missing.
    pub overdue: usize,
    /// How often checks had to be started again because their results were missing.
    pub restarted: u64,
}

/// How backends are checked, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// By service, then in the order of the configuration.
    pub backends: Vec<BackendHealth>,
}

/// How a backend is checked, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendHealth {
    /// Its service.
    pub service: String,
    /// Its name.
    pub backend: String,
    /// "tcp", "http", "https", "agent" or "none".
    pub check: String,
    /// What its checks say.
    pub health: Health,
    /// Results in a row that say otherwise.
    pub contrary: u32,
    /// How many of them change it.
    pub needed: u32,
    /// Seconds from one check to the next.
    pub interval_seconds: f64,
    /// The last check, if there was one.
    pub last: Option<Checked>,
    /// Who paused the checks, if they are paused.
    pub paused: Option<Change>,
}

/// One check made on demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The service.
    pub service: String,
    /// The backend.
    pub backend: String,
    /// When, whether it passed, and what was seen.
    #[serde(flatten)]
    pub checked: Checked,
}

/// Where a service stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its virtual address.
    pub listen: SocketAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Its forwarding mode.
    pub forward: Forward,
    /// In a word.
    pub verdict: Verdict,
    /// Backends that take new flows.
    pub in_rotation: usize,
    /// Backends that are to; backups that stand by are not.
    pub total: usize,
    /// Fewer in rotation than this is degraded.
    pub min_healthy: usize,
    /// What becomes of new flows when none is in rotation.
    pub fail: Fail,
    /// Whether none is in rotation and all that can be reached get traffic therefore.
    pub fails_open: bool,
    /// Whether none is in rotation and those at their red line serve therefore, each within its limit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last_resort: bool,
    /// What of its traffic cannot be judged, as it does not come by here: "5xx", "refusals", "resets", "latency".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unjudged: Vec<String>,
    /// In the order of the configuration.
    pub backends: Vec<BackendStatus>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none_at_all(count: &u64) -> bool {
    *count == 0
}

/// Where a backend stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it takes new flows.
    pub in_rotation: bool,
    /// What an operator wants.
    pub admin: Admin,
    /// What its checks say.
    pub health: Health,
    /// What the traffic says.
    pub passive: Passive,
    /// When its ejection is over, at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_until: Option<Timestamp>,
    /// How often it was ejected.
    #[serde(default, skip_serializing_if = "is_none_at_all")]
    pub ejections_total: u64,
    /// What its traffic says that users notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complaint: Option<String>,
    /// Its share of new flows.
    pub weight: u16,
    /// How many percent of that it gets by now, when not all: its agent wants less, it starts slowly, or its traffic
    /// is bad.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u16>,
    /// Whether it serves only while no other does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
    /// Whether it is a backup that could serve, and need not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub standby: bool,
    /// With so many connections it gets no new one: what an operator set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// The limit of connections that holds: the least of those there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitStatus>,
    /// What its agent says, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
    /// Whether its checks are paused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Since when it is in or out of rotation.
    pub since: Timestamp,
    /// Why.
    pub cause: String,
    /// When what the operator wants ends by itself: that of `detachment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// While it is draining or disabled: by whom, why and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detachment: Option<DetachmentStatus>,
    /// How its last detachment ended, when no operator ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Held<Ending>>,
    /// Flows open at this moment.
    pub connections: u64,
    /// Flows ever.
    pub connections_total: u64,
    /// Packets, both ways.
    pub packets_total: u64,
    /// Bytes, both ways.
    pub bytes_total: u64,
}

/// With how many connections a backend gets no new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitStatus {
    /// With so many.
    pub connections: u32,
    /// Who says so.
    pub source: LimitSource,
}

/// What the agent of a backend says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// "known", or "unknown": it has not been heard for three intervals, or not yet.
    pub state: AgentState,
    /// What it wants: that of its last words that mentioned it, as are those that follow.
    pub mode: AgentMode,
    /// Whether it says that the server is down.
    pub down: bool,
    /// The share of its weight that it says the server can take.
    pub percent: u16,
    /// The connections that it says the server can take.
    pub max_connections: Option<u32>,
    /// Memory available, in percent, as of its last words; where it was asked for JSON.
    pub memory_available_percent: Option<u16>,
    /// Its last words.
    pub words: Option<String>,
    /// When they were heard.
    pub heard: Option<Timestamp>,
    /// How long ago that is.
    pub age_seconds: Option<u64>,
    /// Why it was not heard the last time, if it was not.
    pub failure: Option<String>,
}

/// Whether it is known what an agent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    /// It is.
    Known,
    /// It is not.
    Unknown,
}

/// By whom, why and for how long a backend is out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachmentStatus {
    /// Who took it out.
    pub actor: String,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// When its time is up.
    pub until: Timestamp,
    /// Whether its time is up and it stays out until somebody acts.
    pub overdue: bool,
    /// What becomes of it when its time is up.
    pub after: AfterDetachment,
    /// When it is called back before that.
    pub recall: Recall,
}

/// The backends of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendsDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The service.
    pub service: String,
    /// In the order of the configuration.
    pub backends: Vec<BackendStatus>,
}

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The service.
    pub service: String,
    /// Where it stands.
    #[serde(flatten)]
    pub backend: BackendStatus,
}

/// A backend to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBackend {
    /// The address when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `IP:PORT`.
    pub address: String,
    /// 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// Where its check connects, when not where those of the other backends do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_port: Option<u16>,
    /// Where its agent is asked, when not where those of the other backends are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_port: Option<u16>,
    /// Whether it serves only while no other does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
    /// With so many connections it gets no new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}

/// What to change of a backend; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendPatch {
    /// Share of new flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// With so many connections it gets no new one; 0 for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// What the operator wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// When that ends by itself: with draining and disabled only, which last as long as the configuration says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it is called back before that: with draining and disabled only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<Recall>,
    /// Whether its checks are to be paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether to do it even when the service is left with nothing in rotation.
    #[serde(default)]
    pub force: bool,
}

/// What changed, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Those that were asked for, of the ten thousand that are kept at hand.
    pub events: Vec<Entry>,
    /// The number of the newest event there is; ask for what comes `after` it.
    pub newest: u64,
}

/// One service to add: its name and what a file would say of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewService {
    /// Its name.
    pub name: String,
    /// `listen` and `backend` at least.
    #[serde(flatten)]
    pub settings: Map<String, Value>,
}

/// What the daemon runs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The file it was started with.
    pub file: PathBuf,
    /// As a file would say it, with what was changed at run time.
    pub toml: String,
    /// The same as JSON.
    pub config: Value,
}

/// Whether the program logs the packets that it drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketLog {
    /// On or off.
    pub drops: bool,
}

/// The same as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketLogDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// On or off.
    pub drops: bool,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The file.
    pub file: PathBuf,
    /// What it changed.
    pub changes: Vec<Difference>,
    /// What changes only when the daemon is started again: all that is under `[global]`.
    pub next_start: Vec<Difference>,
}

/// A key that says something else; no value means that it says nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// "service.web.backend.web-01.weight".
    pub key: String,
    /// What it said.
    pub from: Option<String>,
    /// What it says.
    pub to: Option<String>,
}

/// How what runs differs from the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriftDocument {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The file.
    pub file: PathBuf,
    /// By key.
    pub differences: Vec<Drift>,
}

/// A key that the file and the daemon disagree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// "service.web.backend.web-01.weight".
    pub key: String,
    /// What the file says.
    pub file: Option<String>,
    /// What the daemon does.
    pub running: Option<String>,
    /// How that came about.
    pub because: String,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDocument {
    /// What went wrong.
    pub error: ErrorBody,
}

/// What went wrong, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// There is no such path, service or backend: 404.
    NotFound,
    /// It would leave a service with nothing in rotation: 409.
    Refused,
    /// The request makes no sense: 400.
    Invalid,
    /// The daemon's own file is wrong: 400.
    BadConfig,
    /// It is there already: 409.
    Conflict,
    /// The daemon could not do it: 500.
    Internal,
}
