//! `lb completion`: shells complete commands, options, and the names that the daemon knows at that moment.

use std::{env, ffi::OsStr, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, ValueEnum, builder::StyledStr};
use clap_complete::{
    CompleteEnv,
    engine::{ArgValueCompleter, CompletionCandidate},
    env::Shells,
};
use tokio::time;

use super::{Cli, output::Output};
use crate::{alarm::Kind, api::types::ServiceStatus, client::Client, config};

/// By which a shell asks `lb` what fits.
const VARIABLE: &str = "COMPLETE";
/// Nobody waits longer for a key press.
const PATIENCE: Duration = Duration::from_millis(500);

const INSTALL: &str = "\
Examples:
  bash  lb completion bash > /etc/bash_completion.d/lb
  zsh   lb completion zsh > \"${fpath[1]}/_lb\"
  fish  lb completion fish > ~/.config/fish/completions/lb.fish

Names of services and backends are asked of the daemon on $LB_SOCKET, or else on the default socket.";

#[derive(Debug, Args)]
#[command(after_help = INSTALL)]
pub(super) struct Completion {
    /// The shell.
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

impl Completion {
    pub(super) fn run(&self, output: Output) -> anyhow::Result<()> {
        let name = self.shell.to_possible_value().expect("every shell has a name");
        let shells = Shells::builtins();
        let shell = shells.completer(name.get_name()).expect("these are clap's shells");
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, "lb", "lb", "lb", &mut script)?;
        output.say(&String::from_utf8_lossy(&script))
    }
}

/// Answers a shell that wants to know what fits, and exits; returns when this is no such question.
pub fn complete() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// Fills in SERVICE/BACKEND.
pub(super) fn backends() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let candidates = |service: &ServiceStatus| {
            let name = service.name.clone();
            let backends = service.backends.iter();
            let candidate = |backend: &crate::api::types::BackendStatus| {
                let help = StyledStr::from(backend.cause.clone());
                CompletionCandidate::new(format!("{name}/{}", backend.name)).help(Some(help))
            };
            backends.map(candidate).collect::<Vec<_>>()
        };
        fitting(typed, ask().iter().flat_map(candidates).collect())
    })
}

/// Fills in SERVICE, SERVICE/BACKEND or a kind of alarm.
pub(super) fn alarms() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let services = ask();
        let of = |service: &ServiceStatus| {
            let name = service.name.clone();
            let backends = service.backends.iter().map(move |backend| format!("{name}/{}", backend.name));
            std::iter::once(service.name.clone()).chain(backends).collect::<Vec<_>>()
        };
        let kinds = Kind::ALL.iter().map(|kind| kind.word().to_owned());
        let all = services.iter().flat_map(of).chain(kinds);
        fitting(typed, all.map(CompletionCandidate::new).collect())
    })
}

/// Fills in SERVICE.
pub(super) fn services() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let candidate = |service: &ServiceStatus| {
            let help = StyledStr::from(format!("{} ({})", service.listen, service.verdict.word()));
            CompletionCandidate::new(&service.name).help(Some(help))
        };
        fitting(typed, ask().iter().map(candidate).collect())
    })
}

fn fitting(typed: &OsStr, candidates: Vec<CompletionCandidate>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    candidates.into_iter().filter(|one| one.get_value().to_string_lossy().starts_with(&*typed)).collect()
}

/// What the daemon knows. Without one there is nothing to fill in, and nobody to tell.
fn ask() -> Vec<ServiceStatus> {
    let socket = env::var_os("LB_SOCKET").map_or_else(|| config::DEFAULT_SOCKET.into(), PathBuf::from);
    let status = async {
        let status = time::timeout(PATIENCE, Client::new(socket).status(None)).await;
        Ok(status.ok().and_then(Result::ok).map(|status| status.services).unwrap_or_default())
    };
    super::block_on(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_that_asks_lb() {
        let shells = Shells::builtins();
        for shell in Shell::value_variants() {
            let name = shell.to_possible_value().unwrap();
            let mut script = Vec::new();
            let known = shells.completer(name.get_name()).unwrap_or_else(|| panic!("{shell:?}"));
            known.write_registration(VARIABLE, "lb", "lb", "lb", &mut script).unwrap();
            assert!(String::from_utf8(script).unwrap().contains(VARIABLE), "{shell:?}");
        }
    }

    #[test]
    fn only_what_fits_is_offered() {
        let offered = |typed: &str| {
            let candidates = ["web/web-01", "web/web-02", "api/a"].map(CompletionCandidate::new);
            fitting(OsStr::new(typed), candidates.into()).len()
        };
        assert_eq!(["", "we", "web/web-01", "x"].map(offered), [3, 2, 1, 0]);
    }
}
