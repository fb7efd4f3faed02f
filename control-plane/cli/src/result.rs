//! The result of a run: gathered over pages, shown as a table or as one JSON document.

use contracts::v1::{
    ListStepsRequest, Payload, Run, RunMetrics, RunStatus, StepResult, WorkflowResult,
    payload::Data,
};

use crate::connection::{Client, orchestrator};
use crate::error::Error;
use crate::object::Object;
use crate::output::{Output, one_line, printable};
use crate::table::{Table, details};
use crate::{json, moment, status};

const PAGE_SIZE: i32 = 1000;
/// Pages may be short where outputs are large; so many are enough for any run.
const PAGES_MAX: usize = 200_000;
const ROWS_MAX: usize = 200;
const ERROR_CHARS_MAX: usize = 120;
const VALUE_CHARS_MAX: usize = 2000;

/// All steps of a run, in order.
pub(crate) async fn steps(client: &Client, run_id: &str) -> Result<Vec<StepResult>, Error> {
    let mut steps = Vec::new();
    let mut page_token = String::new();
    for _ in 0..PAGES_MAX {
        let request =
            ListStepsRequest { run_id: run_id.to_owned(), page_size: PAGE_SIZE, page_token };
        let page = client
            .call(async |channel| orchestrator(channel).list_steps(request.clone()).await)
            .await?;
        steps.extend(page.steps);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(steps)
}

/// The result of a run with these steps, as the run's basic view tells the rest.
pub(crate) fn of(run: &Run, steps: Vec<StepResult>) -> WorkflowResult {
    let mut result = run.result.clone().unwrap_or_default();
    if result.workflow_id.is_empty() {
        result.workflow_id.clone_from(&run.run_id);
    }
    if result.status.is_empty() {
        result.status = status::run_word(run.status()).to_owned();
    }
    result.start_time = result.start_time.or(run.create_time);
    result.end_time = result.end_time.or(run.end_time);
    if result.duration.is_none()
        && let (Some(start), Some(end)) = (&result.start_time, &result.end_time)
        && let Some(duration) = moment::between(Some(start), Some(end), moment::now())
    {
        result.duration = prost_types::Duration::try_from(duration).ok();
    }
    if result.metrics.is_none() {
        result.metrics = Some(run.metrics.unwrap_or_else(|| counts(&steps)));
    }
    if result.outputs.is_none() {
        result.outputs.clone_from(&run.outputs);
    }
    if result.error.is_empty() {
        result.error.clone_from(&run.error);
    }
    if !steps.is_empty() {
        result.steps = steps;
    }
    result
}

/// The counts of a run that has not ended: the server tells them at its end.
fn counts(steps: &[StepResult]) -> RunMetrics {
    let mut counts = RunMetrics::default();
    for step in steps.iter().filter(|step| status::is_counted(&step.step_id)) {
        counts.total_steps += 1;
        match step.status.as_str() {
            "success" => counts.successful_steps += 1,
            "failure" => counts.failed_steps += 1,
            "skipped" => counts.skipped_steps += 1,
            _ => {}
        }
    }
    counts
}

/// Writes a result to stdout in the form asked for.
pub(crate) fn write(run: &Run, result: &WorkflowResult, output: &mut Output) -> Result<(), Error> {
    let text = if output.is_json() {
        json::message("WorkflowResult", result)
    } else {
        summary(run, result, output)
    };
    Ok(output.data(&text)?)
}

/// The steps in a table, the outputs, and how it ended.
fn summary(run: &Run, result: &WorkflowResult, output: &Output) -> String {
    let mut parts = Vec::new();
    if !result.steps.is_empty() {
        parts.push(step_table(&result.steps, output));
    }
    let outputs = outputs(result.outputs.as_ref());
    if !outputs.is_empty() {
        let heading = output.data_paint().bold("Outputs");
        let rows: Vec<(&str, String)> =
            outputs.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        parts.push(format!("{heading}\n{}", details(&rows)));
    }
    parts.push(ending(run, result, output));
    parts.join("\n\n")
}

/// A table of steps; of very many, all failures and the first others.
pub(crate) fn step_table(steps: &[StepResult], output: &Output) -> String {
    let mut table = Table::new(&["STEP", "AGENT", "STATUS", "TIME", "DETAIL"], output);
    let now = moment::now();
    let mut rows = 0;
    for step in steps {
        if rows >= ROWS_MAX && step.status != "failure" {
            continue;
        }
        rows += 1;
        let time = moment::between(step.start_time.as_ref(), step.end_time.as_ref(), now);
        let time = time.filter(|_| step.status != "skipped").map(moment::duration);
        let mut detail = if step.error.is_empty() { &step.waiting_reason } else { &step.error };
        let attempts = format!("{} attempts", step.attempts);
        if detail.is_empty() && step.attempts > 1 {
            detail = &attempts;
        }
        table.row([
            step.step_id.as_str(),
            if step.agent.is_empty() { "-" } else { &step.agent },
            &step.status,
            time.as_deref().unwrap_or("-"),
            &one_line(detail, ERROR_CHARS_MAX),
        ]);
    }
    let mut text = table.text();
    if rows < steps.len() {
        text.push_str(&format!("\n… and {} more; `-o json` has all", steps.len() - rows));
    }
    text
}

/// The outputs by name, text as it is and everything else as JSON.
fn outputs(payload: Option<&Payload>) -> Vec<(String, String)> {
    let Some(Data::Json(json)) = payload.and_then(|payload| payload.data.as_ref()) else {
        return Vec::new();
    };
    let Ok(object) = serde_json::from_str::<Object>(json) else {
        return vec![("value".to_owned(), one_line(json, VALUE_CHARS_MAX))];
    };
    let text = |raw: &str| serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned());
    object.entries().map(|(name, raw)| (name.to_owned(), cut(&text(raw)))).collect()
}

