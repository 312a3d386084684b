//! Addresses that a service or a backend can have.

use std::net::{IpAddr, SocketAddr};

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// An IP address alone.
    #[error("{0} has no port; write {example}", example = with_port(.0))]
    NoPort(IpAddr),
    /// Neither an address nor a port.
    #[error("{0:?} is not IP:PORT; write e.g. 10.0.0.11:80 or [2001:db8::11]:80 (host names are not looked up)")]
    Syntax(String),
    /// Port 0.
    #[error("{0} has port 0; write the port that connections go to")]
    PortZero(SocketAddr),
    /// An address that no packet from the network carries, or that names no one machine.
    #[error("{address} is {what} address; {instead}")]
    Unusable {
        /// As written.
        address: SocketAddr,
        /// Which kind, with its article.
        what: &'static str,
        /// What to write.
        instead: &'static str,
    },
}

fn with_port(ip: &IpAddr) -> SocketAddr {
    SocketAddr::new(*ip, 80)
}

/// Reads the address of a backend.
///
/// # Errors
/// When it is no `IP:PORT` or not an address of another machine.
pub fn parse_backend(text: &str) -> Result<SocketAddr, AddressError> {
    parse(text, "a backend is another machine: write its own address")
}

/// Reads the virtual address of a service.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, AddressError> {
    parse(text, "write the address that clients connect to")
}

fn parse(text: &str, instead: &'static str) -> Result<SocketAddr, AddressError> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        return Err(match text.trim_matches(['[', ']']).parse() {
            Ok(ip) => AddressError::NoPort(ip),
            Err(_) => AddressError::Syntax(text.to_owned()),
        });
    };
    if let Some(what) = unusable(address.ip()) {
        return Err(AddressError::Unusable { address, what, instead });
    }
    if address.port() == 0 {
        return Err(AddressError::PortZero(address));
    }
    Ok(address)
}

fn unusable(ip: IpAddr) -> Option<&'static str> {
    match ip {
        _ if ip.is_unspecified() => Some("the unspecified"),
        _ if ip.is_loopback() => Some("a loopback"),
        _ if ip.is_multicast() => Some("a multicast"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("the broadcast"),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some("a link-local"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Some("an IPv4-mapped"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_machines_are_taken() {
        let check = |text: &str, expected: &str| match parse_backend(text) {
            Ok(address) => assert_eq!(address.to_string(), expected),
            Err(error) => assert!(error.to_string().contains(expected), "{text}: {error}"),
        };
        check("10.0.0.11:80", "10.0.0.11:80");
        check("[2001:db8::11]:80", "[2001:db8::11]:80");
        check("10.0.0.11", "has no port; write 10.0.0.11:80");
        check("2001:db8::11", "has no port; write [2001:db8::11]:80");
        check("web-01:80", "is not IP:PORT");
        check("10.0.0.11:99999", "is not IP:PORT");
        check("10.0.0.11:0", "port 0");
        check("0.0.0.0:80", "the unspecified");
        check("[::]:80", "the unspecified");
        check("127.0.0.1:80", "a loopback");
        check("[::1]:80", "a loopback");
        check("224.0.0.1:80", "a multicast");
        check("255.255.255.255:80", "the broadcast");
        check("[fe80::1]:80", "a link-local");
        check("[::ffff:10.0.0.1]:80", "an IPv4-mapped");
    }
}
