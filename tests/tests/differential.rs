//! The host build of the pipeline and the program in the kernel agree: same verdict, same bytes, same tables after.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering::Relaxed,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Layout, test};
use lb_common::{
    flow::{FlowWord, State, TICK_SHIFT},
    host::{self, ACK, FIN, HostTables, RST, SYN, TcpFrame},
    verdict::{DropReason, Verdict},
};
use lb_userspace::{
    dataplane::{Action, Dataplane, DryRun, Options, XdpMode},
    interface,
    plan::{Algorithm, BackendPlan, Forward, NextHop, Plan, Protocol, ServicePlan},
};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Frames sent both ways.
const FRAMES: usize = 200_000;

/// Frames of each kind of verdict that must have been among them.
const ENOUGH: usize = 1_000;

#[test]
fn the_kernel_does_what_the_host_does() {
    test(&Layout::default(), |lab| {
        let seed =
            std::env::var("LB_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
        lab.front().enter(|| compare(lab, seed)).with_context(|| format!("to repeat this, set LB_SEED={seed}"))
    });
}

fn compare(lab: &Lab, seed: u64) -> Result<()> {
    // The program counts by CPU, and the host tables are those of one.
    let mut cpu = CpuSet::new();
    cpu.set(0);
    sched_setaffinity(None, &cpu)?;

    let ifindexes = ["eth0", "eth1"].map(|name| interface::index(name).expect("the lab has it"));
    let mut dataplane = Dataplane::open(&Options {
        interfaces: vec!["eth0".into(), "eth1".into()],
        xdp_mode: XdpMode::Native,
        pin_dir: lab.pin_dir(),
        flows: 1024,
        services: 32,
        backends: 100,
        veth: false,
    })?;
    dataplane.apply(&plan(ifindexes))?;
    dataplane.attach()?;
    let mut host = dataplane.host_tables(0);

    let mut source = Source { random: fastrand::Rng::with_seed(seed), sent: Vec::new() };
    let mut seen = Seen::default();
    for number in 0..FRAMES {
        let bytes = source.frame();
        let ingress_ifindex = ifindexes[usize::from(source.random.bool())];
        host.now_ns = away_from_a_tick();
        let mut on_host = bytes.clone();
        let verdict = host::process(&mut on_host, ingress_ifindex, &host);
        host.apply_learnt();
        let in_kernel = dataplane.dry_run(&bytes, ingress_ifindex)?;
        if ticks(monotonic_ns()) != ticks(host.now_ns) {
            // Held up between the two for so long that they may have seen different times.
            host = dataplane.host_tables(0);
            continue;
        }
        seen.count(verdict);
        ensure!(
            in_kernel == DryRun { action: action(verdict), frame: on_host.clone() },
            "frame {number} ({bytes:02x?}): {verdict:?}, {on_host:02x?} on the host; {in_kernel:02x?} in the kernel"
        );
        if matches!(verdict, Verdict::Transmit | Verdict::Redirect(_)) {
            source.remember(&on_host);
        }
    }
    seen.check()?;
    same_tables(&host, &dataplane.host_tables(0))
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn ticks(ns: u64) -> u64 {
    ns >> TICK_SHIFT
}

/// The time, at a moment when it is not about to change for flows and has not just done so: both sides are to see the same.
fn away_from_a_tick() -> u64 {
    const MARGIN_NS: u64 = 20_000_000;
    loop {
        let now = monotonic_ns();
        if ticks(now - MARGIN_NS) == ticks(now + MARGIN_NS) {
            return now;
        }
    }
}

fn action(verdict: Verdict) -> Action {
    match verdict {
        Verdict::Pass | Verdict::Rare => Action::Pass,
        Verdict::Transmit => Action::Transmit,
        Verdict::Redirect(_) => Action::Redirect,
        Verdict::Drop(_) => Action::Drop,
    }
}

/// How often each verdict came up: a generator that only makes frames to pass would find nothing.
#[derive(Default)]
struct Seen {
    passed: usize,
    transmitted: usize,
    redirected: usize,
    dropped: [usize; DropReason::ALL.len()],
}

impl Seen {
    fn count(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Pass | Verdict::Rare => &mut self.passed,
            Verdict::Transmit => &mut self.transmitted,
            Verdict::Redirect(_) => &mut self.redirected,
            Verdict::Drop(reason) => &mut self.dropped[reason as usize],
        } += 1;
    }

    fn check(&self) -> Result<()> {
        for (what, count) in [("passed", self.passed), ("sent back", self.transmitted), ("redirected", self.redirected)]
        {
            ensure!(count >= ENOUGH, "only {count} frames were {what}");
        }
        use DropReason::{BackendFull, Fragment, HopLimit, Refused};
        for reason in [BackendFull, Fragment, HopLimit, Refused] {
            let count = self.dropped[reason as usize];
            ensure!(count >= ENOUGH / 10, "only {count} frames were dropped for {}", reason.name());
        }
        ensure!(self.dropped[DropReason::Internal as usize] == 0, "frames were dropped that should not be");
        Ok(())
    }
}

/// The tables, but for the times in flow words: the two sides read the clock one after the other.
fn same_tables(host: &HostTables, kernel: &HostTables) -> Result<()> {
    let timeless = |word: u64| {
        let word = FlowWord(word);
        (word.backend(), word.port(), word.state())
    };
    for (index, (host, kernel)) in host.flows.iter().zip(&kernel.flows).enumerate() {
        for (host, kernel) in host.ways.iter().zip(&kernel.ways) {
            ensure!(
                host.tag.load(Relaxed) == kernel.tag.load(Relaxed)
                    && timeless(host.word.load(Relaxed)) == timeless(kernel.word.load(Relaxed)),
                "flow set {index}: {host:x?} on the host, {kernel:x?} in the kernel"
            );
        }
    }
    for (index, (host, kernel)) in host.nat.iter().zip(&kernel.nat).enumerate() {
        let words = |slot: &lb_common::layout::NatSlot| {
            [&slot.client[0], &slot.client[1], &slot.port_service, &slot.path[0], &slot.path[1]]
                .map(|word| word.load(Relaxed))
        };
        ensure!(
            words(host) == words(kernel) && timeless(host.word.load(Relaxed)) == timeless(kernel.word.load(Relaxed)),
            "NAT slot {index}: {host:x?} on the host, {kernel:x?} in the kernel"
        );
    }
    for (index, (host, kernel)) in host.fragments.iter().zip(&kernel.fragments).enumerate() {
        ensure!(host.tag.load(Relaxed) == kernel.tag.load(Relaxed), "fragment slot {index}: {host:x?}, {kernel:x?}");
    }
    for (index, (host, kernel)) in host.loads.iter().zip(&kernel.loads).enumerate() {
        ensure!(host.load(Relaxed) == kernel.load(Relaxed), "load of backend {index}: {host:?}, {kernel:?}");
    }
    for (index, (host, kernel)) in host.counters.iter().zip(&kernel.counters).enumerate() {
        let words = |counters: &lb_common::layout::BackendCounters| {
            let lb_common::layout::BackendCounters { packets_in, bytes_in, packets_out, bytes_out, .. } = counters;
            let lb_common::layout::BackendCounters { connections, repeated, refused, reset, aborted, .. } = counters;
            let words = [packets_in, bytes_in, packets_out, bytes_out, connections, repeated, refused, reset, aborted];
            // How long a handshake took depends on the clock.
            let answered = counters.handshakes.iter().map(|word| word.load(Relaxed)).sum();
            let responses = counters.responses.iter().map(|word| word.load(Relaxed));
            words.map(|word| word.load(Relaxed)).into_iter().chain(responses).chain([answered]).collect::<Vec<u64>>()
        };
        ensure!(words(host) == words(kernel), "backend {index}: {host:?} on the host, {kernel:?} in the kernel");
    }
    let seen = |what: fn(&lb_common::layout::BackendCounters) -> u64| host.counters.iter().map(what).sum::<u64>();
    for (what, count) in [
        ("SYNs came again", seen(|counters| counters.repeated.load(Relaxed))),
        ("SYNs were refused", seen(|counters| counters.refused.load(Relaxed))),
        ("flows were reset", seen(|counters| counters.reset.load(Relaxed))),
        ("flows were aborted", seen(|counters| counters.aborted.load(Relaxed))),
        ("SYNs were answered", seen(|counters| counters.handshakes.iter().map(|word| word.load(Relaxed)).sum())),
        ("responses were errors", seen(|counters| counters.responses[4].load(Relaxed))),
    ] {
        ensure!(count > 10, "only {count} {what}");
    }
    let states = |tables: &HostTables| {
        tables.nat.iter().filter(|slot| FlowWord(slot.word.load(Relaxed)).state() != State::Free).count()
    };
    ensure!(states(host) > 100, "only {} flows were made", states(host));
    Ok(())
}

/// Services of both families, every forwarding mode, and every algorithm that leaves nothing to chance; one without backends.
fn plan([client_side, backend_side]: [u32; 2]) -> Plan {
    let backend = |family: u8, host: u8, port: u16| BackendPlan {
        name: format!("v{family}-{host}"),
        address: if family == 4 {
            SocketAddr::from(([10, 0, 0, host], port))
        } else {
            SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host.into()], port))
        },
        weight: u16::from(host % 3 + 1),
        in_rotation: !host.is_multiple_of(5),
        healthy: true,
        stands_by: host.is_multiple_of(5),
        max_connections: (host % 10 < 5).then_some(12),
        comfortable_connections: (host % 10 == 3).then_some(4),
        next_hop: Some(NextHop {
            ifindex: if host.is_multiple_of(4) { client_side } else { backend_side },
            source: if family == 4 { [10, 0, 0, 1].into() } else { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]) },
            source_mac: [2, 0, 0, 0, 1, 0],
            mac: [2, 0, 0, 0, 1, host],
            mtu: if host.is_multiple_of(5) { 600 } else { 1500 },
        }),
    };
    let mut host = 1;
    let mut service = |listen: &str, protocol, algorithm, forward: Forward, family: u8| {
        let listen: SocketAddr = listen.parse().expect("an address");
        let port = if forward.sees_replies() { 8080 } else { listen.port() };
        host += 5;
        ServicePlan {
            name: format!("{listen}-{protocol:?}"),
            listen,
            protocol,
            algorithm,
            forward,
            backends: (host..host + 4).map(|host| backend(family, host, port)).collect(),
        }
    };
    use Algorithm::{LeastConnections, Maglev, RoundRobin, SourceHash};
    use Protocol::{Tcp, Udp};
    let empty = ServicePlan { backends: vec![], ..service("203.0.113.11:80", Tcp, RoundRobin, Forward::Nat, 4) };
    [
        empty,
        service("203.0.113.10:80", Tcp, RoundRobin, Forward::Nat, 4),
        service("203.0.113.10:81", Tcp, LeastConnections, Forward::Nat, 4),
        service("203.0.113.10:53", Udp, SourceHash, Forward::Nat, 4),
        service("203.0.113.10:82", Tcp, Maglev, Forward::Dnat, 4),
        service("203.0.113.10:54", Udp, RoundRobin, Forward::Dnat, 4),
        service("203.0.113.10:83", Tcp, Maglev, Forward::L2, 4),
        service("203.0.113.10:84", Tcp, RoundRobin, Forward::Ipip, 4),
        service("203.0.113.10:85", Tcp, SourceHash, Forward::Gue, 4),
        service("203.0.113.10:86", Tcp, RoundRobin, Forward::Ipip, 6),
        service("203.0.113.10:55", Udp, RoundRobin, Forward::Gue, 6),
        service("[2001:db8:f::10]:80", Tcp, RoundRobin, Forward::Nat, 6),
        service("[2001:db8:f::10]:81", Tcp, Maglev, Forward::Nat, 6),
        service("[2001:db8:f::10]:53", Udp, RoundRobin, Forward::Nat, 6),
        service("[2001:db8:f::10]:82", Tcp, RoundRobin, Forward::Dnat, 6),
        service("[2001:db8:f::10]:83", Tcp, RoundRobin, Forward::L2, 6),
        service("[2001:db8:f::10]:84", Tcp, Maglev, Forward::Ipip, 6),
        service("[2001:db8:f::10]:85", Tcp, RoundRobin, Forward::Gue, 4),
    ]
    .into_iter()
    .collect()
}

