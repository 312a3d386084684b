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
        services: 4,
        backends: 16,
        veth: false,
    })?;
    dataplane.apply(&plan(ifindexes))?;
    dataplane.attach()?;
    let mut host = dataplane.host_tables(0);

    let mut source = Source { random: fastrand::Rng::with_seed(seed), requests: Vec::new() };
    let mut seen = Seen::default();
    for number in 0..FRAMES {
        let bytes = source.frame();
        let ingress_ifindex = ifindexes[usize::from(source.random.bool())];
        host.now_ns = away_from_a_tick();
        let mut on_host = bytes.clone();
        let verdict = host::process(&mut on_host, ingress_ifindex, &host);
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

/// The time, at a moment when it is not about to change for flows: both sides are to see the same.
fn away_from_a_tick() -> u64 {
    const MARGIN_NS: u64 = 20_000_000;
    loop {
        let now = monotonic_ns();
        if ticks(now) == ticks(now + MARGIN_NS) {
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
        for reason in [DropReason::NoBackend, DropReason::NoFlow, DropReason::HopLimit, DropReason::Fragment] {
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
    for (index, (host, kernel)) in host.counters.iter().zip(&kernel.counters).enumerate() {
        let words = |counters: &lb_common::layout::BackendCounters| {
            [
                &counters.packets_in,
                &counters.bytes_in,
                &counters.packets_out,
                &counters.bytes_out,
                &counters.connections,
            ]
            .map(|word| word.load(Relaxed))
        };
        ensure!(words(host) == words(kernel), "backend {index}: {host:?} on the host, {kernel:?} in the kernel");
    }
    let states = |tables: &HostTables| {
        tables.nat.iter().filter(|slot| FlowWord(slot.word.load(Relaxed)).state() != State::Free).count()
    };
    ensure!(states(host) > 100, "only {} flows were made", states(host));
    Ok(())
}

/// Four services: both families, both algorithms, weights, and one without backends.
fn plan([client_side, backend_side]: [u32; 2]) -> Plan {
    let backend = |family: u8, host: u8| BackendPlan {
        name: format!("v{family}-{host}"),
        address: if family == 4 {
            SocketAddr::from(([10, 0, 0, host], 8080))
        } else {
            SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host.into()], 8080))
        },
        weight: u16::from(host % 3 + 1),
        in_rotation: true,
        healthy: true,
        next_hop: Some(NextHop {
            ifindex: if host.is_multiple_of(4) { client_side } else { backend_side },
            source: if family == 4 { [10, 0, 0, 1].into() } else { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1]) },
            source_mac: [2, 0, 0, 0, 1, 0],
            mac: [2, 0, 0, 0, 1, host],
            mtu: 1500,
        }),
    };
    let service = |name: &str, listen: &str, algorithm, backends| ServicePlan {
        name: name.into(),
        listen: listen.parse().expect("an address"),
        protocol: Protocol::Tcp,
        algorithm,
        forward: Forward::Nat,
        backends,
    };
    let v4 = |hosts: std::ops::Range<u8>| hosts.map(|host| backend(4, host)).collect();
    let v6 = |hosts: std::ops::Range<u8>| hosts.map(|host| backend(6, host)).collect();
    Plan {
        services: vec![
            service("turns", "203.0.113.10:80", Algorithm::RoundRobin, v4(10..16)),
            service("maglev", "203.0.113.10:443", Algorithm::Maglev, v4(20..25)),
            service("turns6", "[2001:db8:f::10]:80", Algorithm::RoundRobin, v6(30..35)),
            service("maglev6", "[2001:db8:f::10]:443", Algorithm::Maglev, v6(40..43)),
            service("empty", "203.0.113.11:80", Algorithm::RoundRobin, vec![]),
        ],
    }
}

/// Frames: new flows, old flows, replies, strangers; whole, cut short, and with bytes changed.
struct Source {
    random: fastrand::Rng,
    /// Source and destination of frames that were forwarded.
    requests: Vec<(SocketAddr, SocketAddr)>,
}

impl Source {
    fn frame(&mut self) -> Vec<u8> {
        let (source, destination) = self.ends();
        let random = &mut self.random;
        let flags = *random
            .choice(&[SYN, SYN, SYN, ACK, ACK, ACK, ACK, SYN | ACK, FIN | ACK, RST, RST | ACK, 0, 0xff])
            .expect("not empty");
        let hop_limit = if random.u8(..) < 8 { random.u8(0..3) } else { 64 };
        let options = vec![1; if random.u8(..) < 16 { usize::from(random.u8(1..=10)) * 4 } else { 0 }];
        let fragment = match random.u8(..) {
            0..6 => 0x2000,
            6..10 => random.u16(..),
            10..40 => 0x4000,
            _ => 0,
        };
        let protocol = if random.u8(..) < 8 { random.u8(..) } else { 6 };
        let mut payload = vec![0; random.usize(..64)];
        random.fill(&mut payload);
        let frame = TcpFrame {
            source,
            destination,
            flags,
            hop_limit,
            options: &options,
            fragment,
            protocol,
            payload: &payload,
            ..Default::default()
        };
        let mut bytes = frame.bytes();
        match random.u8(..) {
            0..16 => bytes.truncate(random.usize(14..bytes.len())),
            16..24 => {
                for _ in 0..random.u8(1..4) {
                    let at = random.usize(..bytes.len());
                    bytes[at] ^= 1 << random.u8(..8);
                }
            }
            24..28 => {
                let tag = [0x81, 0x00, 0x00, 0x2a];
                bytes.splice(12..12, tag);
            }
            28..32 => bytes[12..14].copy_from_slice(&random.u16(..).to_be_bytes()),
            _ => {}
        }
        bytes
    }

    fn ends(&mut self) -> (SocketAddr, SocketAddr) {
        let random = &mut self.random;
        if !self.requests.is_empty() && random.u8(..) < 90 {
            let (source, destination) = self.requests[random.usize(..self.requests.len())];
            return (destination, source);
        }
        let port = 30_000 + random.u16(..600);
        let host = random.u8(1..8);
        if random.bool() {
            let to = *random
                .choice(&["203.0.113.10:80", "203.0.113.10:443", "203.0.113.11:80", "203.0.113.10:22"])
                .expect("not empty");
            (SocketAddr::from(([192, 0, 2, host], port)), to.parse().expect("an address"))
        } else {
            let to = *random
                .choice(&["[2001:db8:f::10]:80", "[2001:db8:f::10]:443", "[2001:db8:f::11]:80"])
                .expect("not empty");
            (SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()], port)), to.parse().expect("an address"))
        }
    }

    /// A forwarded frame can be answered: the latest thousand.
    fn remember(&mut self, frame: &[u8]) {
        let Some(ends) = ends(frame) else { return };
        if self.requests.len() < 1_000 {
            self.requests.push(ends);
        } else {
            let at = self.random.usize(..self.requests.len());
            self.requests[at] = ends;
        }
    }
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
