//! Requests in the background, until told to stop.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{client::Tally, http::Connection, node::Node};

/// Between two requests of a thread: enough for thousands a second in all, and leaves the machine to the others.
const PAUSE: Duration = Duration::from_millis(2);

/// Clients at work. Dropping it stops them.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What happened up to a moment.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Who answered how often; failures stay empty here.
    pub tally: Tally,
    /// What went wrong, in the order of its end.
    pub failures: Vec<Failure>,
}

/// A request that got no proper answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When the request began.
    pub began: Instant,
    /// Why it failed.
    pub why: String,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    progress: Mutex<Progress>,
}

impl Load {
    pub(crate) fn start(node: &Node, to: SocketAddr, threads: usize, addresses: &[IpAddr]) -> Self {
        let shared = Arc::new(Shared::default());
        let client = |number: usize| {
            let shared = Arc::clone(&shared);
            let source = addresses.get(number % addresses.len().max(1)).map(|&address| SocketAddr::new(address, 0));
            // A new thread is in the namespace of the thread that makes it.
            thread::spawn(move || shared.ask(to, source))
        };
        let threads = node.enter(|| (0..threads).map(client).collect());
        Self { shared, threads }
    }

    /// What has happened so far.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.shared.progress().clone()
    }

    /// Finishes the requests that are under way and tells the result.
    #[must_use]
    pub fn stop(mut self) -> Progress {
        self.join();
        self.progress()
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client records its failures");
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.join();
    }
}

impl Shared {
    fn ask(&self, to: SocketAddr, source: Option<SocketAddr>) {
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let result = request(to, source);
            let mut progress = self.progress();
            match result {
                Ok(server) => *progress.tally.answers.entry(server).or_default() += 1,
                Err(error) => progress.failures.push(Failure { began, why: format!("{error:#}") }),
            }
            drop(progress);
            thread::sleep(PAUSE);
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request(to: SocketAddr, source: Option<SocketAddr>) -> Result<String> {
    let answer = Connection::open(to, source)?.last_get()?;
    if answer.status != 200 {
        bail!("status {}", answer.status);
    }
    Ok(answer.body)
}
