//! As many flows as the tables are made for, and none lost.

use core::net::Ipv4Addr;
use std::format;

use super::*;
use crate::flow::Key;

const FLOWS: u32 = 8192;
const BACKENDS: u32 = 16;

/// A service of either family that forwards by a mode to as many backends as it needs, and tables of the sizes that the controller
/// chooses for [`FLOWS`].
fn large(mode: u8, v6: bool) -> HostTables {
    let mut tables = HostTables::new(Config {
        near_mask: FLOWS / 16 - 1,
        flow_sets: FLOWS / 2,
        nat_shift: FLOWS.trailing_zeros() - 1,
        nat_port_count: 2000,
        backends: BACKENDS,
        ..config()
    });
    let listen = if v6 { "[2001:db8::10]:80" } else { "203.0.113.10:80" };
    let slot = tables.add_service(Service { forward: mode, ..service(listen, algorithm::ROUND_ROBIN) });
    for index in 0..BACKENDS {
        let (address, source) = if v6 {
            (format!("[fd00::{}]:8080", index + 11), "fd00::1")
        } else {
            (format!("10.0.0.{}:8080", index + 11), "10.0.0.1")
        };
        tables.add_backend(index, backend(&address, source));
    }
    let ring: Vec<u32> = (0..BACKENDS).collect();
    tables.set_ring(slot, 0, &ring);
    tables
}

fn segment(v6: bool, flow: u32, flags: u8) -> TcpFrame<'static> {
    let (address, port) = (0x0a01_0000 + flow / 500, 20_000 + (flow % 500) as u16);
    let (source, destination) = if v6 {
        (IpAddr::from(Ipv4Addr::from(address).to_ipv6_mapped()), "[2001:db8::10]:80")
    } else {
        (IpAddr::from(Ipv4Addr::from(address)), "203.0.113.10:80")
    };
    TcpFrame { source: SocketAddr::new(source, port), destination: socket(destination), flags, ..Default::default() }
}

#[test]
fn as_many_flows_are_held_as_the_tables_are_made_for() {
    for (mode, v6) in [(forward::NAT, false), (forward::NAT, true), (forward::L2, false), (forward::L2, true)] {
        let tables = large(mode, v6);
        let sends = |flow, flags| from_client(&tables, segment(v6, flow, flags)).1;
        let open: Vec<_> = (0..FLOWS)
            .map(|flow| {
                let sent = sends(flow, SYN);
                sends(flow, ACK);
                sent
            })
            .collect();
        assert_eq!(dropped(&tables), [], "mode {mode}");
        for (flow, sent) in open.iter().enumerate() {
            let now = sends(flow as u32, ACK);
            assert_eq!((&now[..6], ends(&now)), (&sent[..6], ends(sent)), "mode {mode}, flow {flow}");
        }
        assert_eq!(dropped(&tables), [], "mode {mode}");
        if mode == forward::NAT {
            for (flow, sent) in open.iter().enumerate() {
                let (verdict, reply) = send(&tables, BACKEND_IFINDEX, answer(sent, ACK));
                assert_eq!(verdict, Verdict::Redirect(CLIENT_IFINDEX), "mode {mode}, flow {flow}");
                assert_eq!(ends(&reply).1, segment(v6, flow as u32, ACK).source);
            }
        }
    }
}

#[test]
fn a_flow_is_moved_where_another_needs_its_place() {
    let mut tables = large(forward::L2, false);
    (tables.config.near_mask, tables.config.flow_sets) = (3, 18);
    let service = tables.find_service(words([203, 0, 113, 10].into()), Be16::new(80), TCP, 4).unwrap();
    let sets = |flow: u32| {
        let source = segment(false, flow, ACK).source;
        Key::new(&tables.config, 4, words(source.ip()), Be16::new(source.port()), service).sets(&tables.config)
    };
    let is_spread = |flow: &u32| sets(*flow)[1] != sets(*flow)[2];
    let last = (0..).find(is_spread).unwrap();
    let [near, far, other] = sets(last);
    // Twelve that fill its three sets: what stands far off begins there.
    let begins = |set: u32| (last + 1..).filter(move |&flow| sets(flow)[..2] == [near, set] && is_spread(&flow));
    let crowd: Vec<u32> = begins(far).take(8).chain(begins(other).take(4)).collect();
    for &flow in &crowd {
        from_client(&tables, segment(false, flow, SYN));
        from_client(&tables, segment(false, flow, ACK));
    }
    let stand = |set: u32| tables.flows[set as usize].ways.iter().filter(|slot| slot.tag.load(Relaxed) != 0).count();
    assert_eq!([near, far, other].map(stand), [4; 3]);
    from_client(&tables, segment(false, last, SYN));
    from_client(&tables, segment(false, last, ACK));
    for &flow in crowd.iter().chain([&last]) {
        let (verdict, _) = from_client(&tables, segment(false, flow, ACK));
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX), "{flow}");
    }
    assert_eq!(dropped(&tables), []);
}
