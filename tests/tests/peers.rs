//! What `cargo xtask bench peers` compares: each contender has both servers answer on the virtual address.

use anyhow::Result;
use lab::{
    Family, Lab, curl,
    peers::{Contender, LAYOUT, Road},
    test,
};

#[test]
fn routing_leads_to_both_servers() {
    // Which one a connection gets goes by a hash: with 100 of them either has 20 but for one time in 10^9.
    test(&LAYOUT, |lab| leads_to_both(lab, Contender::Direct, 100, 20));
}

#[test]
fn every_mode_of_lb_leads_to_both_servers() {
    for contender in Contender::LB {
        // Each CPU has turns of its own, and the first SYN waits for ARP and may leave by another CPU than the others.
        test(&LAYOUT, |lab| leads_to_both(lab, contender, 20, 8));
    }
}

#[test]
fn every_peer_leads_to_both_servers() {
    for contender in Contender::PEERS {
        // Each of several workers may have turns of its own.
        test(&LAYOUT, |lab| leads_to_both(lab, contender, 20, 8));
    }
}

fn leads_to_both(lab: &Lab, contender: Contender, requests: u32, least: u64) -> Result<()> {
    let _road = Road::new(lab, contender)?;
    let tally = lab.client().curl(Lab::VIP.url(Family::V4), requests)?;
    let all_of = ["web-01", "web-02"].map(|web| tally.of(web));
    assert!(all_of.iter().sum::<u64>() == u64::from(requests) && all_of.iter().all(|of| *of >= least), "{tally:?}");

    let seen = curl(lab, &[&format!("{}client", Lab::VIP.url(Family::V4))])?;
    let client = lab.client();
    let translates = contender == Contender::LbNat || Contender::PEERS.contains(&contender);
    let speaker = if translates { lab.front() } else { client.node() };
    assert_eq!(seen.trim(), speaker.ip(Family::V4).to_string(), "{contender}");
    Ok(())
}