/// Text over lines, and not endless.
fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", printable(&text[..end])),
        None => printable(text),
    }
}

/// The last lines: how it ended, why, and how many steps.
fn ending(run: &Run, result: &WorkflowResult, output: &Output) -> String {
    let paint = output.data_paint();
    let word = result.status.as_str();
    let mut line = status::painted(word, &format!("{} {word}", status::mark(word)), paint);
    if !run.workflow.is_empty() {
        line = format!("{line}  {}", run.workflow);
    }
    if let Some(duration) = moment::span(result.duration.as_ref()) {
        line.push_str(&format!(" in {}", moment::duration(duration)));
    }
    let metrics = result.metrics.unwrap_or_default();
    line.push_str(&format!(
        ": {} of {} steps succeeded",
        metrics.successful_steps, metrics.total_steps
    ));
    for (count, word) in [(metrics.failed_steps, "failed"), (metrics.skipped_steps, "skipped")] {
        if count > 0 {
            line.push_str(&format!(", {count} {word}"));
        }
    }
    if run.status() != RunStatus::Success {
        let step = first_failure(run, &result.steps);
        let error = if result.error.is_empty() {
            step.map_or("", |step| step.error.as_str())
        } else {
            &result.error
        };
        let place = match step.map_or(run.failed_step.as_str(), |step| step.step_id.as_str()) {
            "" => String::new(),
            step => format!("step `{step}`: "),
        };
        if !error.is_empty() {
            let error = format!("{place}{}", cut(error));
            let mark = match run.status() {
                RunStatus::Cancelled => paint.yellow("reason:"),
                _ => paint.red("error:"),
            };
            line.push_str(&format!("\n{mark} {error}"));
        }
    }
    line.push_str(&format!("\nrun {}", run.run_id));
    line
}

