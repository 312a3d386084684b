//! Health checks over the network, and agents that are asked beside them: one task a backend, a fresh connection each time,
//! results to the controller.
//!
//! A probe only says what it saw. Whether that takes a backend out of rotation is decided in [`crate::health`].

mod agent;
mod http;
mod tcp;
mod tls;
mod udp;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::AbortHandle, time};

pub use self::tls::check as check_tls;
pub(crate) use self::tls::once as tls_client;
use crate::{
    config::{AgentCheck, HealthCheck, Probe},
    health::{Machine, Thresholds},
    model::{Agent, Backend, Model, Service},
};

/// Who is checked: service and backend.
pub type Key = (String, String);

/// How long after it was due a result is missing.
const GRACE: Duration = Duration::from_secs(5);

/// The result of one check.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose.
    pub key: Arc<Key>,
    /// Which of the tasks that ever checked it; see [`Probes::hear`].
    pub generation: u64,
    /// What was seen, for people: a pass or a failure.
    pub result: Result<String, String>,
    /// What an agent said, if one was asked and heard.
    pub agent: Option<Agent>,
    /// How long it took.
    pub took: Duration,
}

/// What is asked about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Its health.
    Health,
    /// Its agent, where there is one beside the check.
    Agent,
}

/// The tasks that check.
#[derive(Debug)]
pub struct Probes {
    subject: Subject,
    running: HashMap<Arc<Key>, Running>,
    generations: u64,
    restarted: u64,
    tls: tls::Settings,
    reports: mpsc::Sender<Report>,
}

#[derive(Debug)]
struct Running {
    target: Target,
    generation: u64,
    task: AbortHandle,
    /// The last sign of life.
    heard: Instant,
}

/// What is checked, and how.
#[derive(Clone, Debug)]
pub struct Target {
    subject: Subject,
    address: SocketAddr,
    check: HealthCheck,
    tls: Option<tls::Client>,
}

/// How the checks are doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Backends that are checked.
    pub running: usize,
    /// Those whose result is missing.
    pub overdue: usize,
    /// Tasks that were started again because their results were missing.
    pub restarted: u64,
}

impl Probes {
    /// No tasks yet; results will go to `reports`.
    pub fn new(subject: Subject, reports: mpsc::Sender<Report>) -> Self {
        Self { subject, running: HashMap::new(), generations: 0, restarted: 0, tls: tls::Settings::default(), reports }
    }

    /// Checks the backends of the model and no others; those of `before` are checked. What is checked in the same way
    /// already goes on undisturbed, what is new is checked at once.
    pub fn follow(&mut self, before: &Model, model: &Model) {
        let mut known: Vec<Key> = Vec::new();
        let mut wanted: HashMap<Key, (Target, Machine)> = HashMap::new();
        for (was, is) in model.since(before) {
            known.extend(
                was.into_iter().flat_map(|service| service.backends.iter().map(|backend| key(service, backend))),
            );
            for (service, backend) in is.into_iter().flat_map(|is| is.backends.iter().map(move |backend| (is, backend)))
            {
                if let Some(target) = self.target(service, backend).filter(|_| backend.paused.is_none()) {
                    wanted.insert(key(service, backend), (target, backend.health));
                }
            }
        }
        for key in known {
            let is_like =
                |running: &Running| wanted.get(&key).is_some_and(|(target, _)| target.is_like(&running.target));
            if self.running.get(&key).is_some_and(|running| !is_like(running))
                && let Some(running) = self.running.remove(&key)
            {
                running.task.abort();
            }
        }
        for (key, (target, health)) in wanted {
            if !self.running.contains_key(&key) {
                self.start(Arc::new(key), target, health);
            }
        }
    }

