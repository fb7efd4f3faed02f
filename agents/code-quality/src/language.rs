//! The languages that are parsed, and which of their syntax nodes mean what. It must not walk
//! trees.

use tree_sitter::Node;

/// A language with a grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// TypeScript without JSX.
    TypeScript,
    /// JavaScript, and TypeScript with JSX; the grammar of the latter holds for both.
    JavaScript,
    /// Python.
    Python,
    /// Rust.
    Rust,
}

/// What a syntax node means to the measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It begins a function.
    Function,
    /// It decides, and what is in it stands one level deeper.
    Branch,
    /// It decides on the level where it stands, as an `elif` or an arm.
    Decision,
    /// What is in it stands one level deeper, yet it decides nothing by itself.
    Level,
    /// It speaks to people.
    Comment,
    /// Nothing of note.
    Other,
}

impl Language {
    /// The language of a file, by the ending of its name.
    pub fn of(path: &str) -> Option<Self> {
        let (_, ending) = path.rsplit_once('.')?;
        match ending {
            "ts" | "mts" | "cts" => Some(Self::TypeScript),
            "js" | "mjs" | "cjs" | "jsx" | "tsx" => Some(Self::JavaScript),
            "py" | "pyi" => Some(Self::Python),
            "rs" => Some(Self::Rust),
            _ => None,
        }
    }

    /// Its grammar.
    pub fn grammar(self) -> tree_sitter::Language {
        match self {
            Self::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
            Self::JavaScript => tree_sitter_typescript::LANGUAGE_TSX.into(),
            Self::Python => tree_sitter_python::LANGUAGE.into(),
            Self::Rust => tree_sitter_rust::LANGUAGE.into(),
        }
    }

    /// What a node means, given the kind of the node around it.
    pub fn meaning(self, node: Node<'_>, parent: &str) -> Meaning {
        let kind = node.kind();
        if !node.is_named() {
            // A keyword bears the name of its statement in some grammars.
            return Meaning::Other;
        }
        match self {
            Self::TypeScript | Self::JavaScript => script(node, kind, parent),
            Self::Python => python(kind),
            Self::Rust => rust(node, kind, parent),
        }
    }
}

fn script(node: Node<'_>, kind: &str, parent: &str) -> Meaning {
    match kind {
        "function_declaration"
        | "function_expression"
        | "generator_function"
        | "generator_function_declaration"
        | "arrow_function"
        | "method_definition" => Meaning::Function,
        "if_statement" if parent == "else_clause" => Meaning::Decision,
        "if_statement" | "for_statement" | "for_in_statement" | "while_statement"
        | "do_statement" => Meaning::Branch,
        "switch_case" | "catch_clause" | "ternary_expression" => Meaning::Decision,
        "binary_expression" if is_operator(node, &["&&", "||", "??"]) => Meaning::Decision,
        "switch_statement" | "try_statement" => Meaning::Level,
        "comment" => Meaning::Comment,
        _ => Meaning::Other,
    }
}

fn python(kind: &str) -> Meaning {
    match kind {
        "function_definition" | "lambda" => Meaning::Function,
        "if_statement" | "for_statement" | "while_statement" => Meaning::Branch,
        "elif_clause"
        | "except_clause"
        | "conditional_expression"
        | "boolean_operator"
        | "case_clause"
        | "for_in_clause"
        | "if_clause" => Meaning::Decision,
        "match_statement" | "try_statement" => Meaning::Level,
        "comment" => Meaning::Comment,
        _ => Meaning::Other,
    }
}

fn rust(node: Node<'_>, kind: &str, parent: &str) -> Meaning {
    match kind {
        "function_item" | "closure_expression" => Meaning::Function,
        "if_expression" if parent == "else_clause" => Meaning::Decision,
        "if_expression" | "while_expression" | "for_expression" => Meaning::Branch,
        "match_arm" => Meaning::Decision,
        "binary_expression" if is_operator(node, &["&&", "||"]) => Meaning::Decision,
        "match_expression" | "loop_expression" => Meaning::Level,
        "line_comment" | "block_comment" => Meaning::Comment,
        _ => Meaning::Other,
    }
}

fn is_operator(node: Node<'_>, operators: &[&str]) -> bool {
    node.child_by_field_name("operator")
        .is_some_and(|operator| operators.contains(&operator.kind()))
}
