//! The reference is true: every example in it compiles, and every wrong one is complained of as
//! the page says.

use super::*;

/// The fenced blocks of a page: what stands behind the fence, the line it begins in, its text.
fn blocks(page: &str) -> Vec<(String, usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, usize, String)> = None;
    for (number, line) in (1..).zip(page.lines()) {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(kind)) => open = Some((kind.to_owned(), number, String::new())),
            (Some((_, _, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

#[test]
fn the_examples_of_the_reference_do_what_it_says() {
    let page = std::fs::read_to_string(root().join("docs/workflow-language.md")).unwrap();
    let blocks = blocks(&page);
    let (mut right, mut wrong) = (0, 0);
    for (at, (kind, line, text)) in blocks.iter().enumerate() {
        match kind.as_str() {
            "yaml" => {
                right += 1;
                if let Err(complaints) = compile("workflow.yml", text.as_bytes()) {
                    panic!("the example in line {line}:\n{}", shown(&complaints));
                }
            }
            "yaml wrong" => {
                wrong += 1;
                let complaints = compile("workflow.yml", text.as_bytes())
                    .err()
                    .unwrap_or_else(|| panic!("the example in line {line} compiles"));
                let (kind, _, expected) = &blocks[at + 1];
                assert_eq!(kind, "text", "line {line}: the complaints must follow");
                assert_eq!(&shown(&complaints), expected, "line {line}");
            }
            _ => {}
        }
    }
    assert!(right >= 20 && wrong >= 5, "{right} examples, {wrong} wrong ones");
}
