//! Visitors of a site: they come when they come, view some pages, and leave. Nobody waits for a slow server before coming,
//! so the load does not depend on how the site fares, and no failure hides because fewer requests were sent.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    http::{Answer, Connection},
    node::Node,
};

/// Pages that a visitor usually views.
pub const VIEWS: u32 = 3;

/// How long it takes to ask once more.
pub const AGAIN: Duration = Duration::from_millis(200);

/// A visitor is a thread that does little.
const STACK: usize = 128 << 10;

/// How the visitors of a day behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    /// How many pages a visitor views.
    pub(crate) views: u32,
    /// Whether that is over one connection, as long as it lasts.
    pub(crate) keeps: bool,
    /// Between two pages.
    pub(crate) think: Duration,
    /// How long a visitor waits for a page.
    pub(crate) patience: Duration,
    /// Whether who does not get a page asks for it once more.
    pub(crate) retries: bool,
}

/// A request that is over.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// When it was sent, from the first moment on.
    pub(crate) began: Duration,
    /// Why it failed, if it did.
    pub(crate) failure: Option<String>,
}

/// Visitors at work. Dropping it sends nobody any more, and waits for those who are there.
#[derive(Debug)]
pub(crate) struct Visitors {
    shared: Arc<Shared>,
    door: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    closed: AtomicBool,
    requests: Mutex<Vec<Request>>,
}

impl Visitors {
    /// Has visitors come to `to` at these times after `start`.
    pub(crate) fn start(
        node: &Node,
        to: SocketAddr,
        habit: Habit,
        start: Instant,
        arrivals: impl Iterator<Item = Duration> + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let inside = Arc::clone(&shared);
        // A new thread is in the namespace of the thread that makes it.
        let door = node.enter(|| thread::spawn(move || inside.let_in(to, habit, start, arrivals)));
        Self { shared, door: Some(door) }
    }

    /// How many requests are over, and how many of them failed.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        let requests = self.shared.requests();
        (requests.len() as u64, requests.iter().filter(|request| request.failure.is_some()).count() as u64)
    }

    /// Waits for the last visitor and tells what has become of all requests.
    pub(crate) fn finish(mut self) -> Vec<Request> {
        self.join();
        std::mem::take(&mut self.shared.requests())
    }

    fn join(&mut self) {
        if let Some(door) = self.door.take() {
            door.join().expect("a visitor records what fails");
        }
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Relaxed);
        self.join();
    }
}

impl Shared {
    fn let_in(&self, to: SocketAddr, habit: Habit, start: Instant, arrivals: impl Iterator<Item = Duration>) {
        thread::scope(|scope| {
            for (number, after) in arrivals.enumerate() {
                thread::sleep((start + after).saturating_duration_since(Instant::now()));
                if self.closed.load(Ordering::Relaxed) {
                    break;
                }
                let visitor = thread::Builder::new().stack_size(STACK);
                visitor
                    .spawn_scoped(scope, move || self.visit(to, habit, start, number))
                    .expect("there is room for as many threads as there are visitors");
            }
        });
    }

    fn visit(&self, to: SocketAddr, habit: Habit, start: Instant, number: usize) {
        let came = Instant::now();
        let mut kept = None;
        for view in 0..habit.views {
            thread::sleep((came + habit.think * view).saturating_duration_since(Instant::now()));
            if self.closed.load(Ordering::Relaxed) {
                break;
            }
            if !self.ask(&mut kept, to, habit, start, number) && habit.retries {
                thread::sleep(AGAIN);
                self.ask(&mut kept, to, habit, start, number);
            }
        }
    }

    /// Whether the visitor gets the page.
    fn ask(&self, kept: &mut Option<Connection>, to: SocketAddr, habit: Habit, start: Instant, number: usize) -> bool {
        let began = start.elapsed();
        let failure = page(kept, to, habit, number).err().map(|error| format!("{error:#}"));
        let is_shown = failure.is_none();
        self.requests().push(Request { began, failure });
        is_shown
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn page(kept: &mut Option<Connection>, to: SocketAddr, habit: Habit, visitor: usize) -> Result<()> {
    let (began, patience) = (Instant::now(), habit.patience);
    let cookie = format!("Cookie: visitor={visitor}\r\n");
    let connect = || Connection::open_within(to, None, patience);
    let answer = match kept.take() {
        _ if !habit.keeps => connect().and_then(|connection| connection.last_get_as(&cookie)),
        None => connect().and_then(|connection| ask_and_keep(kept, connection, &cookie)),
        Some(connection) => match ask_and_keep(kept, connection, &cookie) {
            // As browsers do: a connection that was kept may have been closed meanwhile.
            Err(error) if is_closed(&error) => connect().and_then(|connection| ask_and_keep(kept, connection, &cookie)),
            answer => answer,
        },
    };
    ensure!(began.elapsed() < patience, "no answer in {patience:?}");
    let status = answer?.status;
    ensure!(status < 500, "status {status}");
    Ok(())
}

fn ask_and_keep(kept: &mut Option<Connection>, mut connection: Connection, cookie: &str) -> Result<Answer> {
    let answer = connection.get_as(cookie)?;
    *kept = Some(connection);
    Ok(answer)
}

/// Whether the other side had closed the connection.
fn is_closed(error: &anyhow::Error) -> bool {
    let kind = error.root_cause().downcast_ref::<io::Error>().map(io::Error::kind);
    kind.is_none_or(|kind| matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}
