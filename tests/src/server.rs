//! A small web server that answers with the name of its node, and can fail on command.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};

use crate::{
    http::{content_length, header, read_head},
    node::{Family, Node},
};

/// A web server on port 80 of a node, on all its addresses; a thread for each connection.
#[derive(Debug)]
pub struct Server {
    node: Node,
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Shared {
    body: String,
    status: AtomicU16,
    next: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
}

#[derive(Debug)]
struct Running {
    listener: TcpListener,
    acceptor: JoinHandle<()>,
}

impl Server {
    /// Starts one in the node.
    pub fn start_in(node: &Node) -> Result<Self> {
        let shared = Shared {
            body: node.name().to_owned(),
            status: AtomicU16::new(200),
            next: AtomicU64::new(0),
            open: Mutex::default(),
        };
        let mut server = Self { node: node.clone(), shared: Arc::new(shared), running: None };
        server.start()?;
        Ok(server)
    }

    /// Answers with this status from the next request on.
    pub fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::Relaxed);
    }

    /// Listens again after [`Server::stop`]; nothing to do when it does already.
    pub fn start(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        // The unspecified IPv6 address takes IPv4 as well.
        let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 80));
        let listener = self
            .node
            .enter(|| TcpListener::bind(any))
            .with_context(|| format!("cannot listen on port 80 of {}", self.node.name()))?;
        let accepting = listener.try_clone()?;
        let shared = Arc::clone(&self.shared);
        let acceptor = thread::spawn(move || shared.accept(&accepting));
        self.running = Some(Running { listener, acceptor });
        Ok(())
    }

    /// Stops as a killed process does: the port is closed and so is every connection.
    pub fn stop(&mut self) {
        let Some(Running { listener, acceptor }) = self.running.take() else { return };
        // Wakes accept(2), which fails from here on.
        let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        drop(listener);
        acceptor.join().expect("the acceptor does not panic");
        for (_, stream) in self.shared.open().drain() {
            // A connection that the client has closed meanwhile is no trouble.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Its node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self, family: Family) -> SocketAddr {
        self.node.address(family, 80)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener) {
        while let Ok((stream, _)) = listener.accept() {
            let Ok(clone) = stream.try_clone() else { continue };
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            self.open().insert(id, clone);
            let shared = Arc::clone(&self);
            thread::spawn(move || {
                // A client that breaks off has its reasons.
                let _ = shared.serve(&stream);
                shared.open().remove(&id);
            });
        }
    }

    fn serve(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        while let Some((head, body)) = read_head(&mut stream)? {
            let mut unread = vec![0; content_length(&head).saturating_sub(body.len())];
            stream.read_exact(&mut unread)?;
            let close = header(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            let status = self.status.load(Ordering::Relaxed);
            let connection = if close { "close" } else { "keep-alive" };
            let answer = format!(
                "HTTP/1.1 {status} -\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{}",
                self.body.len(),
                self.body
            );
            stream.write_all(answer.as_bytes())?;
            if close {
                break;
            }
        }
        Ok(())
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
