//! The log of dropped packets: switched on and off while packets flow, and no connection is the worse for it.

use std::time::Duration;

use anyhow::Result;
use lab::{Daemon, Family, Lab, Layout, Nginx, Segment, Service, eventually, test};

const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn dropped_packets_are_logged_while_that_is_switched_on() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let client = lab.client();
        let vip = Lab::VIP.socket(Family::V4);
        let mut connection = client.connect(vip)?;
        // Its last hop is the front node: dropped, and not answered.
        let mut dropped = 0;
        let mut drop_one = || -> Result<()> {
            let from = client.node().address(Family::V4, 5555);
            client.send_raw(&[Segment { from, to: vip, hops: 1, ..Segment::SYN }.packet()], vip.ip())?;
            dropped += 1;
            eventually("the packet is dropped", PATIENCE, || {
                Ok((daemon.stats()?["drops"]["hop_limit"] == dropped).then_some(()))
            })
        };
        let switch = |on: &str| -> Result<()> {
            let outcome = daemon.lb(&["xdp", "log", on])?;
            assert_eq!(outcome.code, Some(0), "{outcome:?}");
            Ok(())
        };
        let logged = || lab.logs().matches("bytes: hop_limit").count();

        drop_one()?;
        switch("on")?;
        drop_one()?;
        eventually("the drop is in the log", PATIENCE, || Ok((logged() == 1).then_some(())))?;
        switch("off")?;
        drop_one()?;
        switch("on")?;
        drop_one()?;
        eventually("the next drop is in the log", PATIENCE, || Ok((logged() == 2).then_some(())))?;
        assert_eq!(connection.get()?.status, 200);
        Ok(())
    });
}

#[test]
fn a_switch_that_is_neither_is_explained() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let outcome = daemon.lb(&["xdp", "log", "perhaps"])?;
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains("on, off"), "{outcome:?}");
        Ok(())
    });
}
