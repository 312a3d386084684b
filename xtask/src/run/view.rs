//! What the viewer sees: a picture that changes in place on a terminal, lines elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use lab::{Daemon, Lab, Progress, lb_binary};

use super::story::{Stage, Story};

/// Prints the course of the demonstration.
pub(crate) struct View {
    /// Redraws; otherwise it writes a line a second.
    terminal: bool,
    /// Lines of the picture that stand below the events.
    drawn: usize,
    last: Option<(Instant, Progress)>,
    rates: Vec<(String, f64)>,
}

const EVERY: Duration = Duration::from_secs(1);

/// Columns of the longest bar.
const BAR: usize = 30;

impl View {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), drawn: 0, last: None, rates: Vec::new() }
    }

    /// What is there, and how to look at it from another terminal.
    pub(crate) fn introduce(&self, lab: &Lab, daemon: &Daemon) {
        println!("client ── front (lb, XDP on {}) ── web-01, web-02", lab.interfaces().join(" and "));
        if self.terminal {
            let lb = lb_binary().unwrap_or_default();
            println!(
                "look from another terminal: {} --socket {} status --watch",
                lb.display(),
                daemon.socket().display()
            );
            println!("Ctrl-C ends it and removes everything\n");
        }
    }

    /// A stage has begun.
    pub(crate) fn event(&mut self, elapsed: Duration, stage: Stage, cause: &str) {
        let text = match stage {
            Stage::Failing => "web-01's server is stopped".to_owned(),
            Stage::Without => format!("lb has taken web-01 out of rotation: {cause}"),
            Stage::Recovering => "web-01's server is started".to_owned(),
            Stage::Balanced => format!("lb has put web-01 back into rotation: {cause}"),
        };
        self.erase();
        println!("{:5.1} s  {text}", elapsed.as_secs_f64());
    }

    /// The picture, or the line, if it is time for it.
    pub(crate) fn draw(&mut self, status: &lab::Json, progress: &Progress, elapsed: Duration, errors: usize) {
        let due = self.last.as_ref().is_none_or(|(at, _)| at.elapsed() >= EVERY);
        if due {
            self.measure(progress);
        }
        if !(self.terminal || due && !self.rates.is_empty()) {
            return;
        }
        let lines = if self.terminal {
            self.picture(status, progress, elapsed, errors)
        } else {
            vec![self.line(status, elapsed, errors)]
        };
        self.erase();
        for line in &lines {
            println!("{line}");
        }
        self.drawn = if self.terminal { lines.len() } else { 0 };
        // A closed pipe is found out at the summary.
        let _ = io::stdout().flush();
    }

    /// How it went.
    pub(crate) fn summarise(&mut self, story: &Story, progress: &Progress, elapsed: Duration) {
        self.erase();
        let explained = progress.failures.iter().filter(|failure| story.explains(failure)).count();
        println!(
            "\n{} requests in {:.1} s, each over a connection of its own",
            count(progress.tally.total()),
            elapsed.as_secs_f64(),
        );
        let [first, second] = story.shares();
        println!("while both were in rotation: web-01 answered {}, web-02 {}", count(first), count(second));
        for (died, back) in story.durations(Stage::Failing).zip(story.durations(Stage::Recovering)) {
            println!(
                "web-01 stopped: out of rotation after {:.2} s; started: back after {:.2} s",
                died.as_secs_f64(),
                back.as_secs_f64()
            );
        }
        println!("requests that met it dead before the checks knew: {explained}");
        println!("other errors: {}", progress.failures.len() - explained);
    }

    /// Takes the rates since the last time.
    fn measure(&mut self, progress: &Progress) {
        let now = Instant::now();
        if let Some((then, before)) = self.last.replace((now, progress.clone())) {
            let seconds = (now - then).as_secs_f64();
            let rate = |(server, n): (&String, &u64)| (server.clone(), (n - before.tally.of(server)) as f64 / seconds);
            self.rates = progress.tally.answers.iter().map(rate).collect();
        }
    }

    fn rate(&self, server: &str) -> f64 {
        self.rates.iter().find(|(name, _)| name == server).map_or(0.0, |(_, rate)| *rate)
    }

    fn picture(&self, status: &lab::Json, progress: &Progress, elapsed: Duration, errors: usize) -> Vec<String> {
        let service = &status["services"][0];
        let most = self.rates.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
        let text = |value: &lab::Json| value.as_str().unwrap_or_default().to_owned();
        let mut lines = vec![format!(
            "\n{:5.1} s  {} {} {}: {}, {} requests, {errors} errors",
            elapsed.as_secs_f64(),
            text(&service["name"]),
            text(&service["listen"]),
            text(&service["algorithm"]),
            text(&service["verdict"]).to_uppercase(),
            count(progress.tally.total()),
        )];
        for backend in service["backends"].as_array().into_iter().flatten() {
            let name = text(&backend["name"]);
            let rate = self.rate(&name);
            let bar = "█".repeat((rate / most * BAR as f64).round() as usize);
            let place = if backend["in_rotation"] == true { "in rotation" } else { "OUT" };
            lines.push(format!(
                "         {name:8} {place:12} {:>7} requests/s {:>9} answered  {bar}",
                count(rate as u64),
                count(progress.tally.of(&name)),
            ));
        }
        lines
    }

    fn line(&self, status: &lab::Json, elapsed: Duration, errors: usize) -> String {
        let service = &status["services"][0];
        let servers: Vec<_> =
            self.rates.iter().map(|(server, rate)| format!("{server} {}/s", count(*rate as u64))).collect();
        let verdict = service["verdict"].as_str().unwrap_or_default();
        format!("{:5.1} s  {verdict:8} {}  {errors} errors", elapsed.as_secs_f64(), servers.join("  "))
    }

    /// Removes the picture, so that what comes next stands in its place.
    fn erase(&mut self) {
        if self.drawn > 0 {
            // The first line of a picture is an empty one more.
            print!("\x1b[{}A\x1b[J", self.drawn + 1);
            self.drawn = 0;
        }
    }
}

/// 12,345.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_separated() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(super::count(n), text);
        }
    }
}
