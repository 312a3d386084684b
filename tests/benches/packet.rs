//! Nanoseconds per packet: the balancer beside its floors, in turns, on one CPU.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, Layout};
use lb_common::host::{ACK, SYN, TcpFrame};
use lb_userspace::{
    dataplane::{
        Action, Dataplane, Options, XdpMode,
        bench::{Frames, Harness, Measured},
    },
    interface,
    plan::{Algorithm, BackendPlan, Forward, NextHop, Plan, Protocol, ServicePlan},
};
use rustix::thread::{CpuSet, sched_setaffinity};

const ROUNDS: usize = 7;
const PACKETS: u32 = 1 << 20;
const BACKENDS: u16 = 100;

fn main() -> Result<()> {
    let lab = Lab::new(&Layout::default())?;
    lab.front().enter(|| measure(&lab))
}

struct Case {
    name: String,
    measured: Measured,
    frames: Frames,
    action: Action,
}

fn measure(lab: &Lab) -> Result<()> {
    let mut cpu = CpuSet::new();
    cpu.set(1);
    sched_setaffinity(None, &cpu)?;
    let [client_side, backend_side] = ["eth0", "eth1"].map(|name| interface::index(name).expect("the lab has it"));
    let mut dataplane = Dataplane::open(&Options {
        interfaces: vec!["eth0".into(), "eth1".into()],
        xdp_mode: XdpMode::Native,
        pin_dir: lab.pin_dir(),
        flows: 1 << 20,
        services: 4,
        backends: u32::from(BACKENDS) * 2,
        veth: false,
    })?;
    dataplane.apply(&plan(backend_side))?;
    dataplane.attach()?;
    let bench_dir = lab.pin_dir().with_extension("").join("bench");
    let mut harness = Harness::new(&bench_dir, 1 << 20, client_side)?;

    let mut cases = vec![
        floor("pass", Measured::Pass, Action::Pass),
        floor("MAC swap", Measured::Swap, Action::Transmit),
        floor("constant IPIP", Measured::Ipip, Action::Transmit),
        case("not for a service", "192.0.2.1", "203.0.113.99:80", ACK, 1, Action::Pass),
    ];
    for (family, client, listen) in
        [("IPv4", "192.0.2.1", "203.0.113.10:80"), ("IPv6", "2001:db8::1", "[2001:db8:f::10]:80")]
    {
        for log in [0, 13, 17] {
            let flows = 1 << log;
            let open = case(&format!("{family} new flow, {flows} flows"), client, listen, SYN, flows, Action::Redirect);
            harness.prepare(&open.frames);
            harness.choose(Measured::Balancer, &mut dataplane)?;
            let (_, last) = harness.run(&open.frames, flows)?;
            ensure!(last.action == Action::Redirect, "{last:?}");
            let established =
                case(&format!("{family} established, {flows} flows"), client, listen, ACK, flows, Action::Redirect);
            harness.prepare(&established.frames);
            harness.run(&established.frames, flows)?;
            cases.push(established);
            let replies =
                replies(&format!("{family} replies, {flows} flows"), &mut dataplane, client_side, &open.frames)?;
            cases.push(Case {
                name: format!("{family} replies, {flows} flows"),
                measured: Measured::Balancer,
                frames: replies,
                action: Action::Transmit,
            });
        }
    }
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for (case, times) in cases.iter().zip(&mut times) {
            harness.choose(case.measured, &mut dataplane)?;
            harness.prepare(&case.frames);
            harness.run(&case.frames, 1000.max(case.frames.flows.len() as u32))?;
            let (time, last) = harness.run(&case.frames, PACKETS)?;
            ensure!(last.action == case.action, "{}: {last:?}", case.name);
            times.push(time);
        }
    }
    let swap = minimum(&times[1]);
    for (case, mut times) in cases.iter().zip(times) {
        times.sort();
        let (least, median) = (times[0], times[times.len() / 2]);
        println!(
            "{:<36} {:>5} ns min {:>5} ns median {:>6.2} x MAC swap",
            case.name,
            least.as_nanos(),
            median.as_nanos(),
            least.as_nanos() as f64 / swap.as_nanos() as f64
        );
    }
    let snapshot = dataplane.snapshot();
    for drop in snapshot.drops.iter().filter(|drop| drop.packets > 0) {
        println!("dropped {}: {}", drop.reason, drop.packets);
    }
    std::fs::remove_file(bench_dir.join("TEMPLATE"))?;
    std::fs::remove_file(bench_dir.join("KEYS"))?;
    std::fs::remove_dir(&bench_dir)?;
    Ok(())
}

