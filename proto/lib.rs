//! The contracts of Master Orchestrator: what is generated from `proto/`, and nothing else.
//!
//! Start reading at `orchestrator/v1/orchestrator.proto` (what clients ask) and
//! `orchestrator/v1/agent.proto` (what agents and the control plane say to one another).

/// Package `orchestrator.v1`: messages, clients and servers.
#[expect(
    clippy::all,
    clippy::allow_attributes,
    clippy::too_many_lines,
    reason = "generated code is as its generator writes it"
)]
pub mod v1 {
    tonic::include_proto!("orchestrator.v1");
}

/// The types of `google.rpc` that the contracts use.
pub mod rpc {
    pub use tonic_types::Status;
}

/// The file descriptors of all contracts, encoded, for reflection and the golden test.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
