//! Connections that stay, each busy with one request after the other.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;

use crate::{http::Connection, node::Node};

/// Connections are shared out among so many threads.
const THREADS: usize = 4;

/// Between two rounds: the machine is left to the others.
const PAUSE: Duration = Duration::from_millis(50);

/// For an answer: a flood may cost segments again and again; what counts is whether the connection goes on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connections at work. Dropping it closes them.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<CrowdReport>>,
    servers: Vec<String>,
}

/// What became of them.
#[derive(Clone, Debug, Default)]
pub struct CrowdReport {
    /// Requests that were answered by the server that the connection had from the beginning.
    pub answers: usize,
    /// Requests that the least busy connection had answered.
    pub fewest: usize,
    /// Connections that were cut, or answered by another server, in words.
    pub broken: Vec<String>,
}

impl Crowd {
    /// Opens `count` connections, has each answered once, and starts to ask.
    pub(crate) fn start(node: &Node, to: SocketAddr, count: usize) -> Result<Self> {
        let open = || {
            let mut connection = Connection::open_within(to, None, PATIENCE)?;
            let server = connection.get()?.body;
            Ok((connection, server))
        };
        let mut members = node.enter(|| (0..count).map(|_| open()).collect::<Result<Vec<_>>>())?;
        let servers = members.iter().map(|(_, server)| server.clone()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        while !members.is_empty() {
            let some = members.split_off(members.len().saturating_sub(count.div_ceil(THREADS)));
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || ask(some, &stop)));
        }
        Ok(Self { stop, threads, servers })
    }

    /// How many of the connections are with a server.
    #[must_use]
    pub fn of(&self, server: &str) -> usize {
        self.servers.iter().filter(|of| *of == server).count()
    }

    /// Ends it and tells what happened.
    #[must_use]
    pub fn stop(mut self) -> CrowdReport {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = CrowdReport { fewest: usize::MAX, ..CrowdReport::default() };
        for thread in self.threads.drain(..) {
            let part = thread.join().expect("a connection that breaks is reported");
            report.answers += part.answers;
            report.fewest = report.fewest.min(part.fewest);
            report.broken.extend(part.broken);
        }
        report
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn ask(mut members: Vec<(Connection, String)>, stop: &AtomicBool) -> CrowdReport {
    let mut report = CrowdReport::default();
    while !stop.load(Ordering::Relaxed) {
        members.retain_mut(|(connection, server)| {
            let trouble = match connection.get() {
                Ok(answer) if answer.body == *server => None,
                Ok(answer) => Some(format!("moved from {server} to {}", answer.body)),
                Err(error) => Some(format!("cut off from {server}: {error:#}")),
            };
            report.answers += usize::from(trouble.is_none());
            let stays = trouble.is_none();
            report.broken.extend(trouble);
            stays
        });
        report.fewest += 1;
        thread::sleep(PAUSE);
    }
    report
}
