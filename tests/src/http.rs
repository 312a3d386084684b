//! The little HTTP/1.1 that a client of the lab speaks, over a connection whose source port one may choose.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

/// Longer than any answer in the lab takes, shorter than a person waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, without white space around it.
    pub body: String,
}

impl Connection {
    /// Connects from the namespace of the calling thread, from an address and port if they are given.
    pub(crate) fn open(to: SocketAddr, source: Option<SocketAddr>) -> Result<Self> {
        Self::open_within(to, source, PATIENCE)
    }

    /// The same, with a limit of one's own for each step: to connect, to send, to receive.
    pub(crate) fn open_within(to: SocketAddr, source: Option<SocketAddr>, patience: Duration) -> Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        for direction in [sockopt::Timeout::Send, sockopt::Timeout::Recv] {
            sockopt::set_socket_timeout(&socket, direction, Some(patience))?;
        }
        if let Some(source) = source {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &source).with_context(|| format!("cannot bind {source}"))?;
        }
        connect(&socket, &to).with_context(|| format!("cannot connect to {to}"))?;
        Ok(Self { stream: socket.into() })
    }

    /// Asks for `/`; the connection stays open.
    pub fn get(&mut self) -> Result<Answer> {
        self.get_as("")
    }

    /// The same with header lines more.
    pub(crate) fn get_as(&mut self, headers: &str) -> Result<Answer> {
        self.request("keep-alive", headers)
    }

    /// Asks for `/` and has the server close the connection, so that the waiting for stray packets is on its side.
    pub fn last_get(self) -> Result<Answer> {
        self.last_get_as("")
    }

    /// The same with header lines more.
    pub(crate) fn last_get_as(mut self, headers: &str) -> Result<Answer> {
        let answer = self.request("close", headers)?;
        let rest = self.stream.read(&mut [0; 64]).context("the server did not close the connection")?;
        if rest > 0 {
            bail!("{rest} bytes after the answer");
        }
        Ok(answer)
    }

    /// The stream itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn request(&mut self, connection: &str, headers: &str) -> Result<Answer> {
        // In one piece: of two, the second would wait until the first is acknowledged.
        let request = format!("GET / HTTP/1.1\r\nHost: lab\r\nConnection: {connection}\r\n{headers}\r\n");
        self.stream.write_all(request.as_bytes()).context("cannot send the request")?;
        let (head, mut body) = read_head(&mut self.stream).context("no answer")?.context("closed without an answer")?;
        let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("this is no HTTP answer: {head}"))?;
        let length = content_length(&head);
        let mut rest = vec![0; length.saturating_sub(body.len())];
        self.stream.read_exact(&mut rest).context("the answer was cut off")?;
        body.extend(rest);
        Ok(Answer { status, body: String::from_utf8_lossy(&body).trim().to_owned() })
    }
}

/// Reads up to the empty line; returns the head and what came after it, or nothing when the peer closed instead.
pub(crate) fn read_head(stream: &mut impl Read) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = received.split_off(end + 4);
            return Ok(Some((String::from_utf8_lossy(&received).into_owned(), rest)));
        }
        match stream.read(&mut chunk) {
            Ok(0) if received.is_empty() => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => received.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The value of Content-Length; 0 when there is none.
pub(crate) fn content_length(head: &str) -> usize {
    header(head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// The value of a header.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_the_empty_line_and_the_rest_is_kept() {
        let mut answer = &b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nweb-01"[..];
        let (head, rest) = read_head(&mut answer).expect("a slice can be read").expect("there is a head");
        assert_eq!(content_length(&head), 6);
        assert_eq!(rest, b"web-01");
        assert!(read_head(&mut answer).expect("a slice can be read").is_none());
    }
}
