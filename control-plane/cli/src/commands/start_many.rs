//! `runs start-many`: one run for each line of parameters, over one stream.
//!
//! Each line has a request id of its own, so a stream that breaks is opened anew and what was not
//! answered is sent again; nothing is started twice.

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use contracts::v1::{
    Payload, Run, RunToStart, StartRunsRequest, StartRunsResponse, StartRunsSetup, payload::Data,
    start_runs_request, start_runs_response::Item, start_runs_setup::Source,
};
use prost::Message as _;
use serde_json::value::RawValue;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use super::Session;
use crate::connection::{Client, is_transient, orchestrator};
use crate::error::Error;
use crate::exit::Exit;
use crate::params::pair;
use crate::request_id::request_id;
use crate::table::Table;
use crate::{moment, status};

const LINES_MAX: usize = 1_000_000;
const LINE_BYTES_MAX: usize = 4 << 20;
/// How many messages wait between the lines and the connection.
const WAITING_MAX: usize = 64;
/// How long a stream that breaks again and again is opened anew without one answer.
const PATIENCE: Duration = Duration::from_secs(60);
const REOPEN_DELAY: Duration = Duration::from_millis(250);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// Starts many runs.
#[derive(Args, Clone, Debug)]
pub struct StartMany {
    /// The workflow: NAME or NAME@VERSION
    workflow: String,
    /// A file with one JSON object of parameters a line; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    params_lines: PathBuf,
    /// What to write on the runs
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// The runs' priority, 0 to 9
    #[arg(long, value_name = "0-9", value_parser = clap::value_parser!(i32).range(0..=9))]
    priority: Option<i32>,
    /// Do not wait for the runs to end
    #[arg(long)]
    no_wait: bool,
}

/// What came of a line.
enum Came {
    Started(String),
    Refused(Status),
    Ended(Box<Run>),
}

pub(super) async fn start_many(args: StartMany, session: &mut Session) -> Result<Exit, Error> {
    let lines = read(&args.params_lines)?;
    let mut many = Many {
        client: session.client.clone(),
        setup: StartRunsSetup {
            source: Some(Source::Workflow(args.workflow)),
            priority: args.priority,
            labels: args.label.into_iter().collect(),
            require_agents: false,
            await_end: !args.no_wait,
        },
        request_ids: lines.iter().map(|_| request_id(None)).collect(),
        lines,
        came: BTreeMap::new(),
    };
    many.run().await?;
    many.write(session)
}

struct Many {
    client: Client,
    setup: StartRunsSetup,
    lines: Vec<String>,
    request_ids: Vec<String>,
    came: BTreeMap<usize, Came>,
}

