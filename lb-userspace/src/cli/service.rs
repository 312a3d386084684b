//! `lb service`: services as a whole, at run time.

use std::net::SocketAddr;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    backend::{Consent, confirmed},
    completion,
    error::Usage,
    output::{Output, Tone, cell, word},
    status,
};
use crate::{
    api::types::{NewService, StatusDocument},
    client::Client,
    model::Verdict,
};

const KEPT: &str = "Changes at run time survive restarts of the daemon. An edit of the same key in the file wins over \
                    them, and `lb config diff` shows them.";

#[derive(Debug, Subcommand)]
#[command(after_help = KEPT)]
pub(super) enum Command {
    /// List the services.
    List,
    /// Show where a service and its backends stand.
    Show {
        /// The service.
        #[arg(add = completion::services())]
        service: String,
    },
    /// Add a service.
    #[command(
        after_help = "Example: lb service add web --listen 203.0.113.10:80 --backend web-01=10.0.0.11:80 --backend \
                            web-02=10.0.0.12:80 --health type=http --health path=/health"
    )]
    Add {
        /// Its name.
        service: String,
        /// The virtual address.
        #[arg(long, value_name = "IP:PORT")]
        listen: String,
        /// A backend, as often as there are backends; its name is its address when none is given.
        #[arg(long = "backend", value_name = "[NAME=]IP:PORT", required = true)]
        backends: Vec<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change settings of a service. Established connections stay with their backends.
    Set {
        /// The service.
        #[arg(add = completion::services())]
        service: String,
        /// The virtual address.
        #[arg(long, value_name = "IP:PORT")]
        listen: Option<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove a service: what it serves is cut off.
    Remove {
        /// The service.
        #[arg(add = completion::services())]
        service: String,
        #[command(flatten)]
        consent: Consent,
    },
}

#[derive(Debug, Args)]
pub(super) struct Settings {
    /// How a new connection finds its backend, as `algorithm` in the file.
    #[arg(long)]
    algorithm: Option<String>,
    /// How a packet reaches its backend, as `forward` in the file.
    #[arg(long)]
    forward: Option<String>,
    /// Fewer backends in rotation than this is an alarm.
    #[arg(long, value_name = "N")]
    min_healthy: Option<u64>,
    /// A key of `[service.NAME.health]`, as in the file; as often as there are keys. An empty value restores the default.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    health: Vec<(String, Value)>,
    /// A key of `[service.NAME.agent]`, likewise; `--key agent=` has agents asked no more.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    agent: Vec<(String, Value)>,
    /// A key of `[service.NAME.passive]`, likewise.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    passive: Vec<(String, Value)>,
    /// Any key of `[service.NAME]`, as in the file. An empty value restores the default.
    #[arg(long = "key", value_name = "KEY=VALUE", value_parser = setting)]
    keys: Vec<(String, Value)>,
}

impl Command {
    pub(super) async fn run(self, client: &Client, output: Output) -> anyhow::Result<()> {
        match self {
            Self::List => output.print(&client.status(None).await?, |document| list(document, output)),
            Self::Show { service } => show(&client.status(Some(&service)).await?, output),
            Self::Add { service, listen, backends, settings } => {
                let mut settings = settings.document();
                settings.insert("listen".into(), listen.into());
                settings.insert("backend".into(), backends.iter().map(|text| backend(text)).collect());
                show(&client.add_service(&NewService { name: service, settings }).await?, output)
            }
            Self::Set { service, listen, settings } => {
                let mut change = settings.document();
                change.extend(listen.map(|listen| ("listen".to_owned(), listen.into())));
                if change.is_empty() {
                    let message = "nothing to change is named; `lb service set --help` lists what can be";
                    return Err(Usage(message.into()).into());
                }
                show(&client.change_service(&service, &change).await?, output)
            }
            Self::Remove { service, consent } => {
                let left = confirmed(consent, |force| client.remove_service(&service, force)).await?;
                output.print(&left, |left| list(left, output))
            }
        }
    }
}

impl Settings {
    /// As a file would have them.
    fn document(self) -> Map<String, Value> {
        let mut document: Map<String, Value> = self.keys.into_iter().collect();
        let named = [
            ("algorithm", self.algorithm.map(Value::from)),
            ("forward", self.forward.map(Value::from)),
            ("min_healthy", self.min_healthy.map(Value::from)),
        ];
        document.extend(named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        for (table, keys) in [("health", self.health), ("agent", self.agent), ("passive", self.passive)] {
            if !keys.is_empty() {
                document.insert(table.into(), Map::from_iter(keys).into());
            }
        }
        document
    }
}

/// "rise=3", "interval=1s": a number is a number, true and false are what they are, all else is text.
fn setting(text: &str) -> Result<(String, Value), String> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err("write KEY=VALUE, e.g. interval=1s".into());
    };
    let value = match value {
        "" => Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        text => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
    };
    Ok((key.to_owned(), value))
}

/// "web-01=10.0.0.11:80" or "10.0.0.11:80".
fn backend(text: &str) -> Value {
    match text.split_once('=') {
        Some((name, address)) => json!({ "name": name, "address": address }),
        None => json!({ "address": text }),
    }
}

fn show(document: &StatusDocument, output: Output) -> anyhow::Result<()> {
    output.print(document, |document| status::table(document, output))
}

fn list(document: &StatusDocument, output: Output) -> String {
    if document.services.is_empty() {
        return "no service is configured".into();
    }
    let mut table =
        output.table(&["SERVICE", "LISTEN", "PROTOCOL", "ALGORITHM", "FORWARD", "FAIL", "VERDICT", "SERVING"], &[]);
    for service in &document.services {
        let tone = match service.verdict {
            Verdict::Ok => Tone::Good,
            Verdict::Degraded => Tone::Warning,
            Verdict::Down => Tone::Bad,
        };
        let listen: SocketAddr = service.listen;
        table.add_row(vec![
            (&service.name).into(),
            listen.into(),
            word(service.protocol).into(),
            word(service.algorithm).into(),
            word(service.forward).into(),
            word(service.fail).into(),
            cell(word(service.verdict), tone),
            format!("{} of {}", service.in_rotation, service.total).into(),
        ]);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_as_in_the_file() {
        for (text, expected) in [
            ("rise=3", Ok(("rise", json!(3)))),
            ("interval=1s", Ok(("interval", json!("1s")))),
            ("expect=200,204", Ok(("expect", json!("200,204")))),
            ("path=/a?b=c", Ok(("path", json!("/a?b=c")))),
            ("path=", Ok(("path", Value::Null))),
            ("insecure=true", Ok(("insecure", json!(true)))),
            ("rise", Err(())),
            ("=3", Err(())),
        ] {
            let found = setting(text).map_err(drop);
            assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value)), "{text}");
        }
        assert_eq!(backend("web-01=10.0.0.11:80"), json!({"name": "web-01", "address": "10.0.0.11:80"}));
        assert_eq!(backend("10.0.0.11:80"), json!({"address": "10.0.0.11:80"}));
    }
}
