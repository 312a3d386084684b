//! Echoes and errors.

use super::*;
use crate::host::icmp_frame;

fn process(tables: &HostTables, mut bytes: Vec<u8>, ingress_ifindex: u32) -> (Verdict, Vec<u8>) {
    let verdict = host::process(&mut bytes, ingress_ifindex, tables);
    (verdict, bytes)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_echo_to_a_virtual_address_is_answered() {
    for (client, vip, request, reply) in
        [("192.0.2.1", "203.0.113.10", 8, 0), ("2001:db8::1", "2001:db8::10", 128, 129)]
    {
        let tables = world();
        let echo = icmp_frame(ip(client), ip(vip), [request, 0], [1, 2, 3, 4], b"payload!");
        let (verdict, bytes) = process(&tables, echo, CLIENT_IFINDEX);
        assert_eq!(verdict, Verdict::Transmit);
        assert_eq!(bytes, {
            let mut expected = icmp_frame(ip(vip), ip(client), [reply, 0], [1, 2, 3, 4], b"payload!");
            expected[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
            expected
        });
        let stranger = icmp_frame(
            ip(client),
            if ip(vip).is_ipv4() { ip("203.0.113.99") } else { ip("2001:db8::99") },
            [request, 0],
            [0; 4],
            b"x",
        );
        assert_eq!(process(&tables, stranger.clone(), CLIENT_IFINDEX), (Verdict::Pass, stranger));
    }
}

/// Too big, time exceeded, unreachable: type and code, of both families.
const ERRORS: [([u8; 2], [u8; 2]); 3] = [([3, 4], [2, 0]), ([11, 0], [3, 0]), ([3, 1], [1, 3])];

#[test]
fn an_error_about_a_packet_to_a_backend_reaches_the_client() {
    for (v4, v6) in ERRORS {
        for (client, vip, router, front, kind) in [
            ("192.0.2.1:40000", "203.0.113.10:80", "198.51.100.1", "10.0.0.1", v4),
            ("[2001:db8::1]:40000", "[2001:db8::10]:80", "2001:db8:9::1", "fd00::1", v6),
        ] {
            let tables = world();
            let frame = TcpFrame { source: socket(client), destination: socket(vip), flags: SYN, ..Default::default() };
            let (_, sent) = from_client(&tables, frame);
            let error = icmp_frame(ip(router), ip(front), kind, [0, 0, 0x05, 0x14], &sent[14..]);
            let (verdict, bytes) = process(&tables, error, BACKEND_IFINDEX);
            assert_eq!(verdict, Verdict::Redirect(CLIENT_IFINDEX));
            assert!(l4_checksum_is_right(&bytes));
            let quote = if ip(router).is_ipv4() { 14 + 20 + 8 } else { 14 + 40 + 8 };
            assert_eq!(ends_of(&bytes[quote..]), (socket(client), socket(vip)), "what the client had sent");
            assert_eq!(addresses(&bytes), (socket(vip).ip(), socket(client).ip()));
            assert_eq!(bytes[quote - 4..quote], [0, 0, 0x05, 0x14], "the MTU");
        }
    }
}

#[test]
fn an_error_about_a_packet_to_a_client_reaches_its_backend() {
    for (v4, v6) in ERRORS {
        for (client, vip, router, backend, kind) in [
            ("192.0.2.1:40000", "203.0.113.10:80", "198.51.100.1", "10.0.0.11:8080", v4),
            ("[2001:db8::1]:40000", "[2001:db8::10]:80", "2001:db8:9::1", "[fd00::11]:8080", v6),
        ] {
            let tables = world();
            let frame = TcpFrame { source: socket(client), destination: socket(vip), flags: SYN, ..Default::default() };
            let (_, request) = from_client(&tables, frame);
            let (_, reply) = send(&tables, BACKEND_IFINDEX, answer(&request, SYN | ACK));
            let error = icmp_frame(ip(router), socket(vip).ip(), kind, [0, 0, 0x05, 0x14], &reply[14..]);
            let (verdict, bytes) = process(&tables, error, CLIENT_IFINDEX);
            assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
            assert!(l4_checksum_is_right(&bytes));
            let quote = if ip(router).is_ipv4() { 14 + 20 + 8 } else { 14 + 40 + 8 };
            let (front, to) = ends(&request);
            assert_eq!(ends_of(&bytes[quote..]), (to, front), "what the backend had sent");
            assert_eq!(addresses(&bytes).1, socket(backend).ip());
        }
    }
}

#[test]
fn an_error_about_something_else_passes() {
    let tables = world();
    let other =
        TcpFrame { source: socket("10.0.0.1:20001"), destination: socket("10.0.0.11:8080"), ..Default::default() };
    let error = icmp_frame(ip("198.51.100.1"), ip("10.0.0.1"), [3, 4], [0, 0, 5, 0x14], &other.bytes()[14..]);
    assert_eq!(process(&tables, error.clone(), BACKEND_IFINDEX), (Verdict::Pass, error));
}

#[test]
fn what_is_too_big_to_be_encapsulated_is_answered_but_not_too_often() {
    let mut tables = forwarding(forward::IPIP);
    tables.backends[0].mtu = 1500;
    tables.backends[1].mtu = 1500;
    opens(&tables, 40_000);
    let fits = TcpFrame { payload: &[0; 1440], fragment: 0x4000, ..Default::default() };
    assert_eq!(from_client(&tables, fits).0, Verdict::Redirect(BACKEND_IFINDEX));
    let too_big = TcpFrame { payload: &[0; 1441], fragment: 0x4000, ..Default::default() };
    let (verdict, bytes) = from_client(&tables, too_big);
    assert_eq!(verdict, Verdict::Transmit);
    assert!(l4_checksum_is_right(&bytes));
    assert_eq!(addresses(&bytes), (ip("203.0.113.10"), ip("192.0.2.1")));
    assert_eq!(bytes[34..36], [3, 4]);
    assert_eq!(bytes[38..42], [0, 0, 0x05, 0xc8], "1480 bytes get through");
    assert_eq!(bytes[42..70], too_big.bytes()[14..42], "the header and eight bytes");

    // Those who do not forbid it are told as well: nobody here cuts packets.
    let (verdict, _) = from_client(&tables, TcpFrame { fragment: 0, ..too_big });
    assert_eq!(verdict, Verdict::Transmit);

    let answered = (0..2_000).filter(|_| from_client(&tables, too_big).0 == Verdict::Transmit).count();
    assert_eq!(answered, 498);
    assert_eq!(tables.dropped(DropReason::TooBig), 2_002);
    tables.now_ns += 1 << TICK_SHIFT;
    assert_eq!(from_client(&tables, too_big).0, Verdict::Transmit);
}

/// The first fragment of an IPv6 packet that goes on behind it.
fn first_fragment(mut bytes: Vec<u8>) -> Vec<u8> {
    let protocol = core::mem::replace(&mut bytes[20], 44);
    let length = u16::from_be_bytes([bytes[18], bytes[19]]) + 8;
    bytes[18..20].copy_from_slice(&length.to_be_bytes());
    bytes.splice(54..54, [protocol, 0, 0, 1, 0, 0, 0, 7]);
    bytes
}

#[test]
fn a_fragment_that_is_too_big_is_answered_as_well() {
    let mut tables = forwarding(forward::IPIP);
    for backend in &mut tables.backends[2..] {
        backend.mtu = 1500;
        backend.flags |= backend_flags::IPV6;
    }
    let sent = |length: usize| first_fragment(TcpFrame { payload: &[7; 1500][..length], ..syn_v6() }.bytes());
    assert_eq!(process(&tables, sent(1392), CLIENT_IFINDEX).0, Verdict::Redirect(BACKEND_IFINDEX));
    let (verdict, bytes) = process(&tables, sent(1400), CLIENT_IFINDEX);
    assert_eq!(verdict, Verdict::Transmit);
    assert!(l4_checksum_is_right(&bytes));
    assert_eq!(addresses(&bytes), (ip("2001:db8::10"), ip("2001:db8::1")));
    assert_eq!(bytes[54..56], [2, 0]);
    assert_eq!(bytes[58..62], [0, 0, 0x05, 0xb4], "1460 bytes get through");
    assert_eq!(bytes[62..], sent(1400)[14..70], "both headers and eight bytes");
}

#[test]
fn an_error_about_a_fragment_reaches_whoever_sent_it() {
    let tables = world();
    let (_, request) = from_client(&tables, syn_v6());
    let (_, reply) = send(&tables, BACKEND_IFINDEX, answer(&request, SYN | ACK));
    let quote = &first_fragment(reply)[14..];
    let error = icmp_frame(ip("2001:db8:9::1"), ip("2001:db8::10"), [2, 0], [0, 0, 0x05, 0x14], quote);
    let (verdict, bytes) = process(&tables, error.clone(), CLIENT_IFINDEX);
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    assert!(l4_checksum_is_right(&bytes));
    let (front, backend) = ends(&request);
    assert_eq!(addresses(&bytes).1, backend.ip());
    let mut quoted = bytes[48..].to_vec();
    assert_eq!(quoted.splice(54..62, []).collect::<Vec<u8>>(), [6, 0, 0, 1, 0, 0, 0, 7]);
    assert_eq!(ends(&quoted), (backend, front), "what the backend had sent");
    // Of a later one it is not known whose it was.
    let mut later = first_fragment(answer(&request, SYN | ACK).bytes());
    later[57] = 8;
    let error = icmp_frame(ip("2001:db8:9::1"), ip("2001:db8::10"), [2, 0], [0, 0, 0x05, 0x14], &later[14..]);
    assert_eq!(process(&tables, error.clone(), CLIENT_IFINDEX), (Verdict::Pass, error));
}

#[test]
fn the_mtu_of_a_path_is_learnt_from_errors_about_encapsulated_packets() {
    for mode in [forward::IPIP, forward::GUE] {
        let mut tables = forwarding(mode);
        tables.backends[0].mtu = 1500;
        let sent = opens(&tables, 40_000);
        let error = icmp_frame(ip("198.51.100.1"), ip("10.0.0.1"), [3, 4], [0, 0, 0x05, 0x14], &sent[14..]);
        assert_eq!(process(&tables, error.clone(), BACKEND_IFINDEX), (Verdict::Pass, error));
        tables.apply_learnt();
        assert_eq!(tables.backends[0].mtu, 1300, "mode {mode}");
    }
}

#[test]
fn who_does_not_see_what_is_encapsulated_teaches_nothing() {
    let mut tables = forwarding(forward::IPIP);
    tables.backends[0].mtu = 1500;
    let sent = opens(&tables, 40_000);
    let mut guessed = sent.clone();
    guessed[26..30].copy_from_slice(&[9, 9, 9, 9]);
    for (to, quote) in [("203.0.113.10", &sent), ("10.0.0.1", &guessed), ("9.9.9.9", &guessed)] {
        let error = icmp_frame(ip("198.51.100.1"), ip(to), [3, 4], [0, 0, 0x05, 0x14], &quote[14..]);
        assert_eq!(process(&tables, error.clone(), BACKEND_IFINDEX), (Verdict::Pass, error));
        tables.apply_learnt();
        assert_eq!(tables.backends[0].mtu, 1500, "to {to}");
    }
}

#[test]
fn no_less_is_learnt_than_every_link_must_take() {
    let mut tables = forwarding(forward::IPIP);
    tables.backends[2].mtu = 1500;
    tables.backends[2].flags |= backend_flags::IPV6;
    let frame = syn_v6();
    let (_, sent) = from_client(&tables, frame);
    let error = icmp_frame(ip("2001:db8::99"), ip("fd00::1"), [2, 0], [0, 0, 0x02, 0x40], &sent[14..]);
    process(&tables, error, BACKEND_IFINDEX);
    tables.apply_learnt();
    assert_eq!(tables.backends[2].mtu, 1280 + 40);
}

#[test]
fn an_error_with_direct_return_has_a_hop_to_go() {
    for mode in [forward::L2, forward::IPIP] {
        let tables = forwarding(mode);
        opens(&tables, 40_000);
        let quote = TcpFrame {
            source: socket("203.0.113.10:80"),
            destination: socket("192.0.2.1:40000"),
            ..Default::default()
        };
        let error = icmp_frame(ip("198.51.100.1"), ip("203.0.113.10"), [3, 1], [0; 4], &quote.bytes()[14..]);
        assert_eq!(process(&tables, error.clone(), CLIENT_IFINDEX).0, Verdict::Redirect(BACKEND_IFINDEX));
        let mut last = error;
        last[22] = 1;
        assert_eq!(process(&tables, last, CLIENT_IFINDEX).0, Verdict::Drop(DropReason::HopLimit), "mode {mode}");
    }
}

/// Source and destination of a quoted packet.
fn ends_of(packet: &[u8]) -> (SocketAddr, SocketAddr) {
    ends(&[&[0; 14], packet].concat())
}

fn addresses(frame: &[u8]) -> (IpAddr, IpAddr) {
    let (source, destination) = ends(frame);
    (source.ip(), destination.ip())
}
