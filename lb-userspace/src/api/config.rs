//! `/v1/config`: what the daemon runs with, and its file.

use axum::{
    Json,
    extract::{ConnectInfo, State},
};

use serde::Deserialize;

use super::{
    body::Asked,
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reload {
    /// Whether what was changed at run time is dropped.
    #[serde(default)]
    discard: bool,
}

pub(super) async fn reload(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Asked(Reload { discard }): Asked<Reload>,
) -> Answer<ReloadDocument> {
    Ok(Json(controller.reload(discard, &actor.0).await?))
}
