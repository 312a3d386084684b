//! `cargo xtask bench packet`: what a packet costs.

use std::fs;

use anyhow::{Context, Result};

use crate::{
    setup::{self, Purpose},
    shell::{cargo, run, start_as_root, workspace},
};

/// The report, in the root of the repository.
const REPORT: &str = "target/bench-packet.json";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only cases whose "group: name" contains this, and the floors
    #[arg(long, value_name = "SUBSTRING")]
    only: Option<String>,
    /// Fewer packets and rounds, and none of the cases that take long to prepare
    #[arg(long)]
    quick: bool,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    setup::ensure(Purpose::Test)?;
    let report = workspace().join(REPORT);
    let mut bench = cargo(&["bench", "--quiet", "--locked", "--package", "lb-tests", "--bench", "packet", "--"]);
    bench.arg("--report").arg(&report);
    bench.args(arguments.only.iter().flat_map(|only| ["--only", only]));
    if arguments.quick {
        bench.arg("--quick");
    }
    start_as_root(&mut bench)?;
    run(&mut bench)?;
    if arguments.json {
        println!("{}", fs::read_to_string(&report).with_context(|| format!("cannot read {}", report.display()))?);
    }
    Ok(())
}
