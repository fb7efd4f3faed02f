//! From the parser's syntax tree to the evaluator's: functions, operators and names resolved,
//! macros recognised, constant patterns compiled. What can be refused before a run is refused here.

use std::sync::Arc;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators,
};
use cel::parser::{Expression as Parsed, PrattParser};
use regex::Regex;

use super::api::Reference;
use super::function::{self, Function};
use super::limit::{COMPREHENSION_NESTING_MAX, DEPTH_MAX};
use super::nearest::{hint, nearest};
use super::operator::Operator;
use super::scan;
use super::value::Kind;

/// An expression made ready to be evaluated.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) root: Node,
    /// The free names, each once; nodes name them by index.
    pub(super) names: Vec<String>,
    /// How many [`Node::Path`]s there are; each has a slot of its own.
    pub(super) paths: usize,
}

/// What is wrong, and at which byte.
#[derive(Debug)]
pub(super) struct CompileError {
    pub(super) byte: usize,
    pub(super) message: String,
}

/// A node of the evaluator's tree.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Arc<[u8]>),
    /// A free name that is the name of a type too, if the scope does not have it.
    Name {
        index: usize,
        kind: Option<Kind>,
    },
    /// A free name followed by constant fields, which the scope may resolve at once.
    Path {
        slot: usize,
        index: usize,
        fields: Vec<String>,
    },
    Type(Kind),
    /// The variable of a macro, counted from the outermost.
    Variable(usize),
    Select {
        operand: Box<Node>,
        field: String,
    },
    Has {
        operand: Box<Node>,
        field: String,
    },
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Conditional(Box<[Node; 3]>),
    Binary(Operator, Box<[Node; 2]>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, Regex),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Fold(Box<Fold>),
}

/// A macro over the elements of a list or the keys of a map.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) macro_: Macro,
    pub(super) range: Node,
    /// The predicate, or the transformation of `map`.
    pub(super) body: Node,
    /// The predicate of a `map` that has one.
    pub(super) filter: Option<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

/// Parses and compiles text that [`scan::check`] let through.
pub(super) fn compile(text: &str) -> Result<Program, CompileError> {
    let depth_max = u16::try_from(DEPTH_MAX).unwrap_or(u16::MAX);
    let parser = PrattParser::new().max_recursion_depth(depth_max).enable_ident_escape_syntax(true);
    let parsed = parser.parse(text).map_err(|errors| {
        // Errors without a place only say that the parser gave up after the others.
        let placed = errors.errors.iter().find(|error| error.pos.0 > 0);
        let Some(error) = placed.or(errors.errors.first()) else {
            return CompileError { byte: 0, message: "this is not an expression".to_owned() };
        };
        CompileError { byte: byte_of(text, error.pos), message: plain(&error.msg) }
    })?;
    let mut compiler =
        Compiler { text, names: Vec::new(), paths: 0, variables: Vec::new(), depth: 0 };
    let root = compiler.node(&parsed.expr)?;
    Ok(Program { root, names: compiler.names, paths: compiler.paths })
}

/// The parser's position, line and byte within the line from 1, as a byte of the text.
fn byte_of(text: &str, (line, column): (isize, isize)) -> usize {
    let [line, column] = [line, column].map(|value| usize::try_from(value - 1).unwrap_or(0));
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    text.floor_char_boundary((before + column).min(text.len()))
}

/// The parser's message in words a user knows.
fn plain(message: &str) -> String {
    message
        .trim_start_matches("Syntax error: ")
        .replace("mismatched input '<EOF>'", "the end")
        .replace("mismatched input", "found")
        .replace("expecting <EOF>", "where the expression should end")
        .replace("the end expecting expression", "expected a value, found the end")
        .replace("expecting", "expected")
        .replace("unexpected token", "expected a value here")
}

struct Compiler<'t> {
    text: &'t str,
    names: Vec<String>,
    paths: usize,
    variables: Vec<String>,
    depth: u32,
}

