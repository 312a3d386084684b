//! `lb agent`: on a server, tells balancers how much more it can take.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{error::Usage, output::Output, run};
use crate::agent::{self, Band, Curve, Settings, Sources};

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Agent {
    /// Where it is asked [default: port 9634 of every address].
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// The memory cgroup that the site runs in, e.g. /sys/fs/cgroup/system.slice/nginx.service; its limit, and those of the
    /// cgroups around it, count beside the machine's memory [default: that of the container].
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// From one measurement to the next.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Memory available, in percent, below which the share shrinks.
    #[arg(long, value_name = "PERCENT", default_value_t = Curve::default().memory.begin)]
    memory_begin: f64,
    /// The red line: with so little memory available, in percent, it takes nothing new.
    #[arg(long, value_name = "PERCENT", default_value_t = Curve::default().memory.red)]
    memory_red: f64,
    /// Time in which something waits for memory (PSI, some, over 10 s), in percent, above which the share shrinks.
    #[arg(long, value_name = "PERCENT", default_value_t = Curve::default().pressure.begin)]
    pressure_begin: f64,
    /// The red line of that.
    #[arg(long, value_name = "PERCENT", default_value_t = Curve::default().pressure.red)]
    pressure_red: f64,
    /// Load over a minute, for each CPU, above which the share shrinks.
    #[arg(long, value_name = "LOAD", default_value_t = Curve::default().load.begin)]
    load_begin: f64,
    /// The load, for each CPU, that leaves 1 % of the share; load alone does not stop new connections.
    #[arg(long, value_name = "LOAD", default_value_t = Curve::default().load.red)]
    load_red: f64,
    /// Measure once, print that, and end.
    #[arg(long)]
    once: bool,
}

impl Agent {
    pub(super) fn run(self, output: Output) -> anyhow::Result<()> {
        let curve = self.curve()?;
        let sources = Sources::new(self.cgroup);
        if self.once {
            let report = agent::once(&sources, &curve)?;
            return output.say(&if output.is_json() { report.json() } else { report.to_string() });
        }
        run::log();
        let settings = Settings { listen: self.listen, sources, curve, interval: self.interval };
        super::block_on(async {
            let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
            let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
            tokio::select! {
                served = agent::serve(settings) => Ok(served?),
                _ = terminate.recv() => Ok(()),
                _ = interrupt.recv() => Ok(()),
            }
        })
    }

    fn curve(&self) -> anyhow::Result<Curve> {
        let Self { memory_begin, memory_red, pressure_begin, pressure_red, load_begin, load_red, .. } = *self;
        // Written so that what is no number is in no order.
        for (low, high, wrong) in [
            (memory_red, memory_begin, "--memory-red is to be below --memory-begin: less memory is worse"),
            (pressure_begin, pressure_red, "--pressure-begin is to be below --pressure-red"),
            (load_begin, load_red, "--load-begin is to be below --load-red"),
        ] {
            if !(low >= 0.0 && low < high && high.is_finite()) {
                return Err(Usage(format!("{wrong}, and both are 0 or more; they are {low} and {high}")).into());
            }
        }
        Ok(Curve {
            memory: Band { begin: memory_begin, red: memory_red },
            pressure: Band { begin: pressure_begin, red: pressure_red },
            load: Band { begin: load_begin, red: load_red },
        })
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let within = (SHORTEST..=LONGEST).contains(&duration);
    within.then_some(duration).ok_or_else(|| "it is between 50ms and 1m".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        agent: Agent,
    }

    #[test]
    fn lines_that_make_no_sense_are_refused_and_the_defaults_make_sense() {
        let curve = |arguments: &[&str]| {
            let line = Line::try_parse_from([&["agent"], arguments].concat()).map_err(|error| error.to_string())?;
            line.agent.curve().map_err(|error| error.to_string())
        };
        assert_eq!(curve(&[]), Ok(Curve::default()));
        let moved = Curve { memory: Band { begin: 50.0, red: 10.0 }, ..Curve::default() };
        assert_eq!(curve(&["--memory-begin", "50", "--memory-red", "10"]), Ok(moved));
        for (arguments, expected) in [
            (["--memory-red", "20"], "--memory-red is to be below --memory-begin"),
            (["--memory-red", "NaN"], "they are NaN"),
            (["--pressure-red", "10"], "--pressure-begin is to be below"),
            (["--load-red", "inf"], "--load-begin is to be below"),
            (["--interval", "1ms"], "it is between"),
        ] {
            let refused = curve(&arguments).unwrap_err();
            assert!(refused.contains(expected), "{arguments:?}: {refused}");
        }
    }
}
