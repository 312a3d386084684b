use super::{super::kernel::Neighbour, *};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 3];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(up: bool, mac: Option<[u8; 6]>) -> Link {
    Link { name: "eth0".into(), up, mac, mtu: 1500 }
}

fn route(gateway: Option<&str>) -> Route {
    Route { interface: 2, gateway: gateway.map(ip), source: Some(ip("10.0.0.1")), mtu: None }
}

fn neighbours() -> Neighbours {
    let entry = |mac| Neighbour { mac: Some(mac), fresh: true };
    HashMap::from([((2, ip("10.0.0.11")), entry(THEIRS)), ((2, ip("10.0.0.254")), entry(GATEWAY))])
}

#[test]
fn a_way_needs_a_link_an_address_and_a_neighbour() {
    let check = |link: Option<Link>, route: Route, neighbours: Neighbours, expected: Result<[u8; 6], &str>| {
        let links = link.into_iter().map(|link| (2, link)).collect();
        let found = way(ip("10.0.0.11"), &route, &links, &neighbours, &mut HashMap::new());
        let hop = |mac| NextHop { ifindex: 2, source: ip("10.0.0.1"), source_mac: OURS, mac, mtu: 1500 };
        assert_eq!(found, expected.map(hop).map_err(str::to_owned));
    };
    let good = || Some(link(true, Some(OURS)));
    check(good(), route(None), neighbours(), Ok(THEIRS));
    check(good(), route(Some("10.0.0.254")), neighbours(), Ok(GATEWAY));
    check(None, route(None), neighbours(), Err("the route to 10.0.0.11 leaves by interface 2, which is gone"));
    let down = Some(link(false, Some(OURS)));
    check(down, route(None), neighbours(), Err("the route to 10.0.0.11 leaves by eth0, which is down"));
    let tunnel = Some(link(true, None));
    check(tunnel, route(None), neighbours(), Err("the route to 10.0.0.11 leaves by eth0, which is not Ethernet"));
    let unnumbered = Route { source: None, ..route(None) };
    check(good(), unnumbered, neighbours(), Err("eth0 has no address to reach 10.0.0.11 from"));
    let silent = Err("no neighbour: 10.0.0.11 does not answer on eth0");
    check(good(), route(None), Neighbours::new(), silent);
    let silent = Err("no neighbour: gateway 10.0.0.254 to 10.0.0.11 does not answer on eth0");
    check(good(), route(Some("10.0.0.254")), Neighbours::new(), silent);
}

#[test]
fn a_neighbour_that_falls_silent_keeps_its_mac_and_one_that_changes_does_not() {
    let links = HashMap::from([(2, link(true, Some(OURS)))]);
    let mut known = HashMap::new();
    let mut mac = |neighbour: Option<Option<[u8; 6]>>| {
        let entries = neighbour.map(|mac| ((2, ip("10.0.0.11")), Neighbour { mac, fresh: false }));
        let neighbours = entries.into_iter().collect();
        way(ip("10.0.0.11"), &route(None), &links, &neighbours, &mut known).map(|hop| hop.mac).ok()
    };
    // Not seen, seen, failed, gone, back with another card.
    assert_eq!(mac(Some(None)), None);
    assert_eq!(mac(Some(Some(THEIRS))), Some(THEIRS));
    assert_eq!(mac(Some(None)), Some(THEIRS));
    assert_eq!(mac(None), Some(THEIRS));
    assert_eq!(mac(Some(Some(GATEWAY))), Some(GATEWAY));
}
