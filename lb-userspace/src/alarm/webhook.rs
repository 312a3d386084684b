//! `webhook`: POST of JSON over a connection of its own, signed where there is a secret.
//!
//! The signature is `Lb-Signature: t=SECONDS,v1=HEX`: the time of the attempt, and the HMAC-SHA256 (RFC 2104) of that
//! time, a full stop and the body. Whoever checks it and the time knows that nobody has made it up or sent it again.

use std::{fmt::Write as _, fs, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use jiff::Timestamp;
use ring::hmac;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Notice,
    courier::{Failure, Message},
};
use crate::{
    config::{Secret, TlsCheck, Webhook},
    exchange::exchange,
    probe::tls_client,
};

/// Where the signature is.
const SIGNATURE: &str = "lb-signature";

/// One attempt.
pub(super) async fn post(webhook: &Webhook, timeout: Duration, id: u64, notice: &Notice) -> Result<(), Failure> {
    let again = |reason| Failure { reason, again: true };
    let request = request(webhook, Timestamp::now(), Message::new(id, notice).json()).map_err(again)?;
    let answer = time::timeout(timeout, send(webhook, request)).await;
    let late = |_| format!("no answer within {}", humantime::format_duration(timeout));
    let status = answer.map_err(late).and_then(|answer| answer).map_err(again)?;
    if status.is_success() {
        return Ok(());
    }
    // What the server does not want today it does not want tomorrow, unless it says that it is about the moment.
    let moment = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    Err(Failure { reason: format!("HTTP {status}"), again: moment || status.is_server_error() })
}

fn request(webhook: &Webhook, now: Timestamp, body: Vec<u8>) -> Result<Request<Full<Bytes>>, String> {
    let authority = webhook.url.authority().map(ToString::to_string).unwrap_or_default();
    let path = webhook.url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::post(path)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close");
    if let Some(secret) = &webhook.secret {
        request = request.header(SIGNATURE, sign(&key(secret)?, now, &body));
    }
    request.body(Full::new(Bytes::from(body))).map_err(|error| error.to_string())
}

/// Whether its secret and its authorities can be read.
pub(super) fn check(webhook: &Webhook) -> Result<(), String> {
    if let Some(secret) = &webhook.secret {
        key(secret)?;
    }
    if webhook.url.scheme_str() == Some("https") {
        tls_client(&trust(webhook))?;
    }
    Ok(())
}

/// The secret; of a file without the line break that editors put at its end.
fn key(secret: &Secret) -> Result<Vec<u8>, String> {
    match secret {
        Secret::Text(text) => Ok(text.clone().into_bytes()),
        Secret::File(path) => {
            let secret =
                fs::read(path).map_err(|error| format!("cannot read the secret in {}: {error}", path.display()))?;
            let secret = secret.trim_ascii_end();
            if secret.is_empty() {
                Err(format!("there is no secret in {}", path.display()))
            } else {
                Ok(secret.to_vec())
            }
        }
    }
}

fn sign(key: &[u8], now: Timestamp, body: &[u8]) -> String {
    let seconds = now.as_second();
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(format!("{seconds}.").as_bytes());
    context.update(body);
    let mut signature = format!("t={seconds},v1=");
    for byte in context.sign().as_ref() {
        let _ = write!(signature, "{byte:02x}");
    }
    signature
}

async fn send(webhook: &Webhook, request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
    let url = &webhook.url;
    let secure = url.scheme_str() == Some("https");
    let host = bare_host(url);
    let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| format!("{host}:{port}: {error}"))?;
    if !secure {
        return status(stream, request).await;
    }
    status(secured(stream, host, webhook).await?, request).await
}

/// TLS on a connection, with whoever has a certificate for that host.
async fn secured(stream: TcpStream, host: &str, webhook: &Webhook) -> Result<TlsStream<TcpStream>, String> {
    let client = tls_client(&trust(webhook))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    TlsConnector::from(client).connect(name, stream).await.map_err(|error| format!("TLS: {error}"))
}

fn trust(webhook: &Webhook) -> TlsCheck {
    TlsCheck { ca_file: webhook.ca_file.clone(), ..TlsCheck::default() }
}

/// An IPv6 address without its brackets.
fn bare_host(url: &Uri) -> &str {
    url.host().unwrap_or_default().trim_matches(['[', ']'])
}

async fn status(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, String> {
    let answer = exchange(stream, request, async |response| Ok(response.status())).await;
    answer.map_err(|error| format!("no answer: {error}"))
}

#[cfg(test)]
mod tests;
