//! Maglev sends a flow where it always went, and a new backend takes its share and little more.

use std::ops::Range;

use lab::{Daemon, Family, Lab, Layout, Nginx, Service, backend, test};

const PORTS: Range<u16> = 20000..20600;

#[test]
fn a_client_port_keeps_its_backend_and_a_third_backend_moves_few() {
    for family in [Family::V4, Family::V6] {
        test(&Layout { webs: 3, ..Layout::default() }, |lab| {
            let _servers = Nginx::start_all(lab)?;
            let daemon = Daemon::start(lab, &[Service { algorithm: "maglev", ..Service::web(lab, family) }])?;
            let vip = Lab::VIP.socket(family);

            let first = lab.client().get_from_ports(vip, PORTS)?;
            for name in ["web-01", "web-02"] {
                let share = first.values().filter(|server| *server == name).count();
                assert!((240..=360).contains(&share), "{name} has {share} of {}", first.len());
            }
            let again = lab.client().get_from_ports(vip, PORTS)?;
            assert_eq!(first, again);

            let address = lab.webs()[2].address(family, 80).to_string();
            let added = daemon.lb(&["backend", "add", "web/web-03", "--address", &address])?;
            assert_eq!(added.code, Some(0), "{added:?}");
            daemon.await_rotation("web-03", true)?;
            let third = lab.client().get_from_ports(vip, PORTS)?;
            let moved = PORTS.filter(|port| third[port] != first[port]).count();
            let taken = third.values().filter(|server| *server == "web-03").count();
            assert!(moved * 100 <= PORTS.len() * 40, "{moved} of {} flows moved", PORTS.len());
            assert!(taken * 100 >= PORTS.len() * 20, "web-03 has {taken} of {} flows", PORTS.len());

            let stats = daemon.stats()?;
            assert_eq!(stats["services"][0]["connections_total"], 3 * PORTS.len(), "{stats:#}");
            assert_eq!(backend(&stats, "web-03")?["connections_total"], taken, "{stats:#}");
            Ok(())
        });
    }
}