    /// Reads again what the checks need beside the configuration: the certificates to trust. Those whose certificates
    /// changed begin anew, the others go on undisturbed.
    pub fn refresh(&mut self) {
        self.tls.refresh();
        let (tls, mut stale) = (&mut self.tls, Vec::new());
        for (key, Running { target, .. }) in &self.running {
            let Probe::Https(_, check) = &target.check.probe else { continue };
            let fresh = Target { tls: Some(tls.of(check)), ..target.clone() };
            if !fresh.is_like(target) {
                stale.push((Arc::clone(key), fresh));
            }
        }
        for (key, fresh) in stale {
            if let Some(running) = self.running.remove(&key) {
                running.task.abort();
            }
            self.start(key, fresh, Machine::default());
        }
    }

    /// How a backend is checked; nothing when it is not.
    pub fn target(&mut self, service: &Service, backend: &Backend) -> Option<Target> {
        if self.subject == Subject::Agent {
            return agent_target(service, backend);
        }
        let check = &service.spec.health;
        let tls = match &check.probe {
            Probe::None => return None,
            Probe::Https(_, tls) => Some(self.tls.of(tls)),
            _ => None,
        };
        let mut address = backend.address;
        address.set_port(backend.health_port.or(check.port).unwrap_or(address.port()));
        Some(Target { subject: Subject::Health, address, check: check.clone(), tls })
    }

    /// Takes note of a sign of life. Says whether the report is of a task that still runs, not of a backend that was
    /// removed or changed meanwhile.
    pub fn hear(&mut self, report: &Report) -> bool {
        let running = self.running.get_mut(&report.key).filter(|running| running.generation == report.generation);
        if let Some(running) = running {
            running.heard = Instant::now();
            return true;
        }
        false
    }

    /// Looks for tasks that have gone silent and starts them again; says whose.
    pub fn revive(&mut self, now: Instant) -> Vec<Arc<Key>> {
        let silent = self.running.iter().filter(|(_, running)| running.is_overdue(now));
        let silent: Vec<Arc<Key>> = silent.map(|(key, _)| Arc::clone(key)).collect();
        for key in &silent {
            if let Some(running) = self.running.remove(key) {
                running.task.abort();
                self.restarted += 1;
                self.start(Arc::clone(key), running.target, Machine::default());
            }
        }
        silent
    }

    /// How the checks are doing.
    pub fn pulse(&self, now: Instant) -> Pulse {
        let overdue = self.running.values().filter(|running| running.is_overdue(now)).count();
        Pulse { running: self.running.len(), overdue, restarted: self.restarted }
    }

