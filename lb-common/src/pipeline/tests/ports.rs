//! Source ports that come round again while backends remember their last connection.

use core::net::Ipv4Addr;
use std::collections::HashMap;

use super::*;
use crate::time_wait::Mark;

const MILLISECOND: u64 = 1_000_000;

/// A client's port, with clocks of its own (RFC 6528, RFC 7323 section 5.4).
struct Client {
    source: SocketAddr,
    sequence: u32,
    timestamp: u32,
}

impl Client {
    fn new(number: u64) -> Self {
        let hash = |salt: u64| (number * 8 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let address = Ipv4Addr::from(0xc000_0200 + (hash(1) as u32 & 0x3f));
        let source = SocketAddr::from((address, 32_768 + (hash(2) as u16 & 0x3fff)));
        // What the two clocks begin with follows from nothing but whose they are.
        let own = u64::from(source.port()) << 32 | u64::from(address.to_bits());
        let start = own.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self { source, sequence: (start >> 32) as u32, timestamp: start as u32 }
    }

    fn sends(&self, tables: &HostTables, flags: u8) -> (Vec<u8>, Mark) {
        let sequence = self.sequence.wrapping_add((tables.now_ns / 64) as u32);
        let timestamp = self.timestamp.wrapping_add((tables.now_ns / MILLISECOND) as u32);
        let mut options = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        options[4..8].copy_from_slice(&timestamp.to_be_bytes());
        let frame = TcpFrame { source: self.source, flags, sequence, tcp_options: &options, ..Default::default() };
        let (verdict, bytes) = from_client(tables, frame);
        assert_eq!(verdict, Verdict::Redirect(BACKEND_IFINDEX), "{flags}: {:?}", dropped(tables));
        let sequence = sequence.wrapping_add(u32::from(flags & FIN != 0));
        (bytes, Mark(u64::from(timestamp) << 32 | u64::from(sequence)))
    }
}

/// What backends remember, and when it was.
type TimeWait = HashMap<(SocketAddr, SocketAddr), (Mark, u64)>;

/// A connection that the backend closes first. False where the backend does not take its SYN.
fn connects(tables: &mut HostTables, time_wait: &mut TimeWait, client: &Client) -> bool {
    let (request, syn) = client.sends(tables, SYN);
    if let Some((left, at)) = time_wait.get(&ends(&request))
        && tables.now_ns - at < 60 * SECOND
        && !left.admits(syn)
    {
        return false;
    }
    let replies = |tables: &HostTables, flags| send(tables, BACKEND_IFINDEX, answer(&request, flags)).0;
    assert_eq!(replies(tables, SYN | ACK), Verdict::Redirect(CLIENT_IFINDEX));
    client.sends(tables, ACK);
    assert_eq!(replies(tables, FIN | ACK), Verdict::Redirect(CLIENT_IFINDEX));
    let (_, left) = client.sends(tables, FIN | ACK);
    time_wait.insert(ends(&request), (left, tables.now_ns));
    true
}

#[test]
fn a_port_goes_to_a_client_whose_syn_the_backend_will_take() {
    let mut tables = world();
    let mut time_wait = TimeWait::new();
    let refused = (0..20_000)
        .filter(|&number| {
            tables.now_ns += 10 * MILLISECOND;
            !connects(&mut tables, &mut time_wait, &Client::new(number))
        })
        .count();
    // A hundred a second, by twice 512 ports, each of which is remembered for a minute.
    assert_eq!((refused, dropped(&tables)), (0, vec![]));
}

#[test]
fn a_client_that_comes_again_by_its_own_port_gets_the_same_port() {
    let mut tables = world();
    let client = Client::new(1);
    let mut ports: Vec<_> = (0..20)
        .map(|_| {
            tables.now_ns += MILLISECOND;
            let (request, _) = client.sends(&tables, SYN);
            answers(&tables, &request);
            client.sends(&tables, RST | ACK);
            ends(&request).0
        })
        .collect();
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 1, "{ports:?}");
}

#[test]
fn a_closed_flows_port_is_left_alone_while_others_are_free() {
    let mut tables = world();
    let mut open = |number| {
        tables.now_ns += MILLISECOND;
        let client = Client::new(number);
        let (request, _) = client.sends(&tables, SYN);
        answers(&tables, &request);
        send(&tables, BACKEND_IFINDEX, answer(&request, RST | ACK));
        (client.source, ends(&request))
    };
    let mut taken = HashMap::new();
    for number in 0..200 {
        let (client, ends) = open(number);
        if let Some(other) = taken.insert(ends, client) {
            assert_eq!(client, other, "{ends:?}");
        }
    }
}
