//! The pipeline as rows: a frame, what becomes of it, and what is counted.

use core::{
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering::Relaxed,
};
use std::{vec, vec::Vec};

mod capacity;
mod icmp;
mod modes;
mod ports;
mod rare;
mod room;
mod sight;
mod states;

use super::*;
use crate::{
    flow::TICK_SHIFT,
    host::{self, ACK, FIN, HostTables, RST, SYN, TcpFrame, config, l4_checksum_is_right},
    ip::TCP,
    layout::{Config, VIRTUAL_ADDRESS, algorithm, forward},
    wire::AddressWords,
};

const CLIENT_IFINDEX: u32 = 3;
const BACKEND_IFINDEX: u32 = 4;
const SECOND: u64 = 1_000_000_000;

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn words(address: IpAddr) -> AddressWords {
    match address {
        IpAddr::V4(v4) => [u32::from_ne_bytes(v4.octets()).into(), 0],
        IpAddr::V6(v6) => bytemuck::cast(v6.octets()),
    }
}

fn backend(address: &str, source: &str) -> Backend {
    let mut path = [0; 16];
    path[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0x11]);
    path[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x22]);
    path[12..].copy_from_slice(&BACKEND_IFINDEX.to_ne_bytes());
    let address = socket(address);
    Backend {
        address: words(address.ip()),
        port: Be16::new(address.port()),
        source: words(source.parse().unwrap()),
        path: bytemuck::cast(path),
        ..Default::default()
    }
}

fn service(listen: &str, algorithm: u8) -> Service {
    let listen = socket(listen);
    Service {
        address: words(listen.ip()),
        port: Be16::new(listen.port()),
        protocol: TCP,
        family: if listen.is_ipv4() { 4 } else { 6 },
        algorithm,
        ..Default::default()
    }
}

/// Two services, one of each family, with two backends each that take turns.
fn world() -> HostTables {
    world_of(config())
}

fn world_of(config: Config) -> HostTables {
    let mut tables = HostTables::new(config);
    let v4 = tables.add_service(service("203.0.113.10:80", algorithm::ROUND_ROBIN));
    let v6 = tables.add_service(service("[2001:db8::10]:80", algorithm::ROUND_ROBIN));
    for address in ["203.0.113.10:0", "[2001:db8::10]:0"] {
        tables.add_service(Service { protocol: VIRTUAL_ADDRESS, ..service(address, 0) });
    }
    tables.add_backend(0, backend("10.0.0.11:8080", "10.0.0.1"));
    tables.add_backend(1, backend("10.0.0.12:8080", "10.0.0.1"));
    tables.add_backend(2, backend("[fd00::11]:8080", "fd00::1"));
    tables.add_backend(3, backend("[fd00::12]:8080", "fd00::1"));
    tables.set_ring(v4, 0, &[0, 1]);
    tables.set_ring(v6, 2, &[2, 3]);
    tables
}

/// The same, forwarded by another mode.
fn forwarding(mode: u8) -> HostTables {
    let mut tables = world();
    tables.services.iter_mut().filter(|service| service.protocol == TCP).for_each(|service| service.forward = mode);
    tables
}

/// A client's first segment over IPv6.
fn syn_v6() -> TcpFrame<'static> {
    let (source, destination) = (socket("[2001:db8::1]:40000"), socket("[2001:db8::10]:80"));
    TcpFrame { source, destination, flags: SYN, ..Default::default() }
}

fn send(tables: &HostTables, ingress_ifindex: u32, frame: TcpFrame<'_>) -> (Verdict, Vec<u8>) {
    let mut bytes = frame.bytes();
    let verdict = host::process(&mut bytes, ingress_ifindex, tables);
    (verdict, bytes)
}

fn from_client(tables: &HostTables, frame: TcpFrame<'_>) -> (Verdict, Vec<u8>) {
    send(tables, CLIENT_IFINDEX, frame)
}

fn opens(tables: &HostTables, port: u16) -> Vec<u8> {
    let source = SocketAddr::from(([192, 0, 2, 1], port));
    let (verdict, bytes) = from_client(tables, TcpFrame { source, flags: SYN, ..Default::default() });
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    bytes
}