/// Ports at the virtual addresses where there is a service of either protocol; and one where there is none.
const PORTS: [u16; 11] = [80, 81, 82, 83, 84, 85, 86, 53, 54, 55, 22];

/// Frames: new flows, old flows, replies, strangers, fragments, errors; whole, tagged, cut short, and with bytes changed.
struct Source {
    random: fastrand::Rng,
    /// Frames that were forwarded: as they left, without tags.
    sent: Vec<Vec<u8>>,
}

impl Source {
    fn frame(&mut self) -> Vec<u8> {
        let mut bytes = match self.random.u8(..) {
            0..12 => self.echo(),
            12..40 => self.error(),
            _ => self.datagram(),
        };
        let random = &mut self.random;
        if bytes[12..14] == [0x86, 0xdd] && random.u8(..) < 24 {
            extend(&mut bytes, random);
        }
        match random.u8(..) {
            0..16 => bytes.truncate(random.usize(14..bytes.len())),
            16..24 => {
                for _ in 0..random.u8(1..4) {
                    let at = random.usize(..bytes.len());
                    bytes[at] ^= 1 << random.u8(..8);
                }
            }
            24..36 => drop(bytes.splice(12..12, [0x81, 0x00, 0x00, 0x2a])),
            36..42 => drop(bytes.splice(12..12, [0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x20, 0x2a])),
            42..46 => bytes[12..14].copy_from_slice(&random.u16(..).to_be_bytes()),
            _ => {}
        }
        bytes
    }

