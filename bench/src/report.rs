//! The figures for people and programs: a table on the terminal, one in Markdown, the summary.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use crate::compare::Row;
use crate::measure::Figures;
use crate::parts::Part;

/// The headings of the table, and whether each is a number.
const HEADINGS: [&str; 15] = [
    "workload",
    "store",
    "at a time",
    "steps/s",
    "runs/s",
    "limit",
    "of limit",
    "by CPU",
    "step p50 ms",
    "p99",
    "run p50 ms",
    "p99",
    "CPU µs a step (server+agents+database+client)",
    "WAL B/step",
    "RSS MB",
];
/// How many columns from the left are words.
const WORDS: usize = 2;

/// A table for the terminal.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(HEADINGS);
    for row in rows {
        table.add_row(cells(row));
    }
    right(&mut table);
    table.to_string()
}

/// The same for a document.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = format!("| {} |\n", HEADINGS.join(" | "));
    let marks: Vec<&str> =
        (0..HEADINGS.len()).map(|n| if n < WORDS { "---" } else { "--:" }).collect();
    let written = (|| {
        writeln!(text, "| {} |", marks.join(" | "))?;
        rows.iter().try_for_each(|row| writeln!(text, "| {} |", cells(row).join(" | ")))
    })();
    written.expect("a string takes all that is written to it");
    text
}

fn cells(row: &Row) -> Vec<String> {
    let cpu = &row.cpu_micros_per_step;
    let all = cpu.all();
    vec![
        row.workload.clone(),
        row.store.clone(),
        row.concurrency.to_string(),
        format!("{:.0}", row.steps_per_second),
        format!("{:.0}", row.runs_per_second),
        format!("{:.0}", row.limit_steps_per_second),
        format!("{:.2}", row.ratio_to_limit),
        format!("{:.2}", row.ratio_by_cpu),
        format!("{:.2}", row.p50_ms),
        format!("{:.2}", row.p99_ms),
        format!("{:.2}", row.run_p50_ms),
        format!("{:.2}", row.run_p99_ms),
        format!(
            "{all:.0} ({:.0}+{:.0}+{:.0}+{:.0})",
            cpu.server, cpu.agents, cpu.database, cpu.client
        ),
        row.wal_bytes_per_step.map_or_else(|| "-".to_owned(), |wal| format!("{wal:.0}")),
        format!("{:.0}", row.server_rss_mb),
    ]
}

/// All that is known of single measurements.
pub(crate) fn details(all: &[Figures]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "workload",
        "store",
        "at a time",
        "steps/s",
        "runs/s",
        "step p50",
        "p99",
        "max ms",
        "run p50",
        "p99",
        "max ms",
        "CPU µs/step: server",
        "agents",
        "database",
        "client",
        "cores",
        "WAL B/step",
        "RSS MB",
    ]);
    for figures in all {
        let cpu = &figures.cpu_micros_per_step;
        table.add_row([
            figures.workload.clone(),
            figures.store.clone(),
            figures.concurrency.to_string(),
            format!("{:.0}", figures.steps_per_second),
            format!("{:.0}", figures.runs_per_second),
            format!("{:.2}", figures.step.p50_ms),
            format!("{:.2}", figures.step.p99_ms),
            format!("{:.1}", figures.step.max_ms),
            format!("{:.2}", figures.run.p50_ms),
            format!("{:.2}", figures.run.p99_ms),
            format!("{:.1}", figures.run.max_ms),
            format!("{:.1}", cpu.server),
            format!("{:.1}", cpu.agents),
            format!("{:.1}", cpu.database),
            format!("{:.1}", cpu.client),
            format!("{:.2}", figures.cores_busy),
            figures.wal_bytes_per_step.map_or_else(|| "-".to_owned(), |wal| format!("{wal:.0}")),
            format!("{:.0}", figures.server_rss_mb),
        ]);
    }
    right(&mut table);
    table.to_string()
}

/// The figures that are no throughput, as a table in Markdown that reads well on a terminal too.
pub(crate) fn parts(parts: &[Part]) -> String {
    let mut text = "| what | found | goal |\n| --- | --- | --- |\n".to_owned();
    for part in parts {
        let line = writeln!(text, "| {} | {} | {} |", part.what, part.found(), part.goal);
        line.expect("a string takes all that is written to it");
    }
    text
}

fn right(table: &mut Table) {
    for column in table.column_iter_mut().skip(WORDS) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}
