//! What a visitor is answered.

use std::{
    io::{self, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Failure, door::Door, sessions::Sessions};
use crate::http::{header, read_head};

/// Between two attempts to get memory, where the site waits for it.
const AGAIN: Duration = Duration::from_millis(20);
/// How long it waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// A visitor who says nothing for so long is hung up on.
const SILENCE: Duration = Duration::from_secs(5);

/// Answers visitors.
#[derive(Debug)]
pub(super) struct Desk {
    name: String,
    failure: Failure,
    sessions: Arc<Sessions>,
    /// Whether it has run out of memory and has not had plenty since.
    broken: AtomicBool,
    requests: AtomicU64,
}

impl Desk {
    pub(super) fn new(name: &str, failure: Failure, sessions: Arc<Sessions>) -> Self {
        Self { name: name.to_owned(), failure, sessions, broken: AtomicBool::new(false), requests: AtomicU64::new(0) }
    }

    /// Serves one request after the other, of new connections and of those that are kept.
    pub(super) fn work(&self, door: &Door) {
        loop {
            // A visitor who hangs up early, or a machine without a free file for a moment: the next one, please.
            let served = door.next().and_then(|stream| Ok(self.serve(&stream)?.then(|| door.keep(stream))));
            if served.is_err() {
                thread::sleep(AGAIN);
            }
        }
    }

    /// Whether the visitor keeps the connection.
    fn serve(&self, mut stream: &TcpStream) -> io::Result<bool> {
        stream.set_read_timeout(Some(SILENCE))?;
        let Some((head, _)) = read_head(&mut stream)? else { return Ok(false) };
        let keeps = header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive"));
        let connection = if keeps { "keep-alive" } else { "close" };
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let visitor = header(&head, "cookie").and_then(|cookie| cookie.strip_prefix("visitor="));
        // Whoever comes without a cookie, a check for one, is a visitor who has not been here yet.
        let visitor = visitor.map_or_else(|| format!("somebody {number}"), str::to_owned);
        let status = if self.view(&visitor, number) { "200 OK" } else { "500 Internal Server Error" };
        let length = self.name.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n");
        stream.write_all((head + &self.name).as_bytes())?;
        Ok(keeps)
    }

    /// Whether the visitor gets to see the page, with the request of that number.
    fn view(&self, visitor: &str, number: u64) -> bool {
        match self.failure {
            Failure::OutOfMemory | Failure::Bursts => self.remember(visitor),
            Failure::Slow => {
                let begun = Instant::now();
                while !self.remember(visitor) {
                    if begun.elapsed() > PATIENCE {
                        return false;
                    }
                    thread::sleep(AGAIN);
                }
                true
            }
            Failure::Half => {
                if self.broken.load(Ordering::Relaxed) {
                    let plenty = self.sessions.has_room_for(self.sessions.pages());
                    self.broken.store(!plenty, Ordering::Relaxed);
                }
                let broken = self.broken.load(Ordering::Relaxed);
                if broken && number.is_multiple_of(2) {
                    return false;
                }
                // What cannot be remembered is shown all the same.
                if !self.remember(visitor) {
                    self.broken.store(true, Ordering::Relaxed);
                }
                true
            }
        }
    }

    fn remember(&self, visitor: &str) -> bool {
        self.sessions.view(visitor, Instant::now()).is_ok()
    }
}
