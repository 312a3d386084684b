//! `lb alarm`: what fires, whether alarms arrive, and silence for what is known.

use std::{fmt::Write as _, time::Duration};

use clap::Subcommand;
use jiff::Timestamp;

use super::{
    completion,
    output::{Output, Tone, cell},
    status::ago,
};
use crate::{
    alarm::Severity,
    api::types::{AlarmTest, AlarmTestDocument, AlarmsDocument, NewSilence},
    client::Client,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what fires, what is silenced, and how those fare who carry alarms.
    List,
    /// Tell everybody in the configuration that this is a test; exit code 1 when it does not arrive everywhere.
    Test {
        /// Only this one: the `name` of an `[[alarm]]`, or else its host or its program.
        name: Option<String>,
    },
    /// Tell nobody of something that is known, for a while. It stays visible, and the log goes on.
    #[command(
        after_help = "Examples:\n  lb alarm silence web/web-01 --for 2h --reason 'new disk'\n  lb alarm silence map-drift --for 1d\n  \
                      lb alarm silence web/web-01 --for 0s      ends it"
    )]
    Silence {
        /// A backend, a service with its backends, or a kind of alarm.
        #[arg(value_name = "SERVICE[/BACKEND] or KIND", add = completion::alarms())]
        scope: String,
        /// For how long, say 2h; 0s ends a silence.
        #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
        period: Duration,
        /// Why, for whoever looks at the status.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

impl Command {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::List => output.print(&client.alarms().await?, |document| table(document, output)),
            Self::Test { name } => {
                let document = client.test_alarms(&AlarmTest { to: name }).await?;
                output.print(&document, |document| tested(document, output))?;
                let failed = document.couriers.iter().filter(|courier| courier.error.is_some()).count();
                anyhow::ensure!(failed == 0, "{failed} of {} did not get the test", document.couriers.len());
                Ok(())
            }
            Self::Silence { scope, period, reason } => {
                let until = Timestamp::now()
                    .checked_add(period)
                    .map_err(|_| anyhow::anyhow!("{} is longer than times go", humantime::format_duration(period)))?;
                let document = client.silence(&NewSilence { scope, until, reason }).await?;
                output.print(&document, |document| table(document, output))
            }
        }
    }
}

fn table(document: &AlarmsDocument, output: Output) -> String {
    let now = Timestamp::now();
    let mut text = String::new();
    if document.alarms.is_empty() {
        text.push_str("nothing fires\n");
    } else {
        let mut table = output.table(&["ALARM", "WHO", "FOR", "SILENCED", "WHAT"], &[]);
        for alarm in &document.alarms {
            let whom: Vec<&str> = [&alarm.service, &alarm.backend].into_iter().flatten().map(String::as_str).collect();
            let tone = if alarm.severity == Severity::Critical { Tone::Bad } else { Tone::Warning };
            table.add_row(vec![
                cell(alarm.alarm.word(), tone),
                if whom.is_empty() { "lb".into() } else { whom.join("/").into() },
                ago(alarm.since, now).into(),
                alarm.silenced_until.map(|until| format!("for {}", ago(now, until))).unwrap_or_default().into(),
                (&alarm.summary).into(),
            ]);
        }
        let _ = writeln!(text, "{}", table.trim_fmt());
    }
    if !document.silences.is_empty() {
        let mut table = output.table(&["SILENCED", "FOR", "BY", "REASON"], &[]);
        for silence in &document.silences {
            let reason = silence.reason.clone().unwrap_or_default();
            table.add_row([&silence.scope, &ago(now, silence.until), &silence.actor, &reason]);
        }
        let _ = writeln!(text, "\n{}", table.trim_fmt());
    }
    if document.couriers.is_empty() {
        text.push_str("\nonly the log is told: there is no [[alarm]] in the configuration\n");
    } else {
        let mut table = output.table(&["TOLD", "DELIVERED", "FAILED", "LOST", "WAITING", "LAST ERROR"], &[1, 2, 3, 4]);
        for courier in &document.couriers {
            let numbers = [courier.delivered, courier.failed, courier.lost, courier.pending as u64];
            let numbers = numbers.map(|number| number.to_string());
            let error = courier.error.clone().unwrap_or_default();
            table.add_row(std::iter::once(&courier.name).chain(&numbers).chain([&error]));
        }
        let _ = writeln!(text, "\n{}", table.trim_fmt());
    }
    text
}

fn tested(document: &AlarmTestDocument, output: Output) -> String {
    if document.couriers.is_empty() {
        return "there is no [[alarm]] in the configuration: only the log has it".into();
    }
    let mut table = output.table(&["TOLD", "RESULT"], &[]);
    for courier in &document.couriers {
        let took = format!("arrived in {:.1} ms", courier.seconds * 1000.0);
        let result = courier.error.as_ref().map_or_else(|| cell(took, Tone::Good), |error| cell(error, Tone::Bad));
        table.add_row(vec![(&courier.name).into(), result]);
    }
    table.trim_fmt()
}
