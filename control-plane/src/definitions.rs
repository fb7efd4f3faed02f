//! Definitions by their hash: texts kept by the store, graphs compiled once and shared.

use std::collections::{HashMap, HashSet, VecDeque};
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
    /// Those of them that the store is known to have: it gives none away.
    kept: HashSet<ContentHash>,
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

    /// Keeps a text that was compiled before. The store is asked once for as long as the graph is
    /// remembered.
    ///
    /// # Errors
    /// When the store cannot keep it.
    pub async fn keep(&self, graph: &Graph, yaml: &str) -> Result<(), store::Error> {
        if self.lock().kept.contains(&graph.hash) {
            return Ok(());
        }
        self.store.put_definition(graph.hash, yaml).await?;
        let mut compiled = self.lock();
        if compiled.graphs.contains_key(&graph.hash) {
            compiled.kept.insert(graph.hash);
        }
        Ok(())
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
            compiled.kept.remove(&oldest);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use store::testing::memory::{Access, Gate, Memory};

    use super::*;

    /// Counts what is asked.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    #[async_trait::async_trait]
    impl Gate for Counting {
        async fn before(&self, _access: Access) -> Result<(), store::Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        async fn after(&self, _access: Access) -> Result<(), store::Error> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_store_is_asked_once_to_keep_a_definition() {
        let gate = Arc::new(Counting::default());
        let memory = Memory::new();
        let definitions = Definitions::new(memory.open_behind(gate.clone()));
        let yaml = "name: t\nsteps: [{id: w, wait: 1s}]\n";
        for _ in 0..3 {
            let (graph, _) = definitions.compile("t.yml", yaml.as_bytes()).unwrap();
            definitions.keep(&graph, yaml).await.unwrap();
        }
        assert_eq!(gate.0.load(Ordering::Relaxed), 1);
        let (graph, _) = definitions.compile("t.yml", yaml.as_bytes()).unwrap();
        let kept = memory.open().definition(graph.hash).await.unwrap();
        assert_eq!(kept.as_deref(), Some(yaml));
        // Of one that was forgotten nobody knows any more that it was kept.
        for n in 0..=limits::GRAPHS_CACHED_MAX {
            let other = format!("name: t{n}\nsteps: [{{id: w, wait: 1s}}]\n");
            definitions.compile("t.yml", other.as_bytes()).unwrap();
        }
        definitions.keep(&graph, yaml).await.unwrap();
        assert_eq!(gate.0.load(Ordering::Relaxed), 2);
    }
}
