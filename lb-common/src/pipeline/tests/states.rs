//! How far a connection has come, as far as packets tell that anybody may have sent.

use super::{modes::mode, *};

/// The client sends control bits, or the backend does, or a second goes by.
#[derive(Clone, Copy, Debug)]
enum Step {
    Client(u8),
    Backend(u8),
    Later,
}
use Step::{Backend as B, Client as C, Later};

/// A service by a mode whose backends' open flows are counted.
fn counting(of: u8) -> HostTables {
    let mut tables = mode(of, TCP);
    let slot = find_v4(&tables) as usize;
    tables.services[slot].algorithm = algorithm::LEAST_CONNECTIONS;
    tables
}

/// The state of the only flow, and how many are counted as open, after steps of a client's port.
fn after(of: u8, port: u16, steps: &[Step]) -> (State, u64) {
    let mut tables = counting(of);
    let source = SocketAddr::from(([192, 0, 2, 1], port));
    let mut request = Vec::new();
    for &step in steps {
        match step {
            Later => tables.now_ns += SECOND,
            C(flags) => request = from_client(&tables, TcpFrame { source, flags, ..Default::default() }).1,
            B(flags) => drop(send(&tables, BACKEND_IFINDEX, answer(&request, flags))),
        }
    }
    let words = tables.flows.iter().flat_map(|set| &set.ways).map(|slot| FlowWord(slot.word.load(Relaxed)));
    let states: Vec<State> = words.map(FlowWord::state).filter(|state| *state != State::Free).collect();
    let open = tables.loads.iter().map(|load| load.load(Relaxed)).sum();
    assert_eq!(states.len(), 1, "{steps:?}");
    (states[0], open)
}

#[test]
fn with_direct_return_a_flow_is_established_when_its_client_is_seen_again() {
    let check = |steps: &[Step], expected: (State, u64)| {
        assert_eq!(after(forward::L2, 40_000, steps), expected, "{steps:?}");
    };
    check(&[C(SYN)], (State::Opening, 1));
    check(&[C(SYN), C(0)], (State::Opening, 1));
    check(&[C(SYN), C(SYN | FIN | ACK)], (State::Opening, 1));
    check(&[C(SYN), C(ACK)], (State::Tentative, 1));
    check(&[C(SYN), C(ACK), C(ACK)], (State::Tentative, 1));
    check(&[C(SYN), C(ACK), Later, C(SYN)], (State::Tentative, 1));
    check(&[C(SYN), C(ACK), Later, C(ACK)], (State::Established, 1));
    check(&[C(SYN), C(ACK), Later, C(FIN | ACK)], (State::ClientClosed, 0));
    check(&[C(SYN), C(FIN | ACK)], (State::TentativeClosed, 0));
    check(&[C(SYN), C(ACK), C(FIN | ACK), C(ACK)], (State::TentativeClosed, 0));
    check(&[C(SYN), C(ACK), C(FIN | ACK), Later, C(ACK)], (State::ClientClosed, 0));
}

#[test]
fn with_nat_nobody_but_the_backend_opens_a_flow() {
    for of in [forward::NAT, forward::DNAT] {
        let check = |steps: &[Step], expected: (State, u64)| {
            assert_eq!(after(of, 40_000, steps), expected, "{of} {steps:?}");
        };
        for flags in [ACK, FIN | ACK, FIN, RST, SYN | FIN] {
            check(&[C(SYN), C(flags), C(ACK), Later, C(ACK)], (State::Opening, 1));
        }
        check(&[C(SYN), B(SYN | ACK)], (State::Answered, 1));
        // Neither says that the client has seen the answer: a backend acknowledges what it does not take as well.
        for step in [C(0), C(FIN), C(FIN | ACK), B(ACK)] {
            check(&[C(SYN), B(SYN | ACK), step], (State::Answered, 1));
        }
        check(&[C(SYN), B(SYN | ACK), C(ACK)], (State::Established, 1));
        check(&[C(SYN), B(SYN | ACK), C(ACK), B(RST)], (State::Closed, 0));
        // A challenge.
        check(&[C(SYN), B(ACK)], (State::Established, 1));
    }
}