fn first_failure<'a>(run: &Run, steps: &'a [StepResult]) -> Option<&'a StepResult> {
    steps
        .iter()
        .find(|step| !run.failed_step.is_empty() && step.step_id == run.failed_step)
        .or_else(|| steps.iter().find(|step| step.status == "failure"))
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::arguments::Format;

    fn run(status: RunStatus) -> Run {
        Run {
            run_id: "r1".into(),
            workflow: "Build".into(),
            status: status.into(),
            create_time: Some(Timestamp { seconds: 10, nanos: 0 }),
            end_time: Some(Timestamp { seconds: 11, nanos: 500_000_000 }),
            metrics: Some(RunMetrics { total_steps: 2, successful_steps: 1, ..Default::default() }),
            ..Default::default()
        }
    }

    fn step(id: &str, status: &str, error: &str) -> StepResult {
        StepResult {
            step_id: id.into(),
            agent: "echo".into(),
            status: status.into(),
            error: error.into(),
            attempts: 1,
            start_time: Some(Timestamp { seconds: 10, nanos: 0 }),
            end_time: Some(Timestamp { seconds: 11, nanos: 0 }),
            ..Default::default()
        }
    }

    fn output() -> Output {
        Output::into(std::io::sink(), std::io::sink(), Format::Table)
    }

    #[test]
    fn a_failed_run_names_the_step_and_its_error() {
        let mut run = run(RunStatus::Failure);
        run.failed_step = "deploy".into();
        run.metrics = Some(RunMetrics { failed_steps: 1, ..run.metrics.unwrap_or_default() });
        let steps = vec![step("build", "success", ""), step("deploy", "failure", "no space")];
        let expected = "\
STEP    AGENT  STATUS   TIME  DETAIL
build   echo   success  1.0s
deploy  echo   failure  1.0s  no space

✗ failure  Build in 1.5s: 1 of 2 steps succeeded, 1 failed
error: step `deploy`: no space
run r1";
        assert_eq!(summary(&run, &of(&run, steps), &output()), expected);
    }

    #[test]
    fn steps_of_a_run_that_goes_on_are_counted_here() {
        let run = Run { metrics: None, ..run(RunStatus::Running) };
        let steps = vec![
            step("a", "success", ""),
            step("b", "running", ""),
            step("on_failure.c", "pending", ""),
        ];
        let metrics = of(&run, steps).metrics.unwrap();
        assert_eq!((metrics.total_steps, metrics.successful_steps), (2, 1));
    }

    #[test]
    fn outputs_stand_in_order_with_text_as_it_is() {
        let mut run = run(RunStatus::Success);
        let json = r#"{"url":"http://x","count":12345678901234567890,"all":[1, 2]}"#;
        run.outputs = Some(Payload { data: Some(Data::Json(json.into())), ..Default::default() });
        let expected = "\
Outputs
url    http://x
count  12345678901234567890
all    [1, 2]

✓ success  Build in 1.5s: 1 of 2 steps succeeded
run r1";
        assert_eq!(summary(&run, &of(&run, Vec::new()), &output()), expected);
    }

    #[test]
    fn of_very_many_steps_all_failures_are_shown() {
        let mut steps: Vec<_> =
            (0..ROWS_MAX + 50).map(|n| step(&format!("s{n}"), "success", "")).collect();
        steps.push(step("last", "failure", "no"));
        let text = step_table(&steps, &output());
        assert_eq!(text.lines().count(), ROWS_MAX + 3);
        assert!(text.contains("last") && text.ends_with("… and 50 more; `-o json` has all"));
    }

    #[test]
    fn the_document_is_canonical() {
        let run = run(RunStatus::Success);
        let text = json::message("WorkflowResult", &of(&run, vec![step("a", "success", "")]));
        let expected = r#"{
  "workflowId": "r1",
  "status": "success",
  "startTime": "1970-01-01T00:00:10Z",
  "endTime": "1970-01-01T00:00:11.500Z",
  "duration": "1.5s",
  "steps": [
    {
      "stepId": "a",
      "agent": "echo",
      "status": "success",
      "attempts": 1,
      "startTime": "1970-01-01T00:00:10Z",
      "endTime": "1970-01-01T00:00:11Z"
    }
  ],
  "metrics": {
    "totalSteps": 2,
    "successfulSteps": 1,
    "failedSteps": 0,
    "skippedSteps": 0
  }
}"#;
        assert_eq!(text, expected);
    }
}
