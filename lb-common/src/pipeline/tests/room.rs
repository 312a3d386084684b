//! Backends that may have only so many flows.

use super::*;
use crate::room::Limits;

fn at_most(most: u32) -> Limits {
    Limits { comfortable: most, most }
}

/// Two backends, 0 and 1, and their backup, 4.
fn limited(limits: &[(u32, Limits)]) -> HostTables {
    let mut tables = world();
    tables.add_backend(4, backend("10.0.0.13:8080", "10.0.0.1"));
    tables.limit(find_v4(&tables), 100, &[0, 1], &[4], limits);
    tables
}

fn client(port: u16, flags: u8) -> TcpFrame<'static> {
    TcpFrame { source: SocketAddr::from(([192, 0, 2, 1], port)), flags, ..Default::default() }
}

/// The last number of the address of the backend that a new flow of a client's port gets; none where it is refused.
fn owner(tables: &HostTables, port: u16) -> Option<u8> {
    match from_client(tables, client(port, SYN)) {
        (Verdict::Redirect(_), bytes) => match ends(&bytes).1.ip() {
            IpAddr::V4(address) => Some(address.octets()[3]),
            IpAddr::V6(_) => None,
        },
        (verdict, _) => {
            assert_eq!(verdict, Verdict::Transmit, "a RST");
            None
        }
    }
}

fn owners(tables: &HostTables, ports: core::ops::Range<u16>) -> Vec<Option<u8>> {
    ports.map(|port| owner(tables, port)).collect()
}

/// Open flows of the backends.
fn loads(tables: &HostTables) -> [i64; 3] {
    [0, 1, 4].map(|index: usize| tables.loads[index].load(Relaxed) as i64)
}

#[test]
fn who_is_full_gets_no_more_then_backups_do_then_nobody() {
    for algorithm in [
        algorithm::ROUND_ROBIN,
        algorithm::MAGLEV,
        algorithm::SOURCE_HASH,
        algorithm::LEAST_CONNECTIONS,
        algorithm::RANDOM_TWO,
    ] {
        let mut tables = limited(&[(0, at_most(2)), (1, at_most(3)), (4, at_most(1))]);
        let slot = find_v4(&tables) as usize;
        tables.services[slot].algorithm = algorithm;
        let mut first = owners(&tables, 40_000..40_005);
        first.sort_unstable();
        assert_eq!(first, [Some(11), Some(11), Some(12), Some(12), Some(12)], "algorithm {algorithm}");
        assert_eq!(owners(&tables, 40_005..40_008), [Some(13), None, None]);
        assert_eq!((loads(&tables), dropped(&tables)), ([2, 3, 1], vec![("backend_full", 2)]));
    }
}

#[test]
fn a_flow_that_ends_makes_room_at_once() {
    let tables = limited(&[(0, at_most(1)), (1, at_most(1)), (4, at_most(1))]);
    assert_eq!(owners(&tables, 40_000..40_004), [Some(11), Some(12), Some(13), None]);
    answers(&tables, &from_client(&tables, client(40_001, ACK)).1);
    from_client(&tables, client(40_001, RST));
    assert_eq!(loads(&tables), [1, 0, 1]);
    assert_eq!(owners(&tables, 40_010..40_012), [Some(12), None]);
}

#[test]
fn beyond_what_is_comfortable_others_come_first_and_backups_too() {
    let limits = Limits { comfortable: 1, most: 2 };
    let tables = limited(&[(0, limits), (1, limits), (4, limits)]);
    let found = owners(&tables, 40_000..40_007);
    assert_eq!(found, [Some(11), Some(12), Some(13), Some(11), Some(12), Some(13), None]);
}

#[test]
fn who_has_no_limit_takes_the_rest() {
    let tables = limited(&[(0, at_most(1))]);
    let found = owners(&tables, 40_000..40_020);
    assert_eq!(found.iter().filter(|owner| **owner == Some(12)).count(), 19);
}

#[test]
fn limits_hold_only_while_somebody_corrects_the_counts() {
    let tables = limited(&[(0, at_most(1)), (1, at_most(1)), (4, at_most(1))]);
    let until = &tables.limits[tables.config.backends as usize];
    until.store(tables.now_ns - 1, Relaxed);
    assert!(owners(&tables, 40_000..40_010).iter().all(|owner| matches!(owner, Some(11 | 12))));
    assert_eq!(loads(&tables), [5, 5, 0], "they are counted all the same");
    until.store(tables.now_ns, Relaxed);
    assert_eq!(owner(&tables, 40_020), Some(13));
}

#[test]
fn a_repeated_syn_takes_its_place_along() {
    let mut tables = limited(&[(0, at_most(1)), (1, at_most(1)), (4, at_most(1))]);
    assert_eq!((owner(&tables, 40_000), loads(&tables)), (Some(11), [1, 0, 0]));
    tables.now_ns += SECOND;
    assert_eq!((owner(&tables, 40_000), loads(&tables)), (Some(12), [0, 1, 0]));
    // Where it was there is the only place for it, and it has that already.
    assert_eq!(owners(&tables, 40_001..40_003), [Some(11), Some(13)]);
    tables.now_ns += SECOND;
    assert_eq!((owner(&tables, 40_000), loads(&tables)), (Some(12), [1, 1, 1]));
    assert_eq!(dropped(&tables), []);
}

#[test]
fn a_place_that_no_flow_came_to_use_is_given_back() {
    let mut tables = limited(&[(0, at_most(9)), (1, at_most(9)), (4, at_most(9))]);
    (tables.config.near_mask, tables.config.flow_sets) = (0, 3);
    for port in 40_000..40_050 {
        if let (Verdict::Redirect(_), request) = from_client(&tables, client(port, SYN)) {
            answers(&tables, &request);
        }
        from_client(&tables, client(port, ACK));
    }
    let before = loads(&tables);
    let (verdict, _) = from_client(&tables, client(50_000, SYN));
    assert_eq!((verdict, loads(&tables)), (Verdict::Drop(DropReason::FlowTableFull), before));
}

#[test]
fn with_direct_return_the_end_of_the_client_is_the_end() {
    let mut tables = limited(&[(0, at_most(1)), (1, at_most(1)), (4, at_most(1))]);
    let slot = find_v4(&tables) as usize;
    tables.services[slot].forward = forward::L2;
    for port in 40_000..40_002 {
        from_client(&tables, client(port, SYN));
        from_client(&tables, client(port, ACK));
    }
    assert_eq!(loads(&tables), [1, 1, 0]);
    from_client(&tables, client(40_000, FIN | ACK));
    assert_eq!(loads(&tables), [0, 1, 0]);
    from_client(&tables, client(40_000, RST));
    assert_eq!(loads(&tables), [0, 1, 0], "it ended before");
}

#[test]
fn a_count_that_was_corrected_below_nothing_is_nothing() {
    let tables = limited(&[(0, at_most(1)), (1, at_most(1)), (4, at_most(1))]);
    tables.loads[0].store(u64::MAX, Relaxed);
    assert_eq!(owners(&tables, 40_000..40_005), [Some(11), Some(12), Some(11), Some(13), None]);
}