#[test]
fn who_has_not_seen_the_answer_opens_nothing() {
    let state = |tables: &HostTables| {
        let words = tables.flows.iter().flat_map(|set| &set.ways).map(|slot| FlowWord(slot.word.load(Relaxed)));
        words.map(FlowWord::state).find(|state| *state != State::Free).unwrap()
    };
    let answers = |tables: &HostTables, request: &[u8], sequence| {
        let frame = TcpFrame { sequence, ..answer(request, SYN | ACK) };
        assert_eq!(send(tables, BACKEND_IFINDEX, frame).0, Verdict::Redirect(CLIENT_IFINDEX));
    };
    for of in [forward::NAT, forward::DNAT] {
        let mut tables = counting(of);
        let check = |tables: &HostTables, flags, acknowledges, expected| {
            from_client(tables, TcpFrame { flags, acknowledges, ..Default::default() });
            assert_eq!(state(tables), expected, "{of} {flags} {acknowledges}");
        };
        let request = opens(&tables, 40_000);
        answers(&tables, &request, 49_999);
        for (flags, acknowledges) in [(ACK, 50_000 - 32_769), (ACK, 50_000 + 32_768), (FIN | ACK, 7), (ACK, 0)] {
            check(&tables, flags, acknowledges, State::Answered);
        }
        // To a SYN that came again: another cookie.
        tables.now_ns += SECOND;
        answers(&tables, &request, 99_999);
        check(&tables, ACK, 50_000, State::Answered);
        check(&tables, ACK, 100_000, State::Established);
        // Nothing of that is asked for any more.
        check(&tables, FIN | ACK, 9, State::ClientClosed);
        // Nor does it help to begin with a RST.
        let mut tables = counting(of);
        let request = opens(&tables, 40_000);
        answers(&tables, &request, 1000);
        check(&tables, RST, 0, State::Reset);
        check(&tables, ACK, 50_000, State::Reset);
        check(&tables, ACK, 1001, State::Established);
        tables.now_ns += SECOND;
        check(&tables, RST, 0, State::Reset);
        check(&tables, ACK, 7, State::Established);
        // Nor where there was no answer: the backend knew a connection of these ports, and challenged the SYN.
        let mut tables = counting(of);
        tables.now_ns += SECOND;
        let request = opens(&tables, 40_000);
        send(&tables, BACKEND_IFINDEX, answer(&request, ACK));
        check(&tables, RST, 0, State::Reset);
        check(&tables, ACK, 7, State::Established);
    }
}

#[test]
fn a_client_of_port_0_is_believed_less() {
    let check = |steps: &[Step], expected| assert_eq!(after(forward::DNAT, 0, steps), (expected, 1), "{steps:?}");
    check(&[C(SYN), C(ACK)], State::Tentative);
    check(&[C(SYN), C(ACK), B(FIN | ACK)], State::BackendClosed);
    check(&[C(SYN), C(FIN | ACK)], State::TentativeClosed);
    check(&[C(SYN), B(SYN | ACK), C(ACK)], State::Established);
    assert_eq!(after(forward::DNAT, 0, &[C(SYN), C(FIN | ACK), B(FIN | ACK)]), (State::Closed, 0));
}

#[test]
fn a_tentative_flow_may_be_idle_for_as_long_as_an_established_one() {
    for (flags, lives, gone) in [(ACK, 7100, 7300), (FIN | ACK, 110, 130)] {
        for (idle, expected) in [(lives, Verdict::Redirect(BACKEND_IFINDEX)), (gone, Verdict::Transmit)] {
            let mut tables = mode(forward::L2, TCP);
            opens(&tables, 40_000);
            from_client(&tables, TcpFrame { flags, ..Default::default() });
            tables.now_ns += idle * SECOND;
            assert_eq!(from_client(&tables, TcpFrame::default()).0, expected, "{flags} {idle}");
        }
    }
}

