//! Processes that cannot outlive the lab.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{eventually, node::Node};

/// A long-running program in a node, killed on drop, and by the kernel when this process dies.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with its output in `log`, through whatever `configure` adds.
    pub fn start(node: &Node, program: &Path, log: &Path, configure: impl FnOnce(&mut Command)) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        // setpriv becomes nsenter becomes the program, by exec: one process, one pid, and the death signal stays with it.
        let mut command = node.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        configure(&mut command);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let name = format!("{} in {}", program.display(), node.name());
        let child = spawn(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name, log: log.to_owned() })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal and waits for the end.
    pub fn end(mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        let what = format!("the end of {}", self.name);
        eventually(&what, Duration::from_secs(20), || self.exited())
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end with `input` on standard input and returns its standard output; anything but success is an
/// error that shows the command and what it said.
pub fn run(command: &mut Command, input: &str) -> Result<String> {
    let attempt = format!("{command:?}");
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {attempt}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{attempt}: {}: {stderr}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Starts a child on a thread that lives as long as this process: the death signal of a child is bound to the *thread*
/// that made it (prctl(2), PR_SET_PDEATHSIG).
///
/// The child leads its own process group, so that Ctrl-C at a terminal reaches this process only, which then takes the
/// lab down in order.
fn spawn(mut command: Command) -> Result<Child> {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in jobs {
                // The other end waits for this.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let (sender, reply) = mpsc::channel();
    spawner.send((command, sender)).expect("the spawner never ends");
    Ok(reply.recv().expect("the spawner answers every job")?)
}
