//! The other end of the control API.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::{net::UnixStream, time};

use crate::{
    api::types::{
        AlarmTest, AlarmTestDocument, AlarmsDocument, BackendDocument, BackendPatch, BackendsDocument, CheckDocument,
        ConfigDocument, DriftDocument, ErrorBody, ErrorDocument, EventsDocument, HealthDocument, NewBackend,
        NewService, NewSilence, PacketLog, PacketLogDocument, ReloadDocument, StatusDocument,
    },
    journal::Filter,
};

/// A daemon that starts answers after the first round of checks; nothing takes longer, and no check over a minute.
const PATIENCE: Duration = Duration::from_secs(90);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or not to us.
    #[error("cannot reach the daemon at {}: {}", .socket.display(), explain(.source))]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The daemon accepted and said nothing.
    #[error("the daemon at {} does not answer within {PATIENCE:?}", .socket.display())]
    Silent {
        /// Where.
        socket: PathBuf,
    },
    /// The daemon says no.
    #[error("{}", .0.message)]
    Answered(ErrorBody),
    /// What came back is not of this API.
    #[error("the answer of {} is not what lb {} understands: {reason}", .socket.display(), env!("CARGO_PKG_VERSION"))]
    Garbled {
        /// Where.
        socket: PathBuf,
        /// How.
        reason: String,
    },
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied; the socket is its owner's, try with sudo".into(),
        io::ErrorKind::NotFound => {
            "there is no such socket; start `lb run`, or name the daemon's with --socket or LB_SOCKET".into()
        }
        io::ErrorKind::ConnectionRefused => "nobody listens: the daemon was killed; start `lb run` again".into(),
        _ => error.to_string(),
    }
}

