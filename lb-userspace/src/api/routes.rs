//! The paths of the control API.

use axum::{
    Json, Router,
    extract::{ConnectInfo, DefaultBodyLimit, State, connect_info::Connected},
    http::StatusCode,
    routing::{get, post, put},
    serve::IncomingStream,
};
use tokio::net::UnixListener;

use super::{
    alarms,
    body::{Body, Failure, Forced, Named},
    config, events, health, services,
    socket::Socket,
    types::{
        BackendDocument, BackendPatch, BackendsDocument, ErrorCode, NewBackend, PacketLog, PacketLogDocument,
        SCHEMA_VERSION, ServiceStatus, StatusDocument,
    },
};
use crate::{
    controller::{Command, Handle},
    model::{self, AdminChange},
};

/// More than any request has.
pub(super) const BODY_LIMIT: usize = 1 << 20;

pub(super) type Answer<T> = Result<Json<T>, Failure>;
pub(super) type Caller = ConnectInfo<Actor>;

/// Who is on the other end, as the kernel says.
#[derive(Clone, Debug)]
pub(super) struct Actor(pub(super) String);

impl Connected<IncomingStream<'_, UnixListener>> for Actor {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let uid = stream.io().peer_cred().map(|peer| peer.uid());
        Self(uid.map_or_else(|_| "unknown".into(), |uid| format!("uid {uid}")))
    }
}

/// Serves the API for as long as it is polled. The socket's file goes with the future.
///
/// # Errors
/// When the socket fails.
pub async fn serve(socket: Socket, controller: Handle) -> std::io::Result<()> {
    let Socket { listener, file } = socket;
    let _file = file;
    axum::serve(listener, router(controller).into_make_service_with_connect_info::<Actor>()).await
}

fn router(controller: Handle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/status/{service}", get(status_of_service))
        .route("/v1/events", get(events::read))
        .route("/v1/alarms", get(alarms::list))
        .route("/v1/alarms/silences", post(alarms::silence))
        .route("/v1/alarms/test", post(alarms::test))
        .route("/v1/health", get(health::list))
        .route("/v1/services/{service}/backends/{backend}/check", post(health::check))
        .route("/v1/xdp/log", put(xdp_log))
        .route("/v1/config", get(config::show))
        .route("/v1/config/diff", get(config::diff))
        .route("/v1/config/reload", post(config::reload))
        .route("/v1/services", get(status).post(services::add))
        .route("/v1/services/{service}", get(status_of_service).patch(services::change).delete(services::remove))
        .route("/v1/services/{service}/backends", get(list).post(add))
        .route("/v1/services/{service}/backends/{backend}", get(show).patch(change).delete(remove))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(controller)
}

async fn no_such_path() -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        ErrorCode::NotFound,
        "no such path; the API is under /v1/status, /v1/services, /v1/health, /v1/alarms, /v1/config and /v1/events",
    )
}

async fn no_such_method() -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, ErrorCode::Invalid, "this path does not take this method")
}

async fn status(State(controller): State<Handle>) -> Answer<StatusDocument> {
    Ok(Json(controller.status().await?))
}

async fn status_of_service(State(controller): State<Handle>, Named(name): Named<String>) -> Answer<StatusDocument> {
    let mut document = controller.status().await?;
    document.services = vec![pick(document.services, &name)?];
    document.alarms.retain(|alarm| alarm.service.as_ref().is_none_or(|service| *service == name));
    Ok(Json(document))
}

async fn list(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Named(service): Named<String>,
) -> Answer<BackendsDocument> {
    let services = controller.ask(Command::Status, &actor.0).await?;
    backends(services, service)
}

async fn add(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Named(service): Named<String>,
    Body(new): Body<NewBackend>,
) -> Result<(StatusCode, Json<BackendDocument>), Failure> {
    let NewBackend { name, address, weight, health_port, agent_port, backup, max_connections } = new;
    let backend = model::entry(name, &address, weight.unwrap_or(1))?;
    let backend = crate::config::Backend { health_port, agent_port, backup, max_connections, ..backend };
    let name = backend.name.clone();
    let services = controller.ask(Command::Add { service: service.clone(), backend }, &actor.0).await?;
    Ok((StatusCode::CREATED, backend_of(services, service, &name)?))
}

async fn show(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Named((service, backend)): Named<(String, String)>,
) -> Answer<BackendDocument> {
    let services = controller.ask(Command::Status, &actor.0).await?;
    backend_of(services, service, &backend)
}

async fn change(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Named((service, backend)): Named<(String, String)>,
    Body(patch): Body<BackendPatch>,
) -> Answer<BackendDocument> {
    let BackendPatch { weight, max_connections, admin, until, recall, paused, reason, force } = patch;
    if let Some(paused) = paused {
        if weight.is_some() || admin.is_some() || max_connections.is_some() {
            let message = "paused goes with a reason only; change weight and admin in a request of their own";
            return Err(Failure::new(StatusCode::BAD_REQUEST, ErrorCode::Invalid, message));
        }
        let command = Command::Pause { service: service.clone(), backend: backend.clone(), paused, reason };
        return backend_of(controller.ask(command, &actor.0).await?, service, &backend);
    }
    let change = AdminChange { admin, weight, max_connections, until, recall, reason, force };
    let command = Command::Set { service: service.clone(), backend: backend.clone(), change };
    let services = controller.ask(command, &actor.0).await?;
    backend_of(services, service, &backend)
}

async fn remove(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Named((service, backend)): Named<(String, String)>,
    Forced(force): Forced,
) -> Answer<BackendsDocument> {
    let services = controller.ask(Command::Remove { service: service.clone(), backend, force }, &actor.0).await?;
    backends(services, service)
}

pub(super) fn pick(services: Vec<ServiceStatus>, name: &str) -> Result<ServiceStatus, Failure> {
    let names: Vec<String> = services.iter().map(|service| service.name.clone()).collect();
    let found = services.into_iter().find(|service| service.name == name);
    found.ok_or_else(|| model::no_such_service(name, &names).into())
}

fn backends(services: Vec<ServiceStatus>, service: String) -> Answer<BackendsDocument> {
    let backends = pick(services, &service)?.backends;
    Ok(Json(BackendsDocument { schema_version: SCHEMA_VERSION, service, backends }))
}

fn backend_of(services: Vec<ServiceStatus>, service: String, name: &str) -> Answer<BackendDocument> {
    let backends = pick(services, &service)?.backends;
    let names: Vec<String> = backends.iter().map(|backend| backend.name.clone()).collect();
    match backends.into_iter().find(|backend| backend.name == name) {
        Some(backend) => Ok(Json(BackendDocument { schema_version: SCHEMA_VERSION, service, backend })),
        None => Err(model::no_such_backend(&service, name, &names).into()),
    }
}

async fn xdp_log(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Body(log): Body<PacketLog>,
) -> Answer<PacketLogDocument> {
    controller.log_drops(log.drops, &actor.0).await?;
    Ok(Json(PacketLogDocument { schema_version: SCHEMA_VERSION, drops: log.drops }))
}

#[cfg(test)]
mod tests;
