//! Tags, extension headers, fragments, RSTs, segment sizes.

use super::*;

const TAG: [u8; 4] = [0x81, 0x00, 0x00, 0x2a];
const SERVICE_TAG: [u8; 4] = [0x88, 0xa8, 0x00, 0x07];

fn process(tables: &HostTables, mut bytes: Vec<u8>) -> (Verdict, Vec<u8>) {
    let verdict = host::process(&mut bytes, CLIENT_IFINDEX, tables);
    (verdict, bytes)
}

#[test]
fn tags_stay_as_they_are() {
    for tags in [TAG.to_vec(), [SERVICE_TAG, TAG].concat()] {
        let tables = world();
        let mut tagged = TcpFrame { flags: SYN, ..Default::default() }.bytes();
        tagged.splice(12..12, tags.clone());
        let (verdict, mut bytes) = process(&tables, tagged);
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
        assert_eq!(bytes[12..12 + tags.len()], tags);
        bytes.drain(12..12 + tags.len());
        assert_eq!(ends(&bytes).1, socket("10.0.0.11:8080"));
        assert!(l4_checksum_is_right(&bytes));

        let mut stranger = TcpFrame { destination: socket("203.0.113.10:22"), ..Default::default() }.bytes();
        stranger.splice(12..12, tags);
        assert_eq!(process(&tables, stranger.clone()), (Verdict::Pass, stranger));
    }
}

#[test]
fn extension_headers_are_skipped_and_kept() {
    let tables = world();
    let frame = syn_v6();
    let mut bytes = frame.bytes();
    let hop_by_hop = [60, 0, 1, 4, 0, 0, 0, 0];
    let destination_options = [6, 0, 1, 4, 0, 0, 0, 0];
    bytes[20] = 0;
    bytes[19] += 16;
    bytes.splice(54..54, [hop_by_hop, destination_options].concat());
    let (verdict, mut bytes) = process(&tables, bytes);
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(bytes[54..70], [hop_by_hop, destination_options].concat());
    bytes.drain(54..70);
    bytes[20] = 6;
    bytes[19] -= 16;
    assert_eq!(ends(&bytes).1, socket("[fd00::11]:8080"));
    assert!(l4_checksum_is_right(&bytes));
}

/// A fragment of a packet with identification 0x1234 from the client.
fn fragment(flags_and_offset: u16, flags: u8) -> TcpFrame<'static> {
    TcpFrame { flags, fragment: flags_and_offset, payload: &[7; 24], ..Default::default() }
}

#[test]
fn later_fragments_follow_the_first() {
    let tables = world();
    let request = opens(&tables, 40_000);
    let later = fragment(0x2004, 0);
    assert_eq!(from_client(&tables, later).0, Verdict::Drop(DropReason::Fragment), "before the first one");
    let (verdict, first) = from_client(&tables, fragment(0x2000, ACK));
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(ends(&first), ends(&request));
    let (verdict, bytes) = from_client(&tables, later);
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(bytes[26..34], first[26..34], "addresses");
    assert_eq!(bytes[34..], later.bytes()[34..], "there are no ports to rewrite");

    // And so do those of the answer.
    let reply = TcpFrame { fragment: 0x2000, payload: &[7; 24], ..answer(&request, ACK) };
    assert_eq!(send(&tables, BACKEND_IFINDEX, reply).0, Verdict::Redirect(CLIENT_IFINDEX));
    let (verdict, bytes) = send(&tables, BACKEND_IFINDEX, TcpFrame { fragment: 0x0004, ..reply });
    assert_eq!(verdict, Verdict::Redirect(CLIENT_IFINDEX));
    assert_eq!(bytes[26..34], [203, 0, 113, 10, 192, 0, 2, 1]);
}

#[test]
fn fragments_are_forgotten() {
    let mut tables = world();
    opens(&tables, 40_000);
    from_client(&tables, fragment(0x2000, ACK));
    tables.now_ns += 40 * SECOND;
    assert_eq!(from_client(&tables, fragment(0x0004, 0)).0, Verdict::Drop(DropReason::Fragment));
}

