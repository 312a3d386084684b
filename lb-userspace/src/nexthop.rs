//! The way to each backend, as the kernel's routes and neighbours have it: interface, source address, both MACs.
//!
//! The packet path needs these with every packet and the kernel is not asked there. So they are resolved here and kept
//! up to date: netlink announces changes of links, addresses, routes and neighbours, each announcement leads
//! to a fresh look a tenth of a second later, and only a table that differs is sent on.

mod kernel;
mod resolve;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use rtnetlink::MulticastGroup;
use tokio::{
    sync::{mpsc, watch},
    time,
};

use self::resolve::Resolver;
use crate::plan::NextHop;

/// For each address the way to it, or why there is none.
pub type Table = HashMap<IpAddr, Result<NextHop, String>>;

/// How long announcements are gathered before the kernel is asked again.
const COALESCE: Duration = Duration::from_millis(100);
/// How soon to look again while a way is missing.
const RETRY: Duration = Duration::from_millis(250);
/// How soon to look again when all is well: in case an announcement was lost, and to keep neighbours from ageing out.
const REFRESH: Duration = Duration::from_secs(20);

const GROUPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Follows the ways to the wanted addresses until the receiver of tables is gone. The first table comes at once.
///
/// # Errors
/// When the netlink sockets cannot be opened.
pub fn follow(wanted: watch::Receiver<BTreeSet<IpAddr>>, tables: mpsc::Sender<Table>) -> io::Result<()> {
    let (requests, handle, _) = rtnetlink::new_connection()?;
    let (announcements, listening, announced) = rtnetlink::new_multicast_connection(GROUPS)?;
    tokio::spawn(requests);
    tokio::spawn(announcements);
    tokio::spawn(async move {
        // A connection ends with its last handle.
        let _listening = listening;
        watch(Resolver::new(handle), announced, wanted, tables).await;
    });
    Ok(())
}

/// Whether any of these interfaces is one end of a veth pair.
///
/// # Errors
/// When the kernel does not tell.
pub async fn any_veth(interfaces: &[String]) -> io::Result<bool> {
    let (requests, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(requests);
    let names = kernel::veths(&handle).await.map_err(io::Error::other)?;
    Ok(interfaces.iter().any(|interface| names.contains(interface)))
}

async fn watch(
    mut resolver: Resolver,
    mut announced: impl Stream + Unpin,
    mut wanted: watch::Receiver<BTreeSet<IpAddr>>,
    tables: mpsc::Sender<Table>,
) {
    let mut sent: Option<Table> = None;
    loop {
        let addresses = wanted.borrow_and_update().clone();
        let mut pause = RETRY;
        match resolver.resolve(&addresses).await {
            Ok(table) => {
                if table.values().all(Result::is_ok) {
                    pause = REFRESH;
                }
                if sent.as_ref() != Some(&table) {
                    if tables.send(table.clone()).await.is_err() {
                        return;
                    }
                    sent = Some(table);
                }
            }
            Err(error) => tracing::warn!("cannot read routes and neighbours: {error}"),
        }
        tokio::select! {
            Some(_) = announced.next() => {
                time::sleep(COALESCE).await;
                while let Some(Some(_)) = announced.next().now_or_never() {}
            }
            changed = wanted.changed() => if changed.is_err() { return },
            () = tables.closed() => return,
            () = time::sleep(pause) => {}
        }
    }
}
