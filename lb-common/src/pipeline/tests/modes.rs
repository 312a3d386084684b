//! Forwarding modes and algorithms.

use super::*;
use crate::host::Frame;

const CLIENT: &str = "192.0.2.1:40000";

/// A world whose first service forwards by a mode and has one protocol.
pub(super) fn mode(mode: u8, protocol: u8) -> HostTables {
    let mut tables = world();
    let slot = find_v4(&tables) as usize;
    tables.services[slot].protocol = 0;
    let ring = tables.services[slot].ring;
    let service = Service { forward: mode, protocol, ring, ..service("203.0.113.10:80", algorithm::ROUND_ROBIN) };
    tables.add_service(service);
    tables
}

fn udp(payload: &[u8]) -> TcpFrame<'_> {
    TcpFrame { protocol: UDP, payload, ..Default::default() }
}

#[test]
fn udp_goes_both_ways_with_right_checksums() {
    for mode_of in [forward::NAT, forward::DNAT] {
        let tables = mode(mode_of, UDP);
        let (verdict, request) = from_client(&tables, udp(b"question"));
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
        assert!(l4_checksum_is_right(&request));
        let (source, destination) = ends(&request);
        assert_eq!(destination, socket("10.0.0.11:8080"));
        assert_eq!(source == socket(CLIENT), mode_of == forward::DNAT);
        let reply = TcpFrame { protocol: UDP, payload: b"answer", ..answer(&request, 0) };
        let (verdict, reply) = send(&tables, BACKEND_IFINDEX, reply);
        assert_eq!(verdict, Verdict::Redirect(CLIENT_IFINDEX));
        assert!(l4_checksum_is_right(&reply));
        assert_eq!(ends(&reply), (socket("203.0.113.10:80"), socket(CLIENT)));
    }
}

#[test]
fn what_comes_from_a_virtual_address_is_not_balanced() {
    for mode_of in [forward::NAT, forward::L2] {
        let tables = mode(mode_of, UDP);
        for source in ["203.0.113.10:80", "203.0.113.10:9"] {
            let frame = TcpFrame { source: socket(source), ..udp(b"answer this") };
            assert_eq!(from_client(&tables, frame).0, Verdict::Drop(DropReason::NoFlow), "{mode_of} {source}");
        }
    }
}

#[test]
fn a_udp_datagram_without_a_checksum_stays_without() {
    let tables = mode(forward::NAT, UDP);
    let mut bytes = udp(b"question").bytes();
    bytes[40..42].copy_from_slice(&[0, 0]);
    assert_eq!(host::process(&mut bytes, CLIENT_IFINDEX, &tables), Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(bytes[40..42], [0, 0]);
}

#[test]
fn dnat_keeps_the_client_and_finds_its_way_back() {
    let tables = mode(forward::DNAT, TCP);
    let request = opens(&tables, 40_000);
    assert_eq!(ends(&request), (socket(CLIENT), socket("10.0.0.11:8080")));
    assert!(l4_checksum_is_right(&request));
    let (verdict, reply) = send(&tables, BACKEND_IFINDEX, answer(&request, SYN | ACK));
    assert_eq!(verdict, Verdict::Redirect(CLIENT_IFINDEX));
    assert_eq!(ends(&reply), (socket("203.0.113.10:80"), socket(CLIENT)));
    assert!(l4_checksum_is_right(&reply));
    let (verdict, _) = from_client(&tables, TcpFrame::default());
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    let stranger = TcpFrame { destination: socket("192.0.2.1:40001"), ..answer(&request, ACK) };
    assert_eq!(send(&tables, BACKEND_IFINDEX, stranger).0, Verdict::Pass);
}

#[test]
fn l2_changes_nothing_but_the_mac_addresses() {
    let tables = mode(forward::L2, TCP);
    let frame = TcpFrame { flags: SYN, ..Default::default() };
    let (verdict, bytes) = from_client(&tables, frame);
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 0x11, 2, 0, 0, 0, 0, 0x22]);
    assert_eq!(bytes[12..], frame.bytes()[12..]);
}

/// A mode, an algorithm, and whether the common path begins flows of such a service.
const BEGINNINGS: [(u8, u8, bool); 9] = [
    (forward::L2, algorithm::ROUND_ROBIN, true),
    (forward::IPIP, algorithm::ROUND_ROBIN, true),
    (forward::IPIP, algorithm::MAGLEV, true),
    (forward::GUE, algorithm::SOURCE_HASH, true),
    (forward::IPIP, algorithm::LEAST_CONNECTIONS, false),
    (forward::IPIP, algorithm::RANDOM_TWO, false),
    (forward::NAT, algorithm::MAGLEV, false),
    (forward::NAT, algorithm::ROUND_ROBIN, false),
    (forward::DNAT, algorithm::MAGLEV, false),
];

