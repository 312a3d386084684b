//! Health checks over the network: one task a backend, a fresh connection each time, results to the controller.
//!
//! A probe only says what it saw. Whether that takes a backend out of rotation is decided in [`crate::health`].

mod http;
mod tcp;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{self, MissedTickBehavior},
};

use crate::{
    config::{HealthCheck, Probe},
    model::Model,
};

/// Who is checked: service and backend.
pub type Key = (String, String);

/// The result of one check.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose.
    pub key: Key,
    /// Which of the tasks that ever checked it; see [`Probes::is_current`].
    pub generation: u64,
    /// What was seen, for people: a pass or a failure.
    pub result: Result<String, String>,
}

/// The tasks that check.
#[derive(Debug)]
pub struct Probes {
    running: HashMap<Key, Running>,
    generations: u64,
    reports: mpsc::Sender<Report>,
}

#[derive(Debug)]
struct Running {
    target: Target,
    generation: u64,
    task: AbortHandle,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    address: SocketAddr,
    check: HealthCheck,
}

impl Probes {
    /// No tasks yet; results will go to `reports`.
    pub fn new(reports: mpsc::Sender<Report>) -> Self {
        Self { running: HashMap::new(), generations: 0, reports }
    }

    /// Checks the backends of the model and no others. What is checked in the same way already goes on undisturbed,
    /// what is new is checked at once.
    pub fn follow(&mut self, model: &Model) {
        let mut wanted: HashMap<Key, Target> = HashMap::new();
        for (name, service) in &model.services {
            let check = &service.spec.health;
            if check.probe == Probe::None {
                continue;
            }
            for backend in &service.backends {
                let mut address = backend.address;
                address.set_port(check.port.unwrap_or(address.port()));
                wanted.insert((name.clone(), backend.name.clone()), Target { address, check: check.clone() });
            }
        }
        self.running.retain(|key, running| {
            let stays = wanted.get(key) == Some(&running.target);
            if !stays {
                running.task.abort();
            }
            stays
        });
        for (key, target) in wanted {
            if !self.running.contains_key(&key) {
                self.start(key, target);
            }
        }
    }

    /// Whether the report is of a task that still runs, not of a backend that was removed or changed meanwhile.
    pub fn is_current(&self, report: &Report) -> bool {
        self.running.get(&report.key).is_some_and(|running| running.generation == report.generation)
    }

    /// Who is checked.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.running.keys()
    }

    fn start(&mut self, key: Key, target: Target) {
        self.generations += 1;
        let generation = self.generations;
        let task = tokio::spawn(repeat(key.clone(), generation, target.clone(), self.reports.clone())).abort_handle();
        self.running.insert(key, Running { target, generation, task });
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

async fn repeat(key: Key, generation: u64, target: Target, reports: mpsc::Sender<Report>) {
    let mut ticks = time::interval(target.check.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = check(target.address, &target.check).await;
        if reports.send(Report { key: key.clone(), generation, result }).await.is_err() {
            return;
        }
    }
}

/// One check.
async fn check(address: SocketAddr, check: &HealthCheck) -> Result<String, String> {
    let started = Instant::now();
    let probe = async {
        match &check.probe {
            Probe::None => Ok("not checked".to_owned()),
            Probe::Tcp => tcp::probe(address).await,
            Probe::Http { path, expect } => http::probe(address, path, expect).await,
        }
    };
    let within = check.timeout;
    let result = time::timeout(within, probe).await;
    let result = result.unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(within))));
    let checked = check.port.map_or_else(|| "check".into(), |port| format!("check of port {port}"));
    match result {
        Ok(seen) => Ok(format!("{checked} passed: {seen} in {}", milliseconds(started.elapsed()))),
        Err(seen) => Err(format!("{checked} failed: {seen}")),
    }
}

fn milliseconds(elapsed: Duration) -> String {
    format!("{:.1} ms", elapsed.as_secs_f64() * 1000.0)
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