impl Many {
    async fn run(&mut self) -> Result<(), Error> {
        let mut since: Option<Instant> = None;
        loop {
            let before = self.came.len();
            let (open, wait) = match self.stream().await {
                Ok(None) => return Ok(()),
                Ok(Some(wait)) => (true, wait),
                Err(status) if is_transient(&status) || status.code() == Code::Cancelled => {
                    self.client.next_address();
                    let broken = *since.get_or_insert_with(Instant::now);
                    if broken.elapsed() > PATIENCE {
                        return Err(self.client.unreachable(&status));
                    }
                    (false, REOPEN_DELAY)
                }
                Err(status) => return Err(Error::refused(status)),
            };
            if open || self.came.len() > before {
                since = None;
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends what has no answer yet; gives after what time the rest is to be sent again.
    async fn stream(&mut self) -> Result<Option<Duration>, Status> {
        let open: Vec<usize> =
            (0..self.lines.len()).filter(|line| !self.is_settled(*line)).collect();
        if open.is_empty() {
            return Ok(None);
        }
        let (frames, requests) = tokio::sync::mpsc::channel(WAITING_MAX);
        let messages = self.messages(&open);
        let feed = tokio::spawn(async move {
            for message in messages {
                // The stream is over: what is left is sent on the next.
                if frames.send(message).await.is_err() {
                    return;
                }
            }
        });
        let requests = ReceiverStream::new(requests);
        let answers = orchestrator(self.client.channel()).start_runs(requests).await;
        let outcome = match answers {
            Ok(answers) => self.read_answers(answers.into_inner()).await,
            Err(status) => Err(status),
        };
        feed.abort();
        outcome
    }

    fn messages(&self, open: &[usize]) -> Vec<StartRunsRequest> {
        let setup = start_runs_request::Item::Setup(self.setup.clone());
        let runs = open.iter().map(|line| {
            let data = Some(Data::Json(self.lines[*line].clone()));
            start_runs_request::Item::Run(RunToStart {
                tag: i64::try_from(*line).unwrap_or(i64::MAX),
                params: Some(Payload { data, media_type: String::new() }),
                request_id: self.request_ids[*line].clone(),
            })
        });
        let items = std::iter::once(setup).chain(runs);
        items.map(|item| StartRunsRequest { item: Some(item) }).collect()
    }

    async fn read_answers(
        &mut self,
        mut answers: Streaming<StartRunsResponse>,
    ) -> Result<Option<Duration>, Status> {
        let mut later: Option<Duration> = None;
        while let Some(answer) = answers.message().await? {
            let Ok(line) = usize::try_from(answer.tag) else { continue };
            let came = match answer.item {
                Some(Item::Started(started)) => Came::Started(started.run_id),
                Some(Item::Ended(ended)) => match ended.run {
                    Some(run) => Came::Ended(Box::new(run)),
                    None => continue,
                },
                Some(Item::Refused(refused)) => {
                    let code = Code::from(refused.code);
                    let details = refused.encode_to_vec().into();
                    let status = Status::with_details(code, refused.message, details);
                    if let Some(info) = status.get_details_retry_info() {
                        later = later.max(Some(info.retry_delay.unwrap_or(REOPEN_DELAY)));
                        continue;
                    }
                    Came::Refused(status)
                }
                None => continue,
            };
            self.came.insert(line, came);
        }
        let all = (0..self.lines.len()).all(|line| self.is_settled(line));
        Ok((!all).then(|| later.unwrap_or(REOPEN_DELAY).min(RETRY_DELAY_MAX)))
    }

    fn is_settled(&self, line: usize) -> bool {
        match self.came.get(&line) {
            None => false,
            Some(Came::Started(_)) => !self.setup.await_end,
            Some(Came::Refused(_) | Came::Ended(_)) => true,
        }
    }

    fn write(&self, session: &mut Session) -> Result<Exit, Error> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut table = Table::new(&["LINE", "RUN", "STATUS", "TIME", "ERROR"], &session.output);
        let mut documents = Vec::new();
        for (line, came) in &self.came {
            let (run_id, word, time, error) = match came {
                Came::Started(run) => (run.as_str(), "started", None, ""),
                Came::Refused(status) => ("-", "refused", None, status.message()),
                Came::Ended(run) => {
                    let now = moment::now();
                    let time =
                        moment::between(run.create_time.as_ref(), run.end_time.as_ref(), now);
                    (run.run_id.as_str(), status::run_word(run.status()), time, run.error.as_str())
                }
            };
            *counts.entry(word).or_default() += 1;
            let number = line + 1;
            documents.push(
                serde_json::json!({
                    "line": number, "runId": run_id, "status": word, "error": error,
                })
                .to_string(),
            );
            let time = time.map_or_else(|| "-".to_owned(), moment::duration);
            table.row([number.to_string().as_str(), run_id, word, &time, error]);
        }
        if session.output.is_json() {
            session.output.data(&documents.join("\n"))?;
        } else {
            session.output.data(&table.text())?;
        }
        let good = counts.get("success").copied().unwrap_or(0)
            + counts.get("started").copied().unwrap_or(0);
        session.output.note(&format!("{good} of {} lines went well", self.lines.len()));
        Ok(if good == self.lines.len() { Exit::Success } else { Exit::RunFailed })
    }
}

fn read(path: &Path) -> Result<Vec<String>, Error> {
    let shown = path.display();
    let cannot = |error: std::io::Error| Error::request(format!("cannot read `{shown}`: {error}"));
    let reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::io::BufReader::new(std::fs::File::open(path).map_err(cannot)?))
    };
    let mut lines = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let line = line.map_err(cannot)?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| {
            let help = "each line is one JSON object, as {\"name\": \"a\"}";
            Error::request(format!("`{shown}`, line {}: {what}", index + 1)).help(help)
        };
        if line.len() > LINE_BYTES_MAX {
            return Err(wrong(format!("has {} bytes; 4 MiB are allowed", line.len())));
        }
        serde_json::from_str::<HashMap<String, &RawValue>>(&line)
            .map_err(|error| wrong(format!("is not a JSON object: {error}")))?;
        lines.push(line);
        if lines.len() > LINES_MAX {
            return Err(wrong(format!("more than {LINES_MAX} lines; cut the file")));
        }
    }
    if lines.is_empty() {
        return Err(Error::request(format!("`{shown}` has no lines")));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_objects_and_empty_ones_are_passed_over() {
        let check = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            read(file.path()).map_err(|error| error.message())
        };
        assert_eq!(check("{\"a\": 1.10}\n\n{}\n").unwrap(), ["{\"a\": 1.10}", "{}"]);
        assert!(check("{}\n[1]\n").unwrap_err().contains("line 2: is not a JSON object"));
        assert!(check("\n").unwrap_err().contains("has no lines"));
    }
}
