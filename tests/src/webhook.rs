//! Where webhooks arrive: an HTTP server that keeps what it is sent, and when it came.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    http::{content_length, read_head},
    node::Node,
};

/// A sender that falls silent in the middle is hung up on.
const SILENCE: Duration = Duration::from_secs(5);

/// A receiver on a loopback port of a node.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// When the last byte was here.
    pub at: Instant,
    /// Request line and headers.
    pub head: String,
    /// The bytes that a signature is about.
    pub bytes: Vec<u8>,
    /// The same, read; null when it is no JSON.
    pub body: Value,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    status: AtomicU16,
    deliveries: Mutex<Vec<Delivery>>,
}

impl Webhook {
    /// Starts one on a port that is free there.
    pub fn start_in(node: &Node) -> Result<Self> {
        let listener = node
            .enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .with_context(|| format!("cannot listen in {}", node.name()))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            status: AtomicU16::new(200),
            deliveries: Mutex::default(),
        });
        let (inside, accepting) = (Arc::clone(&shared), listener.try_clone()?);
        let acceptor = Some(thread::spawn(move || inside.accept(&accepting)));
        Ok(Self { address, shared, listener, acceptor })
    }

    /// What to configure.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/alarm", self.address)
    }

    /// Answers with this status from the next delivery on.
    pub fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::Relaxed);
    }

    /// What has arrived so far, in order.
    #[must_use]
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.shared.deliveries().clone()
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes accept(2), which fails from here on.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor does not panic");
        }
    }
}

impl Shared {
    fn accept(&self, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            // A sender that breaks off sends it again.
            let _ = self.receive(&stream);
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
    }

    fn receive(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(SILENCE))?;
        let Some((head, mut bytes)) = read_head(&mut stream)? else { return Ok(()) };
        let mut rest = vec![0; content_length(&head).saturating_sub(bytes.len())];
        stream.read_exact(&mut rest)?;
        bytes.extend(rest);
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        self.deliveries().push(Delivery { at: Instant::now(), head, bytes, body });
        let status = self.status.load(Ordering::Relaxed);
        write!(stream, "HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    }

    fn deliveries(&self) -> MutexGuard<'_, Vec<Delivery>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
