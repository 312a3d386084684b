//! A small movie site: what visitors have looked at is kept in memory until they have been gone for a while.
//!
//! Every page that a visitor views takes memory of that visitor's session, really: it is mapped and written. The site
//! limits its own data to what its machine grants it, as managed runtimes do, and the kernel refuses what is beyond
//! (`RLIMIT_DATA`). What the site does then is its [`Failure`].

mod answer;
mod door;
mod sessions;

use std::{
    convert::Infallible,
    fmt,
    net::{Ipv6Addr, TcpListener},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Args, Parser, ValueEnum};
use rustix::process::{Resource, Rlimit, setrlimit};

use self::{answer::Desk, door::Door, sessions::Sessions};

/// What a site does that has run out of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Failure {
    /// Who needs memory gets a 500.
    #[default]
    OutOfMemory,
    /// Who needs memory waits for it.
    Slow,
    /// Half of the answers are 500, until there is plenty again.
    Half,
    /// Who needs memory gets a 500; and some of it leaks now and then, for a while.
    Bursts,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// How the site is started.
#[derive(Clone, Debug, Parser)]
#[command(name = "movie-site", about = "A small movie site that keeps its sessions in memory")]
pub struct Options {
    /// The name that it answers with
    #[arg(long)]
    pub name: String,
    /// Where it listens, on all addresses
    #[arg(long, default_value_t = 80)]
    pub port: u16,
    /// Bytes that its machine grants it
    #[arg(long)]
    pub memory: u64,
    /// How it runs and fails
    #[command(flatten)]
    pub habits: Habits,
}

/// How the site uses memory, and what it does without.
#[derive(Clone, Debug, Args)]
pub struct Habits {
    /// Bytes that a viewed page takes of its visitor's session
    #[arg(long)]
    pub page: usize,
    /// Milliseconds after which the session of a visitor who has gone is freed
    #[arg(long, value_parser = milliseconds)]
    pub idle: Duration,
    /// What it does when it has run out of memory
    #[arg(long, value_enum, default_value_t)]
    pub failure: Failure,
    /// Milliseconds from one leak to the next, with `bursts`
    #[arg(long, value_parser = milliseconds, default_value = "60000")]
    pub leak_every: Duration,
    /// Milliseconds to the first leak
    #[arg(long, value_parser = milliseconds, default_value = "0")]
    pub leak_after: Duration,
    /// Percent of the memory that a leak takes; it is given back after half of the time to the next
    #[arg(long, default_value_t = 20)]
    pub leak: u8,
}

/// Requests that are served at a time; others wait.
const WORKERS: usize = 32;
const STACK: usize = 128 << 10;
/// What small things may still take when no page can be had any more.
const RESERVE: usize = 2 << 20;

/// Bytes that pages can take in a site whose machine grants it `memory`.
#[must_use]
pub fn room(memory: u64) -> u64 {
    let taken = WORKERS * STACK + RESERVE;
    own_limit(memory).saturating_sub(taken as u64)
}

/// A sixteenth stays for what the kernel keeps for the site: sockets and page tables.
fn own_limit(memory: u64) -> u64 {
    memory / 16 * 15
}

/// Serves for ever.
///
/// # Errors
/// When it cannot begin to.
pub fn serve(options: &Options) -> Result<Infallible> {
    let own = Some(own_limit(options.memory));
    setrlimit(Resource::Data, Rlimit { current: own, maximum: own }).context("cannot limit the memory")?;
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, options.port))
        .with_context(|| format!("cannot listen on port {}", options.port))?;
    let Habits { page, idle, failure, leak_every, leak_after, leak } = options.habits.clone();
    let sessions = Arc::new(Sessions::new(page, idle, RESERVE));
    let desk = Arc::new(Desk::new(&options.name, failure, Arc::clone(&sessions)));
    let door = Arc::new(Door::open(listener).context("cannot wait for visitors")?);
    for _ in 0..WORKERS {
        let (desk, door) = (Arc::clone(&desk), Arc::clone(&door));
        thread::Builder::new().stack_size(STACK).spawn(move || desk.work(&door))?;
    }
    if failure == Failure::Bursts {
        let bytes = options.memory / 100 * u64::from(leak);
        let sessions = Arc::clone(&sessions);
        let leaks = move || sessions.leak_in_bursts(Instant::now() + leak_after, leak_every, bytes);
        thread::Builder::new().stack_size(STACK).spawn(leaks)?;
    }
    loop {
        thread::sleep(idle / 20);
        sessions.forget_the_gone(Instant::now());
    }
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}
