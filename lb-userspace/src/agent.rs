//! `lb agent`: on a server, says how much more the server can take.
//!
//! source -> [`Reading`] -> [`Curve`] -> [`Report`] -> whoever asks. Measuring has its own pace: askers get the last report,
//! with its age, so that many of them cost nothing. It needs no privileges and knows nothing of the balancer.

mod curve;
mod report;
mod server;
mod source;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

pub use curve::{Band, Curve, Measures, Steady};
pub use report::{Report, Standing};
pub use source::{Cgroup, Memory, Pressure, Pressures, Reading, Sources};
use tokio::{net::TcpListener, sync::watch, time};

use crate::{config::DEFAULT_AGENT_PORT, notify};

/// A report that is older than so many intervals is none: nobody measures any more.
const STALE: u32 = 3;

/// Why the agent does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its address cannot be had.
    #[error("cannot listen on {address}: {source}; --listen names another IP:PORT")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel does not say how it is.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What an agent measures, how it judges that, and whom it tells.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where askers come; at every address of the machine and [`DEFAULT_AGENT_PORT`], when absent.
    pub listen: Option<SocketAddr>,
    /// Where the figures are.
    pub sources: Sources,
    /// What they mean.
    pub curve: Curve,
    /// From one measurement to the next.
    pub interval: Duration,
}

/// Measures once.
///
/// # Errors
/// When the kernel does not say how it is.
pub fn once(sources: &Sources, curve: &Curve) -> Result<Report, Error> {
    Ok(Report::new(sources.read()?, curve, &mut Steady::default()))
}

/// Measures and answers for as long as it is polled.
///
/// # Errors
/// When it cannot begin: its address is taken, or the kernel does not say how it is.
pub async fn serve(settings: Settings) -> Result<(), Error> {
    let Settings { listen, sources, curve, interval } = settings;
    let (listener, address) = bind(listen).await?;
    let mut steady = Steady::default();
    let first = Report::new(sources.read()?, &curve, &mut steady);
    tracing::info!("answers on {address}: {first}");
    let (reports, last) = watch::channel(first);
    notify::send(notify::READY);
    tokio::select! {
        () = measure(&sources, &curve, steady, interval, &reports) => {}
        () = server::answer(listener, last, interval * STALE) => {}
    }
    Ok(())
}

/// Takes the address. That of any IPv6 address takes IPv4 as well; a machine without IPv6 has none.
async fn bind(listen: Option<SocketAddr>) -> Result<(TcpListener, SocketAddr), Error> {
    let any: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    let [first, second] = any.map(|ip| listen.unwrap_or(SocketAddr::new(ip, DEFAULT_AGENT_PORT)));
    let listener = match TcpListener::bind(first).await {
        Err(error) if first != second && error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(second).await,
        result => result,
    };
    let refused = |source| Error::Listen { address: second, source };
    let listener = listener.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

async fn measure(
    sources: &Sources,
    curve: &Curve,
    mut steady: Steady,
    interval: Duration,
    reports: &watch::Sender<Report>,
) {
    let mut due = time::interval(interval);
    due.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    // The first was there before anybody could ask.
    due.tick().await;
    loop {
        due.tick().await;
        match sources.read() {
            Ok(reading) => {
                let report = Report::new(reading, curve, &mut steady);
                if report.standing() != reports.borrow().standing() {
                    tracing::info!("{report}");
                }
                reports.send_replace(report);
            }
            Err(error) => tracing::error!("{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_is_taken_is_named_with_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(Some(address)).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: ")) && error.contains("--listen"), "{error}");
    }
}