/// A connection of the client's through its handshake: what the backend was sent first.
fn establishes(tables: &HostTables, port: u16) -> Vec<u8> {
    let request = opens(tables, port);
    answers(tables, &request);
    let source = SocketAddr::from(([192, 0, 2, 1], port));
    assert!(matches!(from_client(tables, TcpFrame { source, ..Default::default() }).0, Verdict::Redirect(_)));
    request
}

/// The backend answers a SYN that it was sent.
fn answers(tables: &HostTables, request: &[u8]) {
    let (verdict, _) = send(tables, BACKEND_IFINDEX, answer(request, SYN | ACK));
    assert_eq!(verdict, Verdict::Redirect(CLIENT_IFINDEX));
}

/// Source and destination of a frame.
fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let ip = &frame[14..];
    let port = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
    if ip[0] >> 4 == 4 {
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        let l4 = usize::from(ip[0] & 0xf) * 4;
        (SocketAddr::new(address(12), port(l4)), SocketAddr::new(address(16), port(l4 + 2)))
    } else {
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
        (SocketAddr::new(address(8), port(40)), SocketAddr::new(address(24), port(42)))
    }
}

/// The answer of the backend to a frame that it was sent.
fn answer(request: &[u8], flags: u8) -> TcpFrame<'static> {
    let (source, destination) = ends(request);
    TcpFrame {
        source: destination,
        destination: source,
        flags,
        source_mac: [2, 0, 0, 0, 0, 0x11],
        destination_mac: [2, 0, 0, 0, 0, 0x22],
        ..Default::default()
    }
}

fn dropped(tables: &HostTables) -> Vec<(&'static str, u64)> {
    DropReason::ALL.iter().map(|&reason| (reason.name(), tables.dropped(reason))).filter(|(_, n)| *n > 0).collect()
}

#[test]
fn what_is_not_for_a_service_passes_untouched() {
    let frames = [
        ("another port", TcpFrame { destination: socket("203.0.113.10:22"), ..Default::default() }),
        ("another address", TcpFrame { destination: socket("203.0.113.11:80"), ..Default::default() }),
        ("another protocol", TcpFrame { protocol: 17, ..Default::default() }),
        ("a NAT port that is nobody's", TcpFrame { destination: socket("10.0.0.1:20001"), ..Default::default() }),
        (
            "a later fragment for another address",
            TcpFrame { fragment: 0x2010, destination: socket("203.0.113.11:80"), ..Default::default() },
        ),
        ("a SYN to the front node", TcpFrame { flags: SYN, destination: socket("10.0.0.1:80"), ..Default::default() }),
    ];
    for (what, frame) in frames {
        let tables = world();
        let (verdict, bytes) = from_client(&tables, frame);
        assert_eq!(verdict, Verdict::Pass, "{what}");
        assert_eq!(bytes, frame.bytes(), "{what}");
        assert_eq!(dropped(&tables), []);
    }
}

#[test]
fn a_frame_that_ends_early_passes() {
    let whole = TcpFrame { flags: SYN, ..Default::default() }.bytes();
    let tables = world();
    for length in 0..whole.len() {
        let mut bytes = whole[..length].to_vec();
        let verdict = host::process(&mut bytes, CLIENT_IFINDEX, &tables);
        assert_eq!(verdict, Verdict::Pass, "{length} bytes");
        assert_eq!(bytes, whole[..length]);
    }
}

#[test]
fn dropped_frames_are_counted_by_reason() {
    let check = |frame: TcpFrame<'_>, reason: DropReason, count: u64| {
        let tables = world();
        for _ in 0..count {
            // A segment without a flow is answered by a RST, so that its sender knows at once.
            let expected = if reason == DropReason::NoFlow { Verdict::Transmit } else { Verdict::Drop(reason) };
            assert_eq!(from_client(&tables, frame).0, expected);
        }
        assert_eq!(dropped(&tables), [(reason.name(), count)]);
    };
    check(TcpFrame { flags: ACK, ..Default::default() }, DropReason::NoFlow, 3);
    check(TcpFrame { flags: SYN | ACK, ..Default::default() }, DropReason::NoFlow, 1);
    check(TcpFrame { flags: SYN, hop_limit: 1, ..Default::default() }, DropReason::HopLimit, 1);
    check(TcpFrame { fragment: 0x2010, ..Default::default() }, DropReason::Fragment, 2);
}

