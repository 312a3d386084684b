//! New connections at a steady rate, whatever becomes of those before: what many clients look like.

use std::{
    net::SocketAddr,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{client::Tally, http::Connection, node::Node};

/// What became of them.
#[derive(Clone, Debug, Default)]
pub struct Paced {
    /// Who answered how often, and what went wrong.
    pub tally: Tally,
    /// How long each took to be established, of those that were answered; the shortest first.
    pub handshakes: Vec<Duration>,
    /// How long it took to begin them all.
    pub began_in: Duration,
}

impl Paced {
    /// The longest time to be established.
    #[must_use]
    pub fn slowest(&self) -> Duration {
        self.handshakes.last().copied().unwrap_or_default()
    }

    /// How many took longer.
    #[must_use]
    pub fn slower_than(&self, limit: Duration) -> usize {
        self.handshakes.len() - self.handshakes.partition_point(|took| *took <= limit)
    }
}

/// `count` connections with one request each, `rate` begun in a second.
pub(crate) fn run(node: &Node, to: SocketAddr, count: u32, rate: u32) -> Paced {
    let (sender, results) = mpsc::channel();
    let began = Instant::now();
    let began_in = node.enter(|| {
        thread::scope(|scope| {
            for number in 0..count {
                thread::sleep(
                    (began + Duration::from_secs(1) * number / rate).saturating_duration_since(Instant::now()),
                );
                let sender = sender.clone();
                scope.spawn(move || {
                    // The receiver outlives the scope.
                    let _ = sender.send(request(to));
                });
            }
            began.elapsed()
        })
    });
    drop(sender);
    let mut paced = Paced { began_in, ..Paced::default() };
    for result in results {
        match result {
            Ok((server, handshake)) => {
                *paced.tally.answers.entry(server).or_default() += 1;
                paced.handshakes.push(handshake);
            }
            Err(error) => paced.tally.failures.push(format!("{error:#}")),
        }
    }
    paced.handshakes.sort_unstable();
    paced
}

fn request(to: SocketAddr) -> anyhow::Result<(String, Duration)> {
    let began = Instant::now();
    let connection = Connection::open(to, None)?;
    let handshake = began.elapsed();
    let answer = connection.last_get()?;
    anyhow::ensure!(answer.status == 200, "status {}", answer.status);
    Ok((answer.body, handshake))
}