#[test]
fn a_rst_of_the_client_is_taken_back_by_what_it_sends_next() {
    let check = |of: u8, more: &[Step], expected: (State, u64)| {
        let answer: &[Step] = if of == forward::NAT { &[B(SYN | ACK)] } else { &[] };
        let steps = [&[C(SYN)], answer, &[C(ACK), C(RST)], more].concat();
        assert_eq!(after(of, 40_000, &steps), expected, "{of} {steps:?}");
    };
    for of in [forward::NAT, forward::L2] {
        for more in [&[][..], &[C(RST)], &[C(0)], &[C(SYN | ACK)]] {
            check(of, more, (State::Reset, 0));
        }
        check(of, &[C(ACK), C(RST)], (State::Reset, 0));
        check(of, &[C(SYN)], (State::Opening, 1));
    }
    check(forward::NAT, &[C(ACK)], (State::Established, 1));
    check(forward::NAT, &[C(FIN | ACK)], (State::ClientClosed, 1));
    // What was under way when the backend heard of it.
    check(forward::NAT, &[B(ACK)], (State::Reset, 0));
    check(forward::NAT, &[B(RST)], (State::Closed, 0));
    check(forward::NAT, &[B(RST), C(ACK)], (State::Closed, 0));
    check(forward::L2, &[C(ACK)], (State::Tentative, 1));
    check(forward::L2, &[C(FIN | ACK)], (State::TentativeClosed, 0));
}

#[test]
fn what_a_client_has_reset_keeps_its_place_while_there_are_others() {
    let mut tables = mode(forward::L2, TCP);
    (tables.config.near_mask, tables.config.flow_sets) = (0, 3);
    opens(&tables, 40_000);
    for flags in [ACK, RST] {
        from_client(&tables, TcpFrame { flags, ..Default::default() });
    }
    tables.now_ns += 3 * SECOND;
    for port in 41_000..41_011 {
        opens(&tables, port);
    }
    assert_eq!(from_client(&tables, TcpFrame::default()).0, Verdict::Redirect(BACKEND_IFINDEX));
    from_client(&tables, TcpFrame { flags: RST, ..Default::default() });
    for port in 42_000..42_005 {
        opens(&tables, port);
    }
    assert_eq!(from_client(&tables, TcpFrame::default()).0, Verdict::Transmit, "a RST: it has given way");
}

#[test]
fn a_client_that_has_reset_a_connection_comes_again_by_its_port() {
    let mut tables = world();
    tables.set_ring(find_v4(&tables), 0, &[0]);
    let first = establishes(&tables, 40_000);
    from_client(&tables, TcpFrame { flags: RST, ..Default::default() });
    assert_eq!(ends(&first), ends(&opens(&tables, 40_000)), "the same towards the backend as well");

    let mut tables = mode(forward::DNAT, TCP);
    let other = Service { forward: forward::DNAT, ..service("203.0.113.10:81", algorithm::ROUND_ROBIN) };
    let other = tables.add_service(other);
    tables.set_ring(other, 0, &[0]);
    let slot = find_v4(&tables);
    tables.set_ring(slot, 2, &[0]);
    establishes(&tables, 40_000);
    let to_other = TcpFrame { destination: socket("203.0.113.10:81"), flags: SYN, ..Default::default() };
    assert_eq!(from_client(&tables, to_other).0, Verdict::Drop(DropReason::NatPortsExhausted));
    from_client(&tables, TcpFrame { flags: RST, ..Default::default() });
    assert_eq!(from_client(&tables, to_other).0, Verdict::Redirect(BACKEND_IFINDEX));
}

#[test]
fn a_syn_that_the_network_doubles_is_one() {
    for of in [forward::NAT, forward::DNAT, forward::L2] {
        let mut tables = mode(of, TCP);
        let (first, second) = (opens(&tables, 40_000), opens(&tables, 40_000));
        assert_eq!(first, second, "{of}");
        let counted = |tables: &HostTables| {
            let counters = &tables.counters[..2];
            let sum = |of: fn(&crate::layout::BackendCounters) -> u64| counters.iter().map(of).sum::<u64>();
            [sum(|of| of.connections.load(Relaxed)), sum(|of| of.repeated.load(Relaxed))]
        };
        assert_eq!(counted(&tables), [1, 0], "{of}");
        tables.now_ns += SECOND;
        opens(&tables, 40_000);
        assert_eq!(counted(&tables), [2, 1], "{of}");
    }
}

