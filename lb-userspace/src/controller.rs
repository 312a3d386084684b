//! One task owns the model: whatever happens reaches it as a message, changes the model, and ends up in the maps.
//!
//! Results of checks, routes, an operator's commands and a new configuration all take the same way:
//! message -> [`Model`] -> [`Plan`](crate::plan::Plan) -> [`Dataplane::apply`]. A command that cannot be stored or
//! applied changes nothing.

mod command;
mod reload;
mod report;
mod watch;

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use command::Request;
pub use command::{Command, Handle, Refusal};
use jiff::Timestamp;
use tokio::{
    sync::{mpsc, watch as channel},
    time::{self, Instant, MissedTickBehavior},
};

use crate::{
    alarm::{Desk, courier::Attempt},
    config::{self, Config},
    dataplane::{self, Dataplane, Looked},
    journal::Journal,
    judge::Judge,
    metrics::Tallies,
    model::{Agent, Change, Derived, Event, Model, What},
    nexthop, notify,
    probe::{self, Probes, Subject},
    state::{self, StateFile},
};

/// How often the maps are compared with what they should be.
const RECONCILE: Duration = Duration::from_secs(10);
/// How often it is looked at what packets tell, at most.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
/// The part of the time that this may take.
const LOOKING: u32 = 50;
/// How often it is looked at what only time changes.
const TICK: Duration = Duration::from_secs(1);
/// How long the start waits for neighbours to answer.
const NEIGHBOURS: Duration = Duration::from_secs(1);

