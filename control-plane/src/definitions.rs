//! Definitions by their hash: texts kept by the store, graphs compiled once and shared.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use engine::ContentHash;
use engine::definition::Complaint;
use engine::graph::Graph;
use store::Store;

use crate::limits;

/// The definitions that runs are pinned to.
#[derive(Clone)]
pub struct Definitions {
    store: Arc<dyn Store>,
    compiled: Arc<Mutex<Compiled>>,
}

#[derive(Default)]
struct Compiled {
    graphs: HashMap<ContentHash, Arc<Graph>>,
    order: VecDeque<ContentHash>,
}

/// Why a graph cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot give the text.
    #[error("the definition cannot be read")]
    Store(#[from] store::Error),
    /// The store does not have it.
    #[error("the store has no definition {0}")]
    Missing(ContentHash),
    /// This version does not accept it any more.
    #[error("definition {0} is not accepted by this version: {1}")]
    Refused(ContentHash, String),
}

impl Definitions {
    /// Definitions kept in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, compiled: Arc::default() }
    }

    /// Compiles a text; says everything that is wrong with it, or gives warnings beside the graph.
    ///
    /// # Errors
    /// With all complaints when the text is not a definition.
    pub fn compile(
        &self,
        file: &str,
        yaml: &[u8],
    ) -> Result<(Arc<Graph>, Vec<Complaint>), Vec<Complaint>> {
        let (graph, warnings) = engine::definition::compile(file, yaml)?;
        let graph = Arc::new(graph);
        self.remember(&graph);
        Ok((graph, warnings))
    }

    /// Keeps a text that was compiled before.
    ///
    /// # Errors
    /// When the store cannot keep it.
    pub async fn keep(&self, graph: &Graph, yaml: &str) -> Result<(), store::Error> {
        self.store.put_definition(graph.hash, yaml).await
    }

    /// The graph of a kept definition.
    ///
    /// # Errors
    /// When the store does not have it or this version does not accept it.
    pub async fn graph(&self, hash: ContentHash) -> Result<Arc<Graph>, Error> {
        let known = self.lock().graphs.get(&hash).cloned();
        if let Some(graph) = known {
            return Ok(graph);
        }
        let yaml = self.store.definition(hash).await?.ok_or(Error::Missing(hash))?;
        let compiled = self.compile("", yaml.as_bytes());
        let (graph, _) = compiled.map_err(|complaints| {
            let first = complaints.first().map_or("", |complaint| &*complaint.message);
            Error::Refused(hash, first.to_owned())
        })?;
        Ok(graph)
    }

    fn remember(&self, graph: &Arc<Graph>) {
        let mut compiled = self.lock();
        if compiled.graphs.insert(graph.hash, Arc::clone(graph)).is_none() {
            compiled.order.push_back(graph.hash);
        }
        if compiled.order.len() > limits::GRAPHS_CACHED_MAX
            && let Some(oldest) = compiled.order.pop_front()
        {
            compiled.graphs.remove(&oldest);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Compiled> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Definitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Definitions").finish_non_exhaustive()
    }
}
