//! The http check: GET is answered with a wanted status. Redirections count as they are, none is followed.

use std::{error::Error as _, net::SocketAddr};

use http_body_util::Empty;
use hyper::{
    Request,
    body::Bytes,
    client::conn::http1,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::config::StatusRanges;

pub(super) async fn probe(address: SocketAddr, path: &str, expect: &StatusRanges) -> Result<String, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| super::describe(&error))?;
    let status = get(stream, address, path).await.map_err(|error| describe(&error))?;
    if expect.contains(status) {
        Ok(format!("HTTP {status}"))
    } else {
        Err(format!("HTTP {status}, expected {expect}"))
    }
}

/// The status of the answer; the body is left unread.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: SocketAddr,
    path: &str,
) -> hyper::Result<u16> {
    let request = Request::get(path)
        .header(HOST, host.to_string())
        .header(USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION"), " (health check)"))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("the path was checked with the configuration");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => Ok(answer?.status().as_u16()),
        closed = &mut connection => {
            closed?;
            Ok(answer.await?.status().as_u16())
        }
    }
}

fn describe(error: &hyper::Error) -> String {
    if let Some(error) = error.source().and_then(|cause| cause.downcast_ref()) {
        return super::describe(error);
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return "connection closed without an answer".into();
    }
    if error.is_parse() {
        return format!("the answer is not HTTP: {error}");
    }
    error.to_string()
}
