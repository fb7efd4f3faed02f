//! Definitions in, complaints or graphs out. The wrong ones lie in the corpus, each beside the
//! complaints that it must bring.

mod corpus;
mod graphs;
mod hostile;
mod params;
mod reference;

use std::path::PathBuf;

use super::{Complaint, compile};
use crate::graph::Graph;

/// The root of the repository.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn compiled(yaml: &str) -> Graph {
    match compile("test.yml", yaml.as_bytes()) {
        Ok((graph, _)) => graph,
        Err(complaints) => panic!("{}\n{yaml}", shown(&complaints)),
    }
}

/// The errors of a definition, one a line.
fn errors(yaml: &str) -> String {
    match compile("test.yml", yaml.as_bytes()) {
        Ok(_) => panic!("it has no errors:\n{yaml}"),
        Err(complaints) => shown(&complaints),
    }
}

fn shown(complaints: &[Complaint]) -> String {
    complaints.iter().map(|complaint| format!("{complaint}\n")).collect()
}
