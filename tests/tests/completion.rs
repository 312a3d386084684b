//! A shell completes the names that the daemon knows; the manual has a page for every command.

use std::{fs, process::Command};

use anyhow::Result;
use lab::{Daemon, Family, Layout, Nginx, Outcome, Service, lb_binary, test};

#[test]
fn bash_completes_the_names_that_the_daemon_knows() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let complete = |words: &[&str]| -> Result<Vec<String>> {
            let index = (words.len() - 1).to_string();
            let mut command = lab.front().command(lb_binary()?);
            command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
            command.env("LB_SOCKET", daemon.socket()).arg("--").args(words);
            Ok(Outcome::of(&mut command)?.stdout.lines().map(str::to_owned).collect())
        };
        assert_eq!(complete(&["lb", "backend", "drain", "web/"])?, ["web/web-01", "web/web-02"]);
        assert_eq!(complete(&["lb", "health", "pause", "web/web-02"])?, ["web/web-02"]);
        assert_eq!(complete(&["lb", "service", "show", "w"])?, ["web"]);
        assert_eq!(complete(&["lb", "backend", "dr"])?, ["drain"]);
        drop(daemon);
        Ok(())
    });
}

#[test]
fn every_command_has_a_page_and_every_shell_a_script() {
    test(&Layout::default(), |lab| {
        let dir = lab.dir().join("man");
        let lb = |arguments: &[&str]| Outcome::of(Command::new(lb_binary()?).args(arguments));
        assert_eq!(lb(&["man", "--dir", &dir.display().to_string()])?.code, Some(0));
        for page in ["lb.1", "lb-backend-drain.1", "lb-config-reload.1", "lb-health-run.1", "lb-events.1"] {
            assert!(fs::read_to_string(dir.join(page))?.contains(".TH"), "{page}");
        }
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            let script = lb(&["completion", shell])?;
            assert!(script.code == Some(0) && script.stdout.contains("COMPLETE"), "{script:?}");
        }
        assert!(lb(&["config", "schema"])?.stdout.contains("json-schema.org"));
        Ok(())
    });
}
