//! What is printed.

use std::{collections::BTreeMap, time::Duration};

use lab::{Json, peers::Contender};

use super::{
    super::chart::{Bar, Panel},
    figures::{Figures, Hold, Measure, Sample},
    goals::{Goal, Limit, goals},
};

/// A number of a sample: its key in JSON, its title, its unit.
const MEASURES: [(&str, &str, &str, Measure); 6] = [
    ("kept_per_s", "requests over kept connections", "/s", |sample| sample.kept.rate),
    ("new_per_s", "requests over connections of their own", "/s", |sample| sample.new.rate),
    ("median_us", "latency, paced requests: median", "us", |sample| sample.paced.median),
    ("p99_us", "latency, paced requests: 99th percentile", "us", |sample| sample.paced.p99),
    ("kept_processor_us", "processor time of a request, all of the machine", "us", |sample| sample.kept.processor),
    ("new_processor_us", "processor time of a connection, all of the machine", "us", |sample| sample.new.processor),
];

pub(crate) fn sample(at: Duration, round: usize, contender: Contender, sample: &Sample) {
    let Sample { kept, paced, new } = sample;
    println!(
        "{:6.1} s  round {round}  {contender:12}  kept {:7.0}/s   new {:6.0}/s   median {:4.0} us   99th percentile {:5.0} us",
        at.as_secs_f64(),
        kept.rate,
        new.rate,
        paced.median,
        paced.p99,
    );
}

pub(crate) fn hold(at: Duration, contender: Contender, hold: &Hold) {
    println!(
        "{:6.1} s  held     {contender:12}  new {:6.0}/s in the usual second, {:.2} of it in the worst of {}",
        at.as_secs_f64(),
        hold.rate(),
        hold.steadiness(),
        hold.rates.len(),
    );
}

/// A table for each measure, then the goals.
pub(crate) fn summarise(figures: &Figures) {
    for (_, title, unit, measure) in MEASURES {
        println!("\n{title}: median of all rounds; beside direct in the same round");
        for contender in Contender::ALL {
            println!(
                "  {contender:12}  {:9.1} {unit:2}  x {:.2}  {:+10.1} {unit}",
                figures.median(contender, measure),
                figures.ratio(contender, measure),
                figures.added(contender, measure),
            );
        }
    }
    let direct = figures.hold(Contender::Direct).rate();
    println!(
        "\nnew connections that servers accept, held: usual second; beside direct; worst second, of the usual one"
    );
    for contender in Contender::ALL {
        let hold = figures.hold(contender);
        let (rate, steadiness) = (hold.rate(), hold.steadiness());
        println!("  {contender:12}  {rate:9.1} /s  x {:.2}  {steadiness:.2}", rate / direct);
    }
    for contender in Contender::ALL {
        let errors = figures.errors(contender);
        if !errors.is_empty() {
            println!("\n{contender}: {}", list(&errors));
        }
    }
    println!("\ngoals");
    for goal in goals(figures) {
        let (met, (limit, number)) = (if goal.is_met() { "met" } else { "missed" }, limit(&goal));
        println!("  {met:6}  {}: {:.2}, {limit} {number:.1}", goal.words, goal.value);
    }
}

fn list(errors: &BTreeMap<String, u64>) -> String {
    errors.iter().map(|(kind, count)| format!("{count} {kind} errors")).collect::<Vec<_>>().join(", ")
}

fn limit(goal: &Goal) -> (&'static str, f64) {
    match goal.limit {
        Limit::AtLeast(limit) => ("at least", limit),
        Limit::AtMost(limit) => ("at most", limit),
    }
}

/// Bars for what the goals are about, each contender beside direct.
pub(crate) fn panels(figures: &Figures) -> Vec<Panel> {
    let direct = figures.hold(Contender::Direct).rate();
    let held = |contender| figures.hold(contender).rate() / direct;
    let panel = |title: &str, ratio: &dyn Fn(Contender) -> f64| Panel {
        title: title.into(),
        bars: Contender::ALL
            .map(|contender| {
                let value = ratio(contender);
                Bar { label: contender.to_string(), value, text: format!("{value:.2} x direct"), goal: None }
            })
            .into(),
    };
    vec![
        panel("new connections per second, held (more is better)", &held),
        panel("requests per second on kept connections (more is better)", &|of| figures.ratio(of, |one| one.kept.rate)),
        panel("99th percentile of latency (less is better)", &|of| figures.ratio(of, |one| one.paced.p99)),
        panel("processor time of a connection (less is better)", &|of| figures.ratio(of, |one| one.new.processor)),
    ]
}

/// All of it in one line.
pub(crate) fn json(figures: &Figures, machine: &str, rounds: usize) -> Json {
    let contender = |contender: Contender| {
        let medians = MEASURES.map(|(key, _, _, measure)| (key.to_owned(), round(figures.median(contender, measure))));
        let ratios = MEASURES.map(|(key, _, _, measure)| (key, round(figures.ratio(contender, measure))));
        let hold = figures.hold(contender);
        let more = [
            ("of_direct", ratios.into_iter().collect()),
            ("kept_processor_added_us", round(figures.added(contender, |sample| sample.kept.processor))),
            ("new_processor_added_us", round(figures.added(contender, |sample| sample.new.processor))),
            ("held_per_s", hold.rates.iter().map(|rate| Json::from(rate.round())).collect()),
            ("held_worst_second", round(hold.steadiness())),
            ("errors", figures.errors(contender).into_iter().collect()),
        ];
        let more = more.map(|(key, value): (&str, Json)| (key.to_owned(), value));
        (contender.to_string(), medians.into_iter().chain(more).collect::<Json>())
    };
    let goal = |goal: Goal| {
        let (limit, number) = limit(&goal);
        Json::from_iter([
            ("goal", Json::from(goal.words.as_str())),
            ("value", round(goal.value)),
            (limit, Json::from(number)),
            ("met", Json::from(goal.is_met())),
        ])
    };
    Json::from_iter([
        ("machine", Json::from(machine)),
        ("rounds", Json::from(rounds)),
        ("contenders", Contender::ALL.map(contender).into_iter().collect()),
        ("goals", goals(figures).into_iter().map(goal).collect()),
    ])
}

/// As many digits as mean something.
fn round(value: f64) -> Json {
    Json::from((value * 1000.0).round() / 1000.0)
}
