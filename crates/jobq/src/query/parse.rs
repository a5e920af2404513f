//! From tokens to an expression, with SQLite's precedences.

use serde_json::Value;

use super::QueryError;
use super::ast::{Column, Kind, Literal, Node, function};
use super::token::{Spot, Token, tokens};
use crate::Json;

/// An expression that is deeper than this is refused.
const HEIGHT_MAX: usize = 100;

/// Parses one expression, all of `text`.
pub(super) fn expression(text: &str) -> Result<Node, QueryError> {
    let mut parser = Parser { text, tokens: tokens(text)?, next: 0, nesting: 0 };
    let node = parser.or()?;
    match parser.peek() {
        None => Ok(node),
        Some(_) => parser.refuse("expected the end of the expression"),
    }
}

/// Parses the path of a triple and compares it with the value.
pub(super) fn triple(op: &str, path: &str, value: &Json) -> Result<Node, QueryError> {
    let left = expression(path)?;
    let words: Vec<String> = op.split_ascii_whitespace().map(str::to_ascii_uppercase).collect();
    let words = words.join(" ");
    let compare = ["=", "==", "!=", "<>", "<", "<=", ">", ">=", "IS", "IS NOT"];
    let matches = ["LIKE", "NOT LIKE", "GLOB", "NOT GLOB"];
    let is_json = matches!(left.kind, Kind::Column(column) if column.is_json());
    let height = left.height + 2;
    let left = Box::new(left);
    if let Some(op) = compare.iter().find(|known| **known == words) {
        let literal = leaf(Kind::Literal(literal(value, is_json)?));
        return Ok(Node { kind: Kind::Compare(left, op, Box::new(literal)), height });
    }
    if let Some(op) = matches.iter().find(|known| **known == words) {
        let right = Box::new(leaf(Kind::Literal(literal(value, false)?)));
        return Ok(Node { kind: Kind::Match { left, op, right, escape: None }, height });
    }
    Err(QueryError::new("an unknown operator in [op, path, value]", 0, op))
}

/// The value to compare with: the document itself for a JSON column, else what `json_extract`
/// would give for it.
fn literal(value: &Json, is_json: bool) -> Result<Literal, QueryError> {
    let text = value.as_str();
    if is_json {
        return Ok(Literal::Text(text.to_owned()));
    }
    let refuse = || QueryError::new("the value is not JSON", 0, text);
    let parsed: Value = value.to().map_err(|_| refuse())?;
    Ok(match parsed {
        Value::Null => Literal::Word("NULL"),
        Value::Bool(true) => Literal::Integer(1),
        Value::Bool(false) => Literal::Integer(0),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Literal::Integer(integer),
            (None, Some(float)) => Literal::Float(float),
            (None, None) => return Err(refuse()),
        },
        Value::String(text) => Literal::Text(text),
        Value::Array(_) | Value::Object(_) => Literal::Text(text.to_owned()),
    })
}

fn leaf(kind: Kind) -> Node {
    Node { kind, height: 1 }
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Spot>,
    next: usize,
    nesting: usize,
}

type Parsed = Result<Node, QueryError>;

