//! nftables in the front node, as a balancer: DNAT by turns, with masquerade.

use std::net::SocketAddr;

use anyhow::Result;

use crate::{node::Node, process::run};

/// Loads the rules.
pub(super) fn start(front: &Node, listen: SocketAddr, webs: [SocketAddr; 2]) -> Result<()> {
    run(front.command("nft").args(["--file", "-"]), &rules(listen, webs))?;
    // The default, 120 s, would fill the table of a small machine within a minute of short connections.
    front.sysctl("netfilter/nf_conntrack_tcp_timeout_time_wait", "10")
}

fn rules(listen: SocketAddr, webs: [SocketAddr; 2]) -> String {
    let (vip, port) = (listen.ip(), listen.port());
    let [first, second] = webs.map(|web| web.ip());
    format!(
        "table ip web {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr {vip} tcp dport {port} dnat to numgen inc mod 2 map {{ 0 : {first}, 1 : {second} }}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip daddr {{ {first}, {second} }} tcp dport {port} masquerade
    }}
}}
"
    )
}