#[test]
fn a_reset_answers_what_has_no_flow() {
    let check = |flags: u8, payload: &[u8], seq: u32, ack: u32, reset_flags: u8| {
        let tables = world();
        let frame = TcpFrame { flags, payload, ..Default::default() };
        let (verdict, bytes) = from_client(&tables, frame);
        assert_eq!(verdict, Verdict::Transmit);
        assert_eq!(bytes.len(), 54);
        assert_eq!(ends(&bytes), (frame.destination, frame.source));
        assert_eq!(bytes[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        assert!(l4_checksum_is_right(&bytes));
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((number(38), number(42), bytes[47]), (seq, ack, reset_flags), "{flags:02x}");
    };
    // The frame has sequence number 1 and acknowledges 2.
    check(ACK, b"hello", 2, 0, RST);
    check(FIN | ACK, b"", 2, 0, RST);
    check(0, b"hello", 0, 6, RST | ACK);
    check(FIN, b"hello", 0, 7, RST | ACK);
}

#[test]
fn what_looks_like_a_header_behind_the_packet_is_padding() {
    // The least that has a whole header; then one byte less.
    for (protocol, header) in [(TCP, 20), (UDP, 8)] {
        let verdict = |length: u16| {
            let mut tables = world();
            let slot = tables.add_service(Service { protocol, ..service("203.0.113.10:53", algorithm::ROUND_ROBIN) });
            tables.set_ring(slot, 4, &[0, 1]);
            let destination = socket("203.0.113.10:53");
            let mut frame =
                TcpFrame { protocol, flags: SYN, destination, payload: &[0; 20], ..Default::default() }.bytes();
            frame[16..18].copy_from_slice(&length.to_be_bytes());
            process(&tables, frame).0
        };
        assert_eq!(verdict(20 + header), Verdict::Redirect(BACKEND_IFINDEX));
        assert_eq!(verdict(19 + header), Verdict::Pass);
    }
    // Eight bytes of a TCP header in a first fragment, padded to the least frame: the others have its checksum.
    let mut frame = fragment(0x2000, SYN).bytes();
    frame[16..18].copy_from_slice(&28_u16.to_be_bytes());
    frame.resize(60, 2);
    assert_eq!(process(&world(), frame).0, Verdict::Pass);
}

#[test]
fn what_is_sent_to_many_or_by_nobody_passes() {
    let check = |change: &dyn Fn(&mut TcpFrame<'_>)| {
        for flags in [SYN, ACK] {
            for mode in [forward::NAT, forward::L2] {
                let tables = forwarding(mode);
                let mut frame = TcpFrame { flags, ..Default::default() };
                change(&mut frame);
                let (verdict, bytes) = from_client(&tables, frame);
                assert_eq!((verdict, bytes), (Verdict::Pass, frame.bytes()), "{frame:?}");
            }
        }
    };
    check(&|frame| frame.destination_mac = [0xff; 6]);
    check(&|frame| frame.destination_mac = [1, 0, 0x5e, 0, 0, 1]);
    for source in ["0.0.0.0:9", "127.0.0.1:9", "224.0.0.1:9", "239.1.2.3:9", "255.255.255.255:9"] {
        check(&|frame| frame.source = socket(source));
    }
    for source in ["[::]:9", "[::1]:9", "[ff02::1]:9"] {
        check(&|frame| (frame.source, frame.destination) = (socket(source), socket("[2001:db8::10]:80")));
    }
}

#[test]
fn fragments_of_two_clients_are_told_apart_by_the_server() {
    let tables = world();
    let id = |source: &str, flags: u16| {
        let frame = TcpFrame { source: socket(source), payload: b"hello", ..fragment(flags, SYN) };
        let (verdict, bytes) = from_client(&tables, frame);
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
        if flags == 0 {
            assert!(l4_checksum_is_right(&bytes));
        }
        u16::from_be_bytes([bytes[18], bytes[19]])
    };
    let [first, other] = ["192.0.2.1:40000", "192.0.2.2:40000"].map(|source| id(source, 0x2000));
    assert_ne!(first, other);
    assert_eq!(id("192.0.2.1:40000", 3), first);
    assert_eq!(id("192.0.2.2:40000", 3), other);
    assert_eq!(id("192.0.2.3:40000", 0), 0x1234, "not of what is whole");
}

#[test]
fn no_fragment_is_encapsulated_that_is_too_big_then() {
    let mut tables = forwarding(forward::IPIP);
    tables.backends[0].mtu = 64;
    assert_eq!(
        from_client(&tables, TcpFrame { payload: &[], ..fragment(0x2000, SYN) }).0,
        Verdict::Redirect(BACKEND_IFINDEX)
    );
    let later = |length: usize| from_client(&tables, TcpFrame { payload: &[0; 100][..length], ..fragment(3, 0) }).0;
    assert_eq!(later(4), Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(later(5), Verdict::Drop(DropReason::TooBig));
    assert_eq!(dropped(&tables), [("too_big", 1)]);
}

#[test]
fn options_behind_a_fragment_header_are_no_other_packet() {
    let tables = world();
    let whole = syn_v6();
    let fragment = |offset_and_more: u16, rest: &[u8]| {
        let mut bytes = whole.bytes()[..54].to_vec();
        bytes[20] = 44;
        let [high, low] = offset_and_more.to_be_bytes();
        bytes.extend([60, 0, high, low, 0, 0, 0, 7]);
        bytes.extend(rest);
        let length = (bytes.len() - 54) as u16;
        bytes[18..20].copy_from_slice(&length.to_be_bytes());
        bytes
    };
    let first = fragment(1, &[&[6, 0, 1, 4, 0, 0, 0, 0], &whole.bytes()[54..]].concat());
    assert_eq!(process(&tables, first).0, Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(process(&tables, fragment(32, b"the rest")).0, Verdict::Redirect(BACKEND_IFINDEX));
}

#[test]
fn a_reset_is_not_answered() {
    let tables = world();
    assert_eq!(
        from_client(&tables, TcpFrame { flags: RST, ..Default::default() }).0,
        Verdict::Drop(DropReason::NoFlow)
    );
}

#[test]
fn segment_sizes_are_kept_within_what_gets_through() {
    // Options before the one that counts, at even and odd offsets.
    let announced = |size: u16| {
        let [high, low] = size.to_be_bytes();
        [
            vec![2, 4, high, low],
            vec![1, 2, 4, high, low, 1, 1, 0],
            vec![8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, high, low, 1, 1],
        ]
    };
    for (mtu, size, expected) in [(1400, 1460, 1360), (1500, 1460, 1460), (1400, 536, 536), (0, 9000, 9000)] {
        for (options, clamped) in announced(size).into_iter().zip(announced(expected)) {
            let mut tables = world();
            tables.backends[0].mtu = mtu;
            let frame = TcpFrame { flags: SYN, tcp_options: &options, ..Default::default() };
            let (_, request) = from_client(&tables, frame);
            assert_eq!(request[54..], clamped, "{mtu}");
            assert!(l4_checksum_is_right(&request));
            let reply = TcpFrame { tcp_options: &options, ..answer(&request, SYN | ACK) };
            let (_, reply) = send(&tables, BACKEND_IFINDEX, reply);
            assert_eq!(reply[54..], clamped, "{mtu}");
            assert!(l4_checksum_is_right(&reply));
        }
    }
}

#[test]
fn broken_options_are_left_alone() {
    for options in [&[2, 4, 0xff][..], &[8, 0, 0, 0], &[2, 2, 2, 2], &[5, 200, 1, 1]] {
        let mut padded = options.to_vec();
        padded.resize(4, 0);
        let mut tables = world();
        tables.backends[0].mtu = 600;
        let frame = TcpFrame { flags: SYN, tcp_options: &padded, ..Default::default() };
        let (verdict, bytes) = from_client(&tables, frame);
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
        assert!(l4_checksum_is_right(&bytes), "{options:?}");
    }
}

#[test]
fn an_option_of_another_size_is_no_segment_size() {
    let mut tables = world();
    tables.backends[0].mtu = 600;
    for options in [[2, 0x84, 0x23, 0x28], [2, 3, 0x23, 0x28], [2, 5, 0x23, 0x28]] {
        for options in [&options[..], &[&[1, 1, 1, 1], &options[..]].concat()] {
            let frame = TcpFrame { flags: SYN, tcp_options: options, ..Default::default() };
            assert_eq!(from_client(&tables, frame).1[54..], *options);
        }
    }
    let options = [2, 6, 0, 0, 0, 0, 2, 4, 0x23, 0x28, 1, 1];
    let frame = TcpFrame { flags: SYN, tcp_options: &options, ..Default::default() };
    assert_eq!(from_client(&tables, frame).1[60..64], [2, 4, 0x02, 0x30]);
}

#[test]
fn a_fragment_whose_header_is_cut_short_passes() {
    let options = [1; 8];
    let later = |length: usize| {
        let tables = world();
        from_client(&tables, TcpFrame { options: &options, ..fragment(0x2000, SYN) });
        let mut bytes = TcpFrame { options: &options, ..fragment(2, 0) }.bytes();
        bytes.truncate(length);
        process(&tables, bytes).0
    };
    assert_eq!(later(42), Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(later(41), Verdict::Pass);
}
