//! wrk in the client node: requests over a number of connections, the next one when the last one is answered.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result};

use crate::{node::Node, process::run};

const SCRIPT: &str = include_str!("wrk.lua");

/// Milliseconds, by chance, so that connections do not keep step.
const PAUSE: &str = "delay = function() return math.random(2, 6) end\n";

/// How requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Over kept connections, as fast as they are answered.
    Kept,
    /// Over kept connections, with a pause of 2 to 6 ms before each: how long they take where nothing is at its limit.
    Paced,
    /// Each over a connection of its own, as fast as they are answered.
    New,
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests that were answered.
    pub requests: u64,
    /// In what time.
    pub duration: Duration,
    /// Half of them took no longer than this. The time to connect is not in it.
    pub median: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// What went wrong, in wrk's words, and how often.
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    /// Answers in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.duration.as_secs_f64()
    }
}

/// Runs it to its end, on two threads; `dir` is for its script.
pub(super) fn wrk(
    client: &Node,
    dir: &Path,
    to: SocketAddr,
    load: Load,
    connections: u32,
    duration: Duration,
) -> Result<Report> {
    let script = dir.join("wrk.lua");
    fs::write(&script, [SCRIPT, if load == Load::Paced { PAUSE } else { "" }].concat())?;
    let mut wrk = client.command("wrk");
    wrk.args(["--threads", "2", "--connections", &connections.to_string()]);
    wrk.args(["--duration", &format!("{}s", duration.as_secs()), "--script"]).arg(&script);
    if load == Load::New {
        wrk.args(["--header", "Connection: close"]);
    }
    let output = run(wrk.arg(format!("http://{to}/")), "")?;
    parse(&output).with_context(|| format!("wrk printed {output}"))
}

fn parse(output: &str) -> Result<Report> {
    let words = |begin: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(begin));
        let words: Vec<_> = line.with_context(|| format!("no line begins with `{begin}`"))?.split(' ').collect();
        Ok::<_, anyhow::Error>(words)
    };
    let microseconds = |word: &str| Ok::<_, anyhow::Error>(Duration::from_micros(word.parse()?));
    let requests = words("requests ")?;
    let errors = output.lines().filter_map(|line| {
        let (kind, count) = line.split_once(" errors: ")?;
        Some((kind.to_owned(), count.parse().ok().filter(|count| *count > 0)?))
    });
    Ok(Report {
        requests: requests[0].parse()?,
        duration: microseconds(requests.get(2).context("no duration")?)?,
        median: microseconds(words("half within ")?[0])?,
        p99: microseconds(words("99 percent within ")?[0])?,
        errors: errors.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_prints_is_read_among_what_wrk_prints() {
        let output = "Running 2s test @ http://10.0.0.11:80/
  2 threads and 4 connections
Requests/sec:  50.00
requests 100 in 2000000 us
half within 120 us
99 percent within 3400 us
read errors: 3
write errors: 0
";
        let report = parse(output).expect("it is complete");
        let expected = Report {
            requests: 100,
            duration: Duration::from_secs(2),
            median: Duration::from_micros(120),
            p99: Duration::from_micros(3400),
            errors: [("read".to_owned(), 3)].into(),
        };
        assert_eq!((report.rate(), report), (50.0, expected));
        assert!(parse("Running 2s test\n").is_err());
    }
}
