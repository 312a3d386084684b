//! `/v1/services`: services that come, change and go at run time.

use axum::{
    Json,
    extract::{ConnectInfo, State},
    http::StatusCode,
};
use serde_json::{Map, Value};

use super::{
    body::{Body, Failure, Forced, Named},
    routes::{Answer, Caller, pick},
    types::{NewService, SCHEMA_VERSION, ServiceStatus, StatusDocument},
};
use crate::controller::{Command, Handle};

pub(super) async fn add(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Body(NewService { name, settings }): Body<NewService>,
) -> Result<(StatusCode, Json<StatusDocument>), Failure> {
    let services = controller.ask(Command::AddService { service: name.clone(), settings }, &actor.0).await?;
    Ok((StatusCode::CREATED, Json(document(vec![pick(services, &name)?]))))
}

pub(super) async fn change(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Named(service): Named<String>,
    Body(change): Body<Map<String, Value>>,
) -> Answer<StatusDocument> {
    let services = controller.ask(Command::SetService { service: service.clone(), change }, &actor.0).await?;
    Ok(Json(document(vec![pick(services, &service)?])))
}

pub(super) async fn remove(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Named(service): Named<String>,
    Forced(force): Forced,
) -> Answer<StatusDocument> {
    let services = controller.ask(Command::RemoveService { service, force }, &actor.0).await?;
    Ok(Json(document(services)))
}

fn document(services: Vec<ServiceStatus>) -> StatusDocument {
    StatusDocument { schema_version: SCHEMA_VERSION, services, checks: None, alarms: Vec::new(), silences: Vec::new() }
}
