//! Each template's project runs, and its own tests pass.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use project_builder_agent::scaffold::{Builder, Project, Scaffold};
use project_builder_agent::template::Template;
use project_builder_agent::workspace::Workspace;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

fn make(template: Template) -> (TempDir, Project) {
    let folder = tempfile::tempdir().unwrap();
    let workspace = Workspace::at(folder.path());
    let wish = Scaffold { template, name: "a-project".to_owned(), directory: None };
    let project = Builder::new(&workspace).unwrap().scaffold("key", "run", &wish).unwrap();
    (folder, project)
}

fn run(project: &Project, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(&project.project_dir)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}\n{errors}");
    text + &errors
}

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(project: &Project) -> Self {
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

    fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn check_service(template: Template) {
    let (_folder, project) = make(template);
    let server = Server::start(&project);
    assert!(server.address.starts_with("127.0.0.1:"), "{}", server.address);
    let (status, health) = server.get(project.health_path.as_deref().unwrap());
    assert_eq!((status, health["status"].as_str()), (200, Some("ok")));
    assert_eq!(health["name"], "a-project");
    let (status, openapi) = server.get("/openapi.json");
    assert_eq!((status, openapi["openapi"].as_str()), (200, Some("3.1.0")));
    let (status, error) = server.get("/nowhere");
    assert_eq!(status, 404);
    assert!(error["error"]["message"].as_str().unwrap().contains("/nowhere"));
}

#[test]
fn a_typescript_api_serves_without_any_installation() {
    check_service(Template::TypescriptApi);
}

#[test]
fn a_python_service_serves_without_any_installation() {
    check_service(Template::PythonService);
}

#[test]
fn a_typescript_apis_own_tests_pass() {
    let (_folder, project) = make(Template::TypescriptApi);
    let text = run(&project, "node", &["--test", "dist/app.test.js"]);
    assert!(text.contains("pass 4"), "{text}");
}

#[test]
fn a_python_services_own_tests_pass() {
    let (_folder, project) = make(Template::PythonService);
    let text = run(&project, "python3", &["-m", "unittest"]);
    assert!(text.contains("Ran 4 tests"), "{text}");
}

#[test]
fn a_rust_program_builds_offline_and_its_own_tests_pass() {
    let (_folder, project) = make(Template::RustCli);
    let cargo = env!("CARGO");
    let arguments = ["test", "--offline", "--quiet", "--locked", "--target-dir", "target"];
    let text = run(&project, cargo, &arguments);
    assert!(text.contains("5 passed"), "{text}");
    let text = run(
        &project,
        cargo,
        &["run", "--offline", "--quiet", "--target-dir", "target", "--", "README.md"],
    );
    assert!(text.trim_end().ends_with("README.md"), "{text}");
    assert!(Path::new(&project.project_dir).join("Cargo.lock").exists());
}
