//! What the site remembers of its visitors, and what it takes.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use memmap2::MmapMut;

/// A leak comes in so many steps.
const STEPS: u32 = 8;

/// The sessions of all visitors.
#[derive(Debug)]
pub(super) struct Sessions {
    page: usize,
    idle: Duration,
    reserve: usize,
    held: Mutex<HashMap<String, Session>>,
}

/// A visitor's session.
#[derive(Debug)]
struct Session {
    pages: Vec<MmapMut>,
    seen: Instant,
}

impl Sessions {
    /// Of pages of so many bytes, which are freed when the visitor has been gone for `idle`; `reserve` bytes are left for
    /// others.
    pub(super) fn new(page: usize, idle: Duration, reserve: usize) -> Self {
        Self { page, idle, reserve, held: Mutex::default() }
    }

    /// A visitor views a page.
    ///
    /// # Errors
    /// When the kernel grants no memory for it.
    pub(super) fn view(&self, visitor: &str, now: Instant) -> io::Result<()> {
        let mut held = self.held();
        let page = self.take(self.page)?;
        let session = held.entry(visitor.to_owned()).or_insert_with(|| Session { pages: Vec::new(), seen: now });
        session.seen = now;
        session.pages.push(page);
        Ok(())
    }

    /// Frees the sessions of visitors who have gone.
    pub(super) fn forget_the_gone(&self, now: Instant) {
        self.held().retain(|_, session| now.duration_since(session.seen) < self.idle);
    }

    /// Whether so many pages more could be had.
    pub(super) fn has_room_for(&self, pages: usize) -> bool {
        let _held = self.held();
        MmapMut::map_anon(pages * self.page + self.reserve).is_ok()
    }

    /// Pages that are held.
    pub(super) fn pages(&self) -> usize {
        self.held().values().map(|session| session.pages.len()).sum()
    }

    /// Takes `bytes` now and then, or what there is of them, and gives them back after half of the time to the next.
    pub(super) fn leak_in_bursts(&self, mut at: Instant, every: Duration, bytes: u64) {
        let step = usize::try_from(bytes).unwrap_or(usize::MAX) / STEPS as usize;
        loop {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            let mut leaked = Vec::new();
            for _ in 0..STEPS {
                let held = self.held();
                leaked.extend(self.take(step));
                drop(held);
                thread::sleep(every / 16 / STEPS);
            }
            thread::sleep((at + every / 2).saturating_duration_since(Instant::now()));
            drop(leaked);
            at += every;
        }
    }

    /// Memory that is really there. The caller holds the lock, so that nobody else takes what is found to be free.
    fn take(&self, bytes: usize) -> io::Result<MmapMut> {
        drop(MmapMut::map_anon(bytes + self.reserve)?);
        let mut memory = MmapMut::map_anon(bytes)?;
        memory.fill(b'm');
        Ok(memory)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_until_its_visitor_has_been_gone_for_long_enough() {
        let idle = Duration::from_secs(4);
        let sessions = Sessions::new(4096, idle, 0);
        let start = Instant::now();
        sessions.view("ann", start).unwrap();
        sessions.view("bob", start).unwrap();
        sessions.view("ann", start + idle / 2).unwrap();
        assert_eq!(sessions.pages(), 3);
        sessions.forget_the_gone(start + idle);
        assert_eq!(sessions.pages(), 2);
        sessions.forget_the_gone(start + idle / 2 + idle);
        assert_eq!(sessions.pages(), 0);
    }

    #[test]
    fn a_page_beyond_what_there_is_is_an_error_and_nothing_is_held_of_it() {
        let sessions = Sessions::new(usize::MAX / 4, Duration::from_secs(1), 0);
        assert!(sessions.view("ann", Instant::now()).is_err());
        assert_eq!(sessions.pages(), 0);
        assert!(!sessions.has_room_for(1));
    }
}