#[test]
fn a_service_without_backends_drops_new_flows() {
    let mut tables = world();
    let slot = tables.find_service(words(IpAddr::from([203, 0, 113, 10])), Be16::new(80), TCP, 4).unwrap();
    tables.set_ring(slot, 0, &[]);
    let (verdict, _) = from_client(&tables, TcpFrame { flags: SYN, ..Default::default() });
    assert_eq!(verdict, Verdict::Transmit, "answered by a RST");
    assert_eq!(dropped(&tables), [("no_backend", 1)]);
}

#[test]
fn both_directions_are_rewritten_with_right_checksums() {
    for (client, listen, front, first) in [
        ("192.0.2.1:40000", "203.0.113.10:80", "10.0.0.1", "10.0.0.11:8080"),
        ("[2001:db8::1]:40000", "[2001:db8::10]:80", "fd00::1", "[fd00::11]:8080"),
    ] {
        let tables = world();
        let (client, listen) = (socket(client), socket(listen));
        let frame = TcpFrame { source: client, destination: listen, flags: SYN, ..Default::default() };
        let (verdict, request) = from_client(&tables, frame);
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
        assert!(l4_checksum_is_right(&request));
        let (source, destination) = ends(&request);
        assert_eq!((source.ip(), destination), (front.parse().unwrap(), socket(first)));
        assert!((20_000..20_512).contains(&source.port()));
        assert_eq!(request[..12], [2, 0, 0, 0, 0, 0x11, 2, 0, 0, 0, 0, 0x22]);

        let (verdict, reply) = send(&tables, BACKEND_IFINDEX, answer(&request, SYN | ACK));
        assert_eq!(verdict, Verdict::Redirect(CLIENT_IFINDEX));
        assert!(l4_checksum_is_right(&reply));
        assert_eq!(ends(&reply), (listen, client));
        assert_eq!(reply[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], "back to where the request came from");
        let hops = if listen.is_ipv4() { reply[14 + 8] } else { reply[14 + 7] };
        assert_eq!(hops, 63);
    }
}

#[test]
fn ipv4_options_are_kept_and_skipped() {
    let tables = world();
    let options = [7, 7, 4, 0, 0, 0, 0, 0];
    let (verdict, bytes) = from_client(&tables, TcpFrame { flags: SYN, options: &options, ..Default::default() });
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(bytes[34..42], options);
    assert_eq!(ends(&bytes).1, socket("10.0.0.11:8080"));
    assert!(l4_checksum_is_right(&bytes));
}

#[test]
fn a_packet_back_by_the_same_interface_is_transmitted() {
    let tables = world();
    let frame = TcpFrame { flags: SYN, ..Default::default() };
    assert_eq!(send(&tables, BACKEND_IFINDEX, frame).0, Verdict::Transmit);
}

#[test]
fn new_flows_take_turns_and_established_ones_stay() {
    let mut tables = world();
    let requests: Vec<Vec<u8>> = (0..6).map(|n| opens(&tables, 40_000 + n)).collect();
    let backends: Vec<SocketAddr> = requests.iter().map(|request| ends(request).1).collect();
    let [a, b] = [socket("10.0.0.11:8080"), socket("10.0.0.12:8080")];
    assert_eq!(backends, [a, b, a, b, a, b]);

    // Only the second takes new flows; the first serves those that it has.
    tables.set_ring(find_v4(&tables), 0, &[1]);
    for (n, request) in (0..6).zip(&requests) {
        let source = SocketAddr::from(([192, 0, 2, 1], 40_000 + n));
        let (_, bytes) = from_client(&tables, TcpFrame { source, ..Default::default() });
        assert_eq!(ends(&bytes), ends(request));
    }
    assert_eq!(ends(&opens(&tables, 41_000)).1, b);
    assert_eq!(tables.counters[0].connections.load(Relaxed), 3);
    assert_eq!(tables.counters[1].connections.load(Relaxed), 4);
    assert_eq!(tables.counters[0].packets_in.load(Relaxed), 6);
    assert_eq!(tables.counters[0].bytes_in.load(Relaxed), 6 * 54);
}

fn find_v4(tables: &HostTables) -> u32 {
    tables.find_service(words(IpAddr::from([203, 0, 113, 10])), Be16::new(80), TCP, 4).unwrap()
}

