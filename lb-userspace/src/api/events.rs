//! `GET /v1/events`: what happened, and what is about to.

use std::time::Duration;

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time;

use super::{
    body::Asked,
    routes::Answer,
    types::{EventsDocument, SCHEMA_VERSION},
};
use crate::{controller::Handle, journal::Filter};

/// The longest wait for an event.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    after: Option<u64>,
    since: Option<Timestamp>,
    service: Option<String>,
    backend: Option<String>,
    /// Seconds to wait for an event when there is none.
    wait: Option<u64>,
}

pub(super) async fn read(State(controller): State<Handle>, Asked(query): Asked<Query>) -> Answer<EventsDocument> {
    let Query { after, since, service, backend, wait } = query;
    let filter = Filter { after: after.unwrap_or(0), since, service, backend };
    let journal = controller.journal();
    let (events, newest) = match wait.map(Duration::from_secs) {
        Some(wait) => {
            time::timeout(wait.min(PATIENCE), journal.next(&filter)).await.unwrap_or_else(|_| journal.read(&filter))
        }
        None => journal.read(&filter),
    };
    Ok(Json(EventsDocument { schema_version: SCHEMA_VERSION, events, newest }))
}
