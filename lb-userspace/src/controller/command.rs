//! What the API asks of the controller, and how it is done.

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::Controller;
use crate::{
    api::types::{ConfigDocument, DriftDocument, HealthDocument, ReloadDocument, ServiceStatus},
    config,
    journal::Journal,
    model::{AdminChange, Change, Rejection},
    probe::Target,
    status,
};

/// What can be asked. Each is answered with the status of every service after it.
#[derive(Clone, Debug)]
pub enum Command {
    /// Nothing but the status.
    Status,
    /// A new backend.
    Add {
        /// Its service.
        service: String,
        /// What it is.
        backend: config::Backend,
    },
    /// A new service.
    AddService {
        /// Its name.
        service: String,
        /// What it is: what a file would say.
        settings: Map<String, Value>,
    },
    /// Other settings.
    SetService {
        /// The service.
        service: String,
        /// What to change.
        change: Map<String, Value>,
    },
    /// The service gone, with its flows.
    RemoveService {
        /// The service.
        service: String,
        /// Whether to do it even when it serves.
        force: bool,
    },
    /// Another weight or admin state.
    Set {
        /// The service.
        service: String,
        /// The backend.
        backend: String,
        /// What to change.
        change: AdminChange,
    },
    /// Checks paused or resumed.
    Pause {
        /// The service.
        service: String,
        /// The backend.
        backend: String,
        /// Whether they are to be paused.
        paused: bool,
        /// Why.
        reason: Option<String>,
    },
    /// The backend gone, with its flows.
    Remove {
        /// The service.
        service: String,
        /// The backend.
        backend: String,
        /// Whether to do it even when the service is left with nothing in rotation.
        force: bool,
    },
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It should not be done.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It could not be done.
    #[error(transparent)]
    Failed(#[from] super::Error),
    /// Nobody is there to do it.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Something to do on the controller's own task.
pub(super) type Request = Box<dyn FnOnce(&mut Controller) + Send>;

/// The way to a running controller.
#[derive(Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    journal: Journal,
}

impl Handle {
    pub(super) fn new(requests: mpsc::Sender<Request>, journal: Journal) -> Self {
        Self { requests, journal }
    }

    /// What happened so far.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// One whose controller is gone.
    #[cfg(test)]
    pub(crate) fn unanswered(state_dir: &std::path::Path) -> Self {
        Self::new(mpsc::channel(1).0, Journal::open(state_dir).expect("the directory is there"))
    }

    /// Has a command done in the name of `actor`.
    ///
    /// # Errors
    /// When it was not; then nothing has changed.
    pub async fn ask(&self, command: Command, actor: &str) -> Result<Vec<ServiceStatus>, Refusal> {
        let actor = actor.to_owned();
        self.call(move |controller| {
            controller.execute(command, &actor)?;
            Ok(controller.status())
        })
        .await
    }

    /// Has the file read again in the name of `actor`; with `discard` what was changed at run time is dropped.
    ///
    /// # Errors
    /// When it is bad or cannot be applied; then nothing has changed.
    pub async fn reload(&self, discard: bool, actor: &str) -> Result<ReloadDocument, Refusal> {
        let actor = actor.to_owned();
        self.call(move |controller| controller.reload(discard, &actor)).await
    }

    /// Has dropped packets logged from now on, or no more, in the name of `actor`.
    ///
    /// # Errors
    /// When the kernel refuses the program that does it; then the old one goes on.
    pub async fn log_drops(&self, on: bool, actor: &str) -> Result<(), Refusal> {
        let actor = actor.to_owned();
        self.call(move |controller| {
            controller.dataplane.log_drops(on).map_err(super::Error::from)?;
            tracing::info!("dropped packets are {} by {actor}", if on { "logged" } else { "logged no more" });
            Ok(())
        })
        .await
    }

    /// What the daemon runs with.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn configuration(&self) -> Result<ConfigDocument, Refusal> {
        self.call(|controller| Ok(controller.configuration())).await
    }

    /// What differs between the file and what runs.
    ///
    /// # Errors
    /// When the file is bad.
    pub async fn drift(&self) -> Result<DriftDocument, Refusal> {
        self.call(|controller| controller.drift()).await
    }

    /// How each backend is checked, and what came of it.
    ///
    /// # Errors
    /// When the daemon is stopping.
    pub async fn health(&self) -> Result<HealthDocument, Refusal> {
        self.call(|controller| Ok(status::health(&controller.model))).await
    }

    /// How a backend is checked.
    ///
    /// # Errors
    /// When there is no such backend, or it is not checked.
    pub async fn target(&self, service: &str, backend: &str) -> Result<Target, Refusal> {
        let (service, backend) = (service.to_owned(), backend.to_owned());
        self.call(move |controller| controller.target(&service, &backend)).await
    }

    pub(super) async fn call<T, F>(&self, work: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&mut Controller) -> Result<T, Refusal> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        // Whoever asked may have gone.
        let request: Request = Box::new(move |controller| drop(reply.send(work(controller))));
        self.requests.send(request).await.map_err(|_| Refusal::Stopping)?;
        answer.await.map_err(|_| Refusal::Stopping)?
    }
}

impl Controller {
    pub(super) fn status(&self) -> Vec<ServiceStatus> {
        status::of(&self.model, &self.dataplane.snapshot(), Timestamp::now())
    }

    fn target(&mut self, service: &str, backend: &str) -> Result<Target, Refusal> {
        let (service, backend) = self.model.find(service, backend)?;
        let target = self.probes.target(service, backend);
        let unchecked = || format!("the backends of service {} are not checked: type = \"none\"", service.spec.name);
        Ok(target.ok_or_else(|| Rejection::Invalid(unchecked()))?)
    }

    fn execute(&mut self, command: Command, actor: &str) -> Result<(), Refusal> {
        let now = Timestamp::now();
        let mut next = self.model.clone();
        let done = match command {
            Command::Status => return Ok(()),
            Command::Add { service, backend } => {
                let done = format!("backend {service}/{} added at {}", backend.name, backend.address);
                next.add(&service, backend, actor, now)?;
                done
            }
            Command::AddService { service, settings } => {
                next.add_service(&service, &settings, actor, now)?;
                format!("service {service} added")
            }
            Command::SetService { service, change } => {
                next.set_service(&service, &change, now)?;
                format!("service {service} changed: {}", Value::from(change))
            }
            Command::RemoveService { service, force } => {
                next.remove_service(&service, force)?;
                format!("service {service} removed")
            }
            Command::Pause { service, backend, paused, reason } => {
                next.pause(&service, &backend, paused, reason.as_deref(), actor, now)?;
                format!("checks {} by {actor}", if paused { "paused" } else { "resumed" })
            }
            Command::Set { service, backend, change } => {
                next.set(&service, &backend, &change, actor, now)?;
                let done = change.describe();
                format!("backend {service}/{backend}: {done}")
            }
            Command::Remove { service, backend, force } => {
                next.remove(&service, &backend, force)?;
                format!("backend {service}/{backend} removed")
            }
        };
        self.replace(next, &Change::new(now, actor, done))?;
        Ok(())
    }
}
