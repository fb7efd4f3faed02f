//! Measures a file by its syntax tree: functions, their size, ways through and nesting, the
//! comments, the tokens, the syntax errors. It must not judge what it measures.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use tree_sitter::{Node, ParseOptions, ParseState, Parser, Tree};

use crate::language::{Language, Meaning};
use crate::limits;

/// What the tree of a file tells.
#[derive(Debug, Default)]
pub struct Structure {
    /// The functions, inner ones before outer ones.
    pub functions: Vec<Function>,
    /// Lines and texts of comments.
    pub comments: Vec<(u32, String)>,
    /// The tokens but comments.
    pub tokens: Vec<Token>,
    /// Where the parser found what the grammar does not allow.
    pub syntax_errors: Vec<u32>,
}

/// One function.
#[derive(Debug)]
pub struct Function {
    /// Its name; `a function` where it has none.
    pub name: String,
    /// The line where it begins, from 1.
    pub line: u32,
    /// How many lines it has.
    pub lines: u32,
    /// The independent ways through it: one, and one more per decision. Those of the functions
    /// inside count for these.
    pub complexity: u32,
    /// The deepest level of control structures.
    pub nesting: u32,
}

/// One token: the hash of its text, and its line.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    /// Equal for equal texts.
    pub hash: u64,
    /// The line, from 1.
    pub line: u32,
}

/// Measures a text; none when it could not be parsed in time or was cancelled.
pub fn measure(language: Language, text: &str, cancelled: &dyn Fn() -> bool) -> Option<Structure> {
    let tree = parse(language, text, cancelled)?;
    let mut walk = Walk {
        language,
        text,
        // What stands outside all functions is measured like one, and then dropped.
        open: vec![Open::new(tree.root_node(), String::new())],
        parents: Vec::new(),
        structure: Structure::default(),
    };
    walk.run(&tree);
    Some(walk.structure)
}

fn parse(language: Language, text: &str, cancelled: &dyn Fn() -> bool) -> Option<Tree> {
    let mut parser = Parser::new();
    parser.set_language(&language.grammar()).ok()?;
    let started = Instant::now();
    // True stops the parser.
    let mut stop = |_: &ParseState| cancelled() || started.elapsed() > limits::PARSE_TIME_MAX;
    let options = ParseOptions::new().progress_callback(&mut stop);
    let bytes = text.as_bytes();
    let mut read = |offset: usize, _| bytes.get(offset..).unwrap_or_default();
    parser.parse_with_options(&mut read, None, Some(options))
}

struct Open {
    name: String,
    node_id: usize,
    line: u32,
    lines: u32,
    complexity: u32,
    level: u32,
    nesting: u32,
}

impl Open {
    fn new(node: Node<'_>, name: String) -> Self {
        let line = line_of(node);
        Self {
            name,
            node_id: node.id(),
            line,
            lines: to_u32(node.end_position().row) + 2 - line,
            complexity: 1,
            level: 0,
            nesting: 0,
        }
    }
}

struct Walk<'t> {
    language: Language,
    text: &'t str,
    open: Vec<Open>,
    parents: Vec<Node<'t>>,
    structure: Structure,
}

impl<'t> Walk<'t> {
    // A loop, not a recursion: hostile sources nest deeper than any call stack.
    fn run(&mut self, tree: &'t Tree) {
        let mut cursor = tree.walk();
        loop {
            let node = cursor.node();
            if self.enter(node) && cursor.goto_first_child() {
                self.parents.push(node);
                continue;
            }
            self.leave(node);
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    return;
                }
                self.parents.pop();
                self.leave(cursor.node());
            }
        }
    }

    fn meaning(&self, node: Node<'t>) -> Meaning {
        let parent = self.parents.last().map_or("", Node::kind);
        self.language.meaning(node, parent)
    }

    /// Whether to go into the node.
    fn enter(&mut self, node: Node<'t>) -> bool {
        if node.is_error() || node.is_missing() {
            self.syntax_error(node);
        }
        match self.meaning(node) {
            Meaning::Function => {
                let name = self.name(node);
                self.open.push(Open::new(node, name));
            }
            Meaning::Branch => {
                self.decide();
                self.deeper();
            }
            Meaning::Decision => self.decide(),
            Meaning::Level => self.deeper(),
            Meaning::Comment => {
                let text = self.slice(node).to_owned();
                self.structure.comments.push((line_of(node), text));
                return false;
            }
            Meaning::Other => {}
        }
        if node.child_count() == 0 && node.end_byte() > node.start_byte() {
            self.token(node);
        }
        true
    }

    fn leave(&mut self, node: Node<'t>) {
        match self.meaning(node) {
            Meaning::Branch | Meaning::Level => {
                if let Some(open) = self.open.last_mut() {
                    open.level -= 1;
                }
            }
            Meaning::Function => {
                debug_assert_eq!(self.open.last().map(|open| open.node_id), Some(node.id()));
                if let Some(open) = self.open.pop() {
                    self.structure.functions.push(Function {
                        name: open.name,
                        line: open.line,
                        lines: open.lines,
                        complexity: open.complexity,
                        nesting: open.nesting,
                    });
                }
            }
            Meaning::Decision | Meaning::Comment | Meaning::Other => {}
        }
    }

    fn decide(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.complexity += 1;
        }
    }

    fn deeper(&mut self) {
        if let Some(open) = self.open.last_mut() {
            open.level += 1;
            open.nesting = open.nesting.max(open.level);
        }
    }

    fn syntax_error(&mut self, node: Node<'t>) {
        let errors = &mut self.structure.syntax_errors;
        let line = line_of(node);
        if errors.len() < limits::SYNTAX_ERRORS_PER_FILE_MAX && errors.last() != Some(&line) {
            errors.push(line);
        }
    }

    fn token(&mut self, node: Node<'t>) {
        let mut hasher = DefaultHasher::new();
        self.slice(node).hash(&mut hasher);
        self.structure.tokens.push(Token { hash: hasher.finish(), line: line_of(node) });
    }

    /// Its own name, else that of the variable or field which it is given to.
    fn name(&self, node: Node<'t>) -> String {
        let own = node.child_by_field_name("name");
        let given = || {
            let parent = self.parents.last()?;
            parent.child_by_field_name("name").or_else(|| parent.child_by_field_name("key"))
        };
        match own.or_else(given) {
            Some(name) => format!("`{}`", self.slice(name)),
            None => "a function".to_owned(),
        }
    }

    fn slice(&self, node: Node<'t>) -> &'t str {
        self.text.get(node.byte_range()).unwrap_or_default()
    }
}

