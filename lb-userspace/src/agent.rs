//! `lb agent`: on a server, says how much more the server can take.
//!
//! source -> [`Reading`] -> [`Curve`] -> [`Report`] -> whoever asks. Measuring has its own pace: askers get the last report,
//! with its age, so that many of them cost nothing. It needs no privileges and knows nothing of the balancer.

mod curve;
mod report;
mod server;
mod source;

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

pub use curve::{Band, Curve, Measures, Steady};
pub use report::{Report, Standing};
pub use source::{Cgroup, Memory, Pressure, Pressures, Reading, Sources};
use tokio::{net::TcpListener, sync::watch, time};

use crate::notify;

/// Where askers come, when nobody says otherwise.
pub const DEFAULT_LISTEN: &str = "0.0.0.0:9634";
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
    /// Where askers come.
    pub listen: SocketAddr,
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
    let refused = |source| Error::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
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