#[test]
fn flows_of_a_backend_that_is_gone_are_not_served() {
    let mut tables = world();
    let request = opens(&tables, 40_000);
    tables.backends[0] = Backend::default();
    assert_eq!(from_client(&tables, TcpFrame::default()).0, Verdict::Transmit, "answered by a RST");
    assert_eq!(send(&tables, BACKEND_IFINDEX, answer(&request, ACK)).0, Verdict::Pass);
    // The client starts anew from the same port.
    tables.set_ring(find_v4(&tables), 0, &[1]);
    assert_eq!(ends(&opens(&tables, 40_000)).1, socket("10.0.0.12:8080"));
}

#[test]
fn a_backend_that_is_given_up_finishes_what_is_under_way_and_gets_no_request() {
    let mut tables = world();
    let slot = find_v4(&tables);
    tables.services[slot as usize].algorithm = algorithm::LEAST_CONNECTIONS;
    let request = opens(&tables, 40_000);
    send(&tables, BACKEND_IFINDEX, answer(&request, SYN | ACK));
    let says = |payload| TcpFrame { payload, ..Default::default() };
    assert_eq!(from_client(&tables, says(b"GET /1")).0, Verdict::Redirect(BACKEND_IFINDEX));
    let backend = usize::from(ends(&request).1 == socket("10.0.0.12:8080"));
    tables.backends[backend].flags |= backend_flags::GIVEN_UP;
    assert_eq!(send(&tables, BACKEND_IFINDEX, answer(&request, ACK)).0, Verdict::Redirect(CLIENT_IFINDEX));
    assert_eq!(from_client(&tables, says(b"")).0, Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(tables.loads[backend].load(Relaxed), 1);
    let (verdict, reset) = from_client(&tables, says(b"GET /2"));
    assert_eq!((verdict, reset[47]), (Verdict::Transmit, RST));
    assert_eq!(dropped(&tables), [("no_flow", 1)]);
    assert_eq!(tables.loads[backend].load(Relaxed), 0);
    for payload in [&b""[..], b"GET /3"] {
        assert_eq!(from_client(&tables, says(payload)).0, Verdict::Transmit);
        assert_eq!(tables.loads[backend].load(Relaxed), 0, "what was on its way takes nothing back");
    }
    // It is where it was when it is taken back.
    tables.backends[backend].flags &= !backend_flags::GIVEN_UP;
    opens(&tables, 40_000);
}

#[test]
fn a_client_that_starts_anew_leaves_a_backend_that_is_given_up() {
    let mut tables = world();
    let request = opens(&tables, 40_000);
    send(&tables, BACKEND_IFINDEX, answer(&request, SYN | ACK));
    from_client(&tables, TcpFrame::default());
    let backend = u32::from(ends(&request).1 == socket("10.0.0.12:8080"));
    tables.backends[backend as usize].flags |= backend_flags::GIVEN_UP;
    tables.set_ring(find_v4(&tables), 0, &[1 - backend]);
    assert_ne!(ends(&opens(&tables, 40_000)).1, ends(&request).1);
}

#[test]
fn a_datagram_leaves_a_backend_that_is_given_up() {
    let mut tables = world();
    let slot = tables.add_service(Service { protocol: UDP, ..service("203.0.113.10:53", algorithm::ROUND_ROBIN) });
    tables.set_ring(slot, 4, &[0, 1]);
    let frame = TcpFrame { destination: socket("203.0.113.10:53"), protocol: UDP, payload: b"?", ..Default::default() };
    let first = ends(&from_client(&tables, frame).1).1;
    assert_eq!(ends(&from_client(&tables, frame).1).1, first);
    let backend = u32::from(first == socket("10.0.0.12:8080"));
    tables.backends[backend as usize].flags |= backend_flags::GIVEN_UP;
    tables.set_ring(slot, 4, &[1 - backend]);
    assert_ne!(ends(&from_client(&tables, frame).1).1, first);
    assert_eq!(dropped(&tables), []);
}

#[test]
fn replies_are_only_taken_from_the_backend_of_the_flow() {
    let tables = world();
    let request = opens(&tables, 40_000);
    let honest = answer(&request, ACK);
    let check = |frame: TcpFrame<'_>, expected| {
        assert_eq!(send(&tables, BACKEND_IFINDEX, frame).0, expected, "{frame:?}");
    };
    check(TcpFrame { source: socket("10.0.0.12:8080"), ..honest }, Verdict::Pass);
    check(TcpFrame { source: socket("10.0.0.11:8081"), ..honest }, Verdict::Pass);
    check(
        TcpFrame { destination: SocketAddr::new([10, 0, 0, 2].into(), honest.destination.port()), ..honest },
        Verdict::Pass,
    );
    check(honest, Verdict::Redirect(CLIENT_IFINDEX));
}