#[test]
fn a_flow_begins_on_the_common_path_as_on_the_rare_one_where_it_needs_nothing_but_its_place() {
    for (forward, algorithm, is_plain) in BEGINNINGS {
        let worlds = [0, 1].map(|_| {
            let mut tables = mode(forward, TCP);
            let slot = find_v4(&tables) as usize;
            tables.services[slot].algorithm = algorithm;
            tables.backends.iter_mut().for_each(|backend| backend.mtu = 1400);
            tables
        });
        let begins = |port: u16, flags, payload| TcpFrame {
            source: SocketAddr::from(([192, 0, 2, 1], port)),
            flags,
            tcp_options: &[2, 4, 5, 0xb4],
            payload,
            ..Default::default()
        };
        let mut frames: Vec<(TcpFrame<'_>, bool)> =
            (40_000..40_040).map(|port| (begins(port, SYN, &[]), is_plain)).collect();
        // One that is known, one with data, one that is no beginning.
        frames.extend([
            (begins(40_000, SYN, &[]), false),
            (begins(50_000, SYN, &[0; 200]), false),
            (begins(50_001, SYN | ACK, &[]), false),
            (begins(50_002, SYN | FIN, &[]), false),
        ]);
        for (frame, on_common_path) in frames {
            let (mut common, mut rare) = (frame.bytes(), frame.bytes());
            let verdict = process(&mut Frame::new(&mut common, CLIENT_IFINDEX), &worlds[0]);
            assert_eq!(verdict != Verdict::Rare, on_common_path, "{forward} {algorithm} {frame:?}");
            let expected = crate::rare::process(&mut Frame::new(&mut rare, CLIENT_IFINDEX), &worlds[1]);
            let verdict = match verdict {
                Verdict::Rare => crate::rare::process(&mut Frame::new(&mut common, CLIENT_IFINDEX), &worlds[0]),
                verdict => verdict,
            };
            assert_eq!((verdict, common), (expected, rare), "{forward} {algorithm} {frame:?}");
        }
        let [one, other] = worlds.map(|tables| std::format!("{tables:?}"));
        assert_eq!(one, other, "{forward} {algorithm}");
    }
}

#[test]
fn what_is_encapsulated_comes_out_as_it_was_but_for_a_hop() {
    for (mode_of, v6) in [(forward::IPIP, false), (forward::GUE, false), (forward::IPIP, true), (forward::GUE, true)] {
        let mut tables = mode(mode_of, TCP);
        if v6 {
            let slot = find_v4(&tables);
            tables.set_ring(slot, 0, &[2]);
            tables.backends[2].flags |= backend_flags::IPV6;
        }
        // Expedited, and capable of congestion notification.
        let frame = TcpFrame { flags: SYN, class: 46 << 2 | 2, payload: b"hello", ..Default::default() };
        let (verdict, mut bytes) = from_client(&tables, frame);
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
        let overhead = if v6 { 40 } else { 20 } + if mode_of == forward::GUE { 8 } else { 0 };
        assert_eq!(bytes.len(), frame.bytes().len() + overhead);
        assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 0x11, 2, 0, 0, 0, 0, 0x22]);
        if v6 {
            assert_eq!(bytes[12..16], [0x86, 0xdd, 0x6b, 0xa0]);
            assert_eq!(usize::from(u16::from_be_bytes([bytes[18], bytes[19]])), bytes.len() - 54);
        } else {
            assert_eq!(bytes[14..16], [0x45, frame.class]);
            assert_eq!(usize::from(u16::from_be_bytes([bytes[16], bytes[17]])), bytes.len() - 14);
            assert_eq!(bytes[26..34], [10, 0, 0, 1, 10, 0, 0, 11]);
        }
        assert_eq!(encap::decapsulate(&mut Frame::new(&mut bytes, 1)), Some(true));
        let inner = TcpFrame { hop_limit: 63, ..frame }.bytes();
        assert_eq!(bytes[12..], inner[12..], "mode {mode_of}");
    }
}

