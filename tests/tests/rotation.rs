//! Who serves when not everybody does: backups, a service that fails open, and servers that come back slowly.

use std::{fs, time::Duration};

use lab::{Daemon, Family, Lab, Layout, Nginx, Service, backend, configuration, eventually, test};

#[test]
fn a_backup_serves_while_no_other_does() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let text = configuration(lab, &[Service::web(lab, Family::V4)]);
        let backup = text.replace("name = \"web-02\"", "name = \"web-02\"\nbackup = true");
        let daemon = Daemon::start_with(lab, &backup)?;
        let status = daemon.status()?;
        let web = &status["services"][0];
        assert_eq!((&web["verdict"], &web["in_rotation"], &web["total"]), (&"ok".into(), &1.into(), &1.into()));
        let url = Lab::VIP.url(Family::V4);
        assert_eq!(lab.client().curl(&url, 20)?.of("web-01"), 20);
        servers[0].stop()?;
        let serving = daemon.await_rotation("web-02", true)?;
        assert_eq!(serving["cause"], "backup: no other serves", "{serving:#}");
        assert_eq!(lab.client().curl(&url, 20)?.of("web-02"), 20);
        servers[0].start()?;
        daemon.await_rotation("web-02", false)?;
        assert_eq!(lab.client().curl(&url, 20)?.of("web-01"), 20);
        Ok(())
    });
}

#[test]
fn a_service_that_fails_open_serves_though_every_check_fails() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let text = configuration(lab, &[Service::web(lab, Family::V4)]);
        let daemon = Daemon::start_with(lab, &text.replace("algorithm =", "fail = \"open\"\nalgorithm ="))?;
        // The page of the checks is broken, not the site: nginx goes on answering 500, with the name in the body.
        servers.iter_mut().try_for_each(|server| server.fail(true))?;
        eventually("a service that fails open", Duration::from_secs(10), || {
            Ok((daemon.status()?["services"][0]["fails_open"] == true).then_some(()))
        })?;
        let status = daemon.status()?;
        assert_eq!(status["services"][0]["verdict"], "down");
        let url = Lab::VIP.url(Family::V4);
        let tally = lab.client().curl(&url, 20)?;
        assert!(tally.failures.iter().all(|failure| failure.contains("500")), "{tally:?}");
        assert_eq!(tally.failures.len(), 20, "each was answered");

        fs::write(daemon.config(), &text)?;
        assert_eq!(daemon.lb(&["config", "reload"])?.code, Some(0));
        let tally = lab.client().curl(&url, 1)?;
        assert!(!tally.failures[0].contains("500"), "nobody answers: {tally:?}");
        Ok(())
    });
}

#[test]
fn a_server_that_comes_back_grows_to_its_share() {
    test(&Layout::default(), |lab| {
        let mut servers = Nginx::start_all(lab)?;
        let text = configuration(lab, &[Service::web(lab, Family::V4)]);
        let daemon = Daemon::start_with(lab, &text.replace("algorithm =", "slow_start = \"8s\"\nalgorithm ="))?;
        assert!(backend(&daemon.status()?, "web-01")?["share"].is_null(), "at the start all serve at once");
        servers[0].stop()?;
        daemon.await_rotation("web-01", false)?;
        servers[0].start()?;
        let back = daemon.await_rotation("web-01", true)?;
        assert!(back["share"].as_u64().is_some_and(|share| share < 40), "{back:#}");
        let url = Lab::VIP.url(Family::V4);
        let early = lab.client().curl(&url, 100)?;
        assert!(early.of("web-01") < 35 && early.failures.is_empty(), "{early:?}");
        eventually("its whole share", Duration::from_secs(15), || {
            Ok(backend(&daemon.status()?, "web-01")?["share"].is_null().then_some(()))
        })?;
        eventually("half of the requests", Duration::from_secs(5), || {
            Ok((lab.client().curl(&url, 100)?.of("web-01") >= 45).then_some(()))
        })
    });
}
