//! A real Prometheus asks a real lb, and the rules that ship with it fire.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use lab::{Daemon, Family, Json, Lab, Layout, Nginx, Process, Service, configuration, eventually, run, test};

const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn the_shipped_rules_fire_when_a_backend_stops_and_when_one_is_forgotten() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        // A detachment stays until its time is up, and then until somebody ends it.
        let text = configuration(lab, &[Service::web(lab, Family::V4)]);
        let stays = "after_detachment = \"alarm\"\nrecall = \"never\"\nalgorithm =";
        let daemon = Daemon::start_with(lab, &text.replace("algorithm =", stays))?;
        let _prometheus = start(lab)?;
        eventually("lb as a target that is up", PATIENCE, || {
            Ok(value(lab, "up{job=\"lb\"}")?.filter(|value| value == "1"))
        })?;
        assert_eq!(firing(lab)?, [""; 0]);

        // Planned, and so no alert.
        let detached = daemon.lb(&["backend", "drain", "web/web-01", "--for", "1h", "--yes"])?;
        assert_eq!(detached.code, Some(0), "{detached:?}");
        let planned = "lb_backend_detached_until_timestamp_seconds{backend=\"web-01\"} > time()";
        eventually("the detachment in Prometheus", PATIENCE, || value(lab, planned))?;
        // A second backend that stops is another matter: nobody serves.
        servers[1].stop()?;
        await_firing(lab, &["LbBackendDown", "LbBackendOutOfRotation", "LbServiceDown", "LbRedundancyLost"])?;
        servers[1].start()?;
        assert_eq!(daemon.lb(&["backend", "enable", "web/web-01"])?.code, Some(0));
        await_firing(lab, &[])?;

        // One whose time is up, and that nobody ends.
        assert_eq!(daemon.lb(&["backend", "disable", "web/web-02", "--for", "2s"])?.code, Some(0));
        await_firing(lab, &["LbDetachmentForgotten", "LbRedundancyLost", "LbBackendOutOfRotation"])?;
        assert_eq!(daemon.lb(&["backend", "enable", "web/web-02"])?.code, Some(0));
        await_firing(lab, &[])
    });
}

#[test]
fn the_shipped_rules_pass_their_own_tests() {
    test(&Layout::default(), |_| {
        for arguments in [["check", "rules", "lb.rules.yml"], ["test", "rules", "lb.rules.test.yml"]] {
            let mut promtool = std::process::Command::new("promtool");
            run(promtool.args(arguments).current_dir(shipped()), "")?;
        }
        Ok(())
    });
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lb-userspace/monitoring")
}

/// Prometheus in the front node. It has the shipped rules, but is in a hurry: what is to hold for minutes holds for a second.
fn start(lab: &Lab) -> Result<Process> {
    let dir = lab.dir().join("prometheus");
    fs::create_dir_all(&dir)?;
    let rules = fs::read_to_string(shipped().join("lb.rules.yml"))?;
    let hurried: Vec<String> = rules
        .lines()
        .map(|line| match line.trim_start().starts_with("for: ") {
            true => format!("{}for: 1s", &line[..line.len() - line.trim_start().len()]),
            false => line.to_owned(),
        })
        .collect();
    fs::write(dir.join("rules.yml"), hurried.join("\n"))?;
    let config = "global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }\n\
                  rule_files: [rules.yml]\nscrape_configs:\n  - job_name: lb\n    static_configs: [{ targets: [\"127.0.0.1:9633\"] }]\n";
    fs::write(dir.join("prometheus.yml"), config)?;
    let log = lab.dir().join("prometheus.log");
    Process::start(lab.front(), Path::new("prometheus"), &log, |command| {
        command.arg(format!("--config.file={}", dir.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
        command.args(["--web.listen-address=127.0.0.1:9090", "--log.level=warn"]);
    })
}

/// Answers of Prometheus's HTTP API; nothing before it listens.
fn ask(lab: &Lab, path: &str, query: &[&str]) -> Result<Option<Json>> {
    let mut curl = lab.front().command("curl");
    curl.args(["-sS", "--get", &format!("http://127.0.0.1:9090{path}")]);
    for query in query {
        curl.args(["--data-urlencode", query]);
    }
    let Ok(answer) = run(&mut curl, "") else { return Ok(None) };
    let Ok(answer) = serde_json::from_str::<Json>(&answer) else { return Ok(None) };
    Ok((answer["status"] == "success").then(|| answer["data"].clone()))
}

/// The value of an expression's first sample.
fn value(lab: &Lab, expression: &str) -> Result<Option<String>> {
    let data = ask(lab, "/api/v1/query", &[&format!("query={expression}")])?;
    let sample = data.as_ref().and_then(|data| data["result"].get(0));
    Ok(sample.and_then(|sample| sample["value"][1].as_str()).map(str::to_owned))
}

/// The names of the alerts that fire.
fn firing(lab: &Lab) -> Result<Vec<String>> {
    let data = ask(lab, "/api/v1/alerts", &[])?.context("Prometheus answers")?;
    let alerts = data["alerts"].as_array().context("there is a list of alerts")?;
    let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
    Ok(firing.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect())
}

fn await_firing(lab: &Lab, expected: &[&str]) -> Result<()> {
    let found = eventually(&format!("{expected:?}"), PATIENCE, || {
        let firing = firing(lab)?;
        let wanted = expected.iter().all(|name| firing.iter().any(|known| known == name));
        Ok((wanted && (!expected.is_empty() || firing.is_empty())).then_some(()))
    });
    found.with_context(|| format!("firing are {:?}", firing(lab)))
}
