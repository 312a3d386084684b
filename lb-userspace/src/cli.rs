//! The command line: what can be asked of `lb`, a file per command, and what its exit codes mean.

mod agent;
mod alarm;
mod backend;
mod completion;
mod config;
mod decap;
mod doctor;
mod error;
mod events;
mod explain;
mod flow;
mod health;
mod man;
mod output;
mod run;
mod service;
mod stats;
mod status;
mod xdp;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use self::output::{Format, Output};
pub(crate) use self::status::ago;
pub use self::{completion::complete, error::fail};
use crate::{client::Client, config as configuration};

/// A layer-4 load balancer on XDP: daemon and command line.
#[derive(Debug, Parser)]
#[command(name = "lb", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How to print: a table for people or JSON for programs.
    #[arg(short, long, value_enum, default_value_t, global = true)]
    output: Format,
    /// The control socket of the daemon.
    #[arg(long, value_name = "PATH", env = "LB_SOCKET", default_value = configuration::DEFAULT_SOCKET, global = true)]
    socket: PathBuf,
}

/// How long it is waited for an answer that others can give, too.
const PATIENCE: Duration = Duration::from_secs(1);

const EXIT_CODES: &str =
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 refused, 5 timed out, 6 daemon not reachable";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground: SIGHUP reloads, SIGTERM stops it and leaves forwarding in place.
    Run(run::Run),
    /// Show where each service and each of its backends stands, and why.
    Status(status::Status),
    /// Show what changed, when, why and by whom.
    Events(events::Events),
    /// Show counters straight from the maps, with or without a daemon.
    Stats(stats::Stats),
    /// List, show, add, change and remove services.
    #[command(subcommand)]
    Service(service::Command),
    /// List, show, add, remove, change, drain, enable and disable backends.
    #[command(subcommand)]
    Backend(backend::Command),
    /// List, test and silence alarms.
    #[command(subcommand)]
    Alarm(alarm::Command),
    /// List, make, pause and resume checks of backends.
    #[command(subcommand)]
    Health(health::Command),
    /// List, count and end flows, with or without a daemon.
    #[command(subcommand)]
    Flow(flow::Command),
    /// Say which backend a flow has or would get, and why.
    Explain(explain::Explain),
    /// Check, show, compare and reload the configuration.
    #[command(subcommand)]
    Config(config::Command),
    /// On a backend: take off the outer headers of services that forward by ipip or gue.
    Decap(decap::Decap),
    /// On a server: tell balancers how much more it can take, in the words of HAProxy's agent-check.
    ///
    /// Whoever connects gets a line such as `up ready 63% # memory 14 % available, pressure 4 %, load 0.8`; GET, or the line
    /// `json`, is answered with JSON. The percentage is the whole share of new connections while there is room, shrinks where
    /// a measure begins to cost, and is 0 at its red line; the least of the three measures counts. Less is said at once, more
    /// when ten measurements in a row leave more. It needs no privileges.
    Agent(agent::Agent),
    /// Show where the program is attached, detach it, or have it log what it drops.
    #[command(subcommand)]
    Xdp(xdp::Command),
    /// Look for what would stop this from working here, and say how to put it right.
    Doctor(doctor::Doctor),
    /// Print what a shell needs to complete commands and the names of services and backends.
    Completion(completion::Completion),
    /// Print the manual.
    Man(man::Manual),
}

/// Where the pins of a daemon are; the daemon need not run.
#[derive(Debug, Args)]
struct Pins {
    /// The directory of the pinned maps [default: that of the daemon on --socket, when that is named].
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pin_dir: Option<PathBuf>,
    /// The configuration that names that directory [default: /etc/lb/lb.toml, if it exists].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Does what was asked.
///
/// # Errors
/// When it could not be done; [`fail`] makes an exit code of that.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let output = Output::new(cli.output);
    let client = Client::new(cli.socket);
    match cli.command {
        Command::Run(run) => run.run(),
        Command::Status(status) => block_on(status.run(&client, output)),
        Command::Events(events) => block_on(events.run(&client, output)),
        Command::Stats(stats) => stats.run(&client, output),
        Command::Alarm(command) => block_on(command.run(&client, output)),
        Command::Backend(command) => block_on(command.run(&client, output)),
        Command::Config(command) => block_on(command.run(&client, output)),
        Command::Flow(command) => command.run(&client, output),
        Command::Explain(explain) => explain.run(&client, output),
        Command::Health(command) => block_on(command.run(&client, output)),
        Command::Service(command) => block_on(command.run(&client, output)),
        Command::Decap(decap) => decap.run(output),
        Command::Agent(agent) => agent.run(output),
        Command::Xdp(command) => command.run(&client, output),
        Command::Doctor(doctor) => doctor.run(output),
        Command::Completion(completion) => completion.run(output),
        Command::Man(manual) => manual.run(output),
    }
}

fn block_on<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

impl Pins {
    fn directory(&self, client: &Client) -> anyhow::Result<PathBuf> {
        if let Some(directory) = &self.pin_dir {
            return Ok(directory.clone());
        }
        // Whoever names another socket than that of this machine's configuration means its daemon's pins.
        let named = client.socket() != Path::new(configuration::DEFAULT_SOCKET);
        if named
            && self.config.is_none()
            && let Some(directory) = block_on(async { Ok(of_daemon(client).await) })?
        {
            return Ok(directory);
        }
        let default = PathBuf::from(configuration::DEFAULT_PATH);
        let Some(file) = self.config.clone().or_else(|| Some(default).filter(|file| file.exists())) else {
            return Ok(configuration::DEFAULT_PIN_DIR.into());
        };
        Ok(configuration::Config::load(&file)?.global.pin_dir)
    }
}

/// Where a daemon that answers has its pins.
async fn of_daemon(client: &Client) -> Option<PathBuf> {
    let running = tokio::time::timeout(PATIENCE, client.configuration()).await.ok()?.ok()?;
    running.config["global"]["pin_dir"].as_str().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_contradict_each_other_nowhere() {
        super::Cli::command().debug_assert();
    }
}