#[test]
fn congestion_on_the_way_to_a_backend_is_told_to_it() {
    let mut tables = forwarding(forward::IPIP);
    tables.backends[2..].iter_mut().for_each(|backend| backend.flags |= backend_flags::IPV6);
    for (syn, congestion) in [(TcpFrame { flags: SYN, ..Default::default() }, 0x03), (syn_v6(), 0x30)] {
        let sent = |class| TcpFrame { class, ..syn };
        let marked = |class| {
            let (_, mut bytes) = from_client(&tables, sent(class));
            bytes[15] |= congestion;
            bytes
        };
        let mut bytes = marked(2);
        assert_eq!(encap::decapsulate(&mut Frame::new(&mut bytes, 1)), Some(true));
        assert_eq!(bytes[12..], TcpFrame { hop_limit: 63, ..sent(3) }.bytes()[12..]);
        // One that cannot say so is not taken out: the kernel does not know what to do with it.
        let (mut bytes, before) = (marked(0), marked(0));
        assert_eq!(encap::decapsulate(&mut Frame::new(&mut bytes, 1)), Some(false));
        assert_eq!(bytes, before);
    }
}

#[test]
fn what_is_not_encapsulated_is_left_alone() {
    let frame = TcpFrame::default().bytes();
    for length in 0..=frame.len() {
        let mut bytes = frame[..length].to_vec();
        assert_ne!(encap::decapsulate(&mut Frame::new(&mut bytes, 1)), Some(true));
        assert_eq!(bytes, frame[..length]);
    }
}

#[test]
fn direct_return_with_a_consistent_algorithm_takes_up_flows_that_it_does_not_know() {
    let mut tables = mode(forward::L2, TCP);
    let slot = find_v4(&tables) as usize;
    assert_eq!(from_client(&tables, TcpFrame::default()).0, Verdict::Transmit, "a RST: by turns there is no telling");
    tables.services[slot].algorithm = algorithm::MAGLEV;
    assert_eq!(from_client(&tables, TcpFrame::default()).0, Verdict::Redirect(BACKEND_IFINDEX));
}

#[test]
fn with_direct_return_a_client_that_has_closed_may_come_again_by_its_port() {
    let tables = mode(forward::L2, TCP);
    let connections = || tables.counters.iter().map(|counters| counters.connections.load(Relaxed)).sum::<u64>();
    for round in 1..=3 {
        for flags in [SYN, ACK, FIN | ACK, ACK] {
            let (verdict, _) = from_client(&tables, TcpFrame { flags, ..Default::default() });
            assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
        }
        assert_eq!(connections(), round);
    }
}

#[test]
fn source_hash_keeps_a_client_with_its_backend() {
    let mut tables = world();
    let slot = find_v4(&tables) as usize;
    tables.services[slot].algorithm = algorithm::SOURCE_HASH;
    let first = ends(&opens(&tables, 40_000)).1;
    for port in 40_001..40_050 {
        assert_eq!(ends(&opens(&tables, port)).1, first);
    }
}

#[test]
fn least_connections_goes_by_open_flows_and_weight() {
    let mut tables = world();
    let slot = find_v4(&tables) as usize;
    tables.services[slot].algorithm = algorithm::LEAST_CONNECTIONS;
    tables.backends[0].weight = 3;
    tables.backends[1].weight = 1;
    let to_first = |from: u16, to: u16| {
        (from..to).filter(|port| ends(&opens(&tables, *port)).1 == socket("10.0.0.11:8080")).count()
    };
    assert_eq!(to_first(40_000, 40_040), 30);
    // Ten flows of the first end; the next ten are its own.
    let mut ended = 0;
    for port in 40_000..40_040 {
        let source = SocketAddr::from(([192, 0, 2, 1], port));
        let (_, bytes) = from_client(&tables, TcpFrame { source, ..Default::default() });
        if ended < 10 && ends(&bytes).1 == socket("10.0.0.11:8080") {
            answers(&tables, &bytes);
            from_client(&tables, TcpFrame { source, flags: RST, ..Default::default() });
            ended += 1;
        }
    }
    assert_eq!(tables.loads[0].load(Relaxed), 20);
    assert_eq!(to_first(41_000, 41_010), 10);
}

#[test]
fn of_backends_without_flows_each_has_its_turn() {
    let mut tables = world();
    let slot = find_v4(&tables) as usize;
    tables.services[slot].algorithm = algorithm::LEAST_CONNECTIONS;
    let mut to_first = 0;
    for port in 40_000..40_020 {
        let request = opens(&tables, port);
        to_first += u32::from(ends(&request).1 == socket("10.0.0.11:8080"));
        answers(&tables, &request);
        let source = SocketAddr::from(([192, 0, 2, 1], port));
        from_client(&tables, TcpFrame { source, flags: RST, ..Default::default() });
        assert_eq!((tables.loads[0].load(Relaxed), tables.loads[1].load(Relaxed)), (0, 0));
    }
    assert_eq!(to_first, 10);
}

