//! A UDP server that sends back what it gets, with its name before it.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::node::Node;

/// How often it looks whether it is to stop.
const BREATH: Duration = Duration::from_millis(50);

/// A server at work. Dropping it stops it.
#[derive(Debug)]
pub struct UdpEcho {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpEcho {
    /// Starts one in a node, at one of its addresses.
    pub fn start_in(node: &Node, address: SocketAddr) -> Result<Self> {
        let socket = node.enter(|| UdpSocket::bind(address));
        let socket = socket.with_context(|| format!("cannot bind {address} in {}", node.name()))?;
        socket.set_read_timeout(Some(BREATH))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut answer) = (Arc::clone(&stop), format!("{} ", node.name()).into_bytes());
        let name = answer.len();
        let thread = thread::spawn(move || {
            let mut received = [0; 65536];
            while !stopped.load(Ordering::Relaxed) {
                // What fails here is the time running out, or an ICMP error on account of the last answer.
                let Ok((length, from)) = socket.recv_from(&mut received) else { continue };
                answer.truncate(name);
                answer.extend_from_slice(&received[..length]);
                let _ = socket.send_to(&answer, from);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic");
        }
    }
}