/// One connection's life: who sends what, and how idle it may then be. Rows of (steps, seconds it lives, seconds it is gone).
#[test]
fn idle_flows_are_forgotten_by_their_state() {
    #[derive(Clone, Copy)]
    enum Step {
        Client(u8),
        Backend(u8),
    }
    use Step::{Backend, Client};
    let established = [Backend(SYN | ACK), Client(ACK)];
    let rows: [(&str, Vec<Step>, u64, u64); 6] = [
        ("opening", vec![Backend(SYN | ACK)], 4, 7),
        ("established", established.to_vec(), 7100, 7300),
        ("half closed by the client", [&established[..], &[Client(FIN | ACK), Backend(ACK)]].concat(), 110, 130),
        ("half closed by the backend", [&established[..], &[Backend(FIN | ACK), Client(ACK)]].concat(), 110, 130),
        ("closed", [&established[..], &[Client(FIN | ACK), Backend(FIN | ACK), Client(ACK)]].concat(), 28, 35),
        ("reset by the backend", [&established[..], &[Backend(RST)]].concat(), 28, 35),
    ];
    for (what, steps, lives, gone) in rows {
        for (idle, expected) in [(lives, true), (gone, false)] {
            let mut tables = world();
            let request = opens(&tables, 40_000);
            for &step in &steps {
                let (verdict, _) = match step {
                    Client(flags) => from_client(&tables, TcpFrame { flags, ..Default::default() }),
                    Backend(flags) => send(&tables, BACKEND_IFINDEX, answer(&request, flags)),
                };
                assert!(matches!(verdict, Verdict::Redirect(_)), "{what}");
            }
            tables.now_ns += idle * SECOND;
            let (verdict, _) = from_client(&tables, TcpFrame::default());
            assert_eq!(verdict == Verdict::Redirect(BACKEND_IFINDEX), expected, "{what} after {idle} s: {verdict:?}");
        }
    }
}

#[test]
fn a_closed_flow_gives_way_to_a_new_one_from_the_same_port() {
    let mut tables = world();
    let first = establishes(&tables, 40_000);
    from_client(&tables, TcpFrame { flags: RST, ..Default::default() });
    tables.now_ns += 2 * SECOND;
    let second = establishes(&tables, 40_000);
    assert_ne!(ends(&first), ends(&second), "another turn");
    let (_, data) = from_client(&tables, TcpFrame::default());
    assert_eq!(ends(&data), ends(&second));
}

#[test]
fn a_repeated_syn_goes_to_another_backend_unless_the_first_has_answered() {
    let mut tables = world();
    let first = opens(&tables, 40_000);
    tables.now_ns += SECOND;
    let second = opens(&tables, 40_000);
    assert_ne!(ends(&first).1, ends(&second).1);
    send(&tables, BACKEND_IFINDEX, answer(&second, SYN | ACK));
    assert_eq!(ends(&opens(&tables, 40_000)), ends(&second));
}

#[test]
fn a_repeated_syn_finds_the_other_backend_in_a_regular_ring() {
    for step in [1, 2, 16, 32] {
        let mut tables = world();
        let slot = find_v4(&tables);
        tables.services[slot as usize].algorithm = algorithm::MAGLEV;
        let ring: Vec<u32> = (0..64).map(|position| position / step % 2).collect();
        tables.set_ring(slot, 0, &ring);
        for port in 40_000..40_100 {
            let first = ends(&opens(&tables, port)).1;
            tables.now_ns += SECOND;
            assert_ne!(ends(&opens(&tables, port)).1, first, "port {port}, step {step}");
        }
    }
}

#[test]
fn a_late_answer_to_a_syn_that_has_gone_elsewhere_is_not_seen() {
    let mut tables = world();
    let first = opens(&tables, 40_000);
    tables.now_ns += SECOND;
    let second = opens(&tables, 40_000);
    let late = send(&tables, BACKEND_IFINDEX, answer(&first, SYN | ACK)).0;
    assert_eq!(late, Verdict::Drop(DropReason::Superseded));
    assert_eq!(send(&tables, BACKEND_IFINDEX, answer(&second, SYN | ACK)).0, Verdict::Redirect(CLIENT_IFINDEX));
}