impl Compiler<'_> {
    /// An error at the first place where `word` stands.
    fn error(&self, word: &str, message: String) -> CompileError {
        CompileError { byte: scan::word(self.text, word).unwrap_or(0), message }
    }

    fn boxed(&mut self, expr: &Parsed) -> Result<Box<Node>, CompileError> {
        self.node(&expr.expr).map(Box::new)
    }

    fn nodes(&mut self, exprs: &[Parsed]) -> Result<Vec<Node>, CompileError> {
        exprs.iter().map(|expr| self.node(&expr.expr)).collect()
    }

    fn node(&mut self, expr: &Expr) -> Result<Node, CompileError> {
        // The scan has bounded the depth already, by an estimate; this is what the evaluator's
        // stack relies on.
        if self.depth > 2 * DEPTH_MAX {
            let message = format!("the expression nests deeper than {DEPTH_MAX}");
            return Err(CompileError { byte: 0, message });
        }
        self.depth += 1;
        let node = self.node_at_depth(expr);
        self.depth -= 1;
        node
    }

    fn node_at_depth(&mut self, expr: &Expr) -> Result<Node, CompileError> {
        match expr {
            Expr::Literal(literal) => Ok(constant(literal)),
            Expr::Ident(name) => Ok(self.name(name)),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => Ok(Node::List(self.nodes(&list.elements)?)),
            Expr::Map(map) => {
                let mut entries = Vec::with_capacity(map.entries.len());
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        let key = self.node(&entry.key.expr)?;
                        entries.push((key, self.node(&entry.value.expr)?));
                    }
                }
                Ok(Node::Map(entries))
            }
            Expr::Comprehension(comprehension) => self.fold(comprehension),
            Expr::Struct(message) => {
                let text = format!(
                    "message `{}{{…}}` is not supported; a map is written `{{\"key\": value}}`",
                    message.type_name
                );
                let first = message.type_name.split('.').next().unwrap_or_default();
                Err(self.error(first, text))
            }
            Expr::Unspecified => {
                Err(CompileError { byte: 0, message: "this is not an expression".to_owned() })
            }
        }
    }

    /// A leading dot reaches past the variables of macros.
    fn name(&mut self, name: &str) -> Node {
        let global = name.strip_prefix('.');
        if global.is_none()
            && let Some(slot) = self.variables.iter().rposition(|variable| variable == name)
        {
            return Node::Variable(slot);
        }
        let name = global.unwrap_or(name);
        let index = self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        Node::Name { index, kind: Kind::from_name(name) }
    }

    fn select(&mut self, select: &SelectExpr) -> Result<Node, CompileError> {
        if !select.test
            && let Expr::Select(inner) = &select.operand.expr
            && let Expr::Ident(root) = &inner.operand.expr
            && !self.variables.contains(root)
            && let Some(kind) = Kind::from_name(&format!("{root}.{}.{}", inner.field, select.field))
        {
            return Ok(Node::Type(kind));
        }
        let operand = self.node(&select.operand.expr)?;
        let field = select.field.clone();
        if select.test {
            return Ok(Node::Has { operand: Box::new(operand), field });
        }
        Ok(self.field(operand, field))
    }

    /// A constant field of what `operand` is.
    fn field(&mut self, operand: Node, field: String) -> Node {
        match operand {
            Node::Name { index, .. } => {
                self.paths += 1;
                Node::Path { slot: self.paths - 1, index, fields: vec![field] }
            }
            Node::Path { slot, index, mut fields } => {
                fields.push(field);
                Node::Path { slot, index, fields }
            }
            other => Node::Select { operand: Box::new(other), field },
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<Node, CompileError> {
        if let (None, [left, right]) = (&call.target, call.args.as_slice()) {
            let and = call.func_name == operators::LOGICAL_AND;
            if and || call.func_name == operators::LOGICAL_OR {
                let pair = Box::new([self.node(&left.expr)?, self.node(&right.expr)?]);
                return Ok(if and { Node::And(pair) } else { Node::Or(pair) });
            }
            if let Some(operator) = Operator::from_call(&call.func_name) {
                let pair = [self.node(&left.expr)?, self.node(&right.expr)?];
                return Ok(match (operator, pair) {
                    // What is no map is told so in other words when indexed: only paths are fields.
                    (
                        Operator::Index,
                        [operand @ (Node::Name { .. } | Node::Path { .. }), Node::Text(key)],
                    ) => self.field(operand, key),
                    (operator, pair) => Node::Binary(operator, Box::new(pair)),
                });
            }
        }
        match (call.func_name.as_str(), &call.target, call.args.as_slice()) {
            (operators::CONDITIONAL, None, [condition, then, otherwise]) => {
                Ok(Node::Conditional(Box::new([
                    self.node(&condition.expr)?,
                    self.node(&then.expr)?,
                    self.node(&otherwise.expr)?,
                ])))
            }
            (operators::LOGICAL_NOT, None, [operand]) => Ok(Node::Not(self.boxed(operand)?)),
            (operators::NEGATE, None, [operand]) => Ok(Node::Negate(self.boxed(operand)?)),
            _ => self.function(call),
        }
    }

    fn function(&mut self, call: &CallExpr) -> Result<Node, CompileError> {
        let name = call.func_name.trim_start_matches('.');
        let member = call.target.is_some();
        let function = self.find(name, member, call.args.len())?;
        let mut args = Vec::with_capacity(call.args.len() + 1);
        if let Some(target) = &call.target {
            args.push(self.node(&target.expr)?);
        }
        args.extend(self.nodes(&call.args)?);
        if function == Function::Matches
            && let [_, Node::Text(pattern)] = args.as_slice()
        {
            let regex = function::pattern(pattern).map_err(|text| self.error(name, text))?;
            args.truncate(1);
            if let Some(text) = args.pop() {
                return Ok(Node::Matches(Box::new(text), regex));
            }
        }
        Ok(Node::Call(function, args))
    }

    fn find(&self, name: &str, member: bool, given: usize) -> Result<Function, CompileError> {
        let mut wrong_style = false;
        let mut counts = None;
        for signature in function::SIGNATURES.iter().filter(|signature| signature.name == name) {
            if signature.member != member {
                wrong_style = true;
            } else if (signature.least..=signature.most).contains(&given) {
                return Ok(signature.function);
            } else {
                counts = Some((signature.least, signature.most));
            }
        }
        if let Some((least, most)) = counts {
            let wanted =
                if least == most { least.to_string() } else { format!("{least} or {most}") };
            let text = format!("`{name}` takes {wanted} argument(s), {given} given");
            return Err(self.error(name, text));
        }
        if wrong_style {
            let right = if member { format!("{name}(…)") } else { format!("value.{name}(…)") };
            return Err(self.error(name, format!("`{name}` is called as `{right}`")));
        }
        if let Some((_, usage)) = function::MACROS.iter().find(|(known, _)| *known == name) {
            return Err(self.error(name, format!("`{name}` is used as `{usage}`")));
        }
        let names = function::SIGNATURES.iter().map(|signature| signature.name);
        let names = names.chain(function::MACROS.iter().map(|(name, _)| *name));
        let text = format!("unknown function `{name}`{}", hint(nearest(name, names)));
        Err(self.error(name, text))
    }

    /// The parser writes macros out as folds over `@result`, a name no text can hold; the shape of
    /// the step tells which macro it was.
    fn fold(&mut self, fold: &ComprehensionExpr) -> Result<Node, CompileError> {
        if self.variables.len() == COMPREHENSION_NESTING_MAX {
            let text =
                format!("macros (`all`, `map`, …) nest deeper than {COMPREHENSION_NESTING_MAX}");
            return Err(self.error(&fold.iter_var, text));
        }
        let Some((macro_, body, filter)) = recognise(fold) else {
            let text = "this macro is not supported".to_owned();
            return Err(self.error(&fold.iter_var, text));
        };
        let range = self.node(&fold.iter_range.expr)?;
        self.variables.push(fold.iter_var.clone());
        let body = self.node(body);
        let filter = filter.map(|filter| self.node(filter)).transpose();
        self.variables.pop();
        Ok(Node::Fold(Box::new(Fold { macro_, range, body: body?, filter: filter? })))
    }
}

fn constant(literal: &LiteralValue) -> Node {
    match literal {
        LiteralValue::Boolean(value) => Node::Bool(*value.inner()),
        LiteralValue::Bytes(value) => Node::Bytes(Arc::from(value.inner())),
        LiteralValue::Double(value) => Node::Double(*value.inner()),
        LiteralValue::Int(value) => Node::Int(*value.inner()),
        LiteralValue::Null => Node::Null,
        LiteralValue::String(value) => Node::Text(value.inner().to_owned()),
        LiteralValue::UInt(value) => Node::Uint(*value.inner()),
    }
}

/// The macro, its body and its filter.
fn recognise(fold: &ComprehensionExpr) -> Option<(Macro, &Expr, Option<&Expr>)> {
    if fold.iter_var2.is_some() {
        return None;
    }
    let Expr::Call(step) = &fold.loop_step.expr else {
        return None;
    };
    match (step.func_name.as_str(), step.args.as_slice()) {
        (operators::LOGICAL_AND, [_, body]) => Some((Macro::All, &body.expr, None)),
        (operators::LOGICAL_OR, [_, body]) => Some((Macro::Exists, &body.expr, None)),
        (operators::ADD, [_, list]) => Some((Macro::Map, single(&list.expr)?, None)),
        (operators::CONDITIONAL, [predicate, step, _]) => {
            let Expr::Call(add) = &step.expr else {
                return None;
            };
            let [_, added] = add.args.as_slice() else {
                return None;
            };
            if matches!(fold.accu_init.expr, Expr::Literal(_)) {
                return Some((Macro::ExistsOne, &predicate.expr, None));
            }
            let element = single(&added.expr)?;
            // `filter(v, p)` and `map(v, p, v)` are the same.
            let itself = matches!(element, Expr::Ident(name) if *name == fold.iter_var);
            if itself {
                return Some((Macro::Filter, &predicate.expr, None));
            }
            Some((Macro::Map, element, Some(&predicate.expr)))
        }
        _ => None,
    }
}

fn single(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::List(list) => match list.elements.as_slice() {
            [element] => Some(&element.expr),
            _ => None,
        },
        _ => None,
    }
}

