//! `lb status`: where everything stands.

use std::{fmt::Write as _, time::Duration};

use clap::Args;
use comfy_table::Cell;
use jiff::{SignedDuration, Timestamp};
use tokio::time;

use super::{
    completion,
    output::{Output, Tone, cell, word},
};
use crate::{
    api::types::{
        AgentState, AgentStatus, BackendStatus, DetachmentStatus, LimitStatus, ServiceStatus, StatusDocument,
    },
    client::{Client, Error},
    config::AfterDetachment,
    health::Health,
    model::{Admin, LimitSource, Passive, Verdict},
    plan::Protocol,
};

/// Home, and nothing below.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Only this service.
    #[arg(add = completion::services())]
    service: Option<String>,
    /// Show it again every second.
    #[arg(long)]
    watch: bool,
}

impl Status {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        if !self.watch {
            let document = client.status(self.service.as_deref()).await?;
            return output.print(&document, |document| table(document, output));
        }
        loop {
            let answer = client.status(self.service.as_deref()).await;
            if output.terminal && !output.is_json() {
                output.say(CLEAR)?;
            }
            match answer {
                Ok(document) => output.print(&document, |document| table(document, output))?,
                // Whoever watches a restart of the daemon wants to see its end.
                Err(error @ (Error::Unreachable { .. } | Error::Silent { .. })) => eprintln!("{error}"),
                Err(error) => return Err(error.into()),
            }
            time::sleep(Duration::from_secs(1)).await;
        }
    }
}

pub(super) fn table(document: &StatusDocument, output: Output) -> String {
    if document.services.is_empty() {
        return "no service is configured".into();
    }
    let mut text = String::new();
    for service in &document.services {
        let _ = writeln!(text, "{}\n{}\n", headline(service, output), backends(&service.backends, output));
    }
    if let Some(checks) = document.checks.as_ref().filter(|checks| checks.overdue > 0) {
        let late = format!("{} of {} checks are overdue: health may be out of date", checks.overdue, checks.running);
        let _ = writeln!(text, "{}", output.paint(&late, Tone::Bad));
    }
    text + &alarms(document, output)
}

/// A line for each alarm, and for each silence.
fn alarms(document: &StatusDocument, output: Output) -> String {
    let mut text = String::new();
    let now = Timestamp::now();
    for alarm in &document.alarms {
        let silenced = alarm.silenced_until.map(|until| format!(", silenced for {}", ago(now, until)));
        let kind = output.paint(&format!("alarm {}", alarm.alarm.word()), Tone::Bad);
        let (since, silenced) = (ago(alarm.since, now), silenced.unwrap_or_default());
        let _ = writeln!(text, "{kind} for {since}{silenced}: {}", alarm.summary);
    }
    for silence in &document.silences {
        let reason = silence.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let (scope, lasts) = (&silence.scope, ago(now, silence.until));
        let _ = writeln!(text, "alarms of {scope} are silenced for {lasts} by {}{reason}", silence.actor);
    }
    text
}

fn headline(service: &ServiceStatus, output: Output) -> String {
    let tone = match service.verdict {
        Verdict::Ok => Tone::Good,
        Verdict::Degraded => Tone::Warning,
        Verdict::Down => Tone::Bad,
    };
    let mut headline = format!(
        "{}  {}  {}/{}  {}  {}  {} of {} in rotation",
        service.name,
        output.paint(&word(service.verdict), tone),
        service.listen,
        word(service.protocol),
        word(service.algorithm),
        word(service.forward),
        service.in_rotation,
        service.total
    );
    if service.in_rotation < service.min_healthy {
        let few = format!("fewer than min_healthy = {}", service.min_healthy);
        let _ = write!(headline, "  {}", output.paint(&few, Tone::Bad));
    }
    if service.in_rotation == 0 {
        let _ = write!(headline, "  {}", output.paint(consequence(service), Tone::Bad));
    }
    if !service.unjudged.is_empty() {
        let _ = write!(headline, "  (traffic is not judged by {})", service.unjudged.join(", "));
    }
    headline
}

/// What becomes of new connections while no backend is in rotation.
fn consequence(service: &ServiceStatus) -> &'static str {
    match (service.fails_open, service.protocol) {
        _ if service.last_resort => "last resort: those at their red line serve, each within its limit",
        (true, _) => "fails open: every backend that can be reached gets traffic",
        (false, Protocol::Tcp) => "fails closed: new connections are refused (RST)",
        (false, Protocol::Udp) => "fails closed: packets of new flows are dropped",
    }
}

