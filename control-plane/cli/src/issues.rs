//! Issues and outcomes as files, YAML or JSON, to the messages that carry them.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use chrono::DateTime;
use contracts::v1::payload::Data;
use contracts::v1::{
    Issue, IssueSeverity, Outcome, Payload, SystemComponent, SystemContext, TriageConstraints,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::Error;

/// The largest file that is read: what is larger would not fit into a message.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// What a file of issues says.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    /// The issues.
    pub(crate) issues: Vec<Issue>,
    /// The system.
    pub(crate) system: Option<SystemContext>,
    /// What limits the choice.
    pub(crate) constraints: Option<TriageConstraints>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    issues: Vec<IssueText>,
    #[serde(default)]
    system: Option<SystemText>,
    #[serde(default)]
    constraints: Option<ConstraintsText>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct SystemText {
    name: String,
    /// Each component with those that it needs.
    components: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ConstraintsText {
    agent_types: Vec<String>,
    excluded_agent_types: Vec<String>,
    max_parallel: i32,
    max_cost: f64,
    min_confidence: f64,
}

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, default)]
struct IssueText {
    #[serde(alias = "issue_id")]
    id: String,
    title: String,
    description: String,
    component: String,
    category: String,
    severity: String,
    source: String,
    labels: Vec<String>,
    evidence: Vec<String>,
    depends_on: Vec<String>,
    affects: Vec<String>,
    #[serde(alias = "detect_time")]
    detected_at: String,
    params: Option<Map<String, Value>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct OutcomeText {
    triage_id: String,
    #[serde(alias = "id")]
    issue_id: String,
    issue: Option<IssueText>,
    title: String,
    description: String,
    component: String,
    #[serde(alias = "agent")]
    agent_type: String,
    category: String,
    mended: Option<bool>,
    duration_seconds: Option<u32>,
}

/// Reads issues from a file, or from standard input where it is `-`.
pub(crate) fn read(path: &Path) -> Result<Handed, Error> {
    let (name, text) = text(path)?;
    // Which of both it is meant to be comes first, so that what is wrong has its place.
    let what = "a list of issues, or an object with `issues`";
    let whole = match parse::<Value>(&name, &text, what)? {
        Value::Array(_) => {
            let issues = parse(&name, &text, "a list of issues")?;
            Whole { issues, system: None, constraints: None }
        }
        _ => parse(&name, &text, what)?,
    };
    let issues = whole.issues.into_iter().enumerate();
    let issues = issues
        .map(|(index, issue)| issue_of(issue, &format!("{name}: issues[{index}]")))
        .collect::<Result<_, _>>()?;
    let system = whole.system.map(|system| SystemContext {
        name: system.name,
        components: system
            .components
            .into_iter()
            .map(|(name, needs)| SystemComponent { name, needs })
            .collect(),
    });
    let constraints = whole.constraints.map(|constraints| TriageConstraints {
        agent_types: constraints.agent_types,
        excluded_agent_types: constraints.excluded_agent_types,
        max_parallel: constraints.max_parallel,
        max_cost: constraints.max_cost,
        min_confidence: constraints.min_confidence,
    });
    Ok(Handed { issues, system, constraints })
}

/// Reads a list of outcomes.
pub(crate) fn outcomes(path: &Path) -> Result<Vec<Outcome>, Error> {
    let (name, text) = text(path)?;
    let list: Vec<OutcomeText> = parse(&name, &text, "a list of outcomes")?;
    if list.is_empty() {
        let help = "name at least one; see docs/triage.md";
        return Err(Error::request(format!("{name}: there are no outcomes")).help(help));
    }
    list.into_iter()
        .enumerate()
        .map(|(index, outcome)| outcome_of(outcome, &format!("{name}: [{index}]")))
        .collect()
}

fn outcome_of(text: OutcomeText, place: &str) -> Result<Outcome, Error> {
    let issue = match text.issue {
        Some(issue) => Some(issue),
        None if text.triage_id.is_empty() => Some(IssueText {
            id: text.issue_id.clone(),
            title: text.title,
            description: text.description,
            component: text.component,
            ..IssueText::default()
        }),
        None => None,
    };
    let seconds = text.duration_seconds.map(i64::from);
    Ok(Outcome {
        triage_id: text.triage_id,
        issue_id: text.issue_id,
        issue: issue.map(|issue| issue_of(issue, place)).transpose()?,
        agent_type: text.agent_type,
        category: text.category,
        mended: text.mended,
        duration: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
    })
}

fn issue_of(text: IssueText, place: &str) -> Result<Issue, Error> {
    let severity = match text.severity.to_ascii_lowercase().as_str() {
        "" | "medium" => IssueSeverity::Medium,
        "low" => IssueSeverity::Low,
        "high" => IssueSeverity::High,
        "critical" => IssueSeverity::Critical,
        _ => {
            let message = format!("{place}.severity: `{}` is none", text.severity);
            return Err(Error::request(message).help("write CRITICAL, HIGH, MEDIUM or LOW"));
        }
    };
    let detect_time = match text.detected_at.as_str() {
        "" => None,
        time => {
            let time = DateTime::parse_from_rfc3339(time).map_err(|error| {
                Error::request(format!("{place}.detected_at: `{time}` is no time: {error}"))
                    .help("write it as 2026-11-21T09:30:00Z")
            })?;
            Some(prost_types::Timestamp {
                seconds: time.timestamp(),
                nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or(0),
            })
        }
    };
    let json = |params| Payload {
        data: Some(Data::Json(Value::Object(params).to_string())),
        media_type: String::new(),
    };
    Ok(Issue {
        issue_id: text.id,
        title: text.title,
        description: text.description,
        component: text.component,
        category: text.category,
        severity: severity.into(),
        source: text.source,
        labels: text.labels,
        evidence: text.evidence,
        depends_on: text.depends_on,
        affects: text.affects,
        detect_time,
        params: text.params.map(json),
    })
}

fn parse<T: DeserializeOwned>(name: &str, text: &str, what: &str) -> Result<T, Error> {
    serde_saphyr::from_str(text).map_err(|error| {
        Error::request(format!("{name}: {error}"))
            .help(format!("give {what}, as YAML or JSON; see docs/triage.md"))
    })
}

/// A file's name for people, and what stands in it.
fn text(path: &Path) -> Result<(String, String), Error> {
    let is_input = path == Path::new("-");
    let name = if is_input { "<stdin>".to_owned() } else { path.display().to_string() };
    let mut text = String::new();
    let read = if is_input {
        std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path);
        file.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
    };
    read.map_err(|error| Error::request(format!("{name} cannot be read: {error}")))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let message = format!("{name} is larger than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(Error::request(message).help("hand it in in several parts"));
    }
    Ok((name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issues_are_read_as_a_list_or_with_their_system_as_yaml_or_json() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("issues");
        let given = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read(&file)
        };
        let list = given(
            "- {id: a, title: broken, severity: HIGH, depends_on: [b]}\n- id: b\n  title: full\n  \
             detected_at: 2026-01-01T00:00:00Z\n  params: {folder: data}\n",
        )
        .unwrap();
        assert_eq!(list.issues[0].severity(), IssueSeverity::High);
        assert_eq!(list.issues[1].detect_time.as_ref().unwrap().seconds, 1_767_225_600);
        let whole = given(
            r#"{"issues":[{"id":"a","title":"x"}],"system":{"name":"shop",
                "components":{"api":["database"]}},"constraints":{"max_parallel":2}}"#,
        )
        .unwrap();
        assert_eq!(whole.system.unwrap().components[0].needs, ["database"]);
        assert_eq!(whole.constraints.unwrap().max_parallel, 2);
        let wrong = given("- {id: a, title: x, severity: bad}").unwrap_err().message();
        assert!(wrong.contains("issues[0].severity"), "{wrong}");
        assert!(given("- {id: a, titel: x}").is_err());
    }
}
