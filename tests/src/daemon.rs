//! The `lb` daemon in the front node, and its command line.

use std::{
    env, fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    config::{Service, configuration},
    eventually,
    node::Node,
    process::Process,
    topology::Lab,
};

/// How long the daemon may take to be ready: the program's verification on a busy machine and a round of probes.
const PATIENCE: Duration = Duration::from_secs(20);

/// `lb run` with a configuration, in the front node. Dropping it kills it; what it pinned goes with the lab.
#[derive(Debug)]
pub struct Daemon {
    front: Node,
    dir: PathBuf,
    pin_dir: PathBuf,
    process: Option<Process>,
}

/// How a command of `lb` ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The binary under test: `$LB_BIN`, or `target/release/lb`.
pub fn lb_binary() -> Result<PathBuf> {
    binary("LB_BIN", "target/release/lb", "build")
}

/// What it is upgraded to, with other XDP programs: `$LB_REBUILT_BIN`, or `target/rebuilt/lb`.
pub fn rebuilt_binary() -> Result<PathBuf> {
    binary("LB_REBUILT_BIN", "target/rebuilt/lb", "build --rebuilt")
}

fn binary(variable: &str, default: &str, command: &str) -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package is in a workspace")?;
    let binary = env::var_os(variable).map_or_else(|| workspace.join(default), PathBuf::from);
    ensure!(binary.exists(), "{} does not exist; run `cargo xtask {command}`", binary.display());
    Ok(binary)
}

impl Daemon {
    /// Writes the configuration, starts the daemon and waits until it is ready.
    pub fn start(lab: &Lab, services: &[Service]) -> Result<Self> {
        Self::start_with(lab, &configuration(lab, services))
    }

    /// The same with the text of the configuration, which is [`configuration`] with changes.
    pub fn start_with(lab: &Lab, configuration: &str) -> Result<Self> {
        let mut daemon = Self { front: lab.front().clone(), dir: lab.dir(), pin_dir: lab.pin_dir(), process: None };
        fs::write(daemon.config(), configuration)?;
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("lb.toml")
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("lb.sock")
    }

    /// Its process id; none while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Starts it after [`Daemon::stop`] or [`Daemon::kill`] and waits until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        self.start_as(&lb_binary()?)
    }

    /// The same with another binary.
    pub fn start_as(&mut self, binary: &Path) -> Result<()> {
        let notify = self.dir.join("notify.sock");
        let _ = fs::remove_file(&notify);
        let messages = UnixDatagram::bind(&notify)?;
        messages.set_nonblocking(true)?;
        let config = self.config();
        let mut process = Process::start(&self.front, binary, &self.dir.join("lb.log"), |command| {
            command.arg("run").arg("--config").arg(config).env("NOTIFY_SOCKET", &notify);
        })?;
        let mut message = [0; 4096];
        let ready = eventually("READY=1 from lb", PATIENCE, || {
            if let Some(status) = process.exited()? {
                bail!("lb run ended with {status}");
            }
            let Ok(length) = messages.recv(&mut message) else { return Ok(None) };
            Ok(message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1").then_some(()))
        });
        ready.with_context(|| process.log())?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGTERM, and the exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().context("the daemon is not running")?.end(Signal::TERM)
    }

    /// SIGKILL, and the wait until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the daemon is not running")?.end(Signal::KILL).map(drop)
    }

    /// A command line of `lb` for this daemon, in the front node, to its end.
    pub fn lb(&self, arguments: &[&str]) -> Result<Outcome> {
        let mut command = self.front.command(lb_binary()?);
        command.args(arguments).env("LB_SOCKET", self.socket());
        if matches!(arguments, ["stats" | "flow" | "explain", ..] | ["xdp", "status" | "detach", ..]) {
            command.arg("--pin-dir").arg(&self.pin_dir);
        }
        Outcome::of(&mut command)
    }

    /// `lb status -o json`.
    pub fn status(&self) -> Result<Value> {
        self.json(&["status", "-o", "json"])
    }

    /// `lb stats -o json`.
    pub fn stats(&self) -> Result<Value> {
        self.json(&["stats", "-o", "json"])
    }

    /// Waits until a backend of the service `web` is in rotation, or out of it, and returns its status.
    pub fn await_rotation(&self, name: &str, in_rotation: bool) -> Result<Value> {
        let place = if in_rotation { "in" } else { "out of" };
        eventually(&format!("{name} {place} rotation"), PATIENCE, || {
            let backend = backend(&self.status()?, name)?.clone();
            Ok((backend["in_rotation"] == in_rotation).then_some(backend))
        })
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let outcome = self.lb(arguments)?;
        ensure!(outcome.code == Some(0), "lb {arguments:?}: {outcome:?}");
        serde_json::from_str(&outcome.stdout).with_context(|| format!("lb {arguments:?} printed {}", outcome.stdout))
    }
}

impl Outcome {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }
}

/// A backend of the service `web`, in the JSON of `lb status` or `lb stats`.
pub fn backend<'a>(json: &'a Value, name: &str) -> Result<&'a Value> {
    let services = json["services"].as_array().context("there are services")?;
    let web = services.iter().find(|service| service["name"] == "web").context("there is a service web")?;
    let backends = web["backends"].as_array().context("there are backends")?;
    backends.iter().find(|backend| backend["name"] == name).with_context(|| format!("no backend {name} in {web}"))
}