/// The backends as a table; indented under their service.
pub(super) fn backends(backends: &[BackendStatus], output: Output) -> String {
    let header = ["  BACKEND", "ADDRESS", "ROTATION", "ADMIN", "HEALTH", "WEIGHT", "CONNS", "TOTAL", "SINCE", "CAUSE"];
    let now = Timestamp::now();
    let with_agents = backends.iter().any(|backend| backend.agent.is_some());
    let header: Vec<&str> = header.into_iter().chain(with_agents.then_some("AGENT")).collect();
    let mut table = output.table(&header, &[5, 6, 7]);
    // Whoever looks sees first what somebody has to put back.
    let (detached, others): (Vec<_>, Vec<_>) = backends.iter().partition(|backend| backend.detachment.is_some());
    for backend in detached.into_iter().chain(others) {
        let rotation = if backend.in_rotation { cell("in", Tone::Good) } else { cell("out", Tone::Bad) };
        let admin = match backend.admin {
            Admin::Enabled => word(backend.admin).into(),
            Admin::Draining | Admin::Disabled => cell(word(backend.admin), Tone::Warning),
        };
        let health = match (backend.health, backend.passive) {
            (_, Passive::Ejected) => cell("ejected", Tone::Bad),
            (Health::Up, _) if backend.complaint.is_some() => cell("up, in trouble", Tone::Warning),
            (health, _) if backend.paused => cell(format!("{}, checks paused", word(health)), Tone::Warning),
            (Health::Up, _) => cell("up", Tone::Good),
            (Health::Unknown, _) => cell("unknown", Tone::Warning),
            (Health::Down, _) => cell("down", Tone::Bad),
        };
        let mut row: Vec<Cell> = vec![
            format!("  {}{}", backend.name, if backend.backup { " (backup)" } else { "" }).into(),
            backend.address.into(),
            rotation,
            admin,
            health,
            match backend.share {
                Some(share) => format!("{share}% of {}", backend.weight).into(),
                None => backend.weight.into(),
            },
            match backend.limit {
                Some(LimitStatus { connections: most, source: LimitSource::Configured }) => {
                    format!("{} of {most}", backend.connections).into()
                }
                Some(LimitStatus { connections: most, source }) => {
                    format!("{} of {most} ({})", backend.connections, word(source)).into()
                }
                None => backend.connections.into(),
            },
            backend.connections_total.into(),
            ago(backend.since, now).into(),
            match &backend.detachment {
                Some(detachment) => cell(absence(backend, detachment, now), Tone::Warning),
                None => verdict(backend, now),
            },
        ];
        row.extend(backend.agent.as_ref().map(|agent| says(agent, now)));
        table.add_row(row);
    }
    table.trim_fmt()
}

/// The cause, and what its traffic says beside it.
fn verdict(backend: &BackendStatus, now: Timestamp) -> Cell {
    if let Some(until) = backend.ejected_until {
        return cell(format!("{}; back in {}", backend.cause, ago(now, until)), Tone::Warning);
    }
    match &backend.complaint {
        Some(complaint) if !backend.cause.contains(complaint.as_str()) => {
            cell(format!("{}; {complaint}", backend.cause), Tone::Warning)
        }
        _ => (&backend.cause).into(),
    }
}

/// "up ready 63% # memory 14 % available", or "unknown for 12s: connection refused".
fn says(agent: &AgentStatus, now: Timestamp) -> Cell {
    if agent.state == AgentState::Known {
        return agent.words.clone().unwrap_or_default().into();
    }
    let time = agent.heard.map(|heard| format!(" for {}", ago(heard, now))).unwrap_or_default();
    let why = agent.failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default();
    cell(format!("unknown{time}{why}"), Tone::Warning)
}

/// "healthy, out of rotation for 3h 12m, disabled by uid 1000: kernel test, returns in 12m 5s".
fn absence(backend: &BackendStatus, detachment: &DetachmentStatus, now: Timestamp) -> String {
    let health = match backend.health {
        Health::Up => "healthy",
        Health::Down => "unhealthy",
        Health::Unknown => "not checked yet",
    };
    let end = match detachment.after {
        _ if detachment.overdue => {
            format!("its time was up {} ago, and it stays out until somebody acts", ago(detachment.until, now))
        }
        AfterDetachment::Return => format!("returns in {}", ago(now, detachment.until)),
        AfterDetachment::Alarm => format!("alarm in {}", ago(now, detachment.until)),
    };
    format!("{health}, out of rotation for {}, {}, {end}", ago(backend.since, now), backend.cause)
}

/// "3h 12m": two units, as coarse as they may be.
pub(crate) fn ago(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).max(SignedDuration::ZERO).as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_two_units() {
        for (seconds, expected) in [
            (-5, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3599, "59m 59s"),
            (3600, "1h 0m"),
            (86399, "23h 59m"),
            (86400, "1d 0h"),
            (30 * 86400 + 7200, "30d 2h"),
        ] {
            let now = Timestamp::from_second(100_000_000).unwrap();
            assert_eq!(ago(Timestamp::from_second(100_000_000 - seconds).unwrap(), now), expected);
        }
    }
}
