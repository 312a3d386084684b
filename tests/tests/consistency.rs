//! An established connection stays with its backend, whatever happens to the others and to its backend's weight.

use std::{
    thread,
    time::{Duration, Instant},
};

use lab::{Daemon, Family, Lab, Layout, Nginx, Service, test};

const CONNECTIONS: usize = 2_000;
const CHURN: Duration = Duration::from_secs(30);
const PACE: Duration = Duration::from_millis(100);

/// Over and over: two backends come and go, and the two with the connections change weights and are drained.
const CHANGES: &[&[&str]] = &[
    &["add", "web/web-03", "--address", "10.0.0.13:80"],
    &["set", "web/web-01", "--weight", "7"],
    &["drain", "web/web-02"],
    &["add", "web/web-04", "--address", "10.0.0.14:80", "--weight", "3"],
    &["set", "web/web-02", "--weight", "100"],
    &["drain", "web/web-03"],
    &["enable", "web/web-02"],
    &["remove", "web/web-03", "--yes"],
    &["drain", "web/web-01"],
    &["set", "web/web-01", "--weight", "1"],
    &["disable", "web/web-04"],
    &["enable", "web/web-01"],
    &["remove", "web/web-04", "--yes"],
    &["set", "web/web-02", "--weight", "1"],
];

#[test]
fn two_thousand_connections_stay_while_everything_around_them_changes() {
    test(&Layout { webs: 4, ..Layout::default() }, |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let vip = Lab::VIP.socket(Family::V4);
        let crowd = lab.client().crowd(vip, CONNECTIONS)?;
        let of_each = ["web-01", "web-02"].map(|server| crowd.of(server));
        assert_eq!(of_each.iter().sum::<usize>(), CONNECTIONS);

        let began = Instant::now();
        let mut next = began;
        let mut changes = 0;
        while began.elapsed() < CHURN {
            for change in CHANGES {
                let outcome = daemon.lb(&[&["backend"], *change].concat())?;
                assert_eq!(outcome.code, Some(0), "{change:?}: {outcome:?}");
                changes += 1;
                next += PACE;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        }
        let planned = CHURN.as_millis() / PACE.as_millis();
        assert!(changes >= planned, "{changes} changes in {:?}", began.elapsed());

        let stats = daemon.stats()?;
        let report = crowd.stop();
        assert!(report.broken.is_empty(), "{} of {CONNECTIONS}: {:?}", report.broken.len(), report.broken.first());
        assert!(report.fewest >= 3, "every connection was busy: {report:?}");
        for (server, of_it) in ["web-01", "web-02"].iter().zip(of_each) {
            assert_eq!(lab::backend(&stats, server)?["connections"], of_it, "{stats:#}");
        }
        assert_eq!(stats["drops"]["no_flow"], 0, "{stats:#}");
        Ok(())
    });
}
