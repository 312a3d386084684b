//! The http and https checks: GET is answered with a wanted status and, if so configured, with a wanted text.
//! Redirections count as they are, none is followed.

use std::{error::Error as _, net::SocketAddr, sync::Arc};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{CONNECTION, HOST, USER_AGENT},
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::tls;
use crate::{
    config::{HttpCheck, TlsCheck},
    exchange::exchange,
};

/// How much of a body is searched.
const BODY: usize = 64 * 1024;

pub(super) async fn probe(
    address: SocketAddr,
    check: &HttpCheck,
    tls: Option<(&TlsCheck, Arc<ClientConfig>)>,
) -> Result<String, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| super::describe(&error))?;
    let answer = match tls {
        None => get(stream, address, check).await,
        Some((settings, client)) => {
            let stream = tls::connect(stream, address, check.host.as_deref(), settings, client).await?;
            get(stream, address, check).await
        }
    };
    let (status, body) = answer.map_err(|error| describe(&error))?;
    let expect = &check.expect;
    if !expect.contains(status) {
        return Err(format!("HTTP {status}, expected {expect}"));
    }
    match &check.body {
        Some(text) if !super::contains(&body, text.as_bytes()) => {
            Err(format!("HTTP {status}, but no {text:?} in the answer"))
        }
        _ => Ok(format!("HTTP {status}")),
    }
}

/// The status of the answer and, when it is looked at, the body.
async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    check: &HttpCheck,
) -> hyper::Result<(u16, Vec<u8>)> {
    let host = check.host.clone().unwrap_or_else(|| address.to_string());
    let request = Request::get(&check.path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION"), " (health check)"))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("path and host were checked with the configuration");
    exchange(stream, request, async |response| {
        let status = response.status().as_u16();
        let body = if check.body.is_some() { beginning(response).await? } else { Vec::new() };
        Ok((status, body))
    })
    .await
}

async fn beginning(mut response: Response<Incoming>) -> hyper::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < BODY {
        let Some(frame) = response.frame().await else { break };
        if let Ok(data) = frame?.into_data() {
            body.extend_from_slice(&data);
        }
    }
    Ok(body)
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
