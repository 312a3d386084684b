//! Flows are listed, counted and ended one backend at a time, and what becomes of the next one is known beforehand.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lab::{Connection, Daemon, Family, Json, Lab, Layout, Nginx, Service, test};

#[test]
fn open_flows_are_listed_and_those_of_one_backend_are_reset() {
    for family in [Family::V4, Family::V6] {
        test(&Layout::default(), |lab| {
            let _servers = Nginx::start_all(lab)?;
            let mut daemon = Daemon::start(lab, &[Service::web(lab, family)])?;
            let mut open: BTreeMap<String, Connection> = BTreeMap::new();
            // Each CPU takes turns of its own.
            for _ in 0..32 {
                let mut connection = lab.client().connect(Lab::VIP.socket(family))?;
                let name = connection.get()?.body;
                open.insert(name, connection);
                if open.len() == 2 {
                    break;
                }
            }
            daemon.stop()?;
            for (name, connection) in &open {
                let client = connection.stream().local_addr()?.to_string();
                let listed = json(&daemon, &["flow", "list", &format!("web/{name}"), "-o", "json"])?;
                let flows = listed["flows"].as_array().context("there are flows")?;
                let flow = flows.iter().find(|flow| flow["client"] == client);
                let flow = flow.with_context(|| format!("no flow of {client} in {listed:#}"))?;
                assert_eq!(
                    (&flow["backend"], &flow["state"]),
                    (&name.as_str().into(), &"established".into()),
                    "{flow}"
                );
                assert!(flow["nat_port"].is_u64() && flow["idle_seconds"].is_u64(), "{flow}");
                let count = json(&daemon, &["flow", "count", &format!("web/{name}"), "-o", "json"])?;
                assert_eq!(count["flows"], flows.len(), "{count}");
            }
            assert_eq!(daemon.lb(&["flow", "list", "nowhere"])?.code, Some(3));
            assert_eq!(daemon.lb(&["flow", "count", "web/web-09"])?.code, Some(3));

            let refused = daemon.lb(&["flow", "flush", "web/web-01"])?;
            assert!(refused.code == Some(4) && refused.stderr.contains("--yes insists"), "{refused:?}");
            open.get_mut("web-01").context("web-01 has one")?.get()?;
            let flushed = daemon.lb(&["flow", "flush", "web/web-01", "--yes"])?;
            assert_eq!(flushed.code, Some(0), "{flushed:?}");
            assert_eq!(json(&daemon, &["flow", "count", "web/web-01", "-o", "json"])?["flows"], 0);
            let error = open.get_mut("web-01").context("web-01 has one")?.get().unwrap_err();
            assert!(format!("{error:#}").contains("reset"), "{error:#}");
            open.get_mut("web-02").context("web-02 has one")?.get()?;
            Ok(())
        });
    }
}

#[test]
fn explain_says_where_the_next_connection_goes() {
    for family in [Family::V4, Family::V6] {
        test(&Layout::default(), |lab| {
            let _servers = Nginx::start_all(lab)?;
            let daemon = Daemon::start(lab, &[Service { algorithm: "maglev", ..Service::web(lab, family) }])?;
            let vip = Lab::VIP.socket(family);
            let explain = |port: u16| {
                let client = lab.client().node().address(family, port).to_string();
                json(&daemon, &["explain", &client, &vip.to_string(), "-o", "json"])
            };
            let ports = 20000..20016;
            let foretold: BTreeMap<u16, String> = ports
                .clone()
                .map(|port| Ok((port, explain(port)?["backend"].as_str().context("there is a backend")?.to_owned())))
                .collect::<Result<_>>()?;
            assert_eq!(foretold, lab.client().get_from_ports(vip, ports)?);

            let mut connection = lab.client().connect(vip)?;
            let name = connection.get()?.body;
            let found = explain(connection.stream().local_addr()?.port())?;
            assert_eq!((&found["backend"], &found["state"]), (&name.into(), &"established".into()), "{found}");

            let elsewhere = Lab::VIP.with_port(81).socket(family).to_string();
            let client = lab.client().node().address(family, 20000).to_string();
            assert_eq!(daemon.lb(&["explain", &client, &elsewhere])?.code, Some(3));
            Ok(())
        });
    }
}

fn json(daemon: &Daemon, arguments: &[&str]) -> Result<Json> {
    let outcome = daemon.lb(arguments)?;
    ensure!(outcome.code == Some(0), "lb {arguments:?}: {outcome:?}");
    Ok(serde_json::from_str(&outcome.stdout)?)
}
