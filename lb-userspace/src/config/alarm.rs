//! `[[alarm]]` and `[alarm_rules]`: when something is an alarm, and who is told.

use std::{collections::BTreeSet, fmt, ops::RangeInclusive, path::PathBuf, time::Duration};

use hyper::Uri;
use serde::{Serialize, Serializer};
use toml::Spanned;

use super::{
    check::{Problems, check_name, duration, integer, path_of},
    raw,
};
use crate::alarm::Kind;

const REPEATS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5 * 60);
const WAITS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(30 * 24 * 60 * 60);
/// The longest secret, in bytes.
const SECRET: usize = 1024;

/// When something is an alarm, and who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// `[alarm_rules]`.
    pub rules: AlarmRules,
    /// `[[alarm]]`, in the order of the file; names are unique.
    pub targets: Vec<AlarmTarget>,
}

/// `[alarm_rules]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlarmRules {
    /// A backend that is out of rotation for longer than this is an alarm, planned detachments excepted.
    pub out_of_rotation: Duration,
    /// A table that is fuller than this, in percent, is an alarm.
    pub table_pressure: u8,
    /// What has been well for so long is resolved.
    pub resolve_after: Duration,
    /// How often the log repeats an alarm that goes on.
    pub repeat: Duration,
}

/// One `[[alarm]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlarmTarget {
    /// The host of the webhook or the path of the program, when the file gives no name.
    pub name: String,
    /// How it is told.
    pub by: Vec<Channel>,
    /// Of what.
    pub on: BTreeSet<Kind>,
    /// How often it is told again of an alarm that goes on.
    pub repeat: Duration,
    /// An attempt that takes longer has failed.
    pub timeout: Duration,
}

/// A way to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// POST of JSON.
    Webhook(Webhook),
    /// A program; absolute.
    Exec(PathBuf),
}

/// Where JSON is posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// http or https, with a host.
    pub url: Uri,
    /// What requests are signed with.
    pub secret: Option<Secret>,
    /// The authorities to trust; when absent those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In the configuration.
    Text(String),
    /// In a file of its own, read when it is needed.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str(HIDDEN),
            Self::File(path) => write!(f, "in {}", path.display()),
        }
    }
}

/// What is shown in the place of a secret.
const HIDDEN: &str = "(hidden)";

impl Default for AlarmRules {
    fn default() -> Self {
        Self {
            out_of_rotation: Duration::from_secs(5 * 60),
            table_pressure: 80,
            resolve_after: Duration::from_secs(10),
            repeat: Duration::from_secs(60 * 60),
        }
    }
}

impl Channel {
    /// In a word.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Exec(_) => "exec",
        }
    }
}

/// Checks all that is said of alarms.
pub(super) fn check(rules: raw::AlarmRules, targets: Vec<Spanned<raw::Alarm>>, problems: &mut Problems) -> Alarms {
    let default = AlarmRules::default();
    let rules = AlarmRules {
        out_of_rotation: duration(rules.out_of_rotation, WAITS, default.out_of_rotation, problems),
        table_pressure: integer(
            rules.table_pressure.as_ref(),
            "table_pressure",
            1..=100,
            default.table_pressure,
            problems,
        ),
        resolve_after: duration(rules.resolve_after, WAITS, default.resolve_after, problems),
        repeat: duration(rules.repeat, REPEATS, default.repeat, problems),
    };
    let mut checked: Vec<AlarmTarget> = Vec::new();
    for raw in targets {
        let at = Spanned::new(raw.span(), ());
        let named = raw.get_ref().name.as_ref().map_or_else(|| raw.span(), Spanned::span);
        let target = target(raw.into_inner(), &at, &rules, problems);
        if checked.iter().any(|other| other.name == target.name) {
            let message = format!("two alarms are named {}; give one of them another `name`", target.name);
            problems.add(&Spanned::new(named, ()), message);
        }
        checked.push(target);
    }
    Alarms { rules, targets: checked }
}

