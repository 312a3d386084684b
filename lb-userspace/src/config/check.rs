//! From what is written to what is meant: defaults, ranges, and the rules between keys.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Spanned;

use super::{
    AgentCheck, Alarms, Backend, Global, HealthCheck, HttpCheck, Probe, Problem, Service, TlsCheck, address, alarm,
    passive, raw,
};
use crate::plan::{Forward, MAX_CONNECTIONS, MAX_WEIGHT, NAME_LEN, Protocol};

/// The longest path that fits a Unix socket address (`sun_path`, with its final zero byte).
const SOCKET_PATH_LEN: usize = 107;
/// The longest interface name (`IFNAMSIZ`, less its final zero byte).
const INTERFACE_LEN: usize = 15;
const SLOW_STARTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// Between what a test needs and what nobody remembers.
const DETACHMENTS: RangeInclusive<Duration> = Duration::from_secs(1)..=super::LONGEST_DETACHMENT;
/// More than a service can have.
const MOST_BACKENDS: usize = 1 << 20;
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 60 * 60);
/// The start of the daemon waits for every backend's first check.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// Why a name cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no characters.
    #[error("a name cannot be empty")]
    Empty,
    /// It does not fit a map entry.
    #[error("a name has at most {NAME_LEN} characters, this one has {0}")]
    TooLong(usize),
    /// It would be ambiguous on the command line or in a URL.
    #[error("a name consists of letters, digits and . _ : [ ] -, not {0:?}")]
    Character(char),
}

/// Checks the name of a service or a backend.
///
/// # Errors
/// With the first rule that it breaks.
pub fn check_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(character) = name.chars().find(|c| !c.is_ascii_alphanumeric() && !"._:[]-".contains(*c)) {
        return Err(NameError::Character(character));
    }
    if name.len() > NAME_LEN { Err(NameError::TooLong(name.len())) } else { Ok(()) }
}

/// Checks everything; the services come ordered by name.
pub(super) fn check(file: raw::File) -> Result<(Global, Alarms, Vec<Service>), Vec<Problem>> {
    let mut problems = Problems(Vec::new());
    let global = global(file.global.into_inner(), &mut problems);
    let alarms = alarm::check(file.alarm_rules, file.alarm, &mut problems);
    let services = services(file.service, Origin::File, &mut problems);
    if problems.0.is_empty() { Ok((global, alarms, services)) } else { Err(problems.0) }
}

/// Checks services that were made at run time.
pub(super) fn run_time(raw: BTreeMap<Spanned<String>, raw::Service>) -> Result<Vec<Service>, Vec<Problem>> {
    let mut problems = Problems(Vec::new());
    let services = services(raw, Origin::RunTime, &mut problems);
    if problems.0.is_empty() { Ok(services) } else { Err(problems.0) }
}

/// Where a service comes from. An operator may have left it with few backends or none, a file may not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    File,
    RunTime,
}

pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add<T>(&mut self, at: &Spanned<T>, message: impl Display) {
        self.0.push(Problem { span: at.span(), message: message.to_string() });
    }

    /// The value, or its problem noted and a stand-in that lets the checks go on.
    fn or<T, U, E: Display>(&mut self, at: &Spanned<U>, value: Result<T, E>, stand_in: T) -> T {
        value.unwrap_or_else(|error| {
            self.add(at, error);
            stand_in
        })
    }
}

