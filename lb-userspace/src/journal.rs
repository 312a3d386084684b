//! The event log: every change of a backend, a service or the daemon, with cause, actor and time, in the order in which
//! they happened. It is only ever appended to, and it survives the daemon.
//!
//! On disk it is `events.jsonl` in the state directory, a JSON object a line; when that is large it becomes
//! `events.jsonl.1`, whose predecessor goes. The newest [`KEPT`] events are at hand in memory. A disk that is full
//! stops nothing: what could not be written is written as soon as it can be.

mod file;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use self::file::LogFile;
use crate::{model::Event, state};

/// How many events are at hand.
pub const KEPT: usize = 10_000;

/// An event and its place in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts from 1 and goes on over restarts.
    pub seq: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those with a higher number.
    pub after: u64,
    /// Those of that time and later.
    pub since: Option<Timestamp>,
    /// Those of a service.
    pub service: Option<String>,
    /// Those of its backend.
    pub backend: Option<String>,
}

/// The event log; clones share it.
#[derive(Clone, Debug)]
pub struct Journal {
    log: Arc<Mutex<Log>>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Log {
    recent: VecDeque<Entry>,
    file: LogFile,
}

impl Journal {
    /// Opens the log in the state directory, which exists, and reads what is in it.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(state_dir: &Path) -> Result<Self, state::Error> {
        let (file, mut recent) = LogFile::open(state_dir)?;
        recent.drain(..recent.len().saturating_sub(KEPT));
        let newest = recent.back().map_or(0, |entry| entry.seq);
        Ok(Self { log: Arc::new(Mutex::new(Log { recent, file })), newest: watch::Sender::new(newest) })
    }

    /// Adds events, in their order.
    pub fn append(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        let mut log = self.log();
        let mut newest = *self.newest.borrow();
        for event in events {
            newest += 1;
            let entry = Entry { seq: newest, event: event.clone() };
            log.file.add(&entry);
            log.recent.push_back(entry);
        }
        let surplus = log.recent.len().saturating_sub(KEPT);
        log.recent.drain(..surplus);
        log.file.flush();
        drop(log);
        self.newest.send_replace(newest);
    }

    /// The wanted events, oldest first, and the number of the newest there is.
    pub fn read(&self, filter: &Filter) -> (Vec<Entry>, u64) {
        let log = self.log();
        let newest = *self.newest.borrow();
        let start = log.recent.partition_point(|entry| entry.seq <= filter.after);
        (log.recent.range(start..).filter(|entry| filter.takes(&entry.event)).cloned().collect(), newest)
    }

    /// The wanted events; when there are none, waits for the first that comes.
    pub async fn next(&self, filter: &Filter) -> (Vec<Entry>, u64) {
        let mut newest = self.newest.subscribe();
        let mut filter = filter.clone();
        loop {
            let seen = *newest.borrow_and_update();
            let (events, last) = self.read(&filter);
            if !events.is_empty() || newest.changed().await.is_err() {
                return (events, last);
            }
            filter.after = filter.after.max(seen);
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wanted events of a log on disk, oldest first, and the number of the newest there is. No daemon is needed.
///
/// # Errors
/// When there is no log in that directory, or it cannot be read.
pub fn stored(state_dir: &Path, filter: &Filter) -> Result<(Vec<Entry>, u64), state::Error> {
    let path = state_dir.join(file::NAME);
    let failed = |source| state::Error::Io { action: "read", path: path.clone(), source };
    path.metadata().map_err(failed)?;
    let entries = file::stored(&path).map_err(failed)?;
    let newest = entries.back().map_or(0, |entry| entry.seq);
    let wanted = entries.into_iter().filter(|entry| entry.seq > filter.after && filter.takes(&entry.event));
    Ok((wanted.collect(), newest))
}

impl Filter {
    fn takes(&self, event: &Event) -> bool {
        self.since.is_none_or(|since| event.at >= since)
            && (self.service.is_none() || self.service == event.service)
            && (self.backend.is_none() || self.backend == event.backend)
    }
}

#[cfg(test)]
mod tests;
