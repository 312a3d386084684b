//! The Debian package, installed into a throw-away root and run from there with the capabilities of its unit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use lab::{Family, Json, Layout, Nginx, Outcome, Process, Service, configuration, eventually, run, test};

#[test]
fn the_package_installs_runs_and_goes() {
    let Some(package) = package() else {
        eprintln!("skipped the_package_installs_runs_and_goes: there is no package; run `cargo xtask dist`");
        return;
    };
    test(&Layout::default(), |lab| {
        let root = lab.dir().join("root");
        let database = root.join("var/lib/dpkg");
        for directory in ["updates", "info"] {
            fs::create_dir_all(database.join(directory))?;
        }
        for file in ["status", "available"] {
            fs::write(database.join(file), "")?;
        }
        let dpkg = |arguments: &[&str]| {
            let mut dpkg = Command::new("dpkg");
            dpkg.arg("--root").arg(&root).args(["--force-depends", "--force-script-chrootless"]).args(arguments);
            run(&mut dpkg, "").map(drop)
        };
        dpkg(&["--install", &package.display().to_string()])?;
        let lb = root.join("usr/bin/lb");
        let unit = fs::read_to_string(root.join("usr/lib/systemd/system/lb.service"))?;
        for file in
            ["usr/share/man/man1/lb.1.gz", "usr/share/bash-completion/completions/lb", "usr/share/lb/lb.schema.json"]
        {
            assert!(root.join(file).exists(), "{file}");
        }
        let checked = Outcome::of(Command::new(&lb).args(["config", "check"]).arg(root.join("etc/lb/lb.toml")))?;
        assert_eq!(checked.code, Some(0), "{checked:?}");

        let _servers = Nginx::start_all(lab)?;
        let config = root.join("etc/lb/lb.toml");
        fs::write(&config, configuration(lab, &[Service::web(lab, Family::V4)]))?;
        let held =
            unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("it is bounded")?;
        let held: Vec<_> = held.split(' ').map(|name| name.replace("CAP_", "+").to_lowercase()).collect();
        let mut daemon =
            Process::start(lab.front(), Path::new("setpriv"), &lab.dir().join("package.log"), |command| {
                command.arg(format!("--bounding-set=-all,{}", held.join(","))).arg("--no-new-privs");
                command.arg(&lb).arg("run").arg("--config").arg(&config);
            })?;
        let socket = lab.dir().join("lb.sock");
        let status = || Outcome::of(Command::new(&lb).args(["status", "-o", "json", "--socket"]).arg(&socket));
        eventually("two backends in rotation", Duration::from_secs(20), || {
            ensure!(daemon.exited()?.is_none(), "{}", daemon.log());
            let Ok(status) = status()?.stdout.parse::<Json>() else { return Ok(None) };
            Ok((status["services"][0]["in_rotation"] == 2).then_some(()))
        })?;
        let capabilities = fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
        // NET_ADMIN, PERFMON and BPF: bits 12, 38 and 39 (capability.h).
        assert!(capabilities.contains("CapPrm:\t000000c000001000"), "{capabilities}");

        // The configuration was edited, so it stays until the purge.
        dpkg(&["--remove", "lb"])?;
        assert!(!lb.exists() && config.exists());
        let tally = lab.client().curl(lab::Lab::VIP.url(Family::V4), 20)?;
        assert_eq!((tally.total(), tally.failures.len()), (20, 0), "{tally:?}");
        dpkg(&["--purge", "lb"])?;
        assert!(!config.exists());
        Ok(())
    });
}

/// The newest package that was built.
fn package() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian");
    let packages = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    let packages = packages.filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    packages.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}