fn line_of(node: Node<'_>) -> u32 {
    to_u32(node.start_position().row) + 1
}

fn to_u32(row: usize) -> u32 {
    // Files are bounded far below this.
    u32::try_from(row).unwrap_or(u32::MAX - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(language: Language, text: &str) -> Structure {
        measure(language, text, &|| false).unwrap()
    }

    fn figures(structure: &Structure) -> Vec<(&str, u32, u32, u32)> {
        let figures = |function: &'_ Function| -> (u32, u32, u32) {
            (function.lines, function.complexity, function.nesting)
        };
        structure
            .functions
            .iter()
            .map(|function| {
                let (lines, complexity, nesting) = figures(function);
                (function.name.as_str(), lines, complexity, nesting)
            })
            .collect()
    }

    #[test]
    fn typescript_is_measured() {
        let text = "export function f(a: number): number {\n  if (a > 1 && a < 5) {\n    \
                    for (const x of [1]) { a += x ?? 0; }\n  } else if (a > 9) {\n    \
                    return 1;\n  }\n  \
                    switch (a) { case 1: return 2; default: return 3; }\n}\n\
                    const g = (b: string) => b ? 1 : 2;\n\
                    class C { m() { try { f(1); } catch (e) { throw e; } } }\n";
        let structure = check(Language::TypeScript, text);
        assert_eq!(structure.syntax_errors, [0u32; 0]);
        assert_eq!(figures(&structure), [("`f`", 8, 7, 2), ("`g`", 1, 2, 0), ("`m`", 1, 2, 1)]);
    }

    #[test]
    fn javascript_with_jsx_is_measured() {
        let text =
            "#!/usr/bin/env node\nconst a = () => <p>{x && <b/>}</p>;\nmodule.exports = { a };\n";
        let structure = check(Language::JavaScript, text);
        assert_eq!(structure.syntax_errors, [0u32; 0]);
        assert_eq!(figures(&structure), [("`a`", 1, 2, 0)]);
    }

    #[test]
    fn python_is_measured() {
        let text = "def f(a):\n    # a remark\n    if a and a > 1:\n        while a:\n            \
                    a -= 1\n    elif a:\n        return [x for x in a if x]\n    try:\n        \
                    pass\n    except ValueError:\n        pass\n    return lambda y: y or 1\n";
        let structure = check(Language::Python, text);
        assert_eq!(structure.syntax_errors, [0u32; 0]);
        let figures = figures(&structure);
        assert_eq!(figures[0], ("a function", 1, 2, 0));
        assert_eq!((figures[1].0, figures[1].2, figures[1].3), ("`f`", 8, 2));
        assert_eq!(structure.comments, [(2, "# a remark".to_owned())]);
    }

    #[test]
    fn rust_is_measured() {
        let text = "/// Doc.\nfn f(a: Option<u8>) -> u8 {\n    \
                    let g = |x: u8| x > 1 || x == 0;\n    \
                    match a {\n        Some(1) => 1,\n        Some(x) if g(x) => 2,\n        \
                    _ => if g(1) { 3 } else if g(2) { 4 } else { 5 },\n    }\n}\n";
        let structure = check(Language::Rust, text);
        assert_eq!(structure.syntax_errors, [0u32; 0]);
        assert_eq!(figures(&structure), [("a function", 1, 2, 0), ("`f`", 8, 6, 2)]);
    }

    #[test]
    fn broken_code_is_an_error_with_its_line() {
        let structure = check(Language::Rust, "fn a() {}\n\nfn b( {\n");
        assert!(structure.syntax_errors.contains(&3), "{structure:?}");
    }

    #[test]
    fn deep_nesting_and_odd_text_are_survived() {
        let deep = format!("x = {}{}\n", "(".repeat(20_000), ")".repeat(20_000));
        check(Language::Python, &deep);
        check(Language::TypeScript, &"{".repeat(50_000));
        check(Language::Rust, "\u{fffd}\u{0}é fn \u{1f600}");
        check(Language::Python, "");
    }

    #[test]
    fn a_cancelled_parse_gives_nothing() {
        let text = "let a = 1;\n".repeat(20_000);
        assert!(measure(Language::TypeScript, &text, &|| true).is_none());
    }
}