fn global(raw: raw::Global, problems: &mut Problems) -> Global {
    let names = raw.interfaces.get_ref();
    if names.is_empty() {
        problems.add(&raw.interfaces, "no interface is named; write those that clients and backends are reached by");
    }
    for (index, name) in names.iter().enumerate() {
        let text = name.get_ref();
        if text.is_empty() || text.len() > INTERFACE_LEN || text.contains(|c: char| c == '/' || c.is_whitespace()) {
            problems.add(name, format!("{text:?} is not the name of an interface"));
        }
        if names[..index].iter().any(|earlier| earlier.get_ref() == text) {
            problems.add(name, format!("interface {text} is named twice"));
        }
    }
    let socket = path(raw.socket, super::DEFAULT_SOCKET, SOCKET_PATH_LEN, problems);
    let most = usize::MAX;
    Global {
        interfaces: names.iter().map(|name| name.get_ref().clone()).collect(),
        xdp_mode: raw.xdp_mode,
        socket,
        state_dir: path(raw.state_dir, super::DEFAULT_STATE_DIR, most, problems),
        pin_dir: path(raw.pin_dir, super::DEFAULT_PIN_DIR, most, problems),
        flows: integer(raw.flows.as_ref(), "flows", 64..=1 << 24, super::DEFAULT_FLOWS, problems),
        detached_for: duration(raw.detached_for, DETACHMENTS, super::DEFAULT_DETACHED_FOR, problems),
        http: raw.http.map_or(Some(super::DEFAULT_HTTP), |raw| http(&raw, problems)),
    }
}

/// Where metrics are served: an address of this machine, or nowhere.
fn http(raw: &Spanned<String>, problems: &mut Problems) -> Option<SocketAddr> {
    let text = raw.get_ref();
    if matches!(text.as_str(), "" | "off") {
        return None;
    }
    let address = text.parse::<SocketAddr>();
    if !address.as_ref().is_ok_and(|address| address.port() != 0) {
        let example = super::DEFAULT_HTTP;
        problems.add(raw, format!("{text:?} is not IP:PORT; write e.g. \"{example}\", or \"off\" to serve nothing"));
    }
    address.ok()
}

fn path(raw: Option<Spanned<PathBuf>>, default: &str, most: usize, problems: &mut Problems) -> PathBuf {
    raw.map_or_else(|| Path::new(default).to_owned(), |raw| path_of(raw, most, problems))
}

pub(super) fn path_of(raw: Spanned<PathBuf>, most: usize, problems: &mut Problems) -> PathBuf {
    let length = raw.get_ref().as_os_str().len();
    if !raw.get_ref().is_absolute() {
        problems.add(&raw, "a relative path depends on where the daemon is started; write one that starts with /");
    } else if length > most {
        problems.add(&raw, format!("the path of a socket has at most {most} bytes, this one has {length}"));
    }
    raw.into_inner()
}

fn services(raw: BTreeMap<Spanned<String>, raw::Service>, origin: Origin, problems: &mut Problems) -> Vec<Service> {
    let mut listeners: HashMap<(SocketAddr, Protocol), String> = HashMap::new();
    let mut services: Vec<Service> = Vec::new();
    let mut addresses: Vec<(String, Vec<Spanned<String>>)> = Vec::new();
    for (name, raw) in raw {
        let listen = raw.listen.clone();
        addresses.push((name.get_ref().clone(), raw.backend.iter().map(|backend| backend.address.clone()).collect()));
        let Some(service) = service(name, raw, origin, problems) else { continue };
        let key = (service.listen, service.protocol);
        if let Some(other) = listeners.insert(key, service.name.clone()) {
            let message = format!(
                "services {other} and {} both listen on {}; give one of them another address or port",
                service.name, service.listen
            );
            problems.add(&listen, message);
        }
        services.push(service);
    }
    let listening: HashMap<SocketAddr, &str> =
        services.iter().map(|service| (service.listen, service.name.as_str())).collect();
    for (name, at) in addresses.iter().flat_map(|(name, list)| list.iter().map(move |at| (name, at))) {
        let Ok(address) = address::parse_backend(at.get_ref()) else { continue };
        // That a service is its own backend is said elsewhere.
        if let Some(other) = listening.get(&address).filter(|other| **other != *name) {
            problems.add(at, format!("{address} is where service {other} listens; write the server's own address"));
        }
    }
    services
}