/// Which backend a client's segment goes to.
fn server_of(tables: &HostTables, port: u16, flags: u8) -> usize {
    let packets = || [0, 1].map(|index| tables.counters[index].packets_in.load(Relaxed));
    let before = packets();
    let source = SocketAddr::from(([192, 0, 2, 1], port));
    let verdict = from_client(tables, TcpFrame { source, flags, ..Default::default() }).0;
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    let after = packets();
    (0..2).find(|index| after[*index] != before[*index]).unwrap()
}

#[test]
fn with_direct_return_a_syn_stays_with_a_backend_that_others_have_heard_since() {
    let hear = |tables: &HostTables, ports: core::ops::Range<u16>| {
        ports.for_each(|port| assert_eq!(server_of(tables, port, SYN), server_of(tables, port, ACK)));
    };
    let opens = |tables: &HostTables| server_of(tables, 40_000, SYN);
    let repeated = |tables: &HostTables| tables.counters.iter().map(|of| of.repeated.load(Relaxed)).sum::<u64>();
    // What others did before the client's SYN, and in the tick of it, says nothing of what became of that.
    let mut tables = mode(forward::L2, TCP);
    hear(&tables, 50_000..50_002);
    let first = opens(&tables);
    hear(&tables, 51_000..51_002);
    tables.now_ns += SECOND;
    assert_ne!(opens(&tables), first);
    assert_eq!(repeated(&tables), 1);

    let mut tables = mode(forward::L2, TCP);
    let first = opens(&tables);
    tables.now_ns += SECOND;
    hear(&tables, 52_000..52_002);
    for _ in 0..2 {
        assert_eq!(opens(&tables), first, "once by the client, and once more by the network");
    }
    // That is enough of patience. It is not the fault of a backend that is heard.
    tables.now_ns += 2 * SECOND;
    hear(&tables, 53_000..53_002);
    assert_ne!(opens(&tables), first);
    assert_eq!(repeated(&tables), 0);
    tables.now_ns += 4 * SECOND;
    assert_eq!(opens(&tables), first);
    assert_eq!(repeated(&tables), 1, "nothing was heard of the other since");

    let steps = |steps: &[Step]| after(forward::L2, 40_000, steps);
    assert_eq!(steps(&[C(SYN), Later, C(SYN)]), (State::Opening, 1), "another flow");
}

#[test]
fn with_direct_return_a_syn_that_was_repeated_is_answered_like_another() {
    let repeated = FlowWord::new(7, Be16::from_raw(0), State::Opening, Ticks::of(1));
    let repeated = repeated.after_client(Flags(SYN), Ticks::of(3));
    assert_eq!(repeated.state(), State::Repeated);
    for (flags, expected) in [
        (SYN, State::Repeated),
        (ACK, State::Tentative),
        (FIN | ACK, State::TentativeClosed),
        (RST, State::Reset),
        (0, State::Repeated),
    ] {
        assert_eq!(repeated.after_client(Flags(flags), Ticks::of(3)).state(), expected, "{flags}");
    }
}

#[test]
fn with_nat_a_backend_answers_for_itself() {
    let mut tables = mode(forward::NAT, TCP);
    let first = server_of(&tables, 40_000, SYN);
    tables.now_ns += SECOND;
    for port in 50_000..50_004 {
        establishes(&tables, port);
    }
    assert_ne!(server_of(&tables, 40_000, SYN), first);
}

#[test]
fn a_rst_and_then_a_syn_do_not_move_a_connection() {
    for of in [forward::NAT, forward::DNAT, forward::L2] {
        let established = |tables: &HostTables| {
            let request = opens(tables, 40_000);
            if of != forward::L2 {
                answers(tables, &request);
            }
            let server = server_of(tables, 40_000, ACK);
            assert_eq!(server_of(tables, 40_000, RST), server);
            server
        };
        for (later, stays) in [(0, true), (SECOND / 4, true), (2 * SECOND, false)] {
            let mut tables = mode(of, TCP);
            let server = established(&tables);
            tables.now_ns += later;
            let again = opens(&tables, 40_000);
            if of != forward::L2 {
                // It knows the connection, and challenges the SYN.
                let verdict = send(&tables, BACKEND_IFINDEX, answer(&again, ACK)).0;
                assert_eq!(verdict, Verdict::Redirect(CLIENT_IFINDEX), "{of}");
            }
            assert_eq!(server_of(&tables, 40_000, ACK) == server, stays, "{of} {later}");
        }
        let mut tables = mode(of, TCP);
        let server = established(&tables);
        tables.backends[server].flags &= !backend_flags::IN_ROTATION;
        let other = u32::from(server == 0);
        tables.set_ring(find_v4(&tables), 2, &[other, other]);
        assert_ne!(server_of(&tables, 40_000, SYN), server, "{of}: it takes no new flows");
    }
}