#[test]
fn random_two_prefers_the_one_with_fewer_flows() {
    let mut tables = world();
    let slot = find_v4(&tables) as usize;
    tables.services[slot].algorithm = algorithm::RANDOM_TWO;
    tables.loads[0].store(1_000_000, Relaxed);
    let to_first = (0..400).filter(|port| ends(&opens(&tables, 40_000 + port)).1 == socket("10.0.0.11:8080")).count();
    // Only where both picks are the first: one in four.
    assert!((60..140).contains(&to_first), "{to_first} of 400");
}

#[test]
fn with_dnat_a_client_port_that_is_used_again_is_established_again() {
    let mut tables = mode(forward::DNAT, TCP);
    for round in 0..3 {
        // Round-robin has two backends: every second round is with the same.
        for _ in 0..2 {
            let request = opens(&tables, 40_000);
            assert_eq!(
                send(&tables, BACKEND_IFINDEX, answer(&request, SYN | ACK)).0,
                Verdict::Redirect(CLIENT_IFINDEX)
            );
            from_client(&tables, TcpFrame::default());
            let state = |tables: &HostTables| {
                let words = tables.nat.iter().map(|slot| FlowWord(slot.word.load(Relaxed)));
                words.filter(|word| word.state() == State::Established).count()
            };
            assert_eq!(state(&tables), 1, "round {round}");
            from_client(&tables, TcpFrame { flags: RST, ..Default::default() });
            assert_eq!(state(&tables), 0, "round {round}");
            tables.now_ns += 2 * SECOND;
        }
    }
    assert_eq!(dropped(&tables), []);
    let slots = tables.nat.iter().filter(|slot| slot.word.load(Relaxed) != 0).count();
    assert_eq!(slots, 2, "one between the client and each backend");
}

#[test]
fn with_dnat_a_client_port_is_one_of_tcp_and_one_of_udp() {
    let mut tables = mode(forward::DNAT, TCP);
    let slot = tables.add_service(Service {
        protocol: UDP,
        forward: forward::DNAT,
        ..service("203.0.113.10:80", algorithm::ROUND_ROBIN)
    });
    tables.set_ring(slot, 4, &[0]);
    let listen = find_v4(&tables);
    tables.set_ring(listen, 0, &[0]);
    for protocol in [TCP, UDP] {
        let frame = TcpFrame { flags: SYN, protocol, ..Default::default() };
        let (verdict, sent) = from_client(&tables, frame);
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
        let (verdict, reply) = send(&tables, BACKEND_IFINDEX, TcpFrame { protocol, ..answer(&sent, SYN | ACK) });
        assert_eq!((verdict, ends(&reply).1), (Verdict::Redirect(CLIENT_IFINDEX), frame.source));
    }
    assert_eq!(dropped(&tables), []);
}

#[test]
fn with_dnat_a_flood_of_syns_leaves_room_for_who_comes_after_and_breaks_nobody() {
    let mut tables = mode(forward::DNAT, TCP);
    let from = |host: u32, port: u16| SocketAddr::new(core::net::Ipv4Addr::from(host).into(), port);
    let says =
        |tables: &HostTables, source, flags| from_client(tables, TcpFrame { source, flags, ..Default::default() });
    let known: Vec<SocketAddr> = (0..50).map(|port| from(0xc000_0201, 30_000 + port)).collect();
    for &client in &known {
        let (_, sent) = says(&tables, client, SYN);
        send(&tables, BACKEND_IFINDEX, answer(&sent, SYN | ACK));
        says(&tables, client, ACK);
    }
    tables.now_ns += 1 << TICK_SHIFT;
    let slots = tables.config.nat_slots();
    for n in 0..2 * slots {
        says(&tables, from(0x0a00_0000 + n, 1_024 + (n % 50_000) as u16), SYN);
    }
    let refused = tables.dropped(DropReason::NatPortsExhausted);
    tables.now_ns += 1 << TICK_SHIFT;
    for port in 0..200 {
        let (verdict, _) = says(&tables, from(0xc000_0202, 30_000 + port), SYN);
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX), "{port}; {refused} had been refused");
    }
    for &client in &known {
        assert_eq!(says(&tables, client, ACK).0, Verdict::Redirect(BACKEND_IFINDEX), "{client}");
    }
}
