//! What is wrong is said: what, where and what next. And nothing is left attached or pinned.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use anyhow::Result;
use lab::{Daemon, Family, Lab, Layout, Nginx, Outcome, Service, configuration, lb_binary, run, test};

#[test]
fn an_interface_that_does_not_exist() {
    check(|good| good.replacen("\"eth1\"", "\"nope0\"", 1), &["wrong.toml:2:23", "nope0", "eth0"]);
}

#[test]
fn a_key_that_does_not_exist() {
    check(|good| good.replacen("algorithm =", "algoritm =", 1), &["wrong.toml:10:1", "algoritm", "algorithm", "^"]);
}

#[test]
fn a_value_that_does_not_exist() {
    check(
        |good| good.replacen("round-robin", "round-robbin", 1),
        &["wrong.toml:10:", "round-robbin", "round-robin", "^"],
    );
}

#[test]
fn two_services_on_one_address() {
    let twice = |good: &str| {
        let (_, service) = good.split_once("[service.web]").expect("there is a service");
        format!("{good}\n[service.shop]{}", service.replace("service.web", "service.shop"))
    };
    check(twice, &["web", "shop", "203.0.113.10:80"]);
}

#[test]
fn a_file_that_does_not_exist() {
    test(&Layout::default(), |lab| {
        let outcome = lb_run(lab, Path::new("/nonexistent/lb.toml"))?;
        assert_said(&outcome, &["/nonexistent/lb.toml"]);
        assert_nothing_left(lab)
    });
}

#[test]
fn a_socket_in_use() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let services = [Service::web(lab, Family::V4)];
        let daemon = Daemon::start(lab, &services)?;
        let other_pins = lab.pin_dir().with_extension("other");
        let second = configuration(lab, &services)
            .replace(&lab.pin_dir().display().to_string(), &other_pins.display().to_string());
        let config = lab.dir().join("second.toml");
        fs::write(&config, second)?;
        let outcome = lb_run(lab, &config)?;
        assert_said(&outcome, &[&daemon.socket().display().to_string()]);
        assert!(!other_pins.exists());
        // The first one goes on.
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 20)?;
        assert_eq!((tally.total(), tally.failures.len()), (20, 0), "{tally:?}");
        assert_eq!(daemon.status()?["services"][0]["in_rotation"], 2);
        Ok(())
    });
}

#[test]
fn no_root() {
    test(&Layout::default(), |lab| {
        // Where nobody may read and run it.
        let lb = lab.dir().join("lb");
        fs::copy(lb_binary()?, &lb)?;
        fs::set_permissions(&lb, fs::Permissions::from_mode(0o755))?;
        let config = lab.dir().join("good.toml");
        fs::write(&config, configuration(lab, &[Service::web(lab, Family::V4)]))?;
        let mut command = lab.front().command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "timeout", "20"]);
        let outcome = Outcome::of(command.arg(lb).args(["run", "--config"]).arg(config))?;
        assert_said(&outcome, &["root", "sudo"]);
        assert_nothing_left(lab)
    });
}

/// Starts `lb run` with a configuration that `spoil` has made wrong: exit code 1, and all of `says` on standard error.
fn check(spoil: impl FnOnce(&str) -> String, says: &[&str]) {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let good = configuration(lab, &[Service::web(lab, Family::V4)]);
        let wrong = spoil(&good);
        assert_ne!(good, wrong);
        let config = lab.dir().join("wrong.toml");
        fs::write(&config, wrong)?;
        assert_said(&lb_run(lab, &config)?, says);
        assert_nothing_left(lab)
    });
}

fn lb_run(lab: &Lab, config: &Path) -> Result<Outcome> {
    // 124 if it does not end by itself.
    Outcome::of(lab.front().command("timeout").arg("20").arg(lb_binary()?).args(["run", "--config"]).arg(config))
}

fn assert_said(outcome: &Outcome, says: &[&str]) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for words in says {
        assert!(outcome.stderr.contains(words), "nothing of {words:?} in\n{}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

fn assert_nothing_left(lab: &Lab) -> Result<()> {
    assert!(!lab.pin_dir().exists(), "{} exists", lab.pin_dir().display());
    assert!(!lab.dir().join("lb.sock").exists());
    let links = run(lab.front().command("ip").args(["-details", "link"]), "")?;
    assert!(!links.contains("xdp"), "{links}");
    Ok(())
}