#[test]
fn a_repeated_syn_to_the_only_backend_is_the_same_flow() {
    let mut tables = world();
    tables.set_ring(find_v4(&tables), 0, &[0]);
    let first = opens(&tables, 40_000);
    tables.now_ns += SECOND;
    assert_eq!(ends(&first), ends(&opens(&tables, 40_000)));
    assert_eq!(tables.counters[0].connections.load(Relaxed), 1);
}

#[test]
fn a_refusal_is_swallowed_while_there_is_another_backend() {
    let mut tables = world();
    let first = opens(&tables, 40_000);
    let (verdict, _) = send(&tables, BACKEND_IFINDEX, answer(&first, RST | ACK));
    assert_eq!(verdict, Verdict::Drop(DropReason::Refused));
    tables.now_ns += SECOND;
    let second = opens(&tables, 40_000);
    assert_ne!(ends(&first).1, ends(&second).1);

    tables.set_ring(find_v4(&tables), 0, &[0]);
    let alone = opens(&tables, 40_001);
    assert_eq!(send(&tables, BACKEND_IFINDEX, answer(&alone, RST | ACK)).0, Verdict::Redirect(CLIENT_IFINDEX));
}

#[test]
fn two_flows_never_share_a_source_port_towards_a_backend() {
    let mut tables = world();
    tables.set_ring(find_v4(&tables), 0, &[0]);
    let mut ports: Vec<u16> = (0..200).map(|n| ends(&opens(&tables, 1000 + n * 7)).0.port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 200);
}

#[test]
fn exhausted_ports_are_counted_and_take_nothing_from_established_flows() {
    let mut tables = world();
    tables.config.nat_port_count = 16;
    tables.set_ring(find_v4(&tables), 0, &[0]);
    let requests: Vec<Vec<u8>> = (0..16).map(|n| opens(&tables, 40_000 + n)).collect();
    let newcomer = TcpFrame { source: socket("192.0.2.1:41000"), flags: SYN, ..Default::default() };
    // Flows that are not established yield.
    let (verdict, request) = from_client(&tables, newcomer);
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    answers(&tables, &request);
    from_client(&tables, TcpFrame { flags: RST, ..newcomer });

    let mut established = 0;
    for (n, request) in (0..16).zip(&requests) {
        let source = SocketAddr::from(([192, 0, 2, 1], 40_000 + n));
        answers(&tables, request);
        let (verdict, _) = from_client(&tables, TcpFrame { source, ..Default::default() });
        if verdict == Verdict::Redirect(BACKEND_IFINDEX) {
            established += 1;
            assert_eq!(send(&tables, BACKEND_IFINDEX, answer(request, ACK)).0, Verdict::Redirect(CLIENT_IFINDEX));
        }
    }
    assert_eq!(established, 15, "all but the one that yielded");
    let last = TcpFrame { source: socket("192.0.2.1:42000"), flags: SYN, ..Default::default() };
    let (verdict, request) = from_client(&tables, last);
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX), "the one that was reset");
    answers(&tables, &request);
    from_client(&tables, TcpFrame { flags: ACK, ..last });
    let refused = TcpFrame { source: socket("192.0.2.1:43000"), flags: SYN, ..Default::default() };
    assert_eq!(from_client(&tables, refused).0, Verdict::Drop(DropReason::NatPortsExhausted));
}

#[test]
fn closed_flows_give_their_ports_to_new_ones_when_no_others_are_free() {
    let mut tables = world();
    tables.set_ring(find_v4(&tables), 0, &[0]);
    for port in 30_000..30_600 {
        answers(&tables, &opens(&tables, port));
        let source = SocketAddr::from(([192, 0, 2, 1], port));
        from_client(&tables, TcpFrame { source, flags: RST, ..Default::default() });
    }
    assert_eq!(tables.dropped(DropReason::NatPortsExhausted), 0);
}

