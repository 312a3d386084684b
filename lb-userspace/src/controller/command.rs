//! What the API asks of the controller, and how it is done.

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::Controller;
use crate::{
    api::types::ServiceStatus,
    config,
    journal::Journal,
    model::{AdminChange, Change, Rejection},
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
    /// Another weight or admin state.
    Set {
        /// The service.
        service: String,
        /// The backend.
        backend: String,
        /// What to change.
        change: AdminChange,
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

pub(super) struct Request {
    command: Command,
    actor: String,
    reply: oneshot::Sender<Result<Vec<ServiceStatus>, Refusal>>,
}

/// The way to a running controller.
#[derive(Clone, Debug)]
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
        let (reply, answer) = oneshot::channel();
        let request = Request { command, actor: actor.to_owned(), reply };
        self.requests.send(request).await.map_err(|_| Refusal::Stopping)?;
        answer.await.map_err(|_| Refusal::Stopping)?
    }
}

impl Controller {
    pub(super) fn answer(&mut self, request: Request) {
        let done = self.execute(request.command, &request.actor).and_then(|()| {
            let snapshot = self.dataplane.snapshot().map_err(super::Error::from)?;
            Ok(status::of(&self.model, &snapshot))
        });
        // Whoever asked may have gone.
        let _ = request.reply.send(done);
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
