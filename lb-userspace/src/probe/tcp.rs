//! The tcp check: a connection is accepted.

use std::net::SocketAddr;

use tokio::net::TcpStream;

pub(super) async fn probe(address: SocketAddr) -> Result<String, String> {
    match TcpStream::connect(address).await {
        Ok(_) => Ok("connected".into()),
        Err(error) => Err(super::describe(&error)),
    }
}
