//! Fragments made by hand: in order they arrive, out of order they are dropped and counted.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};
use lab::{Daemon, Family, Health, Lab, Layout, Service, UdpEcho, checksum, eventually, packet, test};

const PATIENCE: Duration = Duration::from_secs(3);
const UDP: u8 = 17;
const FRAGMENT_HEADER: u8 = 44;

#[test]
fn in_order_they_arrive_and_out_of_order_they_are_counted() {
    for family in [Family::V4, Family::V6] {
        test(&Layout::default(), |lab| check(lab, family).with_context(|| format!("{family:?}")));
    }
}

fn check(lab: &Lab, family: Family) -> Result<()> {
    let vip = Lab::VIP.with_port(5353).socket(family);
    let _servers =
        lab.webs().iter().map(|web| UdpEcho::start_in(web, web.address(family, 5353))).collect::<Result<Vec<_>>>()?;
    let backends = lab.webs().iter().map(|web| (web.name().to_owned(), web.address(family, 5353), 1)).collect();
    let health = Health { kind: "none", ..Health::default() };
    let service = Service { protocol: "udp", listen: vip, health, backends, ..Service::web(lab, family) };
    let daemon = Daemon::start(lab, &[service])?;
    let client = lab.client();
    let from = client.node().address(family, 5555);
    let socket = client.node().enter(|| UdpSocket::bind(from))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let receive = || -> Result<String> {
        let mut buffer = [0; 8192];
        let (length, sender) = socket.recv_from(&mut buffer)?;
        assert_eq!(sender, vip);
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let dropped =
        || -> Result<u64> { daemon.stats()?["drops"]["fragment"].as_u64().context("drops of fragments are counted") };

    let text = "a datagram in three fragments: ".repeat(40);
    let fragments = fragments(from, vip, text.as_bytes(), 512, 1);
    assert_eq!(fragments.len(), 3);
    client.send_raw(&fragments, vip.ip())?;
    let answer = receive()?;
    assert!(answer.ends_with(&text), "{answer}");
    assert_eq!(dropped()?, 0);

    // The last one twice: once too early, and once more when the first has shown the way. The server has it once, and the
    // first two: whole.
    let [first, second, third] = &self::fragments(from, vip, text.as_bytes(), 512, 2)[..] else { unreachable!() };
    let order = [third, first, second, third].map(Vec::clone);
    client.send_raw(&order, vip.ip())?;
    let answer = receive()?;
    assert!(answer.ends_with(&text), "{answer}");
    assert_eq!(dropped()?, 1);

    // Fragments that belong to nothing.
    let strays = self::fragments(from, vip, text.as_bytes(), 512, 3);
    for _ in 0..10 {
        client.send_raw(&strays[1..], vip.ip())?;
    }
    eventually("the drops of strays", PATIENCE, || Ok((dropped()? == 21).then_some(())))?;

    // Two datagrams at a time, interleaved.
    let (one, other) = (self::fragments(from, vip, text.as_bytes(), 512, 4), self::fragments(from, vip, b"x", 512, 5));
    client.send_raw(&[one[0].clone(), other[0].clone(), one[2].clone(), one[1].clone()], vip.ip())?;
    let answers = [receive()?, receive()?];
    assert!(answers.iter().any(|answer| answer.ends_with(&text)), "{answers:?}");
    assert!(answers.iter().any(|answer| answer.ends_with(" x")), "{answers:?}");
    assert_eq!(dropped()?, 21);
    Ok(())
}

/// A UDP datagram in fragments of `size` bytes of its own, which is a multiple of eight.
fn fragments(from: SocketAddr, to: SocketAddr, payload: &[u8], size: usize, id: u16) -> Vec<Vec<u8>> {
    let length = 8 + payload.len() as u16;
    let mut datagram = [from.port(), to.port(), length, 0].map(u16::to_be_bytes).concat();
    datagram.extend_from_slice(payload);
    let check = checksum(from.ip(), to.ip(), UDP, &datagram);
    datagram[6..8].copy_from_slice(&check.to_be_bytes());
    let count = datagram.chunks(size).count();
    let fragment = |(number, part): (usize, &[u8])| {
        let offset = (number * size) as u16;
        let more = number + 1 < count;
        match from.ip() {
            IpAddr::V4(_) => {
                let mut packet = packet(from.ip(), to.ip(), UDP, 64, part);
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                packet[6..8].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
                packet
            }
            IpAddr::V6(_) => {
                let mut payload = vec![UDP, 0];
                payload.extend_from_slice(&(offset | u16::from(more)).to_be_bytes());
                payload.extend_from_slice(&u32::from(id).to_be_bytes());
                payload.extend_from_slice(part);
                packet(from.ip(), to.ip(), FRAGMENT_HEADER, 64, &payload)
            }
        }
    };
    datagram.chunks(size).enumerate().map(fragment).collect()
}