    /// Who is checked.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.running.keys()
    }

    fn start(&mut self, key: Arc<Key>, target: Target, health: Machine) {
        self.generations += 1;
        let generation = self.generations;
        let repeat = Repeat { key: Arc::clone(&key), generation, health, reports: self.reports.clone() };
        let task = tokio::spawn(repeat.run(target.clone())).abort_handle();
        self.running.insert(key, Running { target, generation, task, heard: Instant::now() });
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

impl Running {
    fn is_overdue(&self, now: Instant) -> bool {
        let HealthCheck { interval, timeout, jitter, .. } = self.target.check;
        let due = interval + interval * u32::from(jitter) / 100 + timeout;
        now.saturating_duration_since(self.heard) > due + GRACE
    }
}

/// One backend's checks, for as long as it is in the model as it is.
struct Repeat {
    key: Arc<Key>,
    generation: u64,
    health: Machine,
    reports: mpsc::Sender<Report>,
}

impl Repeat {
    async fn run(mut self, target: Target) {
        let check = &target.check;
        let thresholds = Thresholds { rise: check.rise, fall: check.fall };
        let mut first = true;
        loop {
            let started = time::Instant::now();
            let (result, agent) = target.check().await;
            self.health.observe(result.is_ok(), thresholds);
            let (key, generation, took) = (Arc::clone(&self.key), self.generation, started.elapsed());
            let report = Report { key, generation, result, agent, took };
            if self.reports.send(report).await.is_err() {
                return;
            }
            let settled = self.health.is_settled();
            let interval = check.pace(settled);
            // Those that began together go their own ways.
            let pause = if first && settled && check.jitter > 0 {
                interval.mul_f64(fastrand::f64())
            } else {
                spread(interval, check.jitter)
            };
            first = false;
            time::sleep_until(started + pause).await;
        }
    }
}

/// How the agent beside a backend's check is asked. One time that it is not heard is as good as many: who counts them is the
/// model.
fn agent_target(service: &Service, backend: &Backend) -> Option<Target> {
    let AgentCheck { port, interval, timeout, send } = service.spec.agent.clone()?;
    let mut address = backend.address;
    address.set_port(backend.agent_port.unwrap_or(port));
    let fast_interval = Some(interval);
    let probe = Probe::Agent { send };
    let check = HealthCheck { probe, interval, timeout, rise: 1, fall: 1, fast_interval, ..HealthCheck::default() };
    Some(Target { subject: Subject::Agent, address, check, tls: None })
}

fn key(service: &Service, backend: &Backend) -> Key {
    (service.spec.name.clone(), backend.name.clone())
}

/// An interval, longer or shorter by up to so many percent.
fn spread(interval: Duration, percent: u8) -> Duration {
    interval.mul_f64(1.0 + (fastrand::f64() * 2.0 - 1.0) * f64::from(percent) / 100.0)
}

impl Target {
    /// One check: what was seen, and what an agent said.
    pub async fn check(&self) -> (Result<String, String>, Option<Agent>) {
        let started = Instant::now();
        let within = self.check.timeout;
        let result = time::timeout(within, self.probe()).await;
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(within))));
        let (result, agent) = match result {
            Ok(Seen { result, agent }) => (result, agent),
            Err(seen) => (Err(seen), None),
        };
        if self.subject == Subject::Agent {
            return (result, agent);
        }
        let port = self.address.port();
        let checked = self.check.port.map_or_else(|| "check".into(), |_| format!("check of port {port}"));
        let result = match result {
            Ok(seen) => Ok(format!("{checked} passed: {seen} in {}", milliseconds(started.elapsed()))),
            Err(seen) => Err(format!("{checked} failed: {seen}")),
        };
        (result, agent)
    }

    async fn probe(&self) -> Result<Seen, String> {
        let silent = |seen| Seen { result: Ok(seen), agent: None };
        match &self.check.probe {
            Probe::None => Ok(silent("not checked".to_owned())),
            Probe::Tcp => tcp::probe(self.address).await.map(silent),
            Probe::Udp { send, body } => {
                // The end of the wait is no failure, unless an answer is wanted.
                let patience = self.check.timeout.mul_f64(0.9);
                udp::probe(self.address, send, body.as_deref(), patience).await.map(silent)
            }
            Probe::Http(http) => http::probe(self.address, http, None).await.map(silent),
            Probe::Https(http, tls) => {
                let client = self.tls.clone().unwrap_or_else(|| Err("TLS is not set up".into()))?;
                http::probe(self.address, http, Some((tls, client))).await.map(silent)
            }
            Probe::Agent { send } => {
                let agent::Answer { down, agent } = agent::probe(self.address, send).await?;
                let said = format!("the agent says {:?}", agent.words);
                let result = down.map_or(Ok(said), |reason| Err(format!("the agent says {reason}")));
                Ok(Seen { result, agent: Some(agent) })
            }
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        let same = self.address == other.address && self.check == other.check;
        same && tls::same(self.tls.as_ref(), other.tls.as_ref())
    }
}

/// What came of a check that came to its end.
struct Seen {
    result: Result<String, String>,
    agent: Option<Agent>,
}

fn milliseconds(elapsed: Duration) -> String {
    format!("{:.1} ms", elapsed.as_secs_f64() * 1000.0)
}

/// Whether a text is somewhere in an answer.
fn contains(answer: &[u8], text: &[u8]) -> bool {
    answer.windows(text.len()).any(|window| window == text)
}

/// "connection refused", without the number of the error.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other => error.to_string(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests;
