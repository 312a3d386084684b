//! What `cargo xtask bench packet` measures is what it says: no times here.

#[path = "../benches/packet/cases.rs"]
#[expect(dead_code, reason = "the bench uses the rest")]
mod cases;
#[path = "../benches/packet/harness.rs"]
#[expect(dead_code, reason = "the bench uses the rest")]
mod harness;
#[path = "../benches/packet/site.rs"]
mod site;
#[path = "../benches/packet/traffic.rs"]
mod traffic;

use anyhow::Context as _;
use lab::{Layout, test};

use crate::{cases::What, harness::Bench, traffic::Traffic};

/// Flows of a case, at most: a few stand for many.
const FEW: u32 = 1 << 13;

#[test]
fn every_packet_of_every_case_is_forwarded_and_the_next_comes_out_like_the_first() {
    test(&Layout::default(), |lab| {
        let mut cases = cases::all();
        cases.retain(|case| match case.what {
            What::Floor(_) | What::Balancer(_, Traffic::New { .. }) => true,
            What::Balancer(_, traffic) => !case.slow && traffic.flows() <= FEW,
        });
        lab.front().enter(|| {
            let mut bench = Bench::new(lab, &cases)?;
            cases
                .iter()
                .try_for_each(|case| bench.check(case).with_context(|| format!("{}: {}", case.group, case.name)))
        })
    });
}
