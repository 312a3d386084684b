//! `cargo xtask bench packet`: what a packet costs.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use lab::Json;

use super::chart::{self, Bar, Panel};
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
    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "target/bench-packet.svg")]
    picture: PathBuf,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    setup::ensure(Purpose::Test)?;
    let file = workspace().join(REPORT);
    let mut bench = cargo(&["bench", "--quiet", "--locked", "--package", "lb-tests", "--bench", "packet", "--"]);
    bench.arg("--report").arg(&file);
    bench.args(arguments.only.iter().flat_map(|only| ["--only", only]));
    if arguments.quick {
        bench.arg("--quick");
    }
    start_as_root(&mut bench)?;
    run(&mut bench)?;
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let report: Json = text.parse().with_context(|| format!("{} is no JSON", file.display()))?;
    let panels = panels(&report);
    if !panels.is_empty() {
        chart::draw(&workspace().join(&arguments.picture), &panels)?;
        println!("\npicture: {}", arguments.picture.display());
    }
    if arguments.json {
        println!("{text}");
    }
    Ok(())
}

/// The cases with goals, as multiples of their floors; and how the cost grows with the number of flows.
fn panels(report: &Json) -> Vec<Panel> {
    let machine = report["machine"].as_str().unwrap_or_default();
    let goals = bars(report, "goal", |row| {
        let ratio = row["ratio"].as_f64()?;
        let floor = row["floor"].as_str()?;
        Some((ratio, format!("{ratio:.1} x {floor}, {:.0} ns", row["min"].as_f64()?)))
    });
    let growth = bars(report, "flows", |row| {
        let ns = row["min"].as_f64()?;
        Some((ns, format!("{ns:.0} ns")))
    });
    let panel = |title, bars: Vec<Bar>| (!bars.is_empty()).then_some(Panel { title, bars });
    let goals = panel("What a packet costs, as a multiple of its floor; lines are goals".to_owned(), goals);
    let growth = panel(format!("Nanoseconds per packet, by the number of flows: {machine}"), growth);
    goals.into_iter().chain(growth).collect()
}

fn bars(report: &Json, group: &str, value: impl Fn(&Json) -> Option<(f64, String)>) -> Vec<Bar> {
    let rows = report["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let rows = rows.iter().filter(|row| row["group"] == group);
    rows.filter_map(|row| {
        let (value, text) = value(row)?;
        Some(Bar { label: row["name"].as_str()?.to_owned(), value, text, goal: row["goal"].as_f64() })
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_shows_goals_as_ratios_and_growth_as_times() {
        let report: Json = r#"{"machine": "M", "rows": [
            {"group": "floor", "name": "pass", "min": 9.0},
            {"group": "goal", "name": "a", "min": 15.7, "ratio": 1.75, "floor": "pass", "goal": 1.6},
            {"group": "flows", "name": "b", "min": 33.2, "ratio": 3.3, "floor": "MAC swap", "goal": null},
            {"group": "flows", "name": "refused", "min": null}]}"#
            .parse()
            .unwrap();
        let panels = panels(&report);
        let bars = |panel: &Panel| -> Vec<_> {
            panel.bars.iter().map(|bar| (bar.label.clone(), bar.text.clone(), bar.goal)).collect()
        };
        assert_eq!(bars(&panels[0]), [("a".to_owned(), "1.8 x pass, 16 ns".to_owned(), Some(1.6))]);
        assert_eq!(bars(&panels[1]), [("b".to_owned(), "33 ns".to_owned(), None)]);
    }
}
