//! Whatever the bytes: complaints and no panic, and in bounded time and memory.

use std::fmt::Write as _;
use std::fs;

use proptest::prelude::*;

use super::*;

/// Must only return.
fn survives(bytes: &[u8]) {
    match compile("test.yml", bytes) {
        Ok((graph, _)) => assert!(!graph.nodes.is_empty()),
        Err(complaints) => {
            assert!(!complaints.is_empty());
            let last_line = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() + 1;
            for complaint in complaints {
                assert!(complaint.line >= 1 && complaint.column >= 1, "{complaint}");
                assert!(complaint.line as usize <= last_line + 1, "{complaint}");
                assert!(!complaint.message.is_empty());
            }
        }
    }
}

/// All definitions of the corpus and the examples.
fn seeds() -> Vec<Vec<u8>> {
    let folders = ["examples", "tests/corpus/definitions/valid", "tests/corpus/definitions/wrong"];
    let paths = folders.iter().flat_map(|folder| fs::read_dir(root().join(folder)).unwrap());
    let mut paths: Vec<_> = paths.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Pieces that matter to YAML, to the language and to expressions.
const PIECES: [&str; 48] = [
    "\n",
    "  ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "!!str ",
    "!x ",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "#",
    "\t",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "? ",
    "<<: ",
    "${{",
    "}}",
    "name: x\n",
    "steps:\n",
    "- action: a\n",
    "  id: a\n",
    "  depends_on: [a, b]\n",
    "  parallel:\n",
    "  steps:\n",
    "  condition: ",
    "  then:\n",
    "  foreach: ",
    "  while: ",
    "  params:\n",
    "a.b",
    "steps[\"a\"]",
    "params.x",
    " && ",
    "1.0",
    "null",
    "\u{feff}",
    "é",
    "\u{0}",
    "\r\n",
    "30s",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survives(&bytes);
    }

    #[test]
    fn any_pieces_are_survived(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..60)
    ) {
        survives(pieces.concat().as_bytes());
    }

    #[test]
    fn changed_definitions_are_survived(
        seed in any::<proptest::sample::Index>(),
        edits in proptest::collection::vec(
            (
                any::<proptest::sample::Index>(),
                0_usize..12,
                proptest::sample::select(PIECES.to_vec()),
            ),
            1..6,
        ),
    ) {
        let seeds = seeds();
        let mut bytes = seeds[seed.index(seeds.len())].clone();
        for (at, removed, piece) in edits {
            let start = at.index(bytes.len() + 1);
            let end = (start + removed).min(bytes.len());
            bytes.splice(start..end, piece.bytes());
        }
        survives(&bytes);
    }
}

/// Keywords of JSON Schema and values that some of them take.
const KEYWORDS: [&str; 40] = [
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "items",
    "prefixItems",
    "contains",
    "minContains",
    "uniqueItems",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedProperties",
    "unevaluatedItems",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "required",
    "default",
    "$ref",
    "$id",
    "$defs",
    "contentEncoding",
    "contentMediaType",
    "minItems",
    "examples",
];
const VALUES: [&str; 26] = [
    "string",
    "integer",
    "array",
    "object",
    "[string, 'null']",
    "0",
    "-1",
    "1.5",
    "1e300",
    "18446744073709551615",
    "true",
    "[]",
    "{}",
    "[1, 1]",
    "'(a+)+$'",
    "'(?=a)'",
    "'a{999}{999}'",
    "date",
    "{type: integer}",
    "[{type: string}, {minimum: 3}]",
    "{a: {type: array}}",
    "{'^a': {maxLength: 2}}",
    "'#'",
    "http://localhost/x",
    "null",
    "{a: [b]}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_schema_is_survived(
        entries in proptest::collection::btree_map(
            proptest::sample::select(KEYWORDS.to_vec()),
            proptest::sample::select(VALUES.to_vec()),
            1..5,
        ),
        default in proptest::sample::select(VALUES.to_vec()),
        given in proptest::sample::select(VALUES.to_vec()),
    ) {
        let entries: Vec<String> =
            entries.iter().map(|(keyword, value)| format!("{keyword}: {value}")).collect();
        let declared = format!("{{{}, x-default: {default}}}", entries.join(", "));
        let text = format!(
            "name: x\nparams: {{p: {declared}}}\nsteps: [{{action: a, params: {{b: {given}}}}}]\n"
        );
        survives(text.as_bytes());
        if let Ok((graph, _)) = compile("test.yml", text.as_bytes()) {
            let given = serde_json::json!({"p": given});
            // Either will do, as long as it returns.
            let _checked = crate::definition::check_params(&graph, Some(&given));
        }
    }
}

#[test]
fn every_prefix_of_every_definition_is_survived() {
    for seed in seeds() {
        let step = (seed.len() / 200).max(1);
        for end in (0..seed.len()).step_by(step) {
            survives(&seed[..end]);
        }
    }
}

#[test]
fn much_of_one_thing_is_survived() {
    for piece in PIECES {
        survives(piece.repeat(100_000 / piece.len()).as_bytes());
        let value = format!("name: x\nsteps:\n  - action: a\n    params:\n      b: {piece}");
        survives(format!("{value}{}", piece.repeat(50_000 / piece.len())).as_bytes());
    }
}