fn service(name: Spanned<String>, raw: raw::Service, origin: Origin, problems: &mut Problems) -> Option<Service> {
    if let Err(error) = check_name(name.get_ref()) {
        problems.add(&name, error);
    }
    if raw.backend.is_empty() && origin == Origin::File {
        let example = format!("add [[service.{name}.backend]] with an address", name = name.get_ref());
        problems.add(&name, format!("service {} has no backend; {example}", name.get_ref()));
    }
    let health = health(raw.health, raw.protocol, problems);
    let agent = raw.agent.map(|raw| agent(raw, &health, problems));
    let passive = passive::check(raw.passive, problems);
    let most = if origin == Origin::File { raw.backend.len().max(1) } else { MOST_BACKENDS };
    let min_healthy = integer(raw.min_healthy.as_ref(), "min_healthy", 0..=most, 1, problems);
    let listen = match address::parse_listen(raw.listen.get_ref()) {
        Ok(listen) => Some(listen),
        Err(error) => {
            problems.add(&raw.listen, error);
            None
        }
    };
    let slow_start = raw.slow_start.map(|raw| duration(Some(raw), SLOW_STARTS, Duration::ZERO, problems));
    let detached_for = raw.detached_for.map(|raw| duration(Some(raw), DETACHMENTS, Duration::ZERO, problems));
    let backends = backends(name.get_ref(), listen, raw.forward, raw.backend, problems);
    if origin == Origin::File && !backends.is_empty() && backends.iter().all(|backend| backend.backup) {
        problems.add(&name, format!("every backend of service {} is a backup: for none", name.get_ref()));
    }
    if origin == Origin::File && !backends.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
        problems.add(&name, format!("every backend of service {} has weight 0: none would serve", name.get_ref()));
    }
    Some(Service {
        name: name.into_inner(),
        listen: listen?,
        protocol: raw.protocol,
        algorithm: raw.algorithm,
        forward: raw.forward,
        min_healthy,
        fail: raw.fail,
        slow_start,
        detached_for,
        after_detachment: raw.after_detachment,
        recall: raw.recall,
        health,
        agent,
        passive,
        backends,
    })
}

fn health(raw: raw::Health, protocol: Protocol, problems: &mut Problems) -> HealthCheck {
    use raw::ProbeKind::{Agent, Http, Https, Tcp, Udp};
    let kind = raw.kind.unwrap_or(match protocol {
        Protocol::Tcp => Tcp,
        Protocol::Udp => Udp,
    });
    let mut only = |with: &[raw::ProbeKind], names: &str, at: &[Option<Range<usize>>]| {
        if !with.contains(&kind) {
            for span in at.iter().flatten() {
                let message = format!("only a check with type = {names} has this key");
                problems.0.push(Problem { span: span.clone(), message });
            }
        }
    };
    let (path, expect, host, body) = (span(&raw.path), span(&raw.expect), span(&raw.host), span(&raw.body));
    only(&[Http, Https], "\"http\" or \"https\"", &[path, expect, host]);
    only(&[Http, Https, Udp], "\"http\", \"https\" or \"udp\"", &[body]);
    let (name, ca_file, insecure) = (span(&raw.server_name), span(&raw.ca_file), span(&raw.insecure_skip_verify));
    only(&[Https], "\"https\"", &[name, ca_file, insecure]);
    only(&[Agent, Udp], "\"agent\" or \"udp\"", &[span(&raw.send)]);
    let interval = duration(raw.interval, INTERVALS, Duration::from_secs(2), problems);
    let timeout = duration(raw.timeout, TIMEOUTS, Duration::from_secs(1), problems);
    let rise = integer(raw.rise.as_ref(), "rise", 1..=1000, 2, problems);
    let fall = integer(raw.fall.as_ref(), "fall", 1..=1000, 3, problems);
    let port = port(raw.port.as_ref(), "port", problems);
    let fast_interval = raw.fast_interval.map(|raw| duration(Some(raw), INTERVALS, interval, problems));
    let jitter = integer(raw.jitter.as_ref(), "jitter", 0..=50, 10, problems);
    let body = raw.body.map(|at| text(at, 1, problems));
    let http = |body, problems: &mut Problems| HttpCheck {
        path: raw.path.map_or_else(|| "/".into(), |at| http_path(at, problems)),
        expect: raw
            .expect
            .map_or_else(Default::default, |at| problems.or(&at, at.get_ref().parse(), Default::default())),
        host: raw.host.map(|at| host_name(at, problems)),
        body,
    };
    let probe = match kind {
        raw::ProbeKind::None => Probe::None,
        Tcp => Probe::Tcp,
        Udp => Probe::Udp { send: raw.send.map(|at| text(at, 0, problems)).unwrap_or_default(), body },
        Http => Probe::Http(http(body, problems)),
        Https => {
            let http = http(body, problems);
            let tls = TlsCheck {
                server_name: raw.server_name.map(|at| host_name(at, problems)),
                ca_file: raw.ca_file.map(|at| path_of(at, usize::MAX, problems)),
                insecure_skip_verify: raw.insecure_skip_verify.is_some_and(Spanned::into_inner),
            };
            Probe::Https(http, tls)
        }
        Agent => Probe::Agent { send: raw.send.map(|at| text(at, 0, problems)).unwrap_or_default() },
    };
    HealthCheck { probe, interval, timeout, rise, fall, port, fast_interval, jitter }
}

