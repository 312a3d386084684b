//! `lb run`: checks first, then touches the system, then serves until told to stop.

use std::{io, path::Path};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use crate::{
    alarm, api,
    config::{self, Config},
    controller::{self, Controller},
    http, interface, notify, privileges, probe,
};

/// Why the daemon did not start or came to an end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong, or wrong for this machine.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// Not root, nor as good as.
    #[error(
        "lb run loads an XDP program and attaches it to {interfaces}, which needs root, or CAP_NET_ADMIN, CAP_BPF and \
         CAP_PERFMON: run it with sudo or as a system service"
    )]
    Privileges {
        /// Where it would attach.
        interfaces: String,
    },
    /// A check cannot work.
    #[error("{0}")]
    Check(String),
    /// The socket of the API cannot be had.
    #[error(transparent)]
    Socket(#[from] api::SocketError),
    /// The address for metrics cannot be had.
    #[error(transparent)]
    Http(#[from] http::Error),
    /// The controller did not start.
    #[error(transparent)]
    Controller(#[from] controller::Error),
    /// The system refuses something basic.
    #[error("cannot {0}: {1}")]
    System(&'static str, #[source] io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT. Forwarding stays in place after it.
///
/// # Errors
/// When it cannot start: then nothing is left attached, pinned or listening that was not before.
pub async fn run(path: &Path) -> Result<(), Error> {
    let config = Config::load(path)?;
    check_privileges(&config)?;
    config.check_interfaces(&interface::names().map_err(|error| Error::System("list interfaces", error))?)?;
    probe::check_tls(&config.services).map_err(Error::Check)?;
    alarm::check(&config.alarms).map_err(Error::Check)?;
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Error::System("catch SIGTERM", error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Error::System("catch SIGINT", error))?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stop);
    let reload = reloads().map_err(|error| Error::System("catch SIGHUP", error))?;
    let socket = api::Socket::bind(&config.global.socket).await?;
    let (started, controller) = watch::channel(None);
    let exposed = http::Exposed { controller, pin_dir: config.global.pin_dir.clone() };
    let shown = match config.global.http {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    // It is up before the controller: that the daemon starts is worth knowing too.
    let shown = async {
        match shown {
            Some(listener) => http::serve(listener, exposed).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(shown);

    let (controller, handle) = tokio::select! {
        started = Controller::start(config) => started?,
        failed = &mut shown => return failed.map_err(|error| Error::System("serve metrics", error)),
        () = &mut stop => {
            tracing::info!("stopped before the start was over");
            return Ok(());
        }
    };
    started.send_replace(Some(handle.clone()));
    notify::send(notify::READY);
    tracing::info!("ready");
    tokio::select! {
        () = controller.run(reload, stop) => {}
        failed = &mut shown => failed.map_err(|error| Error::System("serve metrics", error))?,
        served = api::serve(socket, handle) => served.map_err(|error| Error::System("serve the control API", error))?,
    }
    notify::send(notify::STOPPING);
    tracing::info!("stopped; what is attached goes on forwarding (`lb xdp detach` ends that)");
    Ok(())
}

fn check_privileges(config: &Config) -> Result<(), Error> {
    if privileges::suffice().map_err(|error| Error::System("read my capabilities", error))? {
        return Ok(());
    }
    Err(Error::Privileges { interfaces: config.global.interfaces.join(", ") })
}

/// A message for each SIGHUP.
fn reloads() -> io::Result<mpsc::Receiver<()>> {
    let mut hangups = signal(SignalKind::hangup())?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move { while hangups.recv().await.is_some() && sender.send(()).await.is_ok() {} });
    Ok(receiver)
}
