//! `lb` on that day, configured as its README says; what it does not say is left at its default.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::balancer::Balancer;
use crate::{
    Daemon, Family, Json, Lab,
    config::configuration,
    webhook::{Delivery, Webhook},
};

/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(300);

pub(super) struct Watched {
    daemon: Daemon,
    webhook: Webhook,
    looked: Option<Instant>,
    /// What the status said last, of the service and of each backend.
    status: BTreeMap<String, String>,
    /// Alarms that have been told of.
    told: usize,
}

impl Watched {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let webhook = Webhook::start_in(lab.front())?;
        let daemon = Daemon::start_with(lab, &operators_file(lab, &webhook))?;
        let mut watched = Self { daemon, webhook, looked: None, status: BTreeMap::new(), told: 0 };
        watched.news()?;
        Ok(watched)
    }
}

/// What an operator writes.
fn operators_file(lab: &Lab, webhook: &Webhook) -> String {
    let mut file = configuration(lab, &[]);
    let listen = Lab::VIP.socket(Family::V4);
    let _ =
        write!(file, "\n[service.web]\nlisten = \"{listen}\"\n\n[service.web.health]\ntype = \"http\"\npath = \"/\"\n");
    for web in lab.webs() {
        let (name, address) = (web.name(), web.address(Family::V4, 80));
        let _ = write!(file, "\n[[service.web.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    }
    let _ = write!(file, "\n[[alarm]]\nwebhook = \"{}\"\n", webhook.url());
    file
}

impl Balancer for Watched {
    fn detach(&mut self, period: Duration) -> Result<String> {
        let (whole, rest) = (period.as_secs(), period.subsec_millis());
        let period = if rest == 0 { format!("{whole}s") } else { format!("{}ms", period.as_millis()) };
        let words = ["backend", "disable", "web/web-02", "--for", &period, "--reason", "kernel test"];
        let outcome = self.daemon.lb(&words)?;
        ensure!(outcome.code == Some(0), "lb {words:?}: {outcome:?}");
        Ok(format!("lb {}", words.join(" ")))
    }

    fn news(&mut self) -> Result<Vec<(Instant, String)>> {
        let mut news = Vec::new();
        let alarms = self.webhook.deliveries();
        for alarm in &alarms[self.told..] {
            let Delivery { at, body, .. } = alarm;
            let [status, kind, summary] = ["status", "alarm", "summary"].map(|key| text(&body[key]));
            news.push((*at, format!("alarm received: {kind} {status}: {summary}")));
        }
        self.told = alarms.len();
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            let now = Instant::now();
            self.looked = Some(now);
            for told in told_by(&self.daemon.status()?) {
                let before = self.status.insert(told.of.clone(), told.state.clone());
                if before.is_some_and(|before| before != told.state) {
                    news.push((now, format!("lb status: {} {}{}", told.of, told.state, told.cause)));
                }
            }
        }
        Ok(news)
    }

    fn alarm_after(&self, detached: Instant) -> Option<Instant> {
        let alarms = self.webhook.deliveries();
        let about_redundancy = |body: &Json| {
            let kind = text(&body["alarm"]);
            body["status"] == "firing" && ["redundancy-lost", "out-of-rotation"].contains(&kind.as_str())
        };
        Some(alarms.iter().find(|alarm| alarm.at > detached && about_redundancy(&alarm.body))?.at)
    }
}

/// What a status says of the service, or of a backend.
struct Told {
    of: String,
    state: String,
    /// May change while the state does not.
    cause: String,
}

fn told_by(status: &Json) -> Vec<Told> {
    let mut told = Vec::new();
    for service in status["services"].as_array().into_iter().flatten() {
        let state = format!("is {}", text(&service["verdict"]));
        told.push(Told { of: text(&service["name"]), state, cause: String::new() });
        for backend in service["backends"].as_array().into_iter().flatten() {
            let place = if backend["in_rotation"] == true { "in rotation" } else { "out of rotation" };
            let words = ["admin", "health", "passive"].map(|cause| text(&backend[cause])).join(", ");
            let cause = format!(": {}", text(&backend["cause"]));
            told.push(Told { of: text(&backend["name"]), state: format!("{place} ({words})"), cause });
        }
    }
    told
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
