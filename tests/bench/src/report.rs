//! The result as one table, or as JSON.
#![expect(clippy::print_stdout, reason = "the bench's one printer")]

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::ledger::Audit;
use crate::percentile::Latency;
use crate::process::Usage;
use crate::producer::Sent;
use crate::reference::Reference;
use crate::stage::Stage;

pub(crate) const MIB: f64 = (1 << 20) as f64;

/// How many cores other programs may use without a note.
const QUIET_CORES: f64 = 0.1;

/// What one scenario measured.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    connections: usize,
    accepted: usize,
    accepted_per_s: f64,
    accepted_to_echo: Option<f64>,
    accepted_to_fsync: Option<f64>,
    delivered: usize,
    delivered_per_s: Option<f64>,
    pub(crate) delivered_to_echo: Option<f64>,
    /// Deliveries still on their way when the producers stopped.
    lag: Option<usize>,
    ack: Option<Latency>,
    /// From the producer's sending to the sink's receipt.
    pub(crate) arrival: Option<Latency>,
    rss_mib: f64,
    peak_rss_mib: f64,
    cpu_us_per_event: f64,
    refused: usize,
    broken: usize,
    pub(crate) audit: Audit,
    /// The server was killed: repeats and broken requests are not failures.
    pub(crate) crashed: bool,
    /// The rate was given, not reached.
    pub(crate) paced: bool,
    /// What else is not as it should be; it is among the notes.
    failed: bool,
    reference: Option<Reference>,
    notes: Vec<String>,
}

impl Row {
    /// Starts a row with the figures that every scenario has.
    pub(crate) fn of(scenario: &str, connections: usize, stage: &Stage, sent: &Sent) -> Self {
        let mut row = Self {
            scenario: scenario.to_owned(),
            connections,
            accepted: sent.accepted,
            accepted_per_s: sent.per_second(),
            accepted_to_echo: None,
            accepted_to_fsync: None,
            delivered: 0,
            delivered_per_s: None,
            delivered_to_echo: None,
            lag: None,
            ack: Latency::of(stage.ledger.ack_nanos()),
            arrival: None,
            rss_mib: 0.0,
            peak_rss_mib: 0.0,
            cpu_us_per_event: 0.0,
            refused: 0,
            broken: 0,
            audit: Audit::default(),
            crashed: false,
            paced: false,
            failed: false,
            reference: None,
            notes: Vec::new(),
        };
        row.add(stage, sent);
        row
    }

    /// Adds the result of a further load, and repeats the audit.
    pub(crate) fn add(&mut self, stage: &Stage, sent: &Sent) {
        self.delivered = stage.ledger.arrived();
        self.audit = stage.ledger.audit();
        self.refused += sent.refused;
        self.broken += sent.broken;
        if let Some(failure) = &sent.first_failure {
            self.note(format!("first failure: {failure}"));
        }
        if self.audit.lost > 0 {
            self.note(format!("the server's log ends: {}", stage.log()));
        }
    }

    /// Adds the rate and the times of the deliveries, once all have arrived.
    pub(crate) fn delivered(&mut self, stage: &Stage, sent: &Sent) {
        let took = stage.ledger.last_arrival().saturating_sub(sent.started).as_secs_f64();
        self.delivered_per_s = (took > 0.0).then(|| self.delivered as f64 / took);
        self.arrival = Latency::of(stage.ledger.arrival_nanos());
        self.lag = Some(sent.lag);
    }

    /// Adds the rate of runs; one that did not succeed counts as lost.
    pub(crate) fn ran(&mut self, succeeded: usize, took: Duration) {
        self.delivered = succeeded;
        self.delivered_per_s = Some(succeeded as f64 / took.as_secs_f64());
        self.audit.lost = self.accepted - succeeded;
    }

    /// Adds memory and processor time, the latter for each of `events`.
    pub(crate) fn used(&mut self, before: Usage, after: Usage, events: usize) {
        self.rss_mib = after.rss_bytes as f64 / MIB;
        self.peak_rss_mib = after.peak_rss_bytes as f64 / MIB;
        self.cpu_us_per_event = (after.cpu - before.cpu).as_secs_f64() * 1e6 / events as f64;
    }

    /// Adds a sentence below the table.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Adds a sentence that says what is not as it should be.
    pub(crate) fn fail(&mut self, note: String) {
        self.failed = true;
        self.note(note);
    }

    /// Sets how many deliveries have arrived, and their audit, where the ledger is another.
    pub(crate) fn arrived(&mut self, delivered: usize, audit: Audit) {
        (self.delivered, self.audit) = (delivered, audit);
    }

    /// Turns rates into ratios.
    pub(crate) fn compare(&mut self, reference: Reference) {
        self.reference = Some(reference);
        if reference.others_cores > QUIET_CORES {
            self.note(format!(
                "the machine is not quiet: others kept {:.2} cores busy",
                reference.others_cores
            ));
        }
        if !self.paced {
            self.accepted_to_echo = Some(self.accepted_per_s / reference.echo_per_s);
            self.accepted_to_fsync = Some(self.accepted_per_s / reference.fsync_per_s);
            self.delivered_to_echo = self.delivered_per_s.map(|rate| rate / reference.echo_per_s);
        }
    }