    /// TCP or UDP, perhaps a fragment.
    fn datagram(&mut self) -> Vec<u8> {
        let (source, destination) = self.ends();
        let random = &mut self.random;
        let kinds = [SYN, SYN, SYN, ACK, ACK, ACK, ACK, SYN | ACK, FIN | ACK, RST, RST | ACK, 0, 0xff];
        let flags = kinds[random.usize(..kinds.len())];
        let hop_limit = if random.u8(..) < 8 { random.u8(0..3) } else { 64 };
        let options = vec![1; if random.u8(..) < 16 { usize::from(random.u8(1..=10)) * 4 } else { 0 }];
        let fragment = match random.u8(..) {
            0..10 => 0x2000,
            10..24 => 0x2000 | random.u16(..32),
            24..60 => 0x4000,
            _ => 0,
        };
        let protocol = match random.u8(..) {
            0..8 => random.u8(..),
            8..80 => 17,
            _ => 6,
        };
        let tcp_options: &[u8] = match random.u8(..4) {
            0 => &[2, 4, 0x05, 0xb4],
            1 => &[1, 2, 4, 0x23, 0x28, 1, 1, 0],
            2 => &[8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 2, 4, 0x05, 0xb4, 1, 0],
            _ => &[],
        };
        let mut payload = vec![0; if random.u8(..) < 40 { random.usize(500..1_400) } else { random.usize(..64) }];
        random.fill(&mut payload);
        if random.u8(..) < 100 {
            let line = [&b"HTTP/1.1 200 OK"[..], b"HTTP/1.0 503 Service Unavailable", b"HTTP/1.1 0", b"HTTP/1.1"];
            let line = line[random.usize(..line.len())];
            payload.splice(..line.len().min(payload.len()), line.iter().copied());
        }
        let frame = TcpFrame {
            source,
            destination,
            flags,
            hop_limit,
            options: &options,
            fragment,
            protocol,
            tcp_options,
            payload: &payload,
            ..Default::default()
        };
        frame.bytes()
    }

