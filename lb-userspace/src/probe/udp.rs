//! The udp check: nobody says that the port is closed and, where an answer is expected, it comes.
//!
//! A UDP server need not answer what it does not understand, so silence passes unless an answer is asked for. What fails
//! then is what the network tells: a host that does not resolve, or an ICMP error. Linux sends one such error a second
//! to an address (`icmp_ratelimit`): with a shorter interval some failures look like silence.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::UdpSocket, time};

/// The longest answer that is searched.
const ANSWER: usize = 64 * 1024;

/// Sends `send`, which may be empty. With `body` an answer must contain it; without, `patience` ends the wait for an error.
pub(super) async fn probe(
    address: SocketAddr,
    send: &str,
    body: Option<&str>,
    patience: Duration,
) -> Result<String, String> {
    let failed = |error: io::Error| super::describe(&error);
    let any: SocketAddr =
        if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    // Connected, it is told of ICMP errors.
    socket.connect(address).await.map_err(failed)?;
    socket.send(send.as_bytes()).await.map_err(failed)?;
    let mut answer = vec![0; ANSWER];
    let Some(text) = body else {
        return match time::timeout(patience, socket.recv(&mut answer)).await {
            Ok(Ok(length)) => Ok(format!("{length} bytes in answer")),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Ok("no error".into()),
        };
    };
    let length = socket.recv(&mut answer).await.map_err(failed)?;
    if super::contains(&answer[..length], text.as_bytes()) {
        Ok(format!("{text:?} in the answer"))
    } else {
        Err(format!("no {text:?} in the answer of {length} bytes"))
    }
}
