//! `lb events`: what changed, when, why and by whom.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use tokio::time;

use super::{
    completion,
    error::NotFound,
    output::{Output, Tone, cell},
};
use crate::{
    api::types::{EventsDocument, SCHEMA_VERSION},
    client::{Client, Error},
    config::{self, Config},
    journal::{self, Entry, Filter},
    model::What,
    state,
};

/// How long the daemon holds a request while nothing happens, in seconds.
const WAIT: u64 = 20;
/// How soon a daemon that is gone is looked for again.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(
    after_help = "The log survives restarts of the daemon: it is events.jsonl in its state_dir, one JSON object a line. \
                  Where no daemon answers it is read from there."
)]
pub(super) struct Events {
    /// Only those of this service, or of this backend: SERVICE or SERVICE/BACKEND.
    #[arg(value_name = "SERVICE[/BACKEND]", add = completion::backends())]
    of: Option<String>,
    /// Only those from then on: a duration back from this moment (90s, 1h, 2days) or a time (2026-02-26T14:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Go on with what happens until interrupted, also while the daemon restarts.
    #[arg(short, long)]
    follow: bool,
    /// Read the log in this directory, without asking a daemon.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["follow", "config"])]
    state_dir: Option<PathBuf>,
    /// Read the log where this configuration has it, without asking a daemon.
    #[arg(long, value_name = "FILE", conflicts_with = "follow")]
    config: Option<PathBuf>,
}

impl Events {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        let (service, backend) = match self.of {
            Some(of) => match of.split_once('/') {
                Some((service, backend)) => (Some(service.to_owned()), Some(backend.to_owned())),
                None => (Some(of), None),
            },
            None => (None, None),
        };
        let mut filter = Filter { after: 0, since: self.since, service, backend };
        let on_disk = match (self.state_dir, self.config) {
            (Some(state_dir), _) => Some(state_dir),
            (None, Some(file)) => Some(Config::load(&file)?.global.state_dir),
            (None, None) => None,
        };
        let document = match on_disk {
            Some(state_dir) => stored(&state_dir, &filter)?,
            None => match client.events(&filter, None).await {
                Err(error @ (Error::Unreachable { .. } | Error::Silent { .. })) if !self.follow => {
                    left_behind(client, &filter, error)?
                }
                answer => answer?,
            },
        };
        if !self.follow {
            return output.print(&document, |document| table(&document.events, output, true));
        }
        let (mut events, mut newest) = (document.events, document.newest);
        let mut heading = true;
        loop {
            if output.is_json() {
                for event in &events {
                    output.say(&serde_json::to_string(event)?)?;
                }
            } else if !events.is_empty() {
                output.say(&table(&events, output, heading))?;
                heading = false;
            }
            filter.after = newest;
            (events, newest) = match client.events(&filter, Some(WAIT)).await {
                Ok(document) => (document.events, document.newest),
                Err(Error::Unreachable { .. } | Error::Silent { .. }) => {
                    time::sleep(RETRY).await;
                    (Vec::new(), newest)
                }
                Err(error) => return Err(error.into()),
            };
        }
    }
}

fn stored(state_dir: &Path, filter: &Filter) -> anyhow::Result<EventsDocument> {
    let (events, newest) = journal::stored(state_dir, filter).map_err(|error| match error {
        state::Error::Io { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
            NotFound(format!("there is no event log in {}", state_dir.display())).into()
        }
        error => anyhow::Error::from(error),
    })?;
    Ok(EventsDocument { schema_version: SCHEMA_VERSION, events, newest })
}

/// What a daemon that does not answer has written: the one that this machine's configuration is for.
fn left_behind(client: &Client, filter: &Filter, unreachable: Error) -> Result<EventsDocument, Error> {
    let Ok(config) = Config::load(config::DEFAULT_PATH.as_ref()) else { return Err(unreachable) };
    let state_dir = config.global.state_dir;
    match stored(&state_dir, filter) {
        Ok(document) if client.socket() == config.global.socket => {
            eprintln!("{unreachable}; this is the log in {}", state_dir.display());
            Ok(document)
        }
        _ => Err(unreachable),
    }
}

fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Timestamp::now().checked_sub(ago).map_err(|_| format!("{text} ago is before all times"));
    }
    text.parse().map_err(|_| format!("{text:?} is neither a duration (1h, 30m) nor a time (2026-02-26T14:00:00Z)"))
}

fn table(events: &[Entry], output: Output, heading: bool) -> String {
    if events.is_empty() {
        return "no events".into();
    }
    let header = ["TIME", "WHO", "WHAT", "FROM", "TO", "ACTOR", "CAUSE"];
    let mut table = output.table(if heading { &header } else { &[] }, &[]);
    for Entry { event, .. } in events {
        let subject: Vec<&str> = [&event.service, &event.backend].into_iter().flatten().map(String::as_str).collect();
        let tone = match (event.what, event.to.as_str()) {
            (What::Rotation | What::Health | What::Verdict, "in" | "up" | "ok") => Some(Tone::Good),
            (What::Rotation | What::Health | What::Verdict, "out" | "down") => Some(Tone::Bad),
            (What::Verdict | What::Admin, "degraded" | "draining" | "disabled") => Some(Tone::Warning),
            _ => None,
        };
        table.add_row(vec![
            local(event.at).into(),
            if subject.is_empty() { "lb".into() } else { subject.join("/").into() },
            event.what.word().into(),
            (&event.from).into(),
            tone.map_or_else(|| (&event.to).into(), |tone| cell(&event.to, tone)),
            (&event.actor).into(),
            (&event.cause).into(),
        ]);
    }
    table.trim_fmt()
}

/// In the time zone of whoever looks; to a millisecond, for much may happen in a second.
fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_or_a_time() {
        assert_eq!(moment("2026-02-26T14:00:00Z").unwrap().as_second(), 1_772_114_400);
        let hour = Timestamp::now().as_second() - moment("1h").unwrap().as_second();
        assert!((3599..=3601).contains(&hour), "{hour}");
        assert!(moment("yesterday").unwrap_err().contains("neither a duration"));
    }
}