fn agent(raw: Spanned<raw::Agent>, health: &HealthCheck, problems: &mut Problems) -> AgentCheck {
    if matches!(health.probe, Probe::Agent { .. }) {
        let message = "type = \"agent\" of health is the agent already; give health another type, or leave this out";
        problems.add(&raw, message);
    }
    let raw = raw.into_inner();
    AgentCheck {
        port: integer(raw.port.as_ref(), "port", 1..=u16::MAX, super::DEFAULT_AGENT_PORT, problems),
        interval: duration(raw.interval, INTERVALS, Duration::from_secs(2), problems),
        timeout: duration(raw.timeout, TIMEOUTS, Duration::from_secs(1), problems),
        send: raw.send.map(|at| text(at, 0, problems)).unwrap_or_default(),
    }
}

fn span<T>(at: &Option<Spanned<T>>) -> Option<Range<usize>> {
    at.as_ref().map(Spanned::span)
}

fn port(raw: Option<&Spanned<i64>>, key: &str, problems: &mut Problems) -> Option<u16> {
    raw.map(|at| integer(Some(at), key, 1..=u16::MAX, 1, problems))
}

/// What can stand in a Host header or a certificate.
fn host_name(raw: Spanned<String>, problems: &mut Problems) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if raw.get_ref().is_empty() || !raw.get_ref().chars().all(allowed) {
        problems.add(&raw, format!("{:?} is not the name of a host", raw.get_ref()));
    }
    raw.into_inner()
}

/// The longest text that is sent or searched for.
const TEXT: usize = 1024;

fn text(raw: Spanned<String>, least: usize, problems: &mut Problems) -> String {
    if !(least..=TEXT).contains(&raw.get_ref().len()) {
        problems.add(&raw, format!("a text here has {least} to {TEXT} bytes"));
    }
    raw.into_inner()
}

fn http_path(raw: Spanned<String>, problems: &mut Problems) -> String {
    if !raw.get_ref().starts_with('/') || raw.get_ref().contains(|c: char| !c.is_ascii_graphic()) {
        problems.add(&raw, "a path starts with / and has no spaces; others than ASCII are written %XX");
    }
    raw.into_inner()
}

