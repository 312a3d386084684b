//! From errors to exit codes. Scripts rely on them.

use std::{fmt, io, process::ExitCode};

use crate::{api::types::ErrorCode, client, dataplane};

const FAILED: u8 = 1;
/// As clap ends on arguments that it does not understand.
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const REFUSED: u8 = 4;
const TIMED_OUT: u8 = 5;
const UNREACHABLE: u8 = 6;

/// What had to happen did not happen in time.
#[derive(Debug)]
pub(super) struct TimedOut(pub(super) String);

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TimedOut {}

/// There is no such thing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotFound(pub(super) String);

/// What was typed makes no sense, in a way that clap does not see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// It would do harm, and nobody insisted.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

/// Prints the error and says what to exit with.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        // `lb status | head`: who reads has seen enough.
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", message(error));
    ExitCode::from(code(error))
}

/// The chain of what was attempted, leaving out causes that an error has in its words already.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

fn code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<client::Error>() {
        return match error {
            client::Error::Unreachable { .. } => UNREACHABLE,
            client::Error::Silent { .. } => TIMED_OUT,
            client::Error::Garbled { .. } => FAILED,
            client::Error::Answered(body) => match body.code {
                ErrorCode::NotFound => NOT_FOUND,
                ErrorCode::Refused => REFUSED,
                ErrorCode::Invalid => USAGE,
                ErrorCode::BadConfig | ErrorCode::Conflict | ErrorCode::Internal => FAILED,
            },
        };
    }
    if let Some(error) = error.downcast_ref::<dataplane::Error>() {
        return match error {
            dataplane::Error::NothingPinned { .. } | dataplane::Error::NoInterface { .. } => NOT_FOUND,
            dataplane::Error::InUse { .. } => REFUSED,
            _ => FAILED,
        };
    }
    match () {
        () if error.is::<Usage>() => USAGE,
        () if error.is::<NotFound>() => NOT_FOUND,
        () if error.is::<Refused>() => REFUSED,
        () if error.is::<TimedOut>() => TIMED_OUT,
        () => FAILED,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::api::types::ErrorBody;

    #[test]
    fn a_cause_is_told_once() {
        let source = io::Error::from(io::ErrorKind::TimedOut);
        let told = client::Error::Unreachable { socket: PathBuf::from("/s"), source };
        let error = anyhow::Error::from(told).context("watching");
        assert_eq!(message(&error), "watching: cannot reach the daemon at /s: timed out");
    }

    #[test]
    fn each_failure_has_its_exit_code() {
        let answered = |code| client::Error::Answered(ErrorBody { code, message: String::new() });
        let check = |error: anyhow::Error, expected: u8| assert_eq!(code(&error), expected, "{error}");
        check(answered(ErrorCode::NotFound).into(), 3);
        check(answered(ErrorCode::Refused).into(), 4);
        check(answered(ErrorCode::Conflict).into(), 1);
        check(answered(ErrorCode::Invalid).into(), 2);
        check(answered(ErrorCode::BadConfig).into(), 1);
        check(answered(ErrorCode::Internal).into(), 1);
        check(TimedOut("late".into()).into(), 5);
        check(dataplane::Error::NothingPinned { pin_dir: PathBuf::new() }.into(), 3);
        check(dataplane::Error::InUse { pin_dir: PathBuf::new() }.into(), 4);
        check(Usage("what?".into()).into(), 2);
        check(NotFound("none".into()).into(), 3);
        check(Refused("no".into()).into(), 4);
        check(anyhow::anyhow!("anything"), 1);
        let source = io::Error::from(io::ErrorKind::NotFound);
        check(client::Error::Unreachable { socket: PathBuf::new(), source }.into(), 6);
        check(anyhow::Error::from(TimedOut("late".into())).context("draining"), 5);
    }
}
