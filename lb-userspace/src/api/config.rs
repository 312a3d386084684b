//! `/v1/config`: what the daemon runs with, and its file.

use axum::{
    Json,
    extract::{ConnectInfo, State},
};

use super::{
    routes::{Answer, Caller},
    types::{ConfigDocument, DriftDocument, ReloadDocument},
};
use crate::controller::Handle;

pub(super) async fn show(State(controller): State<Handle>) -> Answer<ConfigDocument> {
    Ok(Json(controller.configuration().await?))
}

pub(super) async fn diff(State(controller): State<Handle>) -> Answer<DriftDocument> {
    Ok(Json(controller.drift().await?))
}

pub(super) async fn reload(State(controller): State<Handle>, ConnectInfo(actor): Caller) -> Answer<ReloadDocument> {
    Ok(Json(controller.reload(&actor.0).await?))
}
