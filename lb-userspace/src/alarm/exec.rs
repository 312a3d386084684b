//! `exec`: a program that is told of an alarm by its environment and by JSON on standard input. No shell is involved; a
//! program that takes too long is killed with everything that it started.

use std::{io, path::Path, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStderr, Command},
    time,
};

use super::{
    Notice,
    courier::{Failure, Message},
};

/// How much of what a program complains is kept.
const COMPLAINT: u64 = 1024;

/// One attempt.
pub(super) async fn run(program: &Path, timeout: Duration, id: u64, notice: &Notice) -> Result<(), Failure> {
    let again = |reason| Failure { reason, again: true };
    let message = Message::new(id, notice);
    let mut child = command(program, &message, notice)
        .spawn()
        .map_err(|error| again(format!("cannot start {}: {error}", program.display())))?;
    let group = Group(child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw));
    let told = time::timeout(timeout, tell(&mut child, &message.json())).await;
    // Whatever it has started goes with it, also when it ended in time.
    drop(group);
    match told {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => Err(again(reason)),
        Err(_) => {
            // It is killed already: this waits until it is off the list of processes.
            let _ = child.kill().await;
            Err(again(format!("not done within {}, killed", humantime::format_duration(timeout))))
        }
    }
}

/// Whether the program is there and may be run.
pub(super) fn check(program: &Path) -> Result<(), String> {
    let may = rustix::fs::access(program, rustix::fs::Access::EXEC_OK);
    may.map_err(|error| format!("{} cannot be run: {}", program.display(), io::Error::from(error).kind()))
}

fn command(program: &Path, message: &Message<'_>, notice: &Notice) -> Command {
    let mut command = Command::new(program);
    command
        .env("LB_ID", &message.id)
        .env("LB_HOST", &message.host)
        .env("LB_STATUS", notice.status.word())
        .env("LB_ALARM", notice.subject.kind.word())
        .env("LB_SEVERITY", notice.severity.word())
        .env("LB_SERVICE", notice.subject.service.as_deref().unwrap_or_default())
        .env("LB_BACKEND", notice.subject.backend.as_deref().unwrap_or_default())
        .env("LB_SUMMARY", &notice.summary)
        .env("LB_SINCE", notice.since.to_string())
        .env("LB_AT", notice.at.to_string())
        .env("LB_REPEATED", if notice.repeated { "1" } else { "0" })
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

async fn tell(child: &mut Child, message: &[u8]) -> Result<(), String> {
    if let Some(mut stdin) = child.stdin.take() {
        // A program may go by its environment alone and leave this unread.
        let _ = stdin.write_all(message).await;
    }
    let complaint = complaint(child.stderr.take());
    let (ended, complaint) = tokio::join!(child.wait(), complaint);
    let status = ended.map_err(|error: io::Error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    let complaint = complaint.lines().next().map(|line| format!(": {line}")).unwrap_or_default();
    Err(format!("{status}{complaint}"))
}

async fn complaint(stderr: Option<ChildStderr>) -> String {
    let mut text = Vec::new();
    if let Some(mut stderr) = stderr {
        let _ = (&mut stderr).take(COMPLAINT).read_to_end(&mut text).await;
        // The rest is read too: nobody is to fail for talking.
        let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The process group that a program leads.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It is gone already when all went well.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests;
