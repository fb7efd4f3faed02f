//! The workflow language: from a YAML text to the immutable graph that the engine runs.
//!
//! The way of a definition: `yaml` makes a tree of values that know their places; `workflow`,
//! `step`, `action`, `policy` and `parameter` read it, field by field, into a `draft`; `ids` names
//! the steps, `depend` resolves what waits for what, `names` checks what expressions read; `build`
//! makes the graph. Each pass goes on after a complaint, so that all complaints come at once.
//!
//! It must not panic, overflow the stack or grow without bound on any bytes. It does not know
//! which agents and actions there are: `Graph::actions` lists what a definition uses.

mod action;
mod build;
mod complaint;
mod depend;
mod draft;
mod duration;
mod ids;
pub mod limit;
mod locate;
mod names;
mod nearest;
mod parameter;
mod policy;
mod read;
mod scalar;
pub mod schedule;
mod step;
mod workflow;
mod yaml;

pub use complaint::{Complaint, Severity};
pub use duration::{parse_duration, show_duration};
pub use parameter::{ParamError, check_params};

use complaint::Complaints;
use draft::Draft;
use read::Reader;

use crate::graph::{Graph, Position};
use crate::id::ContentHash;
use crate::limits::DEFINITION_BYTES_MAX;

#[cfg(test)]
mod tests;

/// Compiles a definition. `file` is what complaints call it.
///
/// # Errors
/// Every error there is, in the order of the file.
pub fn compile(file: &str, yaml: &[u8]) -> Result<(Graph, Vec<Complaint>), Vec<Complaint>> {
    let mut complaints = Complaints::new(file);
    let draft = draft(yaml, &mut complaints);
    match draft {
        Some(draft) if !complaints.any_error() => {
            let graph = build::graph(draft, ContentHash::of(yaml));
            Ok((graph, complaints.into_warnings()))
        }
        _ => Err(complaints.into_errors()),
    }
}

fn draft(yaml: &[u8], complaints: &mut Complaints) -> Option<Draft> {
    let text = text(yaml, complaints)?;
    let root = yaml::read(text, complaints)?;
    let mut reader = Reader {
        text,
        complaints,
        draft: Draft::default(),
        steps: Vec::new(),
        too_many_steps: false,
        retry: None,
        uses: Vec::new(),
    };
    reader.workflow(&root);
    let mut draft = reader.draft;
    let ids = ids::assign(&mut draft, complaints);
    depend::resolve(&mut draft, &ids, complaints);
    names::check(&draft, &ids, complaints);
    Some(draft)
}

/// The text of a definition: UTF-8 of bounded size, without a byte order mark.
fn text<'y>(yaml: &'y [u8], complaints: &mut Complaints) -> Option<&'y str> {
    let start = Position { line: 1, column: 1 };
    if yaml.len() > DEFINITION_BYTES_MAX {
        let found = yaml.len();
        let message =
            format!("the file has {found} bytes, a definition has at most {DEFINITION_BYTES_MAX}");
        complaints.error(start, message);
        return None;
    }
    match std::str::from_utf8(yaml) {
        Ok(text) => Some(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let (sound, rest) = yaml.split_at(error.valid_up_to());
            let position = end_of(&String::from_utf8_lossy(sound));
            let byte = rest.first().copied().unwrap_or_default();
            let message = format!("the file is not UTF-8: the byte 0x{byte:02x} cannot stand here");
            complaints.error(position, message);
            None
        }
    }
}

/// The place behind a text.
fn end_of(text: &str) -> Position {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let last = text.rsplit('\n').next().unwrap_or_default();
    Position {
        line: number(text.matches('\n').count() + 1),
        column: number(last.chars().count() + 1),
    }
}