impl Program {
    /// The free names with the constant fields read from them, each once, in reading order.
    pub(super) fn references(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        self.collect(&self.root, &mut found);
        found
    }

    fn collect(&self, node: &Node, found: &mut Vec<Reference>) {
        let mut add = |index: usize, fields: &[String], last: Option<&String>| {
            let fields = fields.iter().chain(last).cloned().collect();
            let reference = Reference { name: self.names[index].clone(), fields };
            if !found.contains(&reference) {
                found.push(reference);
            }
        };
        match node {
            // The name of a type alone is that type, unless the scope says otherwise.
            Node::Name { index, kind: None } => add(*index, &[], None),
            Node::Path { index, fields, .. } => add(*index, fields, None),
            Node::Has { operand, field } => match &**operand {
                Node::Name { index, .. } => add(*index, &[], Some(field)),
                Node::Path { index, fields, .. } => add(*index, fields, Some(field)),
                other => self.collect(other, found),
            },
            Node::Select { operand, .. } => self.collect(operand, found),
            Node::Not(operand) | Node::Negate(operand) | Node::Matches(operand, _) => {
                self.collect(operand, found);
            }
            Node::And(pair) | Node::Or(pair) | Node::Binary(_, pair) => {
                pair.iter().for_each(|node| self.collect(node, found));
            }
            Node::Conditional(parts) => parts.iter().for_each(|node| self.collect(node, found)),
            Node::Call(_, nodes) | Node::List(nodes) => {
                nodes.iter().for_each(|node| self.collect(node, found));
            }
            Node::Map(entries) => {
                for (key, value) in entries {
                    self.collect(key, found);
                    self.collect(value, found);
                }
            }
            Node::Fold(fold) => {
                self.collect(&fold.range, found);
                fold.filter.iter().for_each(|filter| self.collect(filter, found));
                self.collect(&fold.body, found);
            }
            _ => {}
        }
    }
}
