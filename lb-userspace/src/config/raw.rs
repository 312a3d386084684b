//! The file as it is written: the keys there are, and where each value stands.
//!
//! An unknown key is an error here, so every key that exists is listed in this file.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::{AfterDetachment, Fail, Problem, Recall, passive};
use crate::{
    alarm::Kind,
    dataplane::XdpMode,
    plan::{Algorithm, Forward, Protocol},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) global: Spanned<Global>,
    #[serde(default)]
    pub(super) service: BTreeMap<Spanned<String>, Service>,
    #[serde(default)]
    pub(super) alarm_rules: AlarmRules,
    #[serde(default)]
    pub(super) alarm: Vec<Spanned<Alarm>>,
}

/// Services alone, as they are made at run time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Services {
    pub(super) service: BTreeMap<Spanned<String>, Service>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Global {
    pub(super) interfaces: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) xdp_mode: XdpMode,
    pub(super) socket: Option<Spanned<PathBuf>>,
    pub(super) state_dir: Option<Spanned<PathBuf>>,
    pub(super) pin_dir: Option<Spanned<PathBuf>>,
    pub(super) flows: Option<Spanned<i64>>,
    pub(super) detached_for: Option<Spanned<String>>,
    pub(super) http: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct AlarmRules {
    pub(super) out_of_rotation: Option<Spanned<String>>,
    pub(super) table_pressure: Option<Spanned<i64>>,
    pub(super) resolve_after: Option<Spanned<String>>,
    pub(super) repeat: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alarm {
    pub(super) name: Option<Spanned<String>>,
    pub(super) webhook: Option<Spanned<String>>,
    pub(super) secret: Option<Spanned<String>>,
    pub(super) secret_file: Option<Spanned<PathBuf>>,
    pub(super) ca_file: Option<Spanned<PathBuf>>,
    pub(super) exec: Option<Spanned<PathBuf>>,
    pub(super) on: Option<Spanned<Vec<Kind>>>,
    pub(super) repeat: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) listen: Spanned<String>,
    #[serde(default)]
    pub(super) protocol: Protocol,
    #[serde(default)]
    pub(super) algorithm: Algorithm,
    #[serde(default)]
    pub(super) forward: Forward,
    pub(super) min_healthy: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) fail: Fail,
    pub(super) slow_start: Option<Spanned<String>>,
    pub(super) detached_for: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) after_detachment: AfterDetachment,
    #[serde(default)]
    pub(super) recall: Recall,
    #[serde(default)]
    pub(super) health: Health,
    pub(super) agent: Option<Spanned<Agent>>,
    #[serde(default)]
    pub(super) passive: passive::Raw,
    #[serde(default)]
    pub(super) backend: Vec<Backend>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    #[serde(rename = "type")]
    pub(super) kind: Option<ProbeKind>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) expect: Option<Spanned<String>>,
    pub(super) interval: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) rise: Option<Spanned<i64>>,
    pub(super) fall: Option<Spanned<i64>>,
    pub(super) port: Option<Spanned<i64>>,
    pub(super) fast_interval: Option<Spanned<String>>,
    pub(super) jitter: Option<Spanned<i64>>,
    pub(super) host: Option<Spanned<String>>,
    pub(super) body: Option<Spanned<String>>,
    pub(super) server_name: Option<Spanned<String>>,
    pub(super) ca_file: Option<Spanned<PathBuf>>,
    pub(super) insecure_skip_verify: Option<Spanned<bool>>,
    pub(super) send: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub(super) port: Option<Spanned<i64>>,
    pub(super) interval: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) send: Option<Spanned<String>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ProbeKind {
    Tcp,
    Udp,
    Http,
    Https,
    Agent,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Backend {
    pub(super) name: Option<Spanned<String>>,
    pub(super) address: Spanned<String>,
    pub(super) weight: Option<Spanned<i64>>,
    pub(super) health_port: Option<Spanned<i64>>,
    pub(super) agent_port: Option<Spanned<i64>>,
    #[serde(default)]
    pub(super) backup: bool,
    pub(super) max_connections: Option<Spanned<i64>>,
}

pub(super) fn parse(text: &str) -> Result<File, Problem> {
    read(text)
}

pub(super) fn parse_services(text: &str) -> Result<Services, Problem> {
    read(text)
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Problem> {
    toml::from_str(text)
        .map_err(|error| Problem { span: error.span().unwrap_or(0..0), message: reword(error.message().trim_end()) })
}

/// serde's words for what a reader of the file would call keys and values.
fn reword(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return format!("unknown key {}", suggest(rest));
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        return format!("unknown value {}", suggest(rest));
    }
    if let Some(field) = message.strip_prefix("missing field ") {
        return format!("the key {field} is missing here");
    }
    if let Some((found, wanted)) = message.split_once("expected struct ") {
        return format!("{found}expected a table, {}", example(wanted));
    }
    message
        .replace("expected a sequence", "expected a list: [...]")
        .replace("expected a map", "expected a table")
        .replace("expected i64", "expected a whole number")
}

/// How a table is written of which there are several kinds.
fn example(table: &str) -> &'static str {
    match table {
        "Global" => "[global]",
        "Health" => "[service.NAME.health]",
        "Agent" => "[service.NAME.agent]",
        "Raw" => "[service.NAME.passive]",
        "Service" => "[service.NAME]",
        _ => "as in { key = value }",
    }
}

/// "`nmae`, expected ... `name` ..." with the closest of what was expected, when one is close.
fn suggest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(written) = quoted.next() else { return message.to_owned() };
    let closest = quoted.map(|word| (distance(written, word), word)).min();
    match closest {
        Some((distance, word)) if distance <= written.len() / 3 + 1 => {
            format!("`{written}`; did you mean `{word}`?")
        }
        _ => message.to_owned(),
    }
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
