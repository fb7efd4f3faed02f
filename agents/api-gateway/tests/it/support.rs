//! Scaffolded projects, running servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agent_sdk::Failure;
use agent_sdk::effect_log::Plans;
use api_gateway_agent::api::{self, Api, CreateApi, RemovedApi};
use project_builder_agent::scaffold::{Builder, Project, Scaffold};
use project_builder_agent::template::Template;
use project_builder_agent::workspace::Workspace;
use project_files::workspace;
use serde_json::{Value, json};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

/// A workspace with one project.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) workspace: Workspace,
    pub(crate) project: Project,
    pub(crate) records: Plans,
}

impl World {
    pub(crate) fn new(template: Template) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path());
        let wish = Scaffold { template, name: "a-project".to_owned(), directory: None };
        let project = Builder::new(&workspace).unwrap().scaffold("scaffold", "run", &wish).unwrap();
        let records = Plans::at(folder.path().join("records"), workspace::VARIABLE);
        Self { folder, workspace, project, records }
    }

    pub(crate) fn dir(&self) -> &Path {
        Path::new(&self.project.project_dir)
    }

    pub(crate) fn wish(&self, resource: &str) -> CreateApi {
        CreateApi {
            project_dir: Some(self.project.project_dir.clone()),
            resource: Some(resource.to_owned()),
            ..CreateApi::default()
        }
    }

    pub(crate) fn create(&self, key: &str, resource: &str) -> Result<Api, Failure> {
        api::create(&self.records, key, &self.wish(resource))
    }

    pub(crate) fn remove(&self, key: &str) -> Result<RemovedApi, Failure> {
        api::remove(&self.records, key, false)
    }

    /// Every file of the project, with contents.
    pub(crate) fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut open = vec![self.dir().to_owned()];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.push((path, bytes));
            }
        }
        found.sort();
        found
    }
}

/// A project's server, stopped when it goes out of scope.
pub(crate) struct Server {
    process: Child,
    address: String,
}

impl Server {
    pub(crate) fn start(project: &Project) -> Self {
        let mut process = Command::new(&project.start[0])
            .args(&project.start[1..])
            .current_dir(&project.project_dir)
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Self { process, address }
    }

    /// Status, `location` header and body.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, Option<String>, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let location = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("location").then(|| value.to_owned())
        });
        let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body).unwrap() };
        (status, location, body)
    }

    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.call(method, path, &body.to_string());
        (status, body)
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.call("GET", path, "");
        (status, body)
    }

    pub(crate) fn get_status(&self, path: &str) -> u16 {
        self.get(path).0
    }

    /// The problems that a wrong body gets, by field.
    pub(crate) fn problems(&self, path: &str, body: &Value) -> Value {
        let (status, mut answer) = self.send("POST", path, body);
        assert_eq!(status, 400, "{answer}");
        answer["error"]["fields"].take()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Fields of every type.
pub(crate) fn typed_fields() -> Value {
    json!([
        {"name": "label", "type": "string", "max_length": 3},
        {"name": "count", "type": "integer"},
        {"name": "ratio", "type": "number", "required": false},
        {"name": "open", "type": "boolean", "required": false},
    ])
}
