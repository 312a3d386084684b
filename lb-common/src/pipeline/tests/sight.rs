//! What packets tell of a backend.

use super::*;
use crate::layout::{BackendCounters, HANDSHAKE_BUCKETS};

/// Of the first backend: repeated, refused, reset, aborted.
fn troubles(tables: &HostTables) -> [u64; 4] {
    let BackendCounters { repeated, refused, reset, aborted, .. } = &tables.counters[0];
    [repeated, refused, reset, aborted].map(|word| word.load(Relaxed))
}

fn handshakes(tables: &HostTables) -> [u64; HANDSHAKE_BUCKETS] {
    core::array::from_fn(|bucket| tables.counters[0].handshakes[bucket].load(Relaxed))
}

fn responses(tables: &HostTables) -> [u64; 5] {
    core::array::from_fn(|class| tables.counters[0].responses[class].load(Relaxed))
}

/// Two services with one backend each, so that it is known which one serves.
fn alone() -> HostTables {
    let mut tables = world();
    let slot = find_v4(&tables);
    tables.set_ring(slot, 0, &[0]);
    tables
}

fn from_backend(tables: &HostTables, frame: TcpFrame<'_>) -> Verdict {
    send(tables, BACKEND_IFINDEX, frame).0
}

/// A connection of the client that was answered and acknowledged: what the backend was sent first.
fn established(tables: &HostTables) -> Vec<u8> {
    let request = opens(tables, 40_000);
    from_backend(tables, answer(&request, SYN | ACK));
    from_client(tables, TcpFrame::default());
    request
}

#[test]
fn a_handshake_takes_from_the_first_syn_to_the_first_answer() {
    let mut tables = alone();
    let request = opens(&tables, 40_000);
    tables.now_ns += SECOND;
    opens(&tables, 40_000);
    tables.now_ns += 200_000;
    for _ in 0..2 {
        from_backend(&tables, answer(&request, SYN | ACK));
    }
    assert_eq!(handshakes(&tables), core::array::from_fn(|bucket| u64::from(bucket == 13)));
    assert_eq!(tables.counters[0].handshake_ns.load(Relaxed), SECOND + 200_000);
    assert_eq!(troubles(&tables), [1, 0, 0, 0]);
}

#[test]
fn a_connection_is_open_when_its_client_has_acknowledged_the_answer() {
    let mut tables = alone();
    let opened = |tables: &HostTables| tables.counters[0].opened.load(Relaxed);
    let request = opens(&tables, 40_000);
    from_client(&tables, TcpFrame::default());
    from_backend(&tables, answer(&request, SYN | ACK));
    assert_eq!(opened(&tables), 0);
    for _ in 0..2 {
        from_client(&tables, TcpFrame::default());
    }
    tables.now_ns += SECOND;
    from_client(&tables, TcpFrame { flags: FIN | ACK, ..Default::default() });
    assert_eq!(opened(&tables), 1);

    let tables = alone();
    let request = opens(&tables, 40_000);
    from_backend(&tables, answer(&request, SYN | ACK));
    from_client(&tables, TcpFrame { flags: RST, ..Default::default() });
    assert_eq!(opened(&tables), 0, "it gave up");
}

#[test]
fn a_syn_that_goes_elsewhere_was_left_unanswered_by_the_first() {
    let mut tables = world();
    let first = opens(&tables, 40_000);
    tables.now_ns += SECOND;
    let second = opens(&tables, 40_000);
    assert_ne!(ends(&first).1, ends(&second).1);
    from_backend(&tables, answer(&second, SYN | ACK));
    assert_eq!(troubles(&tables), [1, 0, 0, 0]);
    assert_eq!(handshakes(&tables), [0; HANDSHAKE_BUCKETS]);
    assert_eq!(tables.counters[1].handshakes[0].load(Relaxed), 1);
}

#[test]
fn a_refusal_counts_whether_the_client_gets_to_see_it_or_not() {
    let (swallowed, told) = (world(), alone());
    for (tables, verdict) in
        [(swallowed, Verdict::Drop(DropReason::Refused)), (told, Verdict::Redirect(CLIENT_IFINDEX))]
    {
        let request = opens(&tables, 40_000);
        assert_eq!(from_backend(&tables, answer(&request, RST | ACK)), verdict);
        assert_eq!(troubles(&tables), [0, 1, 0, 0]);
    }
}

