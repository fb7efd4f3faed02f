//! Compiles the contracts without `protoc` and keeps their descriptors for reflection.

use std::path::PathBuf;
use std::{env, error, fs};

use prost::Message as _;
use protox::Compiler;

const ROOT: &str = "proto";

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo:rerun-if-changed={ROOT}");
    let folder = PathBuf::from(ROOT).join("orchestrator/v1");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "proto"));
    files.sort();

    let mut compiler = Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let out = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(out, compiler.encode_file_descriptor_set())?;

    tonic_prost_build::configure()
        // `Connect` is a method of `AgentService`; the generated `connect` would clash with it.
        .build_transport(false)
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(prost_types::FileDescriptorSet::decode(
            compiler.file_descriptor_set().encode_to_vec().as_slice(),
        )?)?;
    Ok(())
}
