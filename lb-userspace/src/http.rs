//! What the daemon shows over TCP: `/metrics`, `/healthz`, `/readyz`, and a page for people.
//!
//! It only shows. Whoever may not open the control socket may read this, where `http` in `[global]` lets them.

mod page;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch, task, time};

use crate::{
    controller::{Handle, Refusal},
    dataplane,
    metrics::{self, Scrape},
};

/// How long a look may take before the daemon counts as stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for /metrics: {source}{}; `http` in [global] names another IP:PORT, or \"off\" to do without",
    if .source.kind() == io::ErrorKind::AddrInUse { ", by another lb perhaps" } else { "" }
)]
pub struct Error {
    address: SocketAddr,
    source: io::Error,
}

/// What is shown, and where it comes from.
#[derive(Clone)]
pub struct Exposed {
    /// The controller, once it has started.
    pub controller: watch::Receiver<Option<Handle>>,
    /// The maps.
    pub pin_dir: PathBuf,
}

/// Takes the address.
///
/// # Errors
/// When it is taken, or none of this machine.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error { address, source })
}

/// Shows for as long as it is polled.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: TcpListener, exposed: Exposed) -> io::Result<()> {
    axum::serve(listener, router(exposed)).await
}

fn router(exposed: Exposed) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(async || (StatusCode::NOT_FOUND, "no such page; there are /, /metrics, /healthz and /readyz\n"))
        .with_state(exposed)
}

/// Why there is nothing to show.
struct Unavailable(String);

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.0)).into_response()
    }
}

impl Exposed {
    fn controller(&self) -> Result<Handle, Unavailable> {
        self.controller.borrow().clone().ok_or_else(|| Unavailable("starting".into()))
    }

    /// Everything at one moment. The maps are read here: the controller has other things to do.
    async fn scrape(&self) -> Result<Scrape, Unavailable> {
        let controller = self.controller()?;
        let pin_dir = self.pin_dir.clone();
        let maps = task::spawn_blocking(move || Ok((dataplane::read(&pin_dir)?, dataplane::attachments(&pin_dir)?)));
        let maps = maps.await.map_err(|error| Unavailable(format!("cannot read the maps: {error}")))?;
        let (snapshot, attachments) =
            maps.map_err(|error: dataplane::Error| Unavailable(format!("cannot read the maps: {error}")))?;
        let seen = snapshot.clone();
        let overview = in_time(controller.overview(seen)).await?;
        Ok(Scrape { snapshot, attachments, overview })
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Refusal>>) -> Result<T, Unavailable> {
    match time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(|refusal| Unavailable(refusal.to_string())),
        Err(_) => Err(Unavailable(format!("the controller has not answered within {PATIENCE:?}"))),
    }
}

async fn page(State(exposed): State<Exposed>) -> Result<Html<String>, Unavailable> {
    Ok(Html(page::html(&exposed.scrape().await?.overview)))
}

async fn metrics(State(exposed): State<Exposed>, headers: HeaderMap) -> Result<Response, Unavailable> {
    let scrape = exposed.scrape().await?;
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    let (kind, text) = if accepted.contains("application/openmetrics-text") {
        (metrics::OPENMETRICS, scrape.openmetrics())
    } else {
        (metrics::CLASSIC, scrape.classic())
    };
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Whether the process is alive: it has not begun to serve, or its controller answers.
async fn healthz(State(exposed): State<Exposed>) -> Result<&'static str, Unavailable> {
    let controller = exposed.controller.borrow().clone();
    if let Some(controller) = controller {
        in_time(controller.is_current()).await?;
    }
    Ok("ok\n")
}

/// Whether it does its work: attached, every backend checked once, and the maps as they should be.
async fn readyz(State(exposed): State<Exposed>) -> Result<&'static str, Unavailable> {
    match in_time(exposed.controller()?.is_current()).await? {
        true => Ok("ready\n"),
        false => Err(Unavailable("the maps could not be written; see the log".into())),
    }
}

#[cfg(test)]
mod tests;
