//! A drained backend finishes what it has and gets nothing new.

use anyhow::Result;
use lab::{Connection, Daemon, Family, Lab, Layout, Nginx, Service, backend, test};

const OPEN: usize = 200;

#[test]
fn open_connections_finish_and_new_ones_go_elsewhere() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let (client, vip) = (lab.client(), Lab::VIP.socket(Family::V4));

        let mut open = (0..OPEN)
            .map(|_| {
                let mut connection = client.connect(vip)?;
                let server = connection.get()?.body;
                Ok((connection, server))
            })
            .collect::<Result<Vec<(Connection, String)>>>()?;
        let of_first = open.iter().filter(|(_, server)| server == "web-01").count();
        assert!(of_first > OPEN / 3, "web-01 has {of_first} of {OPEN}");

        let drained = daemon.lb(&["backend", "drain", "web/web-01", "--reason", "kernel update"])?;
        assert_eq!(drained.code, Some(0), "{drained:?}");
        let status = daemon.status()?;
        let web = backend(&status, "web-01")?;
        assert_eq!((&web["admin"], &web["in_rotation"]), (&"draining".into(), &false.into()), "{web:#}");
        assert_eq!((&web["health"], &web["connections"]), (&"up".into(), &of_first.into()), "{web:#}");

        for (connection, server) in &mut open {
            assert_eq!(&connection.get()?.body, server);
        }
        let tally = client.curl(Lab::VIP.url(Family::V4), 200)?;
        assert_eq!((tally.of("web-02"), tally.failures.len()), (200, 0), "{tally:?}");
        for (connection, server) in &mut open {
            assert_eq!(&connection.get()?.body, server);
        }
        let waited = daemon.lb(&["backend", "drain", "web/web-01", "--wait", "--timeout", "1s"])?;
        assert_eq!(waited.code, Some(5), "{waited:?}");

        for (connection, server) in open {
            assert_eq!(connection.last_get()?.body, server);
        }
        let waited = daemon.lb(&["backend", "drain", "web/web-01", "--wait", "--timeout", "20s"])?;
        assert_eq!(waited.code, Some(0), "{waited:?}");

        let enabled = daemon.lb(&["backend", "enable", "web/web-01"])?;
        assert_eq!(enabled.code, Some(0), "{enabled:?}");
        daemon.await_rotation("web-01", true)?;
        let tally = client.curl(Lab::VIP.url(Family::V4), 100)?;
        assert!(tally.of("web-01") > 30 && tally.failures.is_empty(), "{tally:?}");
        Ok(())
    });
}

#[test]
fn the_last_backend_in_rotation_is_not_taken_out_unasked() {
    test(&Layout::default(), |lab| {
        let _servers = Nginx::start_all(lab)?;
        let daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        assert_eq!(daemon.lb(&["backend", "disable", "web/web-01"])?.code, Some(0));
        for command in ["disable", "drain", "remove"] {
            let refused = daemon.lb(&["backend", command, "web/web-02"])?;
            assert_eq!(refused.code, Some(4), "{command}: {refused:?}");
        }
        let tally = lab.client().curl(Lab::VIP.url(Family::V4), 20)?;
        assert_eq!((tally.of("web-02"), tally.failures.len()), (20, 0), "{tally:?}");
        assert_eq!(daemon.lb(&["backend", "disable", "web/web-02", "--yes"])?.code, Some(0));
        assert_eq!(daemon.status()?["services"][0]["verdict"], "down");
        Ok(())
    });
}
