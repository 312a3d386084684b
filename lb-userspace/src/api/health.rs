//! `/v1/health`: how backends are checked, and a check on demand.

use axum::{Json, extract::State};
use jiff::Timestamp;

use super::{
    body::Named,
    routes::Answer,
    types::{CheckDocument, HealthDocument, SCHEMA_VERSION},
};
use crate::{controller::Handle, model::Checked};

pub(super) async fn list(State(controller): State<Handle>) -> Answer<HealthDocument> {
    Ok(Json(controller.health().await?))
}

/// One check. It takes as long as the check does, and nobody else waits for it.
pub(super) async fn check(
    State(controller): State<Handle>,
    Named((service, backend)): Named<(String, String)>,
) -> Answer<CheckDocument> {
    let target = controller.target(&service, &backend).await?;
    let (result, _) = target.check().await;
    let passed = result.is_ok();
    let (Ok(seen) | Err(seen)) = result;
    let checked = Checked { at: Timestamp::now(), passed, seen };
    Ok(Json(CheckDocument { schema_version: SCHEMA_VERSION, service, backend, checked }))
}