#[test]
fn a_flood_of_syns_pushes_out_no_established_flow() {
    let mut tables = world();
    (tables.config.near_mask, tables.config.flow_sets) = (3, 16);
    tables.set_ring(find_v4(&tables), 0, &[0]);
    let established: Vec<u16> = (40_000..40_020).collect();
    for &port in &established {
        establishes(&tables, port);
    }
    for n in 0..400u16 {
        let source = SocketAddr::from(([198, 51, 100, (n % 250) as u8], 1024 + n));
        from_client(&tables, TcpFrame { source, flags: SYN, ..Default::default() });
    }
    for &port in &established {
        let source = SocketAddr::from(([192, 0, 2, 1], port));
        let (verdict, _) = from_client(&tables, TcpFrame { source, ..Default::default() });
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX), "port {port}");
    }
}

#[test]
fn a_full_table_refuses_new_flows_and_gives_their_ports_back() {
    let mut tables = world();
    (tables.config.near_mask, tables.config.flow_sets) = (0, 3);
    tables.set_ring(find_v4(&tables), 0, &[0]);
    for port in 40_000..40_050 {
        let source = SocketAddr::from(([192, 0, 2, 1], port));
        let (verdict, request) = from_client(&tables, TcpFrame { source, flags: SYN, ..Default::default() });
        if verdict == Verdict::Redirect(BACKEND_IFINDEX) {
            answers(&tables, &request);
            from_client(&tables, TcpFrame { source, ..Default::default() });
        }
    }
    let taken = || tables.nat.iter().filter(|slot| FlowWord(slot.word.load(Relaxed)).state() != State::Free).count();
    assert_eq!(taken(), 12);
    let source = socket("192.0.2.1:50000");
    let (verdict, _) = from_client(&tables, TcpFrame { source, flags: SYN, ..Default::default() });
    assert_eq!(verdict, Verdict::Drop(DropReason::FlowTableFull));
    assert_eq!(taken(), 12);
}

#[test]
fn a_full_table_makes_room_where_it_is_missed_least() {
    let small = || {
        let mut tables = world();
        (tables.config.near_mask, tables.config.flow_sets) = (0, 3);
        tables
    };
    let tables = small();
    let (service, _) = service::find(&tables, words([203, 0, 113, 10].into()), Be16::new(80), TCP, 4).unwrap();
    let sets = |port| flow::Key::new(&tables.config, 4, words([192, 0, 2, 1].into()), Be16::new(port), service);
    let sets = |port| sets(port).sets(&tables.config);
    // Twelve flows fill the three sets: handshakes, but for one that is over.
    let taken: Vec<u16> = [[0, 1, 2], [0, 2, 1]]
        .iter()
        .flat_map(|&at| (40_000..).filter(move |&port| sets(port) == at).take(6))
        .collect();
    for gone in [taken[1], taken[5], taken[9]] {
        let tables = small();
        taken.iter().for_each(|&port| answers(&tables, &opens(&tables, port)));
        let source = |port| SocketAddr::from(([192, 0, 2, 1], port));
        from_client(&tables, TcpFrame { source: source(gone), flags: RST | ACK, ..Default::default() });
        let fresh = (50_000..).find(|&port| sets(port) == [0, 1, 2]).unwrap();
        opens(&tables, fresh);
        for &port in taken.iter().filter(|&&port| port != gone).chain([&fresh]) {
            let (verdict, _) = from_client(&tables, TcpFrame { source: source(port), ..Default::default() });
            assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX), "{port}");
        }
    }
}

#[test]
fn the_way_back_follows_the_client() {
    let mut tables = world();
    let request = opens(&tables, 40_000);
    tables.now_ns += 1 << TICK_SHIFT;
    let moved = TcpFrame { source_mac: [2, 0, 0, 0, 0, 9], ..Default::default() };
    from_client(&tables, moved);
    let (_, reply) = send(&tables, BACKEND_IFINDEX, answer(&request, ACK));
    assert_eq!(reply[..6], [2, 0, 0, 0, 0, 9]);
}

#[test]
fn maglev_chooses_by_the_flow_alone() {
    let mut tables = world();
    let slot = find_v4(&tables);
    tables.services[slot as usize].algorithm = algorithm::MAGLEV;
    let first: Vec<SocketAddr> = (0..50).map(|n| ends(&opens(&tables, 40_000 + n)).1).collect();
    let mut again = world();
    again.services[slot as usize].algorithm = algorithm::MAGLEV;
    let reversed: Vec<SocketAddr> = (0..50).rev().map(|n| ends(&opens(&again, 40_000 + n)).1).collect();
    assert!(first.iter().eq(reversed.iter().rev()));
    assert!(first.iter().any(|backend| *backend != first[0]));
}