#[test]
fn many_expressions_are_survived() {
    let names: Vec<String> = (0..4_000).map(|n| format!("${{{{ a{n}.b }}}}")).collect();
    let text = names.join(" ");
    survives(format!("name: x\nsteps: [{{action: a, params: {{t: '{text}'}}}}]").as_bytes());
    let steps: Vec<String> = (0..3_000)
        .map(|n| format!("  - {{id: a-{n}, action: a, condition: a-{n}.b > other-name.x}}\n"))
        .collect();
    survives(format!("name: x\nsteps:\n{}", steps.concat()).as_bytes());
    let beyond = "${{ a }}".repeat(5_001);
    let found = errors(&format!("name: x\nsteps: [{{action: a, params: '{beyond}'}}]"));
    assert!(found.contains("more than 5000"), "{found}");
}

#[test]
fn steps_that_all_wait_for_one_another_are_survived() {
    let ids: Vec<String> = (0..300).map(|n| format!("s{n}")).collect();
    let all = ids.join(", ");
    let steps: String = ids
        .iter()
        .map(|id| format!("  - {{id: {id}, action: a, depends_on: [{all}]}}\n"))
        .collect();
    survives(format!("name: x\nsteps:\n{steps}").as_bytes());
}

#[test]
fn aliases_without_end_are_refused() {
    let mut bomb = String::from("name: x\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let items = vec![before; 10].join(", ");
        writeln!(bomb, "a{level}: &a{level} [{items}]").unwrap();
    }
    let found = errors(&bomb);
    assert!(found.contains("aliases without end"), "{found}");
    let text = "x".repeat(500_000);
    let long = format!("a: &a {text}\nb: [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n");
    assert!(errors(&long).contains("aliases without end"));
    assert!(errors("a: &a [*a]").contains("stands within its own anchor"));
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")] {
        let text = format!("steps: \n  {}x{}", open.repeat(5_000), close.repeat(5_000));
        survives(text.as_bytes());
    }
    // Each alias alone is shallow; together they would be deep.
    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..60 {
        let inner = format!("{}*a{}{}", "[".repeat(50), level - 1, "]".repeat(50));
        writeln!(chain, "a{level}: &a{level} {inner}").unwrap();
    }
    assert!(errors(&chain).contains("nest deeper than"));
    let deep = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
    survives(format!("name: x\nsteps: [{{action: a, condition: '{deep}'}}]").as_bytes());
}

/// Blocks within blocks, each in a member of a group: the deepest there can be.
fn nested(depth: usize) -> String {
    let mut text = String::from("name: x\nsteps: ");
    for _ in 0..depth {
        text.push_str("[{action: a, parallel: [{steps: ");
    }
    text.push_str("[{action: a, params: {b: '${{ params }}'}}]");
    text.push_str(&"}]}]".repeat(depth));
    text
}

#[test]
fn blocks_nest_to_the_limit_and_no_deeper() {
    let graph = compiled(&nested(32));
    assert_eq!(graph.nodes.len(), 32 * 2 + 1);
    let found = errors(&nested(33));
    assert!(found.contains("step blocks nest deeper than 32"), "{found}");
}

#[test]
fn steps_are_counted_with_nested_and_parallel_ones() {
    let step = "  - action: a\n";
    let within = format!("name: x\nsteps:\n{}", step.repeat(10_000));
    assert_eq!(compiled(&within).nodes.len(), 10_000);
    let group = "  - action: a\n    parallel: [{action: b}, {steps: [{action: c}]}]\n";
    let beyond = format!("name: x\nsteps:\n{}", group.repeat(2_501));
    let found = errors(&beyond);
    assert!(found.contains("at most 10000 steps"), "{found}");
    assert_eq!(found.lines().count(), 1);
}

#[test]
fn large_groups_behind_one_another_are_refused() {
    let members = "{action: b}, ".repeat(1_500);
    let group = format!("  - action: a\n    parallel: [{members}]\n");
    let found = errors(&format!("name: x\nsteps:\n{group}{group}"));
    assert!(found.contains("put a single step between"), "{found}");
}

#[test]
fn a_file_of_complaints_ends() {
    let unknown = format!("name: x\nsteps:\n{}", "  - {actoin: a, agnet: b}\n".repeat(8_000));
    let complaints = compile("test.yml", unknown.as_bytes()).unwrap_err();
    assert_eq!(complaints.len(), 1001);
    assert!(complaints[1000].message.contains("further complaints are left out"));
    let circles =
        format!("name: x\nsteps:\n{}", "  - {action: a, depends_on: [nobody]}\n".repeat(8_000));
    survives(circles.as_bytes());
}

#[test]
fn too_large_a_file_is_refused() {
    let found = errors(&" ".repeat(1024 * 1024 + 1));
    assert!(found.contains("1048577 bytes"), "{found}");
}

#[test]
fn the_first_byte_that_is_not_utf8_is_named() {
    let mut bytes = "name: é\nstëps".as_bytes().to_vec();
    bytes.push(0xff);
    let found = shown(&compile("test.yml", &bytes).unwrap_err());
    assert_eq!(
        found,
        "test.yml:2:6: error: the file is not UTF-8: the byte 0xff cannot stand here\n"
    );
}
