//! How far a run is: a board of its steps, told live on a terminal or line by line elsewhere.

mod board;
mod terminal;

pub(crate) use board::{Board, StepState};

use chrono::{DateTime, Utc};
use contracts::v1::{EventKind, JournalEvent, StepStatus, TaskUpdate, task_update::Update};

use crate::output::{Output, Paint, one_line};
use crate::{moment, status};
use terminal::Terminal;

const MESSAGE_CHARS_MAX: usize = 100;
const PATH_CHARS_MAX: usize = 80;
const LOG_CHARS_MAX: usize = 400;

/// Tells how far a run is.
pub(crate) struct Progress {
    board: Board,
    started: DateTime<Utc>,
    terminal: Option<Terminal>,
}

impl Progress {
    /// Progress of a run.
    pub(crate) fn new(title: &str, started: DateTime<Utc>, output: &Output) -> Self {
        let terminal = output.live.then(|| Terminal::new(title, output.note_paint()));
        let mut progress = Progress { board: Board::default(), started, terminal };
        progress.tick();
        progress
    }

    /// Takes in a step that is known before anything happens to it.
    pub(crate) fn expect(&mut self, path: &str) {
        self.board.expect(path);
    }

    /// Takes in a journal event.
    pub(crate) fn event(&mut self, event: &JournalEvent, output: &mut Output) {
        if let Some(index) = self.board.event(event) {
            self.changed(index, output);
        } else if let Some(text) = milestone(event) {
            let line = output.note_paint().yellow(one_line(&text, LOG_CHARS_MAX));
            self.note(&line, output);
        }
    }

    /// Takes in progress of a running task.
    pub(crate) fn update(&mut self, update: &TaskUpdate, output: &mut Output) {
        if let Some(index) = self.board.update(update) {
            self.changed(index, output);
        }
        if let Some(Update::Log(log)) = &update.update
            && matches!(log.level.as_str(), "warn" | "error")
        {
            let message = one_line(&log.message, LOG_CHARS_MAX);
            self.note(&format!("{} {}: {message}", log.level, update.step), output);
        }
    }

    fn changed(&mut self, index: usize, output: &mut Output) {
        let now = moment::now();
        let step = self.board.step(index);
        let line = line(step, now, output.note_paint());
        match &mut self.terminal {
            Some(terminal) => {
                if status::is_settled(step.status) {
                    terminal.settled(&line, step.status == StepStatus::Failure);
                }
                terminal.refresh(&self.board, now);
            }
            // That a step is queued is told only where it is news: after a failed attempt.
            None if step.status != StepStatus::Queued || step.attempt > 1 => {
                self.note(&line, output);
            }
            None => {}
        }
    }

    /// Lets times go on.
    pub(crate) fn tick(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.refresh(&self.board, moment::now());
        }
    }

    /// Writes a line among the others; elsewhere than on a terminal with the time since the start.
    pub(crate) fn note(&mut self, text: &str, output: &mut Output) {
        if let Some(terminal) = &self.terminal {
            terminal.note(text);
            return;
        }
        let since = moment::now().signed_duration_since(self.started).to_std().unwrap_or_default();
        let since = format!("[{:>7}]", moment::duration(since));
        output.note(&format!("{} {text}", output.note_paint().dim(since)));
    }

    /// Leaves the terminal to others; a blank line parts its lines from a result that follows.
    pub(crate) fn finish(&mut self, output: &mut Output) {
        if let Some(terminal) = self.terminal.take() {
            terminal.clear();
            if output.width.is_some() && !output.is_json() {
                output.note("");
            }
        }
    }
}

