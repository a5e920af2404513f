//! Which jobs a call is about.
//!
//! A query is one SQL expression over a job's columns, in the words of the original, or a list of
//! terms that must all hold: expressions, and `[op, path, value]` triples. It is parsed here and
//! written anew for SQLite, with its values bound; nothing but what this grammar knows gets through.

mod ast;
mod compile;
mod parse;
mod token;

use std::borrow::Cow;

use serde_json::Value;

use crate::Json;

pub(crate) use ast::is_known_function;
pub(crate) use compile::Compiled;

/// Why a query was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("query: {what}, at byte {at} of {text:?}")]
pub struct QueryError {
    /// What is wrong.
    pub what: Cow<'static, str>,
    /// Where in `text` it is, in bytes.
    pub at: usize,
    /// The term that was refused, cut to 200 bytes.
    pub text: String,
}

impl QueryError {
    fn new(what: impl Into<Cow<'static, str>>, at: usize, text: &str) -> Self {
        let end = text.floor_char_boundary(200);
        QueryError { what: what.into(), at, text: text[..end].to_owned() }
    }

    pub(crate) fn events_in_a_table(text: &str) -> Self {
        QueryError::new("in this file the events are in a table of their own", 0, text)
    }
}

/// A query: terms that must all hold. No terms is all jobs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Query {
    terms: Vec<Term>,
}

/// One term of a query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Term {
    Sql(String),
    Triple { op: String, path: String, value: Json },
}

impl Query {
    /// All jobs.
    #[must_use]
    pub fn all() -> Self {
        Query::default()
    }

    /// The jobs whose state is an array that starts with `tag`.
    #[must_use]
    pub fn tag(tag: &str) -> Self {
        Query::all().and_triple("=", "json_extract(j.state, '$[0]')", tag)
    }

    /// The jobs whose state is `state`.
    #[must_use]
    pub fn state(state: impl Into<Json>) -> Self {
        Query::all().and_triple("=", "j.state", state)
    }

    /// These jobs, as far as `expression` holds for them.
    #[must_use]
    pub fn and(mut self, expression: impl Into<String>) -> Self {
        self.terms.push(Term::Sql(expression.into()));
        self
    }

    /// These jobs, as far as `path op value` holds for them. `op` is one of `=`, `==`, `!=`, `<>`,
    /// `<`, `<=`, `>`, `>=`, `IS`, `IS NOT`, `LIKE`, `NOT LIKE`, `GLOB`; `path` is an expression. A
    /// bare JSON column is compared with the value as JSON, any other path with the plain value.
    #[must_use]
    pub fn and_triple(mut self, op: impl Into<String>, path: impl Into<String>, value: impl Into<Json>) -> Self {
        self.terms.push(Term::Triple { op: op.into(), path: path.into(), value: value.into() });
        self
    }

    /// Reads a query as it comes over the wire or from Python: an expression, or a list of
    /// expressions and triples.
    ///
    /// # Errors
    /// If it has another shape.
    pub fn from_value(value: &Value) -> Result<Self, QueryError> {
        let refuse = |value: &Value| {
            let what = "a query is an expression or a list of expressions and [op, path, value]";
            Err(QueryError::new(what, 0, &value.to_string()))
        };
        match value {
            Value::String(expression) => Ok(Query::from(expression.as_str())),
            Value::Array(terms) => terms.iter().try_fold(Query::all(), |query, term| match term {
                Value::String(expression) => Ok(query.and(expression.as_str())),
                Value::Array(triple) => match triple.as_slice() {
                    [Value::String(op), Value::String(path), value] => {
                        Ok(query.and_triple(op.as_str(), path.as_str(), value))
                    }
                    _ => refuse(term),
                },
                _ => refuse(term),
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => refuse(value),
        }
    }

    /// Parses the query and writes it for SQLite; the text is what SQLite gets.
    ///
    /// # Errors
    /// If a term is outside the grammar.
    pub fn check(&self) -> Result<String, QueryError> {
        self.compile().map(|compiled| compiled.sql)
    }

    pub(crate) fn compile(&self) -> Result<Compiled, QueryError> {
        let terms: Result<Vec<_>, _> = self.terms.iter().map(Term::parse).collect();
        Ok(Compiled::new(terms?))
    }
}

impl Term {
    fn parse(&self) -> Result<ast::Node, QueryError> {
        match self {
            Term::Sql(text) => parse::expression(text),
            Term::Triple { op, path, value } => parse::triple(op, path, value),
        }
    }
}

impl From<&str> for Query {
    fn from(expression: &str) -> Self {
        Query::all().and(expression)
    }
}

impl From<&[&str]> for Query {
    fn from(expressions: &[&str]) -> Self {
        expressions.iter().fold(Query::all(), |query, expression| query.and(*expression))
    }
}

impl From<&Query> for Query {
    fn from(query: &Query) -> Self {
        query.clone()
    }
}

#[cfg(test)]
mod tests;
