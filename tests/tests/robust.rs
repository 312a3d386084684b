//! Restarts, kills and reloads under load, one after the other: no request notices.

use std::{fs, time::Duration};

use anyhow::Result;
use lab::{Daemon, Family, Lab, Layout, Load, Nginx, Service, configuration, eventually, test};

#[test]
fn no_request_fails_over_twenty_restarts_five_kills_and_fifty_reloads() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let service = Service::web(lab, Family::V4);
        let files = [1, 3].map(|weight| {
            let mut service = service.clone();
            service.backends[0].2 = weight;
            service.algorithm = if weight == 1 { "round-robin" } else { "maglev" };
            configuration(lab, &[service])
        });
        let mut daemon = Daemon::start_with(lab, &files[0])?;
        let load = lab.client().load(Lab::VIP.socket(Family::V4), 8);
        for round in 0..50 {
            fs::write(daemon.config(), &files[(round + 1) % 2])?;
            let reloaded = daemon.lb(&["config", "reload"])?;
            assert_eq!(reloaded.code, Some(0), "reload {round}: {reloaded:?}");
            if round % 10 == 0 {
                daemon.kill()?;
                daemon.start_again()?;
            } else if round % 5 != 0 && round % 2 == 0 {
                assert!(daemon.stop()?.success());
                daemon.start_again()?;
            }
            await_more(&load, 50)?;
        }
        let progress = load.stop();
        assert!(progress.failures.is_empty(), "{:?}", progress.failures);
        println!("{} requests answered", progress.tally.total());
        assert_eq!(daemon.status()?["services"][0]["verdict"], "ok");
        Ok(())
    });
}

/// Each step has traffic of its own.
fn await_more(load: &Load, count: u64) -> Result<()> {
    let before = load.progress().tally.total();
    eventually(&format!("{count} more answers"), Duration::from_secs(20), || {
        Ok((load.progress().tally.total() >= before + count).then_some(()))
    })
}
