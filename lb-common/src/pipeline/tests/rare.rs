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
    let frame = TcpFrame {
        source: socket("[2001:db8::1]:40000"),
        destination: socket("[2001:db8::10]:80"),
        flags: SYN,
        ..Default::default()
    };
    let mut bytes = frame.bytes();
    let hop_by_hop = [60, 0, 1, 4, 0, 0, 0, 0];
    let destination_options = [6, 0, 1, 4, 0, 0, 0, 0];
    bytes[20] = 0;
    bytes.splice(54..54, [hop_by_hop, destination_options].concat());
    let (verdict, mut bytes) = process(&tables, bytes);
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(bytes[54..70], [hop_by_hop, destination_options].concat());
    bytes.drain(54..70);
    bytes[20] = 6;
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
fn a_reset_does_not_believe_a_length_shorter_than_the_header() {
    let mut frame = TcpFrame { flags: 0, payload: b"hello", ..Default::default() }.bytes();
    frame[16..18].copy_from_slice(&19_u16.to_be_bytes());
    let (verdict, bytes) = process(&world(), frame);
    assert_eq!(verdict, Verdict::Transmit);
    assert_eq!(bytes[42..46], 1_u32.to_be_bytes());
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