#[test]
fn a_rst_counts_by_whose_it_is_and_only_before_its_sender_has_closed() {
    let check = |frames: &[(bool, u8)], expected: [u64; 4]| {
        let tables = alone();
        let request = established(&tables);
        for &(client, flags) in frames {
            if client {
                from_client(&tables, TcpFrame { flags, ..Default::default() });
            } else {
                from_backend(&tables, answer(&request, flags));
            }
        }
        assert_eq!(troubles(&tables), expected, "{frames:?}");
    };
    check(&[(false, RST)], [0, 0, 1, 0]);
    check(&[(false, RST), (false, RST), (true, RST)], [0, 0, 1, 0]);
    check(&[(true, RST)], [0, 0, 0, 1]);
    check(&[(true, FIN | ACK), (false, RST)], [0, 0, 1, 0]);
    check(&[(true, FIN | ACK), (true, RST)], [0; 4]);
    check(&[(false, FIN | ACK), (false, RST)], [0; 4]);
    check(&[(false, FIN | ACK), (true, RST)], [0, 0, 0, 1]);
}

#[test]
fn responses_count_by_their_class_where_a_segment_begins_with_one() {
    let check = |frame: TcpFrame<'_>, expected: Option<usize>| {
        let tables = alone();
        let request = established(&tables);
        let frame = TcpFrame { payload: frame.payload, tcp_options: frame.tcp_options, ..answer(&request, ACK) };
        assert_eq!(from_backend(&tables, frame), Verdict::Redirect(CLIENT_IFINDEX));
        assert_eq!(responses(&tables), core::array::from_fn(|class| u64::from(Some(class) == expected)), "{frame:?}");
    };
    let rows: [(&[u8], Option<usize>); 12] = [
        (b"HTTP/1.1 100 Continue\r\n\r\n", Some(0)),
        (b"HTTP/1.1 200 OK\r\n", Some(1)),
        (b"HTTP/1.0 301 Moved", Some(2)),
        (b"HTTP/1.1 404", Some(3)),
        (b"HTTP/1.1 5", Some(4)),
        (b"HTTP/1.1 600", None),
        (b"HTTP/1.1 ", None),
        (b"HTTP/2.0 200", None),
        (b"HTTP/1.1\t200", None),
        (b"http/1.1 200", None),
        (b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03", None),
        (b"", None),
    ];
    for (payload, expected) in rows {
        check(TcpFrame { payload, ..Default::default() }, expected);
        let timestamps = &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        check(TcpFrame { payload, tcp_options: timestamps, ..Default::default() }, expected);
    }
}

#[test]
fn requests_count_where_a_segment_begins_with_one() {
    let requests = |tables: &HostTables| tables.counters[0].requests.load(Relaxed);
    let check = |frame: TcpFrame<'_>, expected: bool| {
        let mut tables = alone();
        established(&tables);
        // On the common path, and on the rare one when the flow is seen for the first time in a tick.
        for (seen, later) in [(1, 0), (2, SECOND)] {
            tables.now_ns += later;
            assert_eq!(from_client(&tables, frame).0, Verdict::Redirect(BACKEND_IFINDEX));
            assert_eq!(requests(&tables), if expected { seen } else { 0 }, "{frame:?}");
        }
    };
    for method in ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let payload = [method, " / HTTP/1.1\r\n"].concat();
        check(TcpFrame { payload: payload.as_bytes(), ..Default::default() }, true);
        let timestamps = &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        check(TcpFrame { payload: payload.as_bytes(), tcp_options: timestamps, ..Default::default() }, true);
    }
    for payload in [&b"get / HTTP/1.1"[..], b"GET", b"GETS", b"PUTS", b"HTTP/1.1 200 OK", b"\x16\x03\x01\x02", b""] {
        check(TcpFrame { payload, ..Default::default() }, false);
    }

    let tables = alone();
    established(&tables);
    let mut bytes = TcpFrame::default().bytes();
    bytes.extend(b"GET / HTTP/1.1");
    assert_eq!(host::process(&mut bytes, CLIENT_IFINDEX, &tables), Verdict::Redirect(BACKEND_IFINDEX));
    assert_eq!(requests(&tables), 0, "it is behind the packet");
}

#[test]
fn what_is_behind_the_packet_is_no_response() {
    let tables = alone();
    let request = established(&tables);
    let mut bytes = TcpFrame { payload: b"", ..answer(&request, ACK) }.bytes();
    bytes.extend(b"HTTP/1.1 200 OK");
    assert_eq!(host::process(&mut bytes, BACKEND_IFINDEX, &tables), Verdict::Redirect(CLIENT_IFINDEX));
    assert_eq!(responses(&tables), [0; 5]);
}

#[test]
fn with_direct_return_a_rst_counts_as_soon_as_its_client_has_acknowledged() {
    let mut tables = alone();
    let slot = find_v4(&tables) as usize;
    tables.services[slot].forward = forward::L2;
    for (steps, aborted) in [(&[SYN, RST][..], 0), (&[SYN, ACK, RST], 1), (&[SYN, ACK, FIN | ACK, RST, RST], 1)] {
        for &flags in steps {
            from_client(&tables, TcpFrame { flags, ..Default::default() });
        }
        assert_eq!(troubles(&tables), [0, 0, 0, aborted]);
    }
}