impl Parser<'_> {
    fn or(&mut self) -> Parsed {
        self.join("OR", Parser::and)
    }

    fn and(&mut self) -> Parsed {
        self.join("AND", Parser::not)
    }

    fn join(&mut self, word: &'static str, part: fn(&mut Self) -> Parsed) -> Parsed {
        let first = part(self)?;
        if !self.is_word(word) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take_word(word) {
            parts.push(part(self)?);
        }
        let height = parts.iter().map(|part| part.height).max().unwrap_or(0);
        self.node(Kind::Join(word, parts), height)
    }

    fn not(&mut self) -> Parsed {
        if !self.take_word("NOT") {
            return self.equality();
        }
        let operand = self.nested(Parser::not)?;
        let height = operand.height;
        self.node(Kind::Prefix("NOT", Box::new(operand)), height)
    }

    /// `=`, `IS`, `LIKE`, `BETWEEN`, `IN` and their kin, which are left-associative.
    fn equality(&mut self) -> Parsed {
        let mut left = self.comparison()?;
        loop {
            let sign = ["=", "==", "<>", "!="].into_iter().find(|sign| self.take_sign(sign));
            if let Some(sign) = sign {
                left = self.compare(left, sign)?;
            } else if self.take_word("ISNULL") {
                left = self.postfix(left, "ISNULL")?;
            } else if self.take_word("NOTNULL") {
                left = self.postfix(left, "NOTNULL")?;
            } else if self.take_word("IS") {
                let op = self.is_operator()?;
                left = self.compare(left, op)?;
            } else if self.take_word("NOT") {
                left = self.negated(left)?;
            } else if self.take_word("LIKE") {
                left = self.matching(left, "LIKE")?;
            } else if self.take_word("GLOB") {
                left = self.matching(left, "GLOB")?;
            } else if self.take_word("BETWEEN") {
                left = self.between(left, "BETWEEN")?;
            } else if self.take_word("IN") {
                left = self.within(left, "IN")?;
            } else {
                return Ok(left);
            }
        }
    }

    fn compare(&mut self, left: Node, op: &'static str) -> Parsed {
        let right = self.comparison()?;
        let height = left.height.max(right.height);
        self.node(Kind::Compare(Box::new(left), op, Box::new(right)), height)
    }

    fn postfix(&mut self, left: Node, op: &'static str) -> Parsed {
        let height = left.height;
        self.node(Kind::Postfix(Box::new(left), op), height)
    }

    /// What follows `IS`.
    fn is_operator(&mut self) -> Result<&'static str, QueryError> {
        let negated = self.take_word("NOT");
        if self.take_word("DISTINCT") {
            self.expect_word("FROM")?;
            // `IS DISTINCT FROM` is `IS NOT`.
            return Ok(if negated { "IS" } else { "IS NOT" });
        }
        Ok(if negated { "IS NOT" } else { "IS" })
    }

    /// What follows a `NOT` after an operand.
    fn negated(&mut self, left: Node) -> Parsed {
        if self.take_word("NULL") {
            self.postfix(left, "NOTNULL")
        } else if self.take_word("LIKE") {
            self.matching(left, "NOT LIKE")
        } else if self.take_word("GLOB") {
            self.matching(left, "NOT GLOB")
        } else if self.take_word("BETWEEN") {
            self.between(left, "NOT BETWEEN")
        } else if self.take_word("IN") {
            self.within(left, "NOT IN")
        } else {
            self.refuse("expected NULL, LIKE, GLOB, BETWEEN or IN")
        }
    }

    fn matching(&mut self, left: Node, op: &'static str) -> Parsed {
        let right = self.comparison()?;
        let mut height = left.height.max(right.height);
        // A pattern of GLOB has no escapes.
        let escape = if matches!(op, "LIKE" | "NOT LIKE") && self.take_word("ESCAPE") {
            let escape = self.comparison()?;
            height = height.max(escape.height);
            Some(Box::new(escape))
        } else {
            None
        };
        let (left, right) = (Box::new(left), Box::new(right));
        self.node(Kind::Match { left, op, right, escape }, height)
    }

    fn between(&mut self, value: Node, op: &'static str) -> Parsed {
        let low = self.comparison()?;
        self.expect_word("AND")?;
        let high = self.comparison()?;
        let height = value.height.max(low.height).max(high.height);
        let (value, low, high) = (Box::new(value), Box::new(low), Box::new(high));
        self.node(Kind::Between { value, op, low, high }, height)
    }

    fn within(&mut self, value: Node, op: &'static str) -> Parsed {
        self.expect_sign("(")?;
        let list = self.list()?;
        let height = list.iter().map(|item| item.height).max().unwrap_or(0).max(value.height);
        self.node(Kind::In { value: Box::new(value), op, list }, height)
    }

    fn comparison(&mut self) -> Parsed {
        self.left(&["<=", ">=", "<", ">"], Kind::Compare, Parser::bits)
    }

    fn bits(&mut self) -> Parsed {
        self.left(&["&", "|", "<<", ">>"], Kind::Binary, Parser::sum)
    }

    fn sum(&mut self) -> Parsed {
        self.left(&["+", "-"], Kind::Binary, Parser::product)
    }

    fn product(&mut self) -> Parsed {
        self.left(&["*", "/", "%"], Kind::Binary, Parser::joined)
    }

    fn joined(&mut self) -> Parsed {
        self.left(&["||", "->>", "->"], Kind::Binary, Parser::collated)
    }

    /// A chain of binary operators of one precedence.
    fn left(
        &mut self,
        signs: &[&'static str],
        kind: fn(Box<Node>, &'static str, Box<Node>) -> Kind,
        part: fn(&mut Self) -> Parsed,
    ) -> Parsed {
        let mut left = part(self)?;
        while let Some(sign) = signs.iter().find(|sign| self.take_sign(sign)) {
            let right = part(self)?;
            let height = left.height.max(right.height);
            left = self.node(kind(Box::new(left), sign, Box::new(right)), height)?;
        }
        Ok(left)
    }

    fn collated(&mut self) -> Parsed {
        let mut operand = self.prefixed()?;
        while self.take_word("COLLATE") {
            let names = ["BINARY", "NOCASE", "RTRIM"];
            let Some(name) = names.into_iter().find(|name| self.take_word(name)) else {
                return self.refuse("expected BINARY, NOCASE or RTRIM");
            };
            let height = operand.height;
            operand = self.node(Kind::Collate(Box::new(operand), name), height)?;
        }
        Ok(operand)
    }

    fn prefixed(&mut self) -> Parsed {
        let Some(sign) = ["-", "+", "~"].into_iter().find(|sign| self.take_sign(sign)) else {
            return self.primary();
        };
        if sign == "-" && self.peek() == Some(&Token::Float(9_223_372_036_854_775_808.0)) {
            // The least integer, which has no positive twin.
            self.next += 1;
            return Ok(leaf(Kind::Literal(Literal::Integer(i64::MIN))));
        }
        let operand = self.nested(Parser::prefixed)?;
        let height = operand.height;
        match operand.kind {
            Kind::Literal(Literal::Integer(integer)) if sign == "-" && integer != i64::MIN => {
                Ok(leaf(Kind::Literal(Literal::Integer(-integer))))
            }
            Kind::Literal(Literal::Float(float)) if sign == "-" => Ok(leaf(Kind::Literal(Literal::Float(-float)))),
            _ => self.node(Kind::Prefix(sign, Box::new(operand)), height),
        }
    }

    fn primary(&mut self) -> Parsed {
        let Some((_, token)) = self.tokens.get(self.next).cloned() else {
            return self.refuse("expected an expression");
        };
        self.next += 1;
        match token {
            Token::Integer(integer) => Ok(leaf(Kind::Literal(Literal::Integer(integer)))),
            Token::Float(float) => Ok(leaf(Kind::Literal(Literal::Float(float)))),
            Token::Text(text) => Ok(leaf(Kind::Literal(Literal::Text(text)))),
            Token::Blob(bytes) => Ok(leaf(Kind::Literal(Literal::Blob(bytes)))),
            Token::Sign("(") => {
                let node = self.nested(Parser::or)?;
                self.expect_sign(")")?;
                Ok(node)
            }
            Token::Sign(_) => self.refuse_last("expected an expression"),
            Token::Quoted(name) => self.column(&name),
            Token::DoubleQuoted(name) => match Column::named(&name) {
                Some(column) if self.peek() != Some(&Token::Sign(".")) => Ok(leaf(Kind::Column(column))),
                None if self.peek() != Some(&Token::Sign(".")) => {
                    // As SQLite has it, for the sake of old callers.
                    Ok(leaf(Kind::Literal(Literal::Text(name))))
                }
                Some(_) | None => self.column(&name),
            },
            Token::Word(word) => self.word(&word),
        }
    }

    fn word(&mut self, word: &str) -> Parsed {
        let upper = word.to_ascii_uppercase();
        let constants = ["NULL", "TRUE", "FALSE", "CURRENT_TIME", "CURRENT_DATE", "CURRENT_TIMESTAMP"];
        if let Some(constant) = constants.into_iter().find(|constant| *constant == upper) {
            return Ok(leaf(Kind::Literal(Literal::Word(constant))));
        }
        match upper.as_str() {
            "CASE" => self.nested(Parser::case),
            "CAST" => self.nested(Parser::cast),
            _ if self.take_sign("(") => self.call(word),
            _ => self.column(word),
        }
    }

    /// A column, perhaps after the table's alias.
    fn column(&mut self, name: &str) -> Parsed {
        let mut name = name.to_owned();
        if self.take_sign(".") {
            if !name.eq_ignore_ascii_case("j") {
                return self.refuse_last("the jobs' table is called j");
            }
            name = match self.tokens.get(self.next).cloned() {
                Some((_, Token::Word(name) | Token::Quoted(name) | Token::DoubleQuoted(name))) => name,
                Some(_) | None => return self.refuse("expected a column"),
            };
            self.next += 1;
        }
        match Column::named(&name) {
            Some(column) => Ok(leaf(Kind::Column(column))),
            None => self.refuse_last("a job has id, payload, events, state and modified"),
        }
    }

    fn call(&mut self, name: &str) -> Parsed {
        let at = self.next - 2;
        let arguments = self.nested_list()?;
        let height = arguments.iter().map(|argument| argument.height).max().unwrap_or(0);
        match function(name, arguments.len()) {
            Some(function) => self.node(Kind::Call { function, arguments }, height),
            None => {
                self.next = at;
                self.refuse("not a function that a query may call, or not with these arguments")
            }
        }
    }

    fn case(&mut self) -> Parsed {
        let subject = if self.is_word("WHEN") { None } else { Some(Box::new(self.or()?)) };
        let mut height = subject.as_ref().map_or(0, |subject| subject.height);
        let mut arms = Vec::new();
        while self.take_word("WHEN") {
            let when = self.or()?;
            self.expect_word("THEN")?;
            let then = self.or()?;
            height = height.max(when.height).max(then.height);
            arms.push((when, then));
        }
        if arms.is_empty() {
            return self.refuse("expected WHEN");
        }
        let otherwise = if self.take_word("ELSE") { Some(Box::new(self.or()?)) } else { None };
        height = height.max(otherwise.as_ref().map_or(0, |otherwise| otherwise.height));
        self.expect_word("END")?;
        self.node(Kind::Case { subject, arms, otherwise }, height)
    }

    fn cast(&mut self) -> Parsed {
        self.expect_sign("(")?;
        let operand = self.or()?;
        self.expect_word("AS")?;
        let types = ["INTEGER", "INT", "REAL", "TEXT", "NUMERIC", "BLOB"];
        let Some(name) = types.into_iter().find(|name| self.take_word(name)) else {
            return self.refuse("expected INTEGER, REAL, TEXT, NUMERIC or BLOB");
        };
        self.expect_sign(")")?;
        let height = operand.height;
        self.node(Kind::Cast(Box::new(operand), name), height)
    }

    fn nested_list(&mut self) -> Result<Vec<Node>, QueryError> {
        self.enter()?;
        let list = self.list();
        self.nesting -= 1;
        list
    }

    /// Expressions up to the closing bracket.
    fn list(&mut self) -> Result<Vec<Node>, QueryError> {
        self.enter()?;
        let mut list = Vec::new();
        if !self.take_sign(")") {
            loop {
                list.push(self.or()?);
                if self.take_sign(")") {
                    break;
                }
                self.expect_sign(",")?;
            }
        }
        self.nesting -= 1;
        Ok(list)
    }

    /// Parses one level deeper, so that the parser's own depth is bounded too.
    fn nested(&mut self, part: fn(&mut Self) -> Parsed) -> Parsed {
        self.enter()?;
        let node = part(self);
        self.nesting -= 1;
        node
    }

    fn enter(&mut self) -> Result<(), QueryError> {
        self.nesting += 1;
        if self.nesting > HEIGHT_MAX {
            return self.refuse("the expression is too deep");
        }
        Ok(())
    }

    fn node(&self, kind: Kind, height_below: usize) -> Parsed {
        let height = height_below + 1;
        if height > HEIGHT_MAX {
            return self.refuse("the expression is too deep");
        }
        Ok(Node { kind, height })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn is_word(&self, expected: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(expected))
    }

    fn take_word(&mut self, expected: &str) -> bool {
        let found = self.is_word(expected);
        self.next += usize::from(found);
        found
    }

    fn take_sign(&mut self, expected: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(sign)) if *sign == expected);
        self.next += usize::from(found);
        found
    }

    fn expect_word(&mut self, expected: &'static str) -> Result<(), QueryError> {
        if self.take_word(expected) { Ok(()) } else { self.refuse(format!("expected {expected}")) }
    }

    fn expect_sign(&mut self, expected: &'static str) -> Result<(), QueryError> {
        if self.take_sign(expected) { Ok(()) } else { self.refuse(format!("expected {expected}")) }
    }

    /// Refuses the next token.
    fn refuse<T>(&self, what: impl Into<std::borrow::Cow<'static, str>>) -> Result<T, QueryError> {
        let at = self.tokens.get(self.next).map_or(self.text.len(), |(at, _)| *at);
        Err(QueryError::new(what, at, self.text))
    }

    /// Refuses the token that was just taken.
    fn refuse_last<T>(&mut self, what: &'static str) -> Result<T, QueryError> {
        self.next -= 1;
        self.refuse(what)
    }
}