#[test]
fn a_tentative_flow_is_on_the_common_path_within_a_tick_and_safe_from_syns() {
    let mut tables = mode(forward::L2, TCP);
    (tables.config.near_mask, tables.config.flow_sets) = (3, 16);
    let idle = 40_000..40_020;
    let goes_on = |tables: &HostTables, port: u16| {
        let source = SocketAddr::from(([192, 0, 2, 1], port));
        from_client(tables, TcpFrame { source, ..Default::default() }).0
    };
    for port in idle.clone() {
        opens(&tables, port);
        goes_on(&tables, port);
    }
    let mut bytes = TcpFrame::default().bytes();
    let verdict = process(&mut host::Frame::new(&mut bytes, CLIENT_IFINDEX), &tables);
    assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX));
    tables.now_ns += 60 * SECOND;
    for n in 0..1_000u16 {
        let source = SocketAddr::from(([198, 51, 100, (n % 250) as u8], 1024 + n));
        from_client(&tables, TcpFrame { source, flags: SYN, ..Default::default() });
    }
    idle.for_each(|port| assert_eq!(goes_on(&tables, port), Verdict::Redirect(BACKEND_IFINDEX), "port {port}"));
}

/// A mode, an algorithm, and what each of the clients that there are not sends.
const FLOODS: [(u8, u8, &[u8]); 10] = [
    (forward::L2, algorithm::MAGLEV, &[ACK]),
    (forward::IPIP, algorithm::SOURCE_HASH, &[ACK]),
    (forward::GUE, algorithm::MAGLEV, &[FIN | ACK, ACK]),
    (forward::L2, algorithm::ROUND_ROBIN, &[SYN, ACK]),
    (forward::IPIP, algorithm::LEAST_CONNECTIONS, &[SYN, FIN | ACK]),
    (forward::L2, algorithm::ROUND_ROBIN, &[SYN, RST, ACK]),
    (forward::NAT, algorithm::ROUND_ROBIN, &[SYN, ACK]),
    (forward::NAT, algorithm::MAGLEV, &[SYN, FIN | ACK]),
    (forward::NAT, algorithm::ROUND_ROBIN, &[SYN, RST, ACK]),
    (forward::DNAT, algorithm::ROUND_ROBIN, &[SYN, ACK]),
];

#[test]
fn a_flood_of_those_who_pretend_to_have_connections_pushes_out_none_and_keeps_nobody_out() {
    for (of, algorithm, flood) in FLOODS {
        let mut tables = mode(of, TCP);
        let slot = find_v4(&tables) as usize;
        (tables.config.near_mask, tables.config.flow_sets) = (3, 16);
        tables.services[slot].algorithm = algorithm;
        let client = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let goes_on = |tables: &HostTables, port: u16| {
            let (verdict, bytes) = from_client(tables, TcpFrame { source: client(port), ..Default::default() });
            assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX), "{of} {algorithm} {flood:?}, port {port}");
            bytes
        };
        let begins = |tables: &HostTables, port: u16| {
            let request = opens(tables, port);
            if matches!(of, forward::NAT | forward::DNAT) {
                answers(tables, &request);
            }
            goes_on(tables, port);
        };
        let established = 40_000..40_020;
        established.clone().for_each(|port| begins(&tables, port));
        tables.now_ns += SECOND;
        let before: Vec<_> = established.clone().map(|port| goes_on(&tables, port)).collect();
        for n in 0..1_000u16 {
            let source = SocketAddr::from(([198, 51, 100, (n % 250) as u8], 1024 + n));
            for &flags in flood {
                from_client(&tables, TcpFrame { source, flags, ..Default::default() });
            }
        }
        established.zip(&before).for_each(|(port, before)| assert_eq!(&goes_on(&tables, port), before));
        (50_000..50_012).for_each(|port| begins(&tables, port));
    }
}
