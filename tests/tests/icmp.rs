//! ICMP: echoes to a virtual address, and errors about packets of a service. Path MTU has a file of its own.

use std::{net::IpAddr, time::Duration};

use lab::{
    Connection, Daemon, Family, Front, IcmpError, IcmpListener, Lab, Layout, Nginx, Router, Segment, Service,
    eventually, test,
};

const PATIENCE: Duration = Duration::from_secs(3);

#[test]
fn a_virtual_address_that_the_front_node_does_not_have_answers_echoes() {
    // DNAT is another variant of the program, which is loaded when the plan asks for it.
    for (front, forward) in [(Front::OneLeg, "nat"), (Front::TwoLegs, "nat"), (Front::TwoLegs, "dnat")] {
        test(&Layout { front, ..Layout::default() }, |lab| {
            let _servers = Nginx::start_all(lab)?;
            lab.hide_virtual_address()?;
            let v4 = Service { forward, ..Service::web(lab, Family::V4) };
            let v6 = Service { name: "web6", forward, ..Service::web(lab, Family::V6) };
            let _daemon = Daemon::start(lab, &[v4, v6])?;
            for family in [Family::V4, Family::V6] {
                assert_eq!(lab.client().ping(Lab::VIP.socket(family).ip())?, 5, "{front:?}, {forward}, {family:?}");
            }
            Ok(())
        });
    }
}

#[test]
fn time_exceeded_behind_the_front_node_is_told_in_the_clients_terms() {
    for (family, exceeded) in [(Family::V4, (11, 0)), (Family::V6, (3, 0))] {
        test(&Layout { router: Some(Router::Backends), ..Layout::default() }, |lab| {
            let _servers = Nginx::start_all(lab)?;
            let daemon = Daemon::start(lab, &[Service::web(lab, family)])?;
            let client = lab.client();
            let (from, vip) = (client.node().address(family, 5555), Lab::VIP.socket(family));
            let listener = IcmpListener::start_in(client.node(), family)?;
            let probe = |hops| client.send_raw(&[Segment { from, to: vip, hops, ..Segment::SYN }.packet()], vip.ip());
            // The front node is the first on the way, the router behind it the second.
            probe(2)?;
            let error = listener.error(PATIENCE)?;
            assert_eq!((error.kind, error.quoted_source, error.quoted_destination), (exceeded, from, vip));

            assert_eq!(daemon.stats()?["drops"]["hop_limit"], 0);
            probe(1)?;
            eventually("the drop of what ends at the front node", PATIENCE, || {
                Ok((daemon.stats()?["drops"]["hop_limit"] == 1).then_some(()))
            })
        });
    }
}

#[test]
fn an_error_about_an_answer_reaches_the_server_in_its_own_terms() {
    for (family, forward, exceeded) in [
        (Family::V4, "nat", (11, 0)),
        (Family::V6, "nat", (3, 0)),
        (Family::V4, "dnat", (11, 0)),
        (Family::V6, "dnat", (3, 0)),
    ] {
        test(&Layout { router: Some(Router::Clients), webs: 1, ..Layout::default() }, |lab| {
            let _servers = Nginx::start_all(lab)?;
            lab.route_webs_by_front()?;
            let _daemon = Daemon::start(lab, &[Service { forward, ..Service::web(lab, family) }])?;
            let web = &lab.webs()[0];
            let listener = IcmpListener::start_in(web, family)?;
            // So few hops that the answers end at the router before the client.
            let value = "2";
            match family {
                Family::V4 => web.sysctl("ipv4/ip_default_ttl", value)?,
                Family::V6 => web.sysctl("ipv6/conf/eth0/hop_limit", value)?,
            }
            let vip = Lab::VIP.socket(family);
            let client = lab.client();
            let from = client.node().address(family, 5555);
            client.send_raw(&[Segment { from, to: vip, ..Segment::SYN }.packet()], vip.ip())?;
            let IcmpError { kind, quoted_source, quoted_destination, .. } = listener.error(PATIENCE)?;
            assert_eq!((kind, quoted_source), (exceeded, web.address(family, 80)), "{forward}");
            let peer = if forward == "dnat" { from.ip() } else { front(family) };
            assert_eq!(quoted_destination.ip(), peer, "{forward}");
            Ok(())
        });
    }
}

#[test]
fn an_error_about_a_service_breaks_no_connection_that_it_does_not_concern() {
    test(&Layout { router: Some(Router::Clients), ..Layout::default() }, |lab| {
        let _servers = Nginx::start_all(lab)?;
        let _daemon = Daemon::start(lab, &[Service::web(lab, Family::V4)])?;
        let vip = Lab::VIP.socket(Family::V4);
        let mut connection: Connection = lab.client().connect(vip)?;
        let server = connection.get()?.body;
        // Destination unreachable (port) about a segment of the service to a port that no flow has.
        let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
        let from = lab.client().node().address(Family::V4, 1);
        message.extend(Segment { from: vip, to: from, ..Segment::SYN }.packet());
        lab.client().send_raw(&[lab::packet(from.ip(), vip.ip(), 1, 64, &message)], vip.ip())?;
        assert_eq!(connection.get()?.body, server);
        Ok(())
    });
}

/// The address that the servers know the front node by.
fn front(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 0, 0, 1]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    }
}
