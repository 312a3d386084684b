//! Segments from addresses that nobody has, as fast as they can be made.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use rustix::net::SendFlags;

use crate::{
    datagram::{Segment, raw_sender},
    node::{Family, Node},
};

/// A flood under way. Dropping it ends it.
#[derive(Debug)]
pub struct Flood {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    began: Instant,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicU64,
}

impl Flood {
    pub(crate) fn start(node: &Node, to: SocketAddr, each: &'static [Segment]) -> Result<Self> {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        let socket = node.enter(|| raw_sender(family))?;
        let shared = Arc::new(Shared::default());
        let flooding = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            while !flooding.stop.load(Ordering::Relaxed) {
                // xorshift64 (Marsaglia, 2003)
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                for segment in each {
                    let packet = Segment { from: from(to.ip(), random), to, seq: random as u32, ..*segment }.packet();
                    // The queue of the interface may be full for a moment.
                    if rustix::net::sendto(&socket, &packet, SendFlags::empty(), &SocketAddr::new(to.ip(), 0)).is_ok() {
                        flooding.sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(Self { shared, thread: Some(thread), began: Instant::now() })
    }

    /// Segments sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// How long it has lasted.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic");
        }
    }
}

/// An address and port from the networks that are for benchmarks (RFC 2544) and for documentation (RFC 3849).
fn from(like: IpAddr, random: u64) -> SocketAddr {
    let port = 1024 | (random >> 48) as u16;
    let ip = match like {
        IpAddr::V4(_) => IpAddr::from(((198 << 24 | 18 << 16) | (random as u32 & 0x1_ffff)).to_be_bytes()),
        IpAddr::V6(_) => IpAddr::from((0x2001_0db8_00aa_0000_u128 << 64 | u128::from(random)).to_be_bytes()),
    };
    SocketAddr::new(ip, port)
}