/// What an event means that changes no step's status, where people want to know it.
fn milestone(event: &JournalEvent) -> Option<String> {
    let step = &event.step;
    let text = match event.kind() {
        EventKind::RollbackStarted => "rolling back …",
        EventKind::RollbackEnded => "the rollback ended",
        EventKind::OnFailureStarted => "running the steps of `on_failure` …",
        EventKind::RunPaused => "the run is paused",
        EventKind::RunResumed => "the run goes on",
        EventKind::RunCancelRequested => "the run is asked to stop",
        EventKind::RunRetried => "the run is taken up again",
        EventKind::UndoQueued => return Some(format!("undoing {step} …")),
        EventKind::UndoSucceeded => return Some(format!("{step} is undone")),
        EventKind::UndoFailed => {
            let error = board::error(event).unwrap_or_default();
            return Some(format!("undoing {step} failed: {error}"));
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// One step in a line: mark, path, agent, status, time, and what there is to say.
fn line(step: &StepState, now: DateTime<Utc>, paint: Paint) -> String {
    let word = status::step_word(step.status);
    let path = one_line(&step.path, PATH_CHARS_MAX);
    let mut line = format!("{} {path}", status::painted(word, status::mark(word), paint));
    if !step.agent.is_empty() {
        line.push_str(&paint.dim(format!(" ({})", one_line(&step.agent, PATH_CHARS_MAX))));
    }
    line.push(' ');
    line.push_str(&status::painted(word, word, paint));
    if step.attempt > 1 {
        line.push_str(&paint.yellow(format!(" attempt {}", step.attempt)));
    }
    let ended = step.ended.unwrap_or(now);
    if let Some(started) = step.started
        && let Ok(time) = ended.signed_duration_since(started).to_std()
        && step.status != StepStatus::Skipped
    {
        line.push_str(&paint.dim(format!(" {}", moment::duration(time))));
    }
    if let Some(fraction) = step.fraction.filter(|_| !status::is_settled(step.status)) {
        line.push_str(&format!(" {:.0}%", fraction.clamp(0.0, 1.0) * 100.0));
    }
    if !step.message.is_empty() {
        line.push_str(&format!(": {}", one_line(&step.message, MESSAGE_CHARS_MAX)));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap_or_default()
    }

    #[test]
    fn a_rollback_is_told() {
        let told = |kind: EventKind, body: &str| {
            let data = Some(contracts::v1::payload::Data::Json(body.to_owned()));
            let body = Some(contracts::v1::Payload { data, ..Default::default() });
            let step = "a".to_owned();
            milestone(&JournalEvent { kind: kind.into(), step, body, ..Default::default() })
        };
        assert_eq!(told(EventKind::UndoQueued, "{}").as_deref(), Some("undoing a …"));
        assert_eq!(
            told(EventKind::UndoFailed, r#"{"error":{"message":"gone"}}"#).as_deref(),
            Some("undoing a failed: gone")
        );
        assert_eq!(told(EventKind::RunAdopted, "{}"), None);
    }

    #[test]
    fn a_line_says_mark_path_agent_status_and_time() {
        let mut step = StepState::new("loop[2].deploy");
        step.agent = "deployment-manager".into();
        step.status = StepStatus::Running;
        step.started = Some(at(10));
        step.fraction = Some(0.5);
        step.message = "uploading\nfiles".into();
        step.attempt = 2;
        assert_eq!(
            line(&step, at(12), Paint::default()),
            "● loop[2].deploy (deployment-manager) running attempt 2 2.0s 50%: uploading files"
        );
        step.status = StepStatus::Failure;
        step.ended = Some(at(13));
        step.message = "no space".into();
        assert_eq!(
            line(&step, at(99), Paint::default()),
            "✗ loop[2].deploy (deployment-manager) failure attempt 2 3.0s: no space"
        );
        step.status = StepStatus::Success;
        step.attempt = 1;
        step.message.clear();
        assert_eq!(
            line(&step, at(99), Paint { on: true }),
            "\u{1b}[32m✓\u{1b}[0m loop[2].deploy\u{1b}[2m (deployment-manager)\u{1b}[0m \
             \u{1b}[32msuccess\u{1b}[0m\u{1b}[2m 3.0s\u{1b}[0m"
        );
    }
}
