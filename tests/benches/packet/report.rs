//! What is told of what was measured: a table for people, JSON for programs.

use std::fmt::{self, Display};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::{
    cases::{Case, What},
    harness::{Measured, Results},
    scale::Figure,
};

/// Goal of the time that the kernel takes to verify and translate the program, in milliseconds.
const LOAD_GOAL_MS: f64 = 50.0;

/// Rows, and what they were measured on.
pub(crate) struct Report {
    machine: String,
    rows: Vec<Row>,
}

struct Row {
    group: String,
    name: String,
    unit: &'static str,
    min: f64,
    median: f64,
    /// Name of the floor, and times of it.
    ratio: Option<(String, f64)>,
    /// What the ratio may be, or the figure where it has none.
    goal: Option<f64>,
    /// Why the figures are worth nothing.
    flaw: Option<String>,
}

impl Report {
    pub(crate) fn new(machine: String, results: &Results, scale: &[Figure]) -> Self {
        let mut rows: Vec<Row> = results.cases.iter().map(|measured| Row::of_case(measured, &results.cases)).collect();
        rows.extend(program_rows(results));
        rows.extend(scale.iter().map(Row::of_figure));
        Self { machine, rows }
    }

    pub(crate) fn json(&self) -> String {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({"schema_version": 1, "bench": "packet", "machine": self.machine, "rows": rows}).to_string()
    }

    /// Fails where packets went astray.
    pub(crate) fn refuse_flawed(&self) -> Result<()> {
        let flawed: Vec<String> = self
            .rows
            .iter()
            .filter_map(|row| Some(format!("{}: {}: {}", row.group, row.name, row.flaw.as_ref()?)))
            .collect();
        if flawed.is_empty() { Ok(()) } else { bail!("figures are refused:\n  {}", flawed.join("\n  ")) }
    }
}

impl Row {
    fn of_case(measured: &Measured, all: &[Measured]) -> Self {
        let Measured { case, times, flaw } = measured;
        let (min, median) = summary(times);
        let ratio = floor_of(case, all).map(|floor| (floor.case.name.clone(), min / summary(&floor.times).0));
        Self {
            group: case.group.into(),
            name: case.name.clone(),
            unit: "ns",
            min,
            median,
            ratio,
            goal: case.goal,
            flaw: flaw.clone(),
        }
    }

    fn of_figure(figure: &Figure) -> Self {
        let (min, median) = summary(&figure.values);
        Self {
            group: "scale".into(),
            name: figure.name.into(),
            unit: figure.unit,
            min,
            median,
            ratio: None,
            goal: figure.goal,
            flaw: None,
        }
    }

    fn is_met(&self) -> Option<bool> {
        let figure = self.ratio.as_ref().map_or(self.min, |(_, ratio)| *ratio);
        self.goal.map(|goal| self.flaw.is_none() && figure <= goal)
    }

    fn json(&self) -> Value {
        let Self { group, name, unit, min, median, ratio, goal, flaw } = self;
        let (floor, ratio) = ratio.clone().unzip();
        json!({
            "group": group, "name": name, "unit": unit, "min": rounded(*min), "median": rounded(*median),
            "floor": floor, "ratio": ratio.map(rounded), "goal": goal, "met": self.is_met(), "flaw": flaw,
        })
    }
}

/// Verifying and translating each entry point, and both.
fn program_rows(results: &Results) -> Vec<Row> {
    let Some(first) = results.loaded.first() else { return Vec::new() };
    let row = |name: String, times: Vec<f64>, unit, goal| {
        let (min, median) = summary(&times);
        Row { group: "program".into(), name, unit, min, median, ratio: None, goal, flaw: None }
    };
    let milliseconds = |entry: &lb_userspace::dataplane::bench::Loaded| entry.time.as_secs_f64() * 1e3;
    let mut rows = Vec::new();
    for (index, entry) in first.iter().enumerate() {
        let times = results.loaded.iter().map(|round| milliseconds(&round[index])).collect();
        rows.push(row(format!("load {}", entry.name), times, "ms", None));
        let instructions = vec![entry.verified_instructions.into()];
        rows.push(row(format!("verified instructions of {}", entry.name), instructions, "", None));
    }
    let both = results.loaded.iter().map(|round| round.iter().map(milliseconds).sum()).collect();
    rows.push(row("load both".into(), both, "ms", Some(LOAD_GOAL_MS)));
    rows
}

fn floor_of<'m>(case: &Case, all: &'m [Measured]) -> Option<&'m Measured> {
    let wanted = case.floor()?;
    all.iter().find(|measured| {
        measured.case.live == case.live && matches!(measured.case.what, What::Floor(floor) if floor == wanted)
    })
}

/// Least and median.
fn summary(times: &[f64]) -> (f64, f64) {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    (times.first().copied().unwrap_or(f64::NAN), times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
}

/// As many digits as mean something.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        let mut group = "";
        for row in &self.rows {
            if row.group != group {
                group = &row.group;
                writeln!(
                    f,
                    "\n{:<46} {:>10} {:>10} {:>8}  {:<14} {:>5}",
                    group, "min", "median", "ratio", "to", "goal"
                )?;
            }
            write!(f, "{row}")?;
        }
        Ok(())
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<46}", self.name)?;
        if let Some(flaw) = &self.flaw {
            return writeln!(f, " refused: {flaw}");
        }
        let digits = usize::from(!self.unit.is_empty());
        write!(f, " {:>7.digits$} {:<2} {:>7.digits$} {:<2}", self.min, self.unit, self.median, self.unit)?;
        match &self.ratio {
            Some((floor, ratio)) => write!(f, " {ratio:>6.2} x  {floor:<14}")?,
            None => write!(f, " {:>8}  {:<14}", "", "")?,
        }
        match (self.goal, self.is_met()) {
            (Some(goal), Some(true)) => writeln!(f, " {goal:>5}  met"),
            (Some(goal), _) => writeln!(f, " {goal:>5}  missed"),
            _ => writeln!(f),
        }
    }
}