pub(super) fn duration(
    raw: Option<Spanned<String>>,
    within: RangeInclusive<Duration>,
    default: Duration,
    problems: &mut Problems,
) -> Duration {
    let Some(raw) = raw else { return default };
    let text = raw.get_ref();
    let duration = match humantime::parse_duration(text) {
        Ok(duration) if within.contains(&duration) => Ok(duration),
        Ok(_) => {
            let (least, most) =
                (humantime::format_duration(*within.start()), humantime::format_duration(*within.end()));
            Err(format!("{text} is not between {least} and {most}"))
        }
        Err(_) => Err(format!("{text:?} is not a duration; write e.g. \"2s\" or \"500ms\"")),
    };
    problems.or(&raw, duration, default)
}

fn backends(
    service: &str,
    listen: Option<SocketAddr>,
    forward: Forward,
    raw: Vec<raw::Backend>,
    problems: &mut Problems,
) -> Vec<Backend> {
    let mut backends: Vec<Backend> = Vec::new();
    for raw in raw {
        let weight = integer(raw.weight.as_ref(), "weight", 0..=MAX_WEIGHT, 1, problems);
        let address = match address::parse_backend(raw.address.get_ref()) {
            Ok(address) => address,
            Err(error) => {
                problems.add(&raw.address, error);
                continue;
            }
        };
        let name = raw.name.unwrap_or_else(|| Spanned::new(raw.address.span(), address.to_string()));
        if let Err(error) = check_name(name.get_ref()) {
            problems.add(&name, error);
        }
        if backends.iter().any(|other| other.name == *name.get_ref()) {
            problems.add(&name, format!("backend {} appears twice in service {service}", name.get_ref()));
        } else if let Some(other) = backends.iter().find(|other| other.address == address) {
            let message =
                format!("backends {} and {} of service {service} are both {address}", other.name, name.get_ref());
            problems.add(&raw.address, message);
        }
        if let Some(listen) = listen
            && let Err(error) = check_pair(listen, forward, address)
        {
            problems.add(&raw.address, error);
        }
        let health_port = port(raw.health_port.as_ref(), "health_port", problems);
        let agent_port = port(raw.agent_port.as_ref(), "agent_port", problems);
        let backup = raw.backup;
        let limit = |at| integer(Some(at), "max_connections", 1..=MAX_CONNECTIONS, 1, problems);
        let max_connections = raw.max_connections.as_ref().map(limit);
        let named = Backend::new(name.into_inner(), address, weight);
        backends.push(Backend { health_port, agent_port, backup, max_connections, ..named });
    }
    backends
}

/// The rules between a service and the address of a backend.
pub(crate) fn check_pair(listen: SocketAddr, forward: Forward, backend: SocketAddr) -> Result<(), String> {
    if backend == listen {
        return Err(format!("{backend} is where the service itself listens; write the server's own address"));
    }
    if listen.is_ipv4() != backend.is_ipv4() && !forward.crosses_families() {
        let family = |address: SocketAddr| if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let (wanted, found, mode) = (family(listen), family(backend), forward.name());
        return Err(format!(
            "the service listens on {wanted} and forward = \"{mode}\" keeps the family; {backend} is {found}"
        ));
    }
    if listen.port() != backend.port() && !forward.sees_replies() {
        return Err(format!(
            "forward = \"{}\" leaves the packet as it is: the backend's port must be that of the service, {}, not {}",
            forward.name(),
            listen.port(),
            backend.port()
        ));
    }
    Ok(())
}

/// A number within its bounds.
pub(super) fn integer<T>(
    raw: Option<&Spanned<i64>>,
    key: &str,
    within: RangeInclusive<T>,
    default: T,
    problems: &mut Problems,
) -> T
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    let Some(raw) = raw else { return default };
    match T::try_from(*raw.get_ref()) {
        Ok(number) if within.contains(&number) => number,
        _ => {
            let (least, most) = (within.start(), within.end());
            problems.add(raw, format!("{key} is between {least} and {most}, not {}", raw.get_ref()));
            default
        }
    }
}