    /// An echo request.
    fn echo(&mut self) -> Vec<u8> {
        let (source, destination) = self.ends();
        let kind = if source.is_ipv4() { 8 } else { 128 };
        icmp(source.ip(), destination.ip(), [kind, 0, 0x12, 0x34, 0, 1, 0, 2], &[0x55; 24])
    }

    /// An error about a frame that was forwarded, from a router on its way.
    fn error(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        if self.sent.is_empty() {
            return self.echo();
        }
        let about = &self.sent[random.usize(..self.sent.len())];
        let quote = &about[14..about.len().min(14 + random.usize(20..120))];
        let (v4, mtu) = (quote[0] >> 4 == 4, random.u16(500..1_600).to_be_bytes());
        let (kind, code) = match (v4, random.u8(..3)) {
            (true, 0) => (3, 4),
            (true, 1) => (11, 0),
            (true, _) => (3, 1),
            (false, 0) => (2, 0),
            (false, 1) => (3, 0),
            (false, _) => (1, 4),
        };
        let Some((source, _)) = ends(about) else { return self.echo() };
        let router = if v4 { IpAddr::from([198, 51, 100, 1]) } else { IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, 0, 1]) };
        icmp(router, source.ip(), [kind, code, 0x12, 0x34, 0, 0, mtu[0], mtu[1]], quote)
    }

    fn ends(&mut self) -> (SocketAddr, SocketAddr) {
        let random = &mut self.random;
        if !self.sent.is_empty() && random.u8(..) < 90 {
            let frame = &self.sent[random.usize(..self.sent.len())];
            if let Some((source, destination)) = ends(frame) {
                return (destination, source);
            }
        }
        let port = 30_000 + random.u16(..300);
        let host = random.u8(1..8);
        let to = PORTS[random.usize(..PORTS.len())];
        if random.u8(..) < 160 {
            let vip = [203, 0, 113, if random.u8(..) < 24 { 11 } else { 10 }];
            (SocketAddr::from(([192, 0, 2, host], port)), SocketAddr::from((vip, to)))
        } else {
            let vip = [0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 0x10];
            (SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()], port)), SocketAddr::from((vip, to)))
        }
    }

    /// A forwarded frame can be answered, and complained about: a thousand of them.
    fn remember(&mut self, frame: &[u8]) {
        if frame[12..14] != [0x08, 0x00] && frame[12..14] != [0x86, 0xdd] {
            return;
        }
        if self.sent.len() < 1_000 {
            self.sent.push(frame.to_vec());
        } else {
            let at = self.random.usize(..self.sent.len());
            self.sent[at] = frame.to_vec();
        }
    }
}

