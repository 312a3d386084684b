//! What is not for a service reaches the front node as if there were no load balancer.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use anyhow::Result;
use lab::{Daemon, Family, Front, Lab, Layout, Nginx, Server, Service, test};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const BANNER: &[u8] = b"SSH-2.0-lab\r\n";

#[test]
fn ping_and_tcp_to_the_front_node_reach_the_front_node() {
    for front in [Front::OneLeg, Front::TwoLegs] {
        test(&Layout { front, ..Layout::default() }, check);
    }
}

fn check(lab: &Lab) -> Result<()> {
    let _servers = Nginx::start_all(lab)?;
    let own = Server::start_in(lab.front())?;
    let ssh = lab.front().enter(|| TcpListener::bind("[::]:22"))?;
    let [v4, v6] = FAMILIES.map(|family| Service::web(lab, family));
    let daemon = Daemon::start(lab, &[v4, Service { name: "web6", ..v6 }])?;
    let client = lab.client();

    // At the front node's address and at the service's, in each family.
    let addresses = FAMILIES.map(|family| [lab.front().address(family, 22), Lab::VIP.with_port(22).socket(family)]);
    let addresses = addresses.as_flattened();
    let connections = addresses.len();
    let greeter = thread::spawn(move || {
        ssh.incoming().take(connections).try_for_each(|stream| stream.and_then(|mut stream| stream.write_all(BANNER)))
    });
    for to in addresses {
        let mut banner = Vec::new();
        client.connect(*to)?.stream().read_to_end(&mut banner)?;
        assert_eq!(banner, BANNER);
    }
    greeter.join().expect("the greeter does not panic")?;
    for family in FAMILIES {
        assert_eq!(client.ping(lab.front().ip(family))?, 5);
        assert_eq!(client.ping(Lab::VIP.socket(family).ip())?, 5);
        // The port of the service, at an address that is not the service's.
        assert_eq!(client.connect(own.address(family))?.last_get()?.body, "front");
    }
    assert_eq!(packets(&daemon)?, [0, 0]);

    for family in FAMILIES {
        let tally = client.curl(Lab::VIP.url(family), 20)?;
        assert_eq!(tally.of("web-01") + tally.of("web-02"), 20, "{tally:?}");
    }
    assert!(packets(&daemon)?.iter().all(|packets| *packets > 20 * 7));
    Ok(())
}

fn packets(daemon: &Daemon) -> Result<[u64; 2]> {
    let stats = daemon.stats()?;
    Ok([0, 1].map(|index| stats["services"][index]["packets_total"].as_u64().expect("a number")))
}
