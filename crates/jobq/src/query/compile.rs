//! From an expression to SQL with bound values.

use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::ast::{Column, Kind, Literal, Node};

/// A value to bind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bound(Value);

impl rusqlite::ToSql for Bound {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::from(&self.0)))
    }
}

/// A query, ready to be put after `WHERE` in a statement over `… AS j`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Compiled {
    pub(crate) sql: String,
    /// The values of `?1`, `?2` and so on.
    pub(crate) values: Vec<Bound>,
    /// An expression that the query compares with a constant, for an index.
    pub(crate) index: Option<String>,
    /// The query looks into the log.
    pub(crate) reads_events: bool,
}

impl Compiled {
    /// The terms joined under `AND`.
    pub(super) fn new(terms: Vec<Node>) -> Self {
        let index = terms.iter().find_map(index_of);
        let mut out = Out::new("j.");
        for (n, term) in terms.iter().enumerate() {
            if n > 0 {
                out.sql.push_str(" AND ");
            }
            out.node(term, false);
        }
        if terms.is_empty() {
            out.sql.push_str("TRUE");
        }
        Compiled { sql: out.sql, values: out.values, index, reads_events: out.reads_events }
    }
}

/// The expression over the state or the payload that must equal a constant for `term` to hold.
fn index_of(term: &Node) -> Option<String> {
    match &term.kind {
        Kind::Join("AND", parts) => parts.iter().find_map(index_of),
        Kind::Compare(left, "=" | "==" | "IS", right) => {
            let (key, constant) = if is_constant(left) { (right, left) } else { (left, right) };
            if !is_constant(constant) || !is_key(key) {
                return None;
            }
            let mut out = Out::new("");
            out.node(key, false);
            Some(out.sql)
        }
        _ => None,
    }
}

/// The state, or a constant path into the state or the payload.
fn is_key(node: &Node) -> bool {
    let is_path = |path: &Node| matches!(path.kind, Kind::Literal(Literal::Text(_) | Literal::Integer(_)));
    let is_document = |node: &Node| matches!(node.kind, Kind::Column(Column::State | Column::Payload));
    match &node.kind {
        Kind::Column(Column::State) => true,
        Kind::Call { function: "json_extract", arguments } => {
            matches!(arguments.as_slice(), [document, path] if is_document(document) && is_path(path))
        }
        Kind::Binary(document, "->>" | "->", path) => is_document(document) && is_path(path),
        _ => false,
    }
}

/// A literal, or a literal as JSON.
fn is_constant(node: &Node) -> bool {
    match &node.kind {
        Kind::Literal(_) => true,
        Kind::Call { function: "json", arguments } => arguments.iter().all(is_constant),
        _ => false,
    }
}

struct Out {
    sql: String,
    values: Vec<Bound>,
    prefix: &'static str,
    reads_events: bool,
}

impl Out {
    fn new(prefix: &'static str) -> Self {
        Out { sql: String::new(), values: Vec::new(), prefix, reads_events: false }
    }

    /// Writes `node`; if it is a literal and `bind` is set, as a bound value.
    fn node(&mut self, node: &Node, bind: bool) {
        match &node.kind {
            Kind::Literal(literal) => self.literal(literal, bind),
            Kind::Column(column) => {
                self.reads_events |= *column == Column::Events;
                self.sql.push_str(self.prefix);
                self.sql.push_str(column.name());
            }
            _ => {
                self.sql.push('(');
                self.compound(&node.kind);
                self.sql.push(')');
            }
        }
    }

    fn compound(&mut self, kind: &Kind) {
        match kind {
            Kind::Literal(_) | Kind::Column(_) => unreachable!("written without brackets"),
            Kind::Prefix(op, operand) => {
                self.words(&[op, " "]);
                self.node(operand, false);
            }
            Kind::Postfix(operand, op) => {
                self.node(operand, false);
                self.words(&[" ", op]);
            }
            Kind::Binary(left, op, right) => {
                self.node(left, false);
                self.words(&[" ", op, " "]);
                self.node(right, false);
            }
            Kind::Compare(left, op, right) => {
                self.node(left, true);
                self.words(&[" ", op, " "]);
                self.node(right, true);
            }
            Kind::Match { left, op, right, escape } => {
                self.node(left, true);
                self.words(&[" ", op, " "]);
                self.node(right, true);
                if let Some(escape) = escape {
                    self.sql.push_str(" ESCAPE ");
                    self.node(escape, true);
                }
            }
            Kind::Between { value, op, low, high } => {
                self.node(value, true);
                self.words(&[" ", op, " "]);
                self.node(low, true);
                self.sql.push_str(" AND ");
                self.node(high, true);
            }
            Kind::In { value, op, list } => {
                self.node(value, true);
                self.words(&[" ", op, " ("]);
                self.list(list, true);
                self.sql.push(')');
            }
            Kind::Join(word, parts) => {
                for (n, part) in parts.iter().enumerate() {
                    if n > 0 {
                        self.words(&[" ", word, " "]);
                    }
                    self.node(part, false);
                }
            }
            Kind::Call { function, arguments } => {
                self.words(&[function, "("]);
                // A path stays in the text, so that an index on the expression is found.
                self.list(arguments, *function == "json");
                self.sql.push(')');
            }
            Kind::Cast(operand, name) => {
                self.sql.push_str("CAST(");
                self.node(operand, false);
                self.words(&[" AS ", name, ")"]);
            }
            Kind::Collate(operand, name) => {
                self.node(operand, false);
                self.words(&[" COLLATE ", name]);
            }
            Kind::Case { subject, arms, otherwise } => {
                self.sql.push_str("CASE");
                if let Some(subject) = subject {
                    self.sql.push(' ');
                    self.node(subject, false);
                }
                for (when, then) in arms {
                    self.sql.push_str(" WHEN ");
                    self.node(when, false);
                    self.sql.push_str(" THEN ");
                    self.node(then, false);
                }
                if let Some(otherwise) = otherwise {
                    self.sql.push_str(" ELSE ");
                    self.node(otherwise, false);
                }
                self.sql.push_str(" END");
            }
        }
    }

    fn list(&mut self, nodes: &[Node], bind: bool) {
        for (n, node) in nodes.iter().enumerate() {
            if n > 0 {
                self.sql.push_str(", ");
            }
            self.node(node, bind);
        }
    }

    fn words(&mut self, words: &[&str]) {
        words.iter().for_each(|word| self.sql.push_str(word));
    }

    fn literal(&mut self, literal: &Literal, bind: bool) {
        let value = match literal {
            Literal::Word(word) => {
                self.sql.push_str(word);
                return;
            }
            Literal::Integer(integer) => Value::Integer(*integer),
            Literal::Float(float) => Value::Real(*float),
            Literal::Text(text) => Value::Text(text.clone()),
            Literal::Blob(bytes) => Value::Blob(bytes.clone()),
        };
        match value {
            Value::Text(text) if !bind && !text.contains('\0') => {
                self.words(&["'", &text.replace('\'', "''"), "'"]);
            }
            // No digits stand for the least integer.
            Value::Integer(integer) if !bind && integer != i64::MIN => {
                self.sql.push_str(&integer.to_string());
            }
            value => {
                self.values.push(Bound(value));
                self.words(&["?", &self.values.len().to_string()]);
            }
        }
    }
}
