//! The figures for people: a table on the terminal.

use comfy_table::{CellAlignment, Table, presets};

use crate::measure::Figures;

/// A table of measurements.
pub(crate) fn table(all: &[Figures]) -> String {
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
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