/// Why the controller did not start or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refuses.
    #[error(transparent)]
    Dataplane(#[from] dataplane::Error),
    /// Run-time changes cannot be read or kept.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Routes and neighbours cannot be followed.
    #[error("cannot follow routes and neighbours: {0}")]
    Netlink(#[source] std::io::Error),
}

/// Owns the model and everything that follows it.
pub struct Controller {
    config: Config,
    model: Model,
    derived: Derived,
    dataplane: Dataplane,
    state: StateFile,
    journal: Journal,
    probes: Probes,
    /// Those that ask agents.
    agents: Probes,
    addresses: channel::Sender<BTreeSet<IpAddr>>,
    /// The last table: a new backend may be at an address that is looked up already.
    routes: nexthop::Table,
    inbox: Inbox,
    /// What is an alarm, and who is told.
    desk: Desk,
    /// What is counted here, and not by packets.
    tallies: Tallies,
    /// How full the tables were when they were last looked at.
    tables: watch::Tables,
    /// What packets tell of the backends, and what of that has been taken.
    judge: Judge,
    looked: Looked,
    /// Services that the next look is about, whether or not there is news of them.
    concerned: BTreeSet<String>,
    /// Checks that were found to have gone silent since the last look.
    silent: Vec<String>,
    /// Map entries that the last comparison found changed by somebody else.
    drift: usize,
    /// When a check last had a result.
    heartbeat: Option<Timestamp>,
    /// From then on what changes goes to the maps at once.
    attached: bool,
    /// The maps may not say what the model says: the last write failed.
    behind: bool,
}

/// Where messages arrive.
struct Inbox {
    requests: mpsc::Receiver<Request>,
    reports: mpsc::Receiver<probe::Report>,
    /// Of agents.
    words: mpsc::Receiver<probe::Report>,
    tables: mpsc::Receiver<nexthop::Table>,
    attempts: mpsc::Receiver<Attempt>,
}

impl Controller {
    /// Takes over what is pinned or starts afresh, checks every backend once, and attaches.
    ///
    /// # Errors
    /// When anything of that fails; nothing stays attached or pinned then that was not before.
    pub async fn start(config: Config) -> Result<(Self, Handle), Error> {
        let (state, overrides) = StateFile::open(&config.global.state_dir)?;
        let journal = Journal::open(&config.global.state_dir)?;
        let model = Model::new(&config.services, &overrides, Timestamp::now());
        let mut model = model.with_detached_for(config.global.detached_for);
        let veth = nexthop::any_veth(&config.global.interfaces).await.map_err(Error::Netlink)?;
        let dataplane = Dataplane::open(&options(&config, veth))?;
        let adopted = dataplane.adopted();
        for known in &adopted {
            model.adopt(&known.service, &known.backend, known.address, known.healthy, Timestamp::now());
        }
        let (requests_in, requests) = mpsc::channel(64);
        let (reports_in, reports) = mpsc::channel(1024);
        let (words_in, words) = mpsc::channel(1024);
        let (tables_in, tables) = mpsc::channel(8);
        let (attempts_in, attempts) = mpsc::channel(64);
        let desk = Desk::open(&config.global.state_dir, &config.alarms, attempts_in)?;
        let (addresses, wanted) = channel::channel(model.addresses());
        nexthop::follow(wanted, tables_in).map_err(Error::Netlink)?;
        let mut controller = Self {
            config,
            model,
            derived: Derived::default(),
            dataplane,
            state,
            journal: journal.clone(),
            probes: Probes::new(Subject::Health, reports_in),
            agents: Probes::new(Subject::Agent, words_in),
            addresses,
            routes: nexthop::Table::new(),
            inbox: Inbox { requests, reports, words, tables, attempts },
            desk,
            tallies: Tallies::new(Timestamp::now()),
            tables: watch::Tables::default(),
            judge: Judge::default(),
            looked: Looked::default(),
            concerned: BTreeSet::new(),
            silent: Vec::new(),
            drift: 0,
            heartbeat: None,
            attached: false,
            behind: false,
        };
        controller.first_routes().await;
        if adopted.is_empty() {
            controller.first_checks().await;
            controller.attach()?;
        } else {
            tracing::info!(
                "taking over {} backends from {}",
                adopted.len(),
                controller.config.global.pin_dir.display()
            );
            controller.attach()?;
            controller.first_checks().await;
        }
        let started = Change::new(Timestamp::now(), "lb", format!("lb {} is ready", env!("CARGO_PKG_VERSION")));
        journal.append(&[Event::of_daemon(What::Daemon, "stopped", "started", started)]);
        Ok((controller, Handle::new(requests_in, journal)))
    }

    /// Serves messages until `stop` is done. Forwarding stays in place.
    pub async fn run(mut self, mut reload: mpsc::Receiver<()>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut reconcile = time::interval_at(Instant::now() + RECONCILE, RECONCILE);
        reconcile.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut stop => return self.stopped(),
                Some(request) = self.inbox.requests.recv() => request(&mut self),
                Some(report) = self.inbox.reports.recv() => self.observe(&report),
                Some(report) = self.inbox.words.recv() => self.listen(&report),
                Some(table) = self.inbox.tables.recv() => self.resolve(table),
                Some(attempt) = self.inbox.attempts.recv() => self.desk.note(attempt),
                // What came of it is in the log.
                Some(()) = reload.recv() => drop(self.reload(false, "SIGHUP")),
                _ = tick.tick() => {
                    self.tick();
                    self.look();
                }
                _ = look.tick() => {
                    let began = Instant::now();
                    self.judge();
                    look.reset_after(LOOK.max(began.elapsed() * LOOKING));
                }
                _ = reconcile.tick() => self.reconcile(),
            }
        }
    }

    fn stopped(&self) {
        let stopped = Change::new(Timestamp::now(), "signal", "stopped; what is attached goes on forwarding");
        self.journal.append(&[Event::of_daemon(What::Daemon, "started", "stopped", stopped)]);
    }

    /// Waits for the ways to the backends, but not for long: a dead one has none.
    async fn first_routes(&mut self) {
        let deadline = Instant::now() + NEIGHBOURS;
        loop {
            match time::timeout_at(deadline, self.inbox.tables.recv()).await {
                Ok(Some(table)) => {
                    let complete = table.values().all(Result::is_ok);
                    self.resolve(table);
                    if complete {
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Starts the checks and waits until each backend has been checked once, and its agent asked. Their timeouts bound that.
    async fn first_checks(&mut self) {
        self.probes.follow(&Model::default(), &self.model);
        self.agents.follow(&Model::default(), &self.model);
        let mut pending: HashSet<Arc<probe::Key>> = self.probes.keys().cloned().collect();
        let mut unasked: HashSet<Arc<probe::Key>> = self.agents.keys().cloned().collect();
        while !(pending.is_empty() && unasked.is_empty()) {
            tokio::select! {
                Some(report) = self.inbox.reports.recv() => {
                    pending.remove(&report.key);
                    self.observe(&report);
                }
                Some(report) = self.inbox.words.recv() => {
                    unasked.remove(&report.key);
                    self.listen(&report);
                }
                Some(table) = self.inbox.tables.recv() => self.resolve(table),
            }
        }
    }

    fn attach(&mut self) -> Result<(), Error> {
        self.model.start_at_once();
        self.dataplane.apply(&self.derived.plan(&self.model, Timestamp::now()))?;
        for attachment in self.dataplane.attach()? {
            report::attached(&attachment);
        }
        self.attached = true;
        report::standings(&self.model);
        Ok(())
    }

    fn observe(&mut self, report: &probe::Report) {
        if !self.probes.hear(report) {
            return;
        }
        let now = Timestamp::now();
        self.heartbeat = Some(now);
        self.tallies.check(&report.key, report.result.is_ok(), report.took);
        let (service, backend) = &*report.key;
        let mut events = self.model.observe(service, backend, &report.result, now);
        if !events.is_empty() && self.model.belie(service, &self.judge, now) {
            // Until it is different.
            self.concerned.insert(service.clone());
        }
        if let (Ok(_), Some(said)) = (&report.result, &report.agent) {
            // Whether the server is down is what its check says.
            let said = Agent { down: None, ..said.clone() };
            events.extend(self.hear(service, backend, &said, now));
        }
        if !events.is_empty() {
            self.publish(&events);
        }
    }

    /// Takes what came of asking an agent.
    fn listen(&mut self, report: &probe::Report) {
        if !self.agents.hear(report) {
            return;
        }
        let now = Timestamp::now();
        let (service, backend) = &*report.key;
        let events = match (&report.agent, &report.result) {
            (Some(said), _) => self.hear(service, backend, said, now),
            (None, Ok(why) | Err(why)) => self.model.miss(service, backend, why, now),
        };
        if !events.is_empty() {
            self.publish(&events);
        }
    }

    fn hear(&mut self, service: &str, backend: &str, said: &Agent, now: Timestamp) -> Vec<Event> {
        // All flows are looked at for this: only when an agent says that its server can take no more.
        let comes = self.model.comes_to_red_line(service, backend, said);
        let open = comes.then(|| self.dataplane.snapshot().open(service, backend)).flatten();
        self.model.hear(service, backend, said, open, now)
    }

    fn resolve(&mut self, table: nexthop::Table) {
        let events = self.model.resolve(&table, Timestamp::now());
        self.routes = table;
        self.publish(&events);
    }

    fn tick(&mut self) {
        notify::send_watchdog();
        while let Ok(report) = self.inbox.reports.try_recv() {
            self.observe(&report);
        }
        while let Ok(report) = self.inbox.words.try_recv() {
            self.listen(&report);
        }
        let at = std::time::Instant::now();
        for key in self.probes.revive(at).into_iter().chain(self.agents.revive(at)) {
            tracing::error!("the checks of {}/{} have stopped; they are started again", key.0, key.1);
            self.silent.push(format!("{}/{}", key.0, key.1));
        }
        self.model.count(&self.dataplane.keep_limits());
        let growing = self.model.is_growing();
        let events = self.model.tick(Timestamp::now());
        if growing || !events.is_empty() {
            self.publish(&events);
        }
    }

    /// Judges the backends by what packets tell of them.
    fn judge(&mut self) {
        let now = Timestamp::now();
        let mut concerned = std::mem::take(&mut self.concerned);
        for seen in self.dataplane.news(&mut self.looked) {
            if let Some(service) = self.model.services.get(&seen.service) {
                self.judge.take(&seen, &service.spec.passive, now);
                concerned.insert(seen.service);
            }
        }
        let (mut shifted, mut events) = (false, Vec::new());
        for service in concerned {
            let judged = self.model.judge(&service, &mut self.judge, now);
            shifted |= judged.shifted;
            events.extend(judged.events);
            if judged.lasts {
                self.concerned.insert(service);
            }
        }
        if shifted || !events.is_empty() {
            self.publish(&events);
        }
    }

    /// Brings the maps up to the model, after changes that cannot be refused any more.
    fn publish(&mut self, events: &[Event]) {
        self.note(events);
        // The end of a detachment is a run-time change that no operator asked for.
        let kept = |event: &Event| matches!(event.what, What::Admin | What::Detachment);
        if events.iter().any(kept)
            && let Err(error) = self.state.save(&self.derived.overrides(&self.model))
        {
            tracing::error!("{error}");
        }
        if !self.attached {
            return;
        }
        let applied = self.dataplane.apply(&self.derived.plan(&self.model, Timestamp::now()));
        self.behind = applied.is_err();
        if let Err(error) = applied {
            tracing::error!("the maps could not be updated, trying again in {RECONCILE:?}: {error}");
        }
    }

    /// Puts events on record. Before the program is attached only what was learnt counts: rotation and routes begin with
    /// it, and those of a daemon that goes before it never ended.
    fn note(&self, events: &[Event]) {
        if self.attached {
            report::events(&self.model, events);
            self.journal.append(events);
            return;
        }
        let starting = |event: &&Event| !matches!(event.what, What::Route | What::Rotation | What::Verdict);
        self.journal.append(&events.iter().filter(starting).cloned().collect::<Vec<_>>());
    }

    /// Replaces the model, if that can be stored and applied; otherwise all stays as it is.
    fn replace(&mut self, mut next: Model, change: &Change) -> Result<(), Error> {
        next.resolve_since(&self.model, &self.routes, change.at);
        next.start_slowly_since(&self.model, change.at);
        self.state.save(&self.derived.overrides(&next))?;
        if let Err(error) = self.dataplane.apply(&self.derived.plan(&next, change.at)) {
            self.state.save(&self.derived.overrides(&self.model))?;
            self.behind = true;
            return Err(error.into());
        }
        let events = self.model.changes_to(&next, change);
        let before = std::mem::replace(&mut self.model, next);
        self.note(&events);
        self.probes.follow(&before, &self.model);
        self.agents.follow(&before, &self.model);
        if self.model.reaches_others_than(&before) {
            self.addresses.send_replace(self.model.addresses());
        }
        Ok(())
    }

    fn reconcile(&mut self) {
        if self.behind {
            self.publish(&[]);
        }
        self.drift = self.dataplane.reconcile();
        self.tallies.repaired += self.drift as u64;
        self.look_at_tables();
        self.tallies.forget(&self.model);
        let services = &self.model.services;
        self.judge.retain(|service, name| {
            services.get(service).is_some_and(|known| known.backends.iter().any(|backend| backend.name == name))
        });
    }
}

fn options(config: &Config, veth: bool) -> dataplane::Options {
    let backends = config.services.iter().map(|service: &config::Service| service.backends.len()).sum::<usize>();
    dataplane::Options {
        interfaces: config.global.interfaces.clone(),
        xdp_mode: config.global.xdp_mode,
        pin_dir: config.global.pin_dir.clone(),
        flows: config.global.flows,
        services: u32::try_from(config.services.len()).unwrap_or(u32::MAX),
        backends: u32::try_from(backends).unwrap_or(u32::MAX),
        veth,
    }
}
