//! A service: whether clients find its address, and the way to each backend.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::{
    Finding,
    system::{ip, read},
};
use crate::{
    config::{Backend, Global, Service},
    plan::Protocol,
};

pub(super) fn examine(service: &Service, global: &Global) -> Vec<Finding> {
    let mut findings = vec![virtual_address(service, &ip(&["addr", "show"]))];
    let tables = match service.protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let sockets: String = tables.iter().filter_map(|table| read(table)).collect::<Vec<_>>().join("\n");
    findings.extend(conflict(service, &sockets));
    for backend in &service.backends {
        let address = backend.address.ip().to_string();
        let route = ip(&["route", "get", &address]).into_iter().next();
        let gateway = route.as_ref().and_then(|route| route["gateway"].as_str()).unwrap_or(&address).to_owned();
        let neighbour = ip(&["neigh", "show", &gateway]).into_iter().next();
        findings.push(way(&service.name, backend, route.as_ref(), neighbour.as_ref(), &global.interfaces));
    }
    findings
}

/// Whether somebody answers ARP, or neighbour solicitations, for the virtual address.
fn virtual_address(service: &Service, links: &[Value]) -> Finding {
    let (name, listen) = (&service.name, service.listen.ip());
    let holder = links.iter().find(|link| {
        let addresses = link["addr_info"].as_array().into_iter().flatten();
        addresses.filter_map(|info| info["local"].as_str()?.parse::<IpAddr>().ok()).any(|local| local == listen)
    });
    if let Some(link) = holder {
        return Finding::ok(name, format!("{listen} is on {}", link["ifname"].as_str().unwrap_or("an interface")));
    }
    let why = "nobody answers ARP for it: clients reach it only if a router sends it here";
    let length = if listen.is_ipv4() { 32 } else { 128 };
    let found = format!("{listen} is on no interface");
    Finding::warning(name, found, why).fixed_by(format!("ip addr add {listen}/{length} dev lo"))
}

/// A socket of this machine that would take the same connections.
fn conflict(service: &Service, sockets: &str) -> Option<Finding> {
    let listening = sockets.lines().filter_map(local_of_listener);
    let listen = service.listen;
    let same = |local: &SocketAddr| {
        local.port() == listen.port() && (local.ip() == listen.ip() || local.ip().is_unspecified())
    };
    let found = listening.into_iter().find(same)?;
    let why = "while lb is attached it takes the connections to the service; whenever it is not, that server does";
    let command = format!("ss -lnp 'sport = :{}'", listen.port());
    Some(Finding::warning(&service.name, format!("a server on this machine listens on {found}"), why).fixed_by(command))
}

/// The local address of a listening socket in a line of /proc/net/tcp, or of an unconnected one in /proc/net/udp
/// (proc(5); words are in the byte order of the machine).
fn local_of_listener(line: &str) -> Option<SocketAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state) = (*fields.get(1)?, *fields.get(3)?);
    // TCP_LISTEN, and TCP_CLOSE, which is what an unconnected UDP socket has.
    if !matches!(state, "0A" | "07") {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let words: Vec<u32> = (0..address.len() / 8)
        .map(|word| u32::from_str_radix(address.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

fn way(
    service: &str,
    backend: &Backend,
    route: Option<&Value>,
    neighbour: Option<&Value>,
    interfaces: &[String],
) -> Finding {
    let subject = format!("{service}/{}", backend.name);
    let address = backend.address.ip();
    let Some(route) = route else {
        let why = "packets for the backend have nowhere to go";
        return Finding::problem(&subject, format!("no route to {address}"), why)
            .fixed_by(format!("ip route get {address}"));
    };
    let device = route["dev"].as_str().unwrap_or_default();
    if route["type"] == "local" || device == "lo" {
        let why = "a backend is another machine: what XDP sends never comes back to this one";
        return Finding::problem(&subject, format!("{address} is an address of this machine"), why);
    }
    if !interfaces.iter().any(|name| name == device) {
        let why = "answers come in by an interface where lb does not see them";
        let found = format!("{address} is reached by {device}, which is not among the interfaces");
        return Finding::problem(&subject, found, why).fixed_by(format!("add \"{device}\" to interfaces in [global]"));
    }
    let state = neighbour.and_then(|neighbour| neighbour["state"].as_array()?.first()?.as_str());
    match state {
        Some("FAILED" | "INCOMPLETE") => {
            let next = route["gateway"].as_str().map_or_else(|| address.to_string(), str::to_owned);
            let why = "without a MAC address there is no way to send to it: the machine is off, or on another network";
            Finding::problem(&subject, format!("{next} does not answer on {device}"), why)
                .fixed_by(format!("ping -c1 {next}"))
        }
        Some(_) => Finding::ok(&subject, format!("{address} is reached by {device}")),
        None => Finding::ok(&subject, format!("{address} is reached by {device}, not talked to yet")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{config::Config, doctor::Level};

    fn service() -> Service {
        let text = "global.interfaces = [\"eth0\"]\n[service.web]\nlisten = \"203.0.113.10:80\"\nbackend = [{ address = \"10.0.0.11:80\" }]";
        Config::parse("lb.toml".as_ref(), text).unwrap().services.remove(0)
    }

    #[test]
    fn the_virtual_address_is_answered_for() {
        let here = [json!({"ifname": "lo", "addr_info": [{"local": "127.0.0.1"}, {"local": "203.0.113.10"}]})];
        assert_eq!(virtual_address(&service(), &here).level, Level::Ok);
        let finding = virtual_address(&service(), &[]);
        assert_eq!(
            (finding.level, finding.fix.as_deref()),
            (Level::Warning, Some("ip addr add 203.0.113.10/32 dev lo"))
        );
    }

    #[test]
    fn a_socket_on_the_same_port_is_a_conflict() {
        let line = |local: &str, state: &str| format!("   0: {local} 00000000:0000 {state} 00000000:00000000");
        let vip = format!("{:08X}:0050", u32::from_ne_bytes([203, 0, 113, 10]));
        for (line, found) in [
            (line(&vip, "0A"), true),
            (line("00000000:0050", "0A"), true),
            (line("00000000000000000000000000000000:0050", "0A"), true),
            (line("00000000:0051", "0A"), false),
            (line(&vip, "01"), false),
            ("  sl  local_address rem_address   st".to_owned(), false),
        ] {
            assert_eq!(conflict(&service(), &line).is_some(), found, "{line}");
        }
    }

    #[test]
    fn the_way_to_a_backend_is_known_and_ours() {
        let backend = &service().backends[0];
        let check = |route: Option<Value>, neighbour: Option<Value>, level: Level, says: &str| {
            let finding = way("web", backend, route.as_ref(), neighbour.as_ref(), &["eth0".into()]);
            assert!(finding.level == level && finding.found.contains(says), "{finding:?}");
        };
        let by = |device: &str| Some(json!({"dst": "10.0.0.11", "dev": device}));
        check(by("eth0"), Some(json!({"state": ["REACHABLE"]})), Level::Ok, "reached by eth0");
        check(by("eth0"), None, Level::Ok, "not talked to yet");
        check(by("eth0"), Some(json!({"state": ["FAILED"]})), Level::Problem, "10.0.0.11 does not answer on eth0");
        check(by("eth9"), None, Level::Problem, "reached by eth9, which is not among");
        check(by("lo"), None, Level::Problem, "an address of this machine");
        check(None, None, Level::Problem, "no route to 10.0.0.11");
    }
}