/// An ICMP message; its checksum is as good as any: it is changed, not verified.
fn icmp(source: IpAddr, destination: IpAddr, header: [u8; 8], body: &[u8]) -> Vec<u8> {
    let protocol = if source.is_ipv4() { 1 } else { 58 };
    let (source, destination) = (SocketAddr::new(source, 0), SocketAddr::new(destination, 0));
    let mut frame = TcpFrame { source, destination, protocol, ..Default::default() }.bytes();
    frame.truncate(if source.is_ipv4() { 34 } else { 54 });
    frame.extend(header);
    frame.extend(body);
    frame
}

/// Puts an extension header behind an IPv6 header: options, or a fragment header.
fn extend(frame: &mut Vec<u8>, random: &mut fastrand::Rng) {
    let (kind, next) = ([0, 43, 44, 60][random.usize(..4)], frame[20]);
    let header = if kind == 44 {
        let offset = if random.bool() { 1 } else { random.u16(..64) };
        let [high, low] = offset.to_be_bytes();
        [next, 0, high, low, 0, 0, 0, random.u8(..8)]
    } else {
        [next, 0, 1, 4, 0, 0, 0, 0]
    };
    frame[20] = kind;
    frame.splice(54..54, header);
}

fn ends(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ip = frame.get(14..)?;
    let port = |at: usize| Some(u16::from_be_bytes(ip.get(at..at + 2)?.try_into().ok()?));
    if ip[0] >> 4 == 4 {
        let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?));
        let l4 = usize::from(ip[0] & 0xf) * 4;
        Some((SocketAddr::new(address(12)?, port(l4)?), SocketAddr::new(address(16)?, port(l4 + 2)?)))
    } else {
        let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
        Some((SocketAddr::new(address(8)?, port(40)?), SocketAddr::new(address(24)?, port(42)?)))
    }
}
