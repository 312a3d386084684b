//! Whoever is told of alarms: a web server that keeps what is posted to it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};

use crate::{
    http::{content_length, header, read_head},
    node::Node,
};

/// A web server that keeps what is posted to it.
#[derive(Debug)]
pub struct Hook {
    shared: Arc<Shared>,
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

/// Something that was posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// The path and its query.
    pub path: String,
    /// `Lb-Signature`, if there was one.
    pub signature: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    /// What it was answered with.
    pub status: u16,
}

#[derive(Debug)]
struct Shared {
    status: AtomicU16,
    posts: Mutex<Vec<Post>>,
}

impl Hook {
    /// Starts one in a node.
    pub fn start_in(node: &Node, address: SocketAddr) -> Result<Self> {
        let listener =
            node.enter(|| TcpListener::bind(address)).with_context(|| format!("cannot listen on {address}"))?;
        let shared = Arc::new(Shared { status: AtomicU16::new(200), posts: Mutex::default() });
        let (accepting, sharing) = (listener.try_clone()?, Arc::clone(&shared));
        let acceptor = thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                // Who breaks off has not posted anything.
                let _ = sharing.serve(stream);
            }
        });
        Ok(Self { shared, listener, acceptor: Some(acceptor) })
    }

    /// Answers with this status from the next request on.
    pub fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::Relaxed);
    }

    /// What was posted so far.
    #[must_use]
    pub fn posts(&self) -> Vec<Post> {
        self.shared.posts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was posted and taken so far, as JSON.
    pub fn taken(&self) -> Result<Vec<serde_json::Value>> {
        let taken = self.posts().into_iter().filter(|post| post.status == 200);
        taken.map(|post| serde_json::from_slice(&post.body).context("a body is JSON")).collect()
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        // Wakes accept(2), which fails from here on.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().expect("the acceptor does not panic");
        }
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let Some((head, mut body)) = read_head(&mut stream)? else { return Ok(()) };
        let mut rest = vec![0; content_length(&head).saturating_sub(body.len())];
        stream.read_exact(&mut rest)?;
        body.extend(rest);
        let status = self.status.load(Ordering::Relaxed);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let signature = header(&head, "lb-signature").map(str::to_owned);
        self.posts.lock().unwrap_or_else(PoisonError::into_inner).push(Post { path, signature, body, status });
        write!(stream, "HTTP/1.1 {status} -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    }
}