    /// Adds the comparison with the scenario that this one is measured against.
    pub(crate) fn relate(&mut self, other: &Self) {
        let (Some(mine), Some(others)) = (self.delivered_per_s, other.delivered_per_s) else { return };
        let (Some(my_share), Some(their_share)) = (self.delivered_to_echo, other.delivered_to_echo) else {
            return;
        };
        self.note(format!(
            "{:.2} of the rate of {}; {:.2} of it when both are taken as shares of their echoes",
            mine / others,
            other.scenario,
            my_share / their_share
        ));
    }

    /// Returns whether everything arrived exactly as often as it should.
    pub(crate) fn passed(&self) -> bool {
        let Audit { lost, repeated, renamed, strays } = self.audit;
        let clean = repeated == 0 && self.refused == 0 && self.broken == 0;
        lost == 0 && renamed == 0 && strays == 0 && !self.failed && (clean || self.crashed)
    }

    fn cells(&self) -> Vec<String> {
        let latency = |latency: Option<Latency>| {
            let show = |pick: fn(Latency) -> f64| latency.map_or(dash(), |it| format!("{:.2}", pick(it)));
            [show(|it| it.p50_ms), show(|it| it.p99_ms)]
        };
        let ratio = |ratio: Option<f64>| ratio.map_or(dash(), |it| format!("{it:.2}"));
        let [ack_p50, ack_p99] = latency(self.ack);
        let [arrival_p50, arrival_p99] = latency(self.arrival);
        vec![
            self.scenario.clone(),
            self.connections.to_string(),
            format!("{:.0}", self.accepted_per_s),
            ratio(self.accepted_to_echo),
            ratio(self.accepted_to_fsync),
            self.delivered_per_s.map_or(dash(), |it| format!("{it:.0}")),
            ratio(self.delivered_to_echo),
            ack_p50,
            ack_p99,
            arrival_p50,
            arrival_p99,
            self.lag.map_or(dash(), |it| it.to_string()),
            format!("{:.1}", self.rss_mib),
            format!("{:.1}", self.cpu_us_per_event),
            self.audit.lost.to_string(),
            self.audit.repeated.to_string(),
            self.reference.map_or(dash(), |it| format!("{:.0}", it.echo_per_s)),
            self.reference.map_or(dash(), |it| format!("{:.0}", it.fsync_per_s)),
        ]
    }
}

fn dash() -> String {
    "-".to_owned()
}

const HEAD: [&str; 18] = [
    "scenario",
    "conns",
    "accepted/s",
    "xecho",
    "xfsync",
    "delivered/s",
    "xecho",
    "ack p50",
    "p99 ms",
    "sink p50",
    "p99 ms",
    "lag",
    "RSS MiB",
    "CPU us/ev",
    "lost",
    "repeated",
    "echo/s",
    "fsync ev/s",
];

/// Returns the median of each column, for one scenario played several times.
fn median(cells: &[Vec<String>]) -> Vec<String> {
    let column = |n: usize| {
        let mut column: Vec<&String> = cells.iter().map(|row| &row[n]).collect();
        // A cell that is not a number is the same in every row.
        let number = |cell: &str| cell.parse().unwrap_or(0.0_f64);
        column.sort_by(|a, b| number(a).total_cmp(&number(b)));
        column[column.len() / 2].clone()
    };
    let mut line: Vec<String> = (0..HEAD.len()).map(column).collect();
    line[0] = format!("{} median", line[0]);
    line
}

/// Prints all rows as one table, the medians of repeated scenarios, and the notes below.
pub(crate) fn print_table(rows: &[Row]) {
    let head = HEAD.map(str::to_owned).to_vec();
    let mut lines: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    for (n, row) in rows.iter().enumerate() {
        let same = || rows.iter().enumerate().filter(|(_, other)| other.scenario == row.scenario);
        if same().count() > 1 && same().all(|(other, _)| other >= n) {
            lines.push(median(&same().map(|(_, row)| row.cells()).collect::<Vec<_>>()));
        }
    }
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    for line in &lines {
        let cells = line.iter().enumerate().map(|(column, cell)| match column {
            0 => format!("{cell:<0$}", width(column)),
            _ => format!("{cell:>0$}", width(column)),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  "));
    }
    for row in rows {
        for note in &row.notes {
            println!("{}: {note}", row.scenario);
        }
        if !row.passed() {
            let (scenario, Audit { lost, repeated, renamed, strays }) = (&row.scenario, row.audit);
            let (refused, broken) = (row.refused, row.broken);
            println!(
                "{scenario}: FAILED: {lost} lost, {repeated} repeated, {renamed} repeated under another webhook-id, \
                 {strays} strays, {refused} requests refused, {broken} without an answer"
            );
        }
    }
}

/// Prints all rows as one JSON document.
pub(crate) fn print_json(rows: &[Row]) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(&serde_json::json!({ "scenarios": rows }))?);
    Ok(())
}

/// Prints a line about a scenario that is being played: not on stdout, which has the result.
#[expect(clippy::print_stderr, reason = "it is no result")]
pub(crate) fn print_progress(line: &str) {
    eprintln!("{line}");
}

/// Prints one line; also used for the echo's address.
pub(crate) fn print_line(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_median_of_each_column_by_number() {
        let row = |rate: &str| {
            let mut cells = vec![dash(); HEAD.len()];
            (cells[0], cells[2]) = ("accept".to_owned(), rate.to_owned());
            cells
        };
        let line = median(&[row("9000"), row("30000"), row("10000")]);
        assert_eq!(line[..4], ["accept median", "-", "10000", "-"]);
    }
}
