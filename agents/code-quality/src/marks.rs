//! Finds the marks by which comments say that work is left over. It must not look into code.

use crate::finding::{Finding, Severity};

// Put together, so that this file bears none itself.
const MARKS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK"), concat!("XX", "X")];

/// The marks in the comments of a file.
pub fn check(file: &str, comments: &[(u32, String)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (first_line, comment) in comments {
        for (line, number) in comment.lines().zip(*first_line..) {
            let Some(mark) = mark_in(line) else {
                continue;
            };
            let message = format!("{mark}: work is left over");
            let rule = ("open-mark", Severity::Info);
            findings.push(Finding::new(rule, file, number, message));
        }
    }
    findings
}

fn mark_in(line: &str) -> Option<&'static str> {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .find_map(|word| MARKS.into_iter().find(|mark| *mark == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_in_capitals_are_marks() {
        let comment = format!("/* a\n * {}(me): b\n */", MARKS[0]);
        let findings = check("a.rs", &[(4, comment)]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 5);
        let todo = MARKS[0];
        for other in [todo.to_lowercase(), format!("{todo}S"), format!("X_{todo}")] {
            assert_eq!(check("a.rs", &[(1, format!("// {other}"))]), []);
        }
    }
}
