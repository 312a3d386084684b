//! Whoever carries a notice to a webhook or a program: a task each, one notice after the other, again and again until it
//! has arrived. The controller never waits for one.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{self, Instant},
};

use super::{Notice, exec, webhook};
use crate::config::Channel;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What has not arrived by then is of no use any more.
const GIVE_UP: Duration = Duration::from_secs(24 * 60 * 60);

/// A notice on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// Counts up; the same in every attempt, so that whoever gets it twice knows.
    pub id: u64,
    /// Of which courier: "hooks.example webhook".
    pub to: String,
    /// What to tell.
    pub notice: Notice,
}

/// How an attempt went.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Whose.
    pub to: String,
    /// Which.
    pub id: u64,
    /// Whether it arrived; otherwise, why not.
    pub result: Result<(), String>,
    /// Whether there will be no other.
    pub last: bool,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    /// In words.
    pub(super) reason: String,
    /// Whether another attempt may fare better.
    pub(super) again: bool,
}

/// A task that carries notices one way.
#[derive(Debug)]
pub(super) struct Courier {
    /// How.
    pub(super) channel: Channel,
    /// How long an attempt may take.
    pub(super) timeout: Duration,
    next: mpsc::Sender<(u64, Notice)>,
    task: AbortHandle,
}

impl Courier {
    pub(super) fn start(to: String, channel: Channel, timeout: Duration, attempts: mpsc::Sender<Attempt>) -> Self {
        let (next, notices) = mpsc::channel(1);
        let task = tokio::spawn(carry(to, channel.clone(), timeout, notices, attempts)).abort_handle();
        Self { channel, timeout, next, task }
    }

    /// Gives it a notice. It must have none.
    pub(super) fn give(&self, pending: &Pending) {
        if self.next.try_send((pending.id, pending.notice.clone())).is_err() {
            tracing::error!("the courier to {} has something to carry already, or has ended", pending.to);
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One attempt.
///
/// # Errors
/// With the reason why it did not arrive.
pub async fn attempt(channel: &Channel, timeout: Duration, id: u64, notice: &Notice) -> Result<(), String> {
    once(channel, timeout, id, notice).await.map_err(|failure| failure.reason)
}

async fn once(channel: &Channel, timeout: Duration, id: u64, notice: &Notice) -> Result<(), Failure> {
    match channel {
        Channel::Webhook(settings) => webhook::post(settings, timeout, id, notice).await,
        Channel::Exec(program) => exec::run(program, timeout, id, notice).await,
    }
}

async fn carry(
    to: String,
    channel: Channel,
    timeout: Duration,
    mut notices: mpsc::Receiver<(u64, Notice)>,
    attempts: mpsc::Sender<Attempt>,
) {
    while let Some((id, notice)) = notices.recv().await {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = once(&channel, timeout, id, &notice).await.err();
            let last = failure.as_ref().is_none_or(|failure| !failure.again || started.elapsed() > GIVE_UP);
            let result = failure.map_or(Ok(()), |failure| Err(failure.reason));
            if attempts.send(Attempt { to: to.clone(), id, result, last }).await.is_err() {
                return;
            }
            if last {
                break;
            }
            // Those that fail together do not come back together.
            time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The body of a webhook, and what a program reads.
#[derive(Serialize)]
pub(super) struct Message<'a> {
    schema_version: u32,
    pub(super) id: String,
    pub(super) host: String,
    #[serde(flatten)]
    notice: &'a Notice,
}

impl<'a> Message<'a> {
    pub(super) fn new(id: u64, notice: &'a Notice) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let id = format!("{host}-{}-{id}", notice.at.as_second());
        Self { schema_version: crate::api::types::SCHEMA_VERSION, id, host, notice }
    }

    pub(super) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("words and times are JSON")
    }
}