fn target(raw: raw::Alarm, at: &Spanned<()>, rules: &AlarmRules, problems: &mut Problems) -> AlarmTarget {
    let mut by = Vec::new();
    let secret = match (raw.secret, raw.secret_file) {
        (Some(_), Some(file)) => {
            problems.add(&file, "there is a `secret` as well; write one of the two");
            None
        }
        (Some(text), None) => {
            if !(1..=SECRET).contains(&text.get_ref().len()) {
                problems.add(&text, format!("a secret has 1 to {SECRET} bytes"));
            }
            Some((text.span(), Secret::Text(text.into_inner())))
        }
        (None, Some(file)) => Some((file.span(), Secret::File(path_of(file, usize::MAX, problems)))),
        (None, None) => None,
    };
    let ca_file = raw.ca_file.map(|file| (file.span(), path_of(file, usize::MAX, problems)));
    let mut name = None;
    match raw.webhook {
        Some(written) => {
            let url = webhook(&written, problems);
            name = url.host().map(str::to_owned);
            let (secret, ca_file) = (secret.map(|(_, secret)| secret), ca_file.map(|(_, file)| file));
            by.push(Channel::Webhook(Webhook { url, secret, ca_file }));
        }
        None => {
            let without = [secret.map(|(span, _)| span), ca_file.map(|(span, _)| span)];
            for span in without.into_iter().flatten() {
                problems.add(&Spanned::new(span, ()), "only a webhook has this key");
            }
        }
    }
    if let Some(program) = raw.exec {
        let program = path_of(program, usize::MAX, problems);
        name = name.or_else(|| program.file_name().map(|name| name.to_string_lossy().into_owned()));
        by.push(Channel::Exec(program));
    }
    if by.is_empty() {
        problems.add(at, "an alarm goes to a `webhook` or to a program, `exec`: write one of them, or both");
    }
    if let Some(name) = &raw.name
        && let Err(error) = check_name(name.get_ref())
    {
        problems.add(name, error);
    }
    let on = match raw.on {
        Some(on) => {
            if on.get_ref().is_empty() {
                problems.add(&on, "nothing is to be told; leave `on` out to be told of everything");
            }
            on.into_inner().into_iter().collect()
        }
        None => Kind::ALL.into_iter().collect(),
    };
    AlarmTarget {
        name: raw.name.map(Spanned::into_inner).or(name).unwrap_or_default(),
        by,
        on,
        repeat: duration(raw.repeat, REPEATS, rules.repeat, problems),
        timeout: duration(raw.timeout, TIMEOUTS, Duration::from_secs(10), problems),
    }
}

fn webhook(written: &Spanned<String>, problems: &mut Problems) -> Uri {
    let url = written.get_ref().parse::<Uri>().ok().filter(|url| {
        let known = matches!(url.scheme_str(), Some("http" | "https"));
        known && url.host().is_some_and(|host| !host.is_empty())
    });
    if url.is_none() {
        problems.add(written, format!("{:?} is not a URL; write e.g. https://hooks.example/lb", written.get_ref()));
    }
    if url.as_ref().and_then(Uri::authority).is_some_and(|authority| authority.as_str().contains('@')) {
        problems.add(written, "a user and a password in the URL are not sent; sign with a `secret`");
    }
    url.unwrap_or_default()
}

/// As a file has it, secrets excepted.
#[derive(Serialize)]
pub(super) struct TargetDocument<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "url")]
    webhook: Option<&'a Uri>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_file: Option<&'a PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<&'a PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<&'a PathBuf>,
    on: &'a BTreeSet<Kind>,
    repeat: String,
    timeout: String,
}

/// As a file has them.
#[derive(Serialize)]
pub(super) struct RulesDocument {
    out_of_rotation: String,
    table_pressure: u8,
    resolve_after: String,
    repeat: String,
}

impl<'a> From<&'a AlarmTarget> for TargetDocument<'a> {
    fn from(target: &'a AlarmTarget) -> Self {
        let webhook = target.by.iter().find_map(|channel| match channel {
            Channel::Webhook(webhook) => Some(webhook),
            Channel::Exec(_) => None,
        });
        let exec = target.by.iter().find_map(|channel| match channel {
            Channel::Exec(program) => Some(program),
            Channel::Webhook(_) => None,
        });
        let secret = webhook.and_then(|webhook| webhook.secret.as_ref());
        Self {
            name: &target.name,
            webhook: webhook.map(|webhook| &webhook.url),
            secret: matches!(secret, Some(Secret::Text(_))).then_some(HIDDEN),
            secret_file: secret.and_then(|secret| match secret {
                Secret::File(file) => Some(file),
                Secret::Text(_) => None,
            }),
            ca_file: webhook.and_then(|webhook| webhook.ca_file.as_ref()),
            exec,
            on: &target.on,
            repeat: humantime::format_duration(target.repeat).to_string(),
            timeout: humantime::format_duration(target.timeout).to_string(),
        }
    }
}

impl From<&AlarmRules> for RulesDocument {
    fn from(rules: &AlarmRules) -> Self {
        let written = |duration| humantime::format_duration(duration).to_string();
        Self {
            out_of_rotation: written(rules.out_of_rotation),
            table_pressure: rules.table_pressure,
            resolve_after: written(rules.resolve_after),
            repeat: written(rules.repeat),
        }
    }
}

fn url<S: Serializer>(url: &Option<&Uri>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&url.map(ToString::to_string).unwrap_or_default())
}
