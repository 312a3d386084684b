//! Another binary with another XDP program takes the place of the running one, and no request notices.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context, Result, ensure};
use lab::{Daemon, Family, Json, Lab, Layout, Nginx, Service, lb_binary, rebuilt_binary, run, test};

/// New connections a second.
const RATE: u32 = 1_000;

#[test]
fn no_request_fails_over_five_upgrades_to_a_changed_program() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let mut daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let vip = Lab::VIP.socket(Family::V4);
        let mut open = (0..20).map(|_| lab.client().connect(vip)).collect::<Result<Vec<_>>>()?;
        let owners = open.iter_mut().map(|connection| Ok(connection.get()?.body)).collect::<Result<Vec<_>>>()?;

        let over = AtomicBool::new(false);
        let (answered, failures) = thread::scope(|scope| {
            let load = scope.spawn(|| {
                let (mut answered, mut failures) = (0, Vec::new());
                while !over.load(Ordering::Relaxed) {
                    let tally = lab.client().paced(vip, RATE, RATE).tally;
                    answered += tally.total();
                    failures.extend(tally.failures);
                }
                (answered, failures)
            });
            let upgraded = upgrades(lab, &mut daemon);
            over.store(true, Ordering::Relaxed);
            let result = load.join().expect("it does not panic");
            upgraded.map(|()| result)
        })?;
        assert!(failures.is_empty(), "{} of {answered} failed: {failures:?}", failures.len());
        println!("{answered} requests answered");
        for (connection, owner) in open.iter_mut().zip(&owners) {
            assert_eq!(&connection.get()?.body, owner);
        }
        assert_eq!(daemon.status()?["services"][0]["verdict"], "ok");
        Ok(())
    });
}

/// Panics nowhere: the load would go on.
fn upgrades(lab: &Lab, daemon: &mut Daemon) -> Result<()> {
    let (mut running, mut next) = (lb_binary()?, rebuilt_binary()?);
    for round in 0..5 {
        let before = programs(lab)?;
        ensure!(daemon.stop()?.success(), "SIGTERM is a proper end");
        ensure!(programs(lab)? == before, "the old program stays until the new one is there");
        daemon.start_as(&next)?;
        let after = programs(lab)?;
        let replaced = before.iter().zip(&after).all(|(old, new)| old != new);
        ensure!(replaced, "upgrade {round} put {after:?} in the place of {before:?}");
        std::mem::swap(&mut running, &mut next);
    }
    Ok(())
}

/// What identifies the instructions of the programs on the front node's interfaces: the kernel's hash of them.
fn programs(lab: &Lab) -> Result<Vec<String>> {
    let links: Json = run(lab.front().command("ip").args(["-json", "-details", "link"]), "")?.parse()?;
    let links = links.as_array().context("a list")?;
    let tags = links.iter().filter_map(|link| link["xdp"]["prog"]["tag"].as_str().map(str::to_owned));
    let tags: Vec<String> = tags.collect();
    ensure!(tags.len() == lab.interfaces().len(), "a program on each interface: {links:#?}");
    Ok(tags)
}
