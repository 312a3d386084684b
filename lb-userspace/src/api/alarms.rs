//! `/v1/alarms`: what fires, what is silenced, and whether a test arrives.

use std::time::Instant;

use axum::{
    Json,
    extract::{ConnectInfo, State},
};
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::{
    body::{Body, Failure},
    routes::{Answer, Caller},
    types::{AlarmTest, AlarmTestDocument, AlarmsDocument, ErrorCode, NewSilence, SCHEMA_VERSION, TestedCourier},
};
use crate::{
    alarm::{Kind, Notice, Status, Subject, courier},
    controller::Handle,
};

pub(super) async fn list(State(controller): State<Handle>) -> Answer<AlarmsDocument> {
    Ok(Json(controller.alarms().await?))
}

pub(super) async fn silence(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Body(wish): Body<NewSilence>,
) -> Answer<AlarmsDocument> {
    Ok(Json(controller.silence(wish, &actor.0).await?))
}

/// Tells everybody once that this is a test. It takes as long as the slowest does, and nobody else waits for it.
pub(super) async fn test(
    State(controller): State<Handle>,
    ConnectInfo(actor): Caller,
    Body(AlarmTest { to }): Body<AlarmTest>,
) -> Answer<AlarmTestDocument> {
    let targets = controller.alarm_targets().await?;
    if let Some(to) = &to
        && !targets.iter().any(|target| target.name == *to)
    {
        let names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        let message = format!("there is no alarm {to} in the configuration; there are: {}", names.join(", "));
        return Err(Failure::new(axum::http::StatusCode::NOT_FOUND, ErrorCode::NotFound, message));
    }
    let notice = notice(&actor.0);
    tracing::info!("{} by {}", notice.summary, actor.0);
    let mut attempts = JoinSet::new();
    for target in targets.into_iter().filter(|target| to.as_ref().is_none_or(|to| *to == target.name)) {
        for channel in target.by {
            let (name, notice) = (format!("{} {}", target.name, channel.word()), notice.clone());
            attempts.spawn(async move {
                let started = Instant::now();
                let result = courier::attempt(&channel, target.timeout, 0, &notice).await;
                TestedCourier { name, seconds: started.elapsed().as_secs_f64(), error: result.err() }
            });
        }
    }
    let mut couriers = attempts.join_all().await;
    couriers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(AlarmTestDocument { schema_version: SCHEMA_VERSION, couriers }))
}

fn notice(actor: &str) -> Notice {
    let kind = Kind::RedundancyLost;
    let at = Timestamp::now();
    let summary = format!("this is a test of alarms, asked for by {actor}; nothing has happened");
    let (subject, severity) = (Subject::of_daemon(kind), kind.severity());
    Notice { status: Status::Test, subject, severity, summary, since: at, at, repeated: false }
}
