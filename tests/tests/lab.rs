//! The lab itself, without `lb`: what the other tests take for granted.

use std::{fs, net::IpAddr, path::Path, thread};

use anyhow::Result;
use lab::{Family, Front, Lab, Layout, Nginx, Server, test};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

#[test]
fn a_routed_lab_carries_requests_to_every_web_server() {
    for front in [Front::OneLeg, Front::TwoLegs] {
        test(&Layout { front, routed: true, webs: 3, ..Layout::default() }, |lab| {
            let _servers = Nginx::start_all(lab)?;
            for (family, web) in FAMILIES.iter().flat_map(|family| lab.webs().iter().map(move |web| (*family, web))) {
                let tally = lab.client().curl(format!("http://{}/", web.address(family, 80)), 20)?;
                assert_eq!((tally.of(web.name()), tally.failures.len()), (20, 0), "{tally:?}");
            }
            Ok(())
        });
    }
}

#[test]
fn nothing_but_the_load_balancer_joins_client_and_web_servers() {
    test(&Layout::default(), |lab| {
        let web = &lab.webs()[0];
        let _server = Server::start_in(web)?;
        let client = &lab.client();
        // Each takes as long as a connection may.
        thread::scope(|scope| {
            let attempt = |family| scope.spawn(move || client.connect(web.address(family, 80)).is_err());
            let refused = FAMILIES.map(attempt).map(|attempt| attempt.join().expect("it does not panic"));
            assert_eq!(refused, [true, true]);
        });
        for family in FAMILIES {
            assert_eq!(client.ping(lab.front().ip(family))?, 5);
        }
        Ok(())
    });
}

#[test]
fn a_built_in_server_fails_stops_and_starts_on_command() {
    test(&Layout { routed: true, ..Layout::default() }, |lab| {
        let mut server = Server::start_in(&lab.webs()[0])?;
        let to = server.address(Family::V4);
        let mut open = lab.client().connect(to)?;
        assert_eq!((open.get()?.status, open.get()?.body), (200, "web-01".to_owned()));
        server.answer(500);
        assert_eq!(open.get()?.status, 500);
        server.stop();
        assert!(open.get().is_err());
        assert!(lab.client().connect(to).is_err());
        server.start()?;
        assert_eq!(lab.client().connect(to)?.last_get()?.status, 500);
        Ok(())
    });
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    test(&Layout::default(), |_| {
        let inner = Lab::new(&Layout::default())?;
        let (dir, namespace) = (inner.dir(), inner.front().namespace().to_owned());
        let _server = Server::start_in(&inner.webs()[0])?;
        assert!(dir.exists() && namespace.exists());
        drop(inner);
        assert!(!dir.exists() && !namespace.exists());
        Ok(())
    });
}

#[test]
fn leftovers_of_a_dead_process_are_cleaned_and_those_of_a_live_one_are_not() {
    test(&Layout::default(), |lab| {
        // No process has pid 4194305: the kernel's largest is 4194304 (PID_MAX_LIMIT).
        let left = Path::new("/tmp/lb-lab-4194305-1-0");
        fs::create_dir_all(left)?;
        let removed = lab::clean_leftovers()?;
        assert!(!left.exists() && removed.contains(&"lb-lab-4194305-1-0".to_owned()));
        assert!(lab.dir().exists());
        Ok(())
    });
}

#[test]
fn source_ports_are_what_the_client_asks_for() -> Result<()> {
    test(&Layout { routed: true, ..Layout::default() }, |lab| {
        let to = lab.webs()[0].address(Family::V6, 80);
        let _server = Server::start_in(&lab.webs()[0])?;
        for _ in 0..2 {
            let answers = lab.client().get_from_ports(to, 20000..20050)?;
            assert_eq!(answers.len(), 50);
        }
        let ip: IpAddr = lab.client().connect(to)?.stream().local_addr()?.ip();
        assert_eq!(ip, lab.client().node().ip(Family::V6));
        Ok(())
    });
    Ok(())
}
