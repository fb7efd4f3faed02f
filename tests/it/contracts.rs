//! Nothing of the contracts is removed, renumbered or given another type.

use std::collections::BTreeSet;
use std::path::Path;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/descriptors.txt");

#[test]
fn what_was_promised_is_still_there() {
    let now = lines();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text: String = now.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(GOLDEN, text).unwrap();
    }
    let golden = std::fs::read_to_string(Path::new(GOLDEN)).unwrap();
    let golden: BTreeSet<String> = golden.lines().map(ToOwned::to_owned).collect();
    let gone: Vec<&String> = golden.difference(&now).collect();
    assert!(gone.is_empty(), "removed, renumbered or of another type: {gone:#?}");
    let new: Vec<&String> = now.difference(&golden).collect();
    assert!(
        new.is_empty(),
        "new in the contracts, and from now on a promise: {new:#?}\n\
         run the test once with UPDATE_GOLDEN=1 and commit the file"
    );
}

fn lines() -> BTreeSet<String> {
    let set = FileDescriptorSet::decode(contracts::DESCRIPTORS).unwrap();
    let mut lines = BTreeSet::new();
    for file in set.file.iter().filter(|file| file.package() == "orchestrator.v1") {
        for message in &file.message_type {
            message_lines(message.name(), message, &mut lines);
        }
        for one in &file.enum_type {
            enum_lines(one.name(), one, &mut lines);
        }
        for service in &file.service {
            for method in &service.method {
                lines.insert(format!(
                    "rpc {}.{} ({}{}) -> ({}{})",
                    service.name(),
                    method.name(),
                    if method.client_streaming() { "stream " } else { "" },
                    method.input_type(),
                    if method.server_streaming() { "stream " } else { "" },
                    method.output_type(),
                ));
            }
        }
    }
    lines
}

fn message_lines(name: &str, message: &DescriptorProto, lines: &mut BTreeSet<String>) {
    for field in &message.field {
        let kind = match field.r#type() {
            Type::Message | Type::Enum => field.type_name().to_owned(),
            simple => format!("{simple:?}").to_lowercase(),
        };
        let repeated = if field.label() == Label::Repeated { "repeated " } else { "" };
        let oneof = match field.oneof_index {
            Some(at) if !field.proto3_optional() => {
                let at = usize::try_from(at).unwrap();
                format!(" in {}", message.oneof_decl[at].name())
            }
            _ => String::new(),
        };
        lines.insert(format!(
            "field {name}.{} = {} {repeated}{kind}{oneof}",
            field.name(),
            field.number()
        ));
    }
    for inner in &message.nested_type {
        message_lines(&format!("{name}.{}", inner.name()), inner, lines);
    }
    for inner in &message.enum_type {
        enum_lines(&format!("{name}.{}", inner.name()), inner, lines);
    }
}

fn enum_lines(name: &str, one: &EnumDescriptorProto, lines: &mut BTreeSet<String>) {
    for value in &one.value {
        lines.insert(format!("enum {name}.{} = {}", value.name(), value.number()));
    }
}