/// A daemon, by its socket. Each request has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon that listens there.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// Where that is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The status of every service, or of one.
    ///
    /// # Errors
    /// See [`Error`]; so for every request.
    pub async fn status(&self, service: Option<&str>) -> Result<StatusDocument, Error> {
        let path = match service {
            Some(service) => format!("/v1/status/{}", segment(service)),
            None => "/v1/status".into(),
        };
        self.ask(Method::GET, &path, None::<&()>).await
    }

    /// The backends of a service.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn backends(&self, service: &str) -> Result<BackendsDocument, Error> {
        self.ask(Method::GET, &backends(service), None::<&()>).await
    }

    /// One backend.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn backend(&self, service: &str, backend: &str) -> Result<BackendDocument, Error> {
        self.ask(Method::GET, &path(service, backend), None::<&()>).await
    }

    /// Adds a backend.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add(&self, service: &str, new: &NewBackend) -> Result<BackendDocument, Error> {
        self.ask(Method::POST, &backends(service), Some(new)).await
    }

    /// Changes a backend.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change(&self, service: &str, backend: &str, patch: &BackendPatch) -> Result<BackendDocument, Error> {
        self.ask(Method::PATCH, &path(service, backend), Some(patch)).await
    }

    /// Removes a backend.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove(&self, service: &str, backend: &str, force: bool) -> Result<BackendsDocument, Error> {
        let path = format!("{}?force={force}", path(service, backend));
        self.ask(Method::DELETE, &path, None::<&()>).await
    }

    /// How each backend is checked, and what came of it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn health(&self) -> Result<HealthDocument, Error> {
        self.ask(Method::GET, "/v1/health", None::<&()>).await
    }

    /// Has a backend checked once.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn check(&self, service: &str, backend: &str) -> Result<CheckDocument, Error> {
        self.ask(Method::POST, &format!("{}/check", path(service, backend)), None::<&()>).await
    }

    /// Adds a service.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn add_service(&self, new: &NewService) -> Result<StatusDocument, Error> {
        self.ask(Method::POST, "/v1/services", Some(new)).await
    }

    /// Changes settings of a service.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn change_service(&self, service: &str, change: &Map<String, Value>) -> Result<StatusDocument, Error> {
        self.ask(Method::PATCH, &format!("/v1/services/{}", segment(service)), Some(change)).await
    }

    /// Removes a service.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove_service(&self, service: &str, force: bool) -> Result<StatusDocument, Error> {
        self.ask(Method::DELETE, &format!("/v1/services/{}?force={force}", segment(service)), None::<&()>).await
    }

    /// What the daemon runs with.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn configuration(&self) -> Result<ConfigDocument, Error> {
        self.ask(Method::GET, "/v1/config", None::<&()>).await
    }

    /// How that differs from the file.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn drift(&self) -> Result<DriftDocument, Error> {
        self.ask(Method::GET, "/v1/config/diff", None::<&()>).await
    }

    /// Has the file read again; with `discard` what was changed at run time is dropped.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn reload(&self, discard: bool) -> Result<ReloadDocument, Error> {
        self.ask(Method::POST, &format!("/v1/config/reload?discard={discard}"), None::<&()>).await
    }

    /// What fires, what is silenced, and how those fare who carry alarms.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn alarms(&self) -> Result<AlarmsDocument, Error> {
        self.ask(Method::GET, "/v1/alarms", None::<&()>).await
    }

    /// Tells nobody of something for a while.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn silence(&self, wish: &NewSilence) -> Result<AlarmsDocument, Error> {
        self.ask(Method::POST, "/v1/alarms/silences", Some(wish)).await
    }

    /// Tells everybody, or one, that this is a test.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn test_alarms(&self, test: &AlarmTest) -> Result<AlarmTestDocument, Error> {
        self.ask(Method::POST, "/v1/alarms/test", Some(test)).await
    }

    /// Whether the program is to log the packets that it drops.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn log_drops(&self, drops: bool) -> Result<PacketLogDocument, Error> {
        self.ask(Method::PUT, "/v1/xdp/log", Some(&PacketLog { drops })).await
    }

    /// Events; with `wait` the answer comes when there is one, or after that many seconds.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn events(&self, filter: &Filter, wait: Option<u64>) -> Result<EventsDocument, Error> {
        let mut path = format!("/v1/events?after={}", filter.after);
        let since = filter.since.map(|since| since.to_string());
        let wait = wait.map(|wait| wait.to_string());
        let queries = [("since", &since), ("service", &filter.service), ("backend", &filter.backend), ("wait", &wait)];
        for (key, value) in queries {
            if let Some(value) = value {
                path.push_str(&format!("&{key}={}", segment(value)));
            }
        }
        self.ask(Method::GET, &path, None::<&()>).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let body = body.map(|body| serde_json::to_vec(body).expect("requests are JSON")).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "lb")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("every segment is escaped");
        let answer = time::timeout(PATIENCE, self.exchange(request)).await;
        let (ok, answer) = answer.map_err(|_| Error::Silent { socket: self.socket.clone() })??;
        if ok {
            return self.read(&answer);
        }
        let document: ErrorDocument = self.read(&answer)?;
        Err(Error::Answered(document.error))
    }

    /// Whether it went well, and the body.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(bool, Bytes), Error> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| Error::Unreachable { socket: self.socket.clone(), source })?;
        let broken =
            |error: hyper::Error| Error::Unreachable { socket: self.socket.clone(), source: io::Error::other(error) };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        let ok = response.status().is_success();
        Ok((ok, response.into_body().collect().await.map_err(broken)?.to_bytes()))
    }

    fn read<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(answer)
            .map_err(|error| Error::Garbled { socket: self.socket.clone(), reason: error.to_string() })
    }
}

fn backends(service: &str) -> String {
    format!("/v1/services/{}/backends", segment(service))
}

fn path(service: &str, backend: &str) -> String {
    format!("{}/{}", backends(service), segment(backend))
}

/// A segment of a path (RFC 3986, section 3.3): a name has brackets when it is an IPv6 address.
fn segment(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_survive_a_path() {
        for (name, expected) in [("web-01", "web-01"), ("[::1]:80", "%5B::1%5D:80"), ("a/b?c", "a%2Fb%3Fc")] {
            assert_eq!(super::segment(name), expected);
        }
    }
}
