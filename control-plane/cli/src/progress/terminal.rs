//! Progress on a terminal: what settled scrolls by, what runs has a line each, and a bar for the
//! whole stands at the bottom. Long runs stay readable: both kinds of lines are capped.

use chrono::{DateTime, Utc};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Board, line};
use crate::output::Paint;

const DRAWS_PER_SECOND: u8 = 10;
const ACTIVE_LINES_MAX: usize = 12;
/// Behind this many settled steps only failures are still listed.
const SETTLED_LINES_MAX: usize = 100;

pub(super) struct Terminal {
    lines: MultiProgress,
    active: Vec<ProgressBar>,
    whole: ProgressBar,
    settled: usize,
    paint: Paint,
}

impl Terminal {
    pub(super) fn new(title: &str, paint: Paint) -> Terminal {
        let lines =
            MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        let whole = lines.add(ProgressBar::new(1));
        let template = if paint.on {
            "{prefix:.bold} [{bar:30.cyan/dim}] {pos}/{len} steps {elapsed:.dim}{msg}"
        } else {
            "{prefix} [{bar:30}] {pos}/{len} steps {elapsed}{msg}"
        };
        whole.set_style(style(template).progress_chars("=> "));
        whole.set_prefix(crate::output::one_line(title, 40));
        Terminal { lines, active: Vec::new(), whole, settled: 0, paint }
    }

    /// Lists a step that has settled.
    pub(super) fn settled(&mut self, line: &str, failed: bool) {
        self.settled += 1;
        if self.settled <= SETTLED_LINES_MAX || failed {
            self.note(line);
        } else if self.settled == SETTLED_LINES_MAX + 1 {
            self.note(&self.paint.dim("… from here on only failures are listed"));
        }
    }

    /// Draws what runs, and the bar.
    pub(super) fn refresh(&mut self, board: &Board, now: DateTime<Utc>) {
        let mut shown: Vec<String> =
            board.active().take(ACTIVE_LINES_MAX).map(|step| line(step, now, self.paint)).collect();
        let hidden = board.active_count() - shown.len();
        if hidden > 0 {
            shown.push(self.paint.dim(format!("… and {hidden} more")));
        }
        while self.active.len() > shown.len() {
            if let Some(bar) = self.active.pop() {
                bar.finish_and_clear();
                self.lines.remove(&bar);
            }
        }
        while self.active.len() < shown.len() {
            let bar = ProgressBar::new_spinner().with_style(style("{wide_msg}"));
            self.active.push(self.lines.insert_before(&self.whole, bar));
        }
        for (bar, text) in self.active.iter().zip(shown) {
            bar.set_message(text);
        }
        self.whole.set_length(board.total().max(1) as u64);
        self.whole.set_position(board.settled_count() as u64);
        self.whole.set_message(match board.failed_count() {
            0 => String::new(),
            failed => format!(", {}", self.paint.red(format!("{failed} failed"))),
        });
        self.whole.tick();
    }

    /// Writes a line above the others.
    pub(super) fn note(&self, text: &str) {
        // A terminal that is gone is noticed by the next write of data.
        let _ = self.lines.println(text);
    }

    /// Takes all lines away that change.
    pub(super) fn clear(self) {
        for bar in &self.active {
            bar.finish_and_clear();
        }
        self.whole.finish_and_clear();
        let _ = self.lines.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constant and well formed")
}