fn minimum(times: &[Duration]) -> Duration {
    times.iter().copied().min().unwrap_or_default()
}

fn floor(name: &str, measured: Measured, action: Action) -> Case {
    Case { measured, ..case(name, "192.0.2.1", "203.0.113.10:80", ACK, 1, action) }
}

fn case(name: &str, client: &str, to: &str, flags: u8, flows: u32, action: Action) -> Case {
    let client: IpAddr = client.parse().expect("an address");
    let to: SocketAddr = to.parse().expect("an address");
    let frame = TcpFrame {
        source: SocketAddr::new(client, 1),
        destination: to,
        flags,
        payload: &[0; 32],
        ..Default::default()
    }
    .bytes();
    let (address_at, port_at) = if client.is_ipv4() { (26, 34) } else { (34, 54) };
    let flows = (0..flows)
        .map(|flow| {
            let [_, _, a, b] = (flow / 16_384 * 7).to_be_bytes();
            ([10, 1, a, b], 20_000 + (flow % 16_384) as u16 * 2)
        })
        .collect();
    Case {
        name: name.into(),
        measured: Measured::Balancer,
        frames: Frames { frame, address_at, port_at, flows },
        action,
    }
}

/// The backends' answers to these flows. Answers differ in their source, a backend, and their destination port: with one
/// backend a frame's four bytes of address are its source.
fn replies(name: &str, dataplane: &mut Dataplane, ifindex: u32, requests: &Frames) -> Result<Frames> {
    let mut first = None;
    let mut flows = Vec::new();
    for (address, port) in &requests.flows {
        let mut bytes = requests.frame.clone();
        bytes[requests.address_at as usize..][..4].copy_from_slice(address);
        bytes[requests.port_at as usize..][..2].copy_from_slice(&port.to_be_bytes());
        let sent = dataplane.dry_run(&bytes, ifindex)?;
        ensure!(sent.action == Action::Redirect, "{name}: {sent:?}");
        let ip = &sent.frame[14..];
        let v4 = ip[0] >> 4 == 4;
        let l4 = if v4 { 20 } else { 40 };
        let backend: [u8; 4] = if v4 { ip[16..20].try_into()? } else { ip[36..40].try_into()? };
        flows.push((backend, u16::from_be_bytes([ip[l4], ip[l4 + 1]])));
        first.get_or_insert_with(|| sent.frame.clone());
    }
    let sent = first.context("no flows")?;
    let ip = &sent[14..];
    let (source, destination): (IpAddr, IpAddr) = if ip[0] >> 4 == 4 {
        (<[u8; 4]>::try_from(&ip[16..20])?.into(), <[u8; 4]>::try_from(&ip[12..16])?.into())
    } else {
        (<[u8; 16]>::try_from(&ip[24..40])?.into(), <[u8; 16]>::try_from(&ip[8..24])?.into())
    };
    let frame = TcpFrame {
        source: SocketAddr::new(source, 8080),
        destination: SocketAddr::new(destination, 1),
        payload: &[0; 32],
        ..Default::default()
    }
    .bytes();
    let (address_at, port_at) = if source.is_ipv4() { (26, 36) } else { (34, 56) };
    Ok(Frames { frame, address_at, port_at, flows })
}

fn plan(ifindex: u32) -> Plan {
    let backend = |v6: bool, host: u16| BackendPlan {
        name: format!("b{host}"),
        address: if v6 {
            SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, host], 8080))
        } else {
            SocketAddr::from(([10, 0, (host >> 8) as u8, host as u8], 8080))
        },
        weight: 1,
        in_rotation: true,
        healthy: true,
        stands_by: false,
        max_connections: None,
        comfortable_connections: None,
        next_hop: Some(NextHop {
            ifindex,
            source: if v6 { IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, 1]) } else { [10, 0, 100, 1].into() },
            source_mac: [2, 0, 0, 0, 1, 0],
            mac: [2, 0, 0, 0, 1, host as u8],
            mtu: 1500,
        }),
    };
    let service = |name: &str, listen: &str, v6: bool| ServicePlan {
        name: name.into(),
        listen: listen.parse().expect("an address"),
        protocol: Protocol::Tcp,
        algorithm: Algorithm::RoundRobin,
        forward: Forward::Nat,
        backends: (1..=BACKENDS).map(|host| backend(v6, host)).collect(),
    };
    [service("v4", "203.0.113.10:80", false), service("v6", "[2001:db8:f::10]:80", true)].into_iter().collect()
}
