//! HTTP/1.1 spelled out: requests to the control plane, and a server that takes webhooks.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::DEADLINE;

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case, as they came.
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request on a connection of its own and reads the whole answer.
pub(crate) fn send(url: &str, method_and_path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut head = format!("{method_and_path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let (first, headers) = head.split_once("\r\n").unwrap();
    let mut body = answer[end + 4..].to_vec();
    if headers.contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    let status = first.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers: headers.to_owned(), body }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        let begin = end + 2;
        whole.extend_from_slice(&rest[begin..begin + size]);
        rest = &rest[begin + size + 2..];
    }
}

pub(crate) fn get(url: &str, path: &str) -> Answer {
    send(url, &format!("GET {path}"), &[], b"")
}

/// Takes posts and keeps their bodies.
#[derive(Debug)]
pub(crate) struct Webhook {
    pub(crate) url: String,
    taken: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Webhook {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let taken = Arc::<(Mutex<Vec<String>>, Condvar)>::default();
        let kept = Arc::clone(&taken);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if let Some(body) = take(stream) {
                    kept.0.lock().unwrap().push(body);
                    kept.1.notify_all();
                }
            }
        });
        Self { url, taken }
    }

    /// The first body with this text in it, once it is there.
    pub(crate) fn told(&self, part: &str) -> String {
        let began = Instant::now();
        let mut bodies = self.taken.0.lock().unwrap();
        loop {
            if let Some(body) = bodies.iter().find(|body| body.contains(part)) {
                return body.clone();
            }
            let left = DEADLINE.checked_sub(began.elapsed()).expect("the webhook is called");
            bodies = self.taken.1.wait_timeout(bodies, left).unwrap().0;
        }
    }
}

fn take(mut stream: TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
    stream.write_all(answer).ok()?;
    String::from_utf8(body).ok()
}
