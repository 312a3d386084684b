//! `lb events`: what changed, when, why and by whom.

use std::time::Duration;

use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use tokio::time;

use super::{
    completion,
    output::{Output, Tone, cell},
};
use crate::{
    client::{Client, Error},
    journal::{Entry, Filter},
    model::What,
};

/// How long the daemon holds a request while nothing happens, in seconds.
const WAIT: u64 = 20;
/// How soon a daemon that is gone is looked for again.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(
    after_help = "The log survives restarts of the daemon: it is events.jsonl in its state_dir, one JSON object a line."
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
        let document = client.events(&filter, None).await?;
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

/// In the time zone of whoever looks.
fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
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
