//! The tokens of an expression.

use super::QueryError;

/// More tokens than this are refused.
const TOKENS_MAX: usize = 2_000;
/// A longer text is refused, in bytes.
const TEXT_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A word that is not quoted, as written.
    Word(String),
    /// An identifier in `` ` `` or `[]`.
    Quoted(String),
    /// What is in `""`: an identifier, or a string if no column has that name.
    DoubleQuoted(String),
    Text(String),
    Integer(i64),
    Float(f64),
    Blob(Vec<u8>),
    /// An operator or a bracket.
    Sign(&'static str),
}

/// A token and where it starts.
pub(super) type Spot = (usize, Token);

/// The longest first, so that `<=` is not `<`.
const SIGNS: [&str; 24] = [
    "->>", "->", "||", "<<", ">>", "<=", ">=", "<>", "!=", "==", "=", "<", ">", "(", ")", ",", ".", "+", "-", "*", "/",
    "%", "&", "|",
];

pub(super) fn tokens(text: &str) -> Result<Vec<Spot>, QueryError> {
    if text.len() > TEXT_MAX {
        return Err(QueryError::new("the text is too long", TEXT_MAX, text));
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if tokens.len() == TOKENS_MAX {
            return Err(QueryError::new("the expression is too large", at, text));
        }
        let (token, length) = token(text, at, first)?;
        tokens.push((at, token));
        at += length;
    }
    Ok(tokens)
}

/// The token at `at`, which starts with `first`, and its length in bytes.
fn token(text: &str, at: usize, first: char) -> Result<(Token, usize), QueryError> {
    let rest = &text[at..];
    let refuse = |what: &'static str| Err(QueryError::new(what, at, text));
    match first {
        '\'' => quoted(text, at, '\'').map(|(text, length)| (Token::Text(text), length)),
        '"' => quoted(text, at, '"').map(|(name, length)| (Token::DoubleQuoted(name), length)),
        '`' => quoted(text, at, '`').map(|(name, length)| (Token::Quoted(name), length)),
        '[' => match rest.find(']') {
            Some(end) => Ok((Token::Quoted(rest[1..end].to_owned()), end + 1)),
            None => refuse("an identifier in [ ] does not end"),
        },
        '0'..='9' => number(text, at),
        '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => number(text, at),
        'x' | 'X' if rest[1..].starts_with('\'') => blob(text, at),
        '~' => Ok((Token::Sign("~"), 1)),
        'a'..='z' | 'A'..='Z' | '_' => {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let word = &rest[..end.unwrap_or(rest.len())];
            Ok((Token::Word(word.to_owned()), word.len()))
        }
        _ if rest.starts_with("--") || rest.starts_with("/*") => refuse("a comment"),
        _ => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => Ok((Token::Sign(sign), sign.len())),
            None => refuse("an unexpected character"),
        },
    }
}

/// What is between two `quote`s, where two in a row stand for one.
fn quoted(text: &str, at: usize, quote: char) -> Result<(String, usize), QueryError> {
    let mut inside = String::new();
    let mut chars = text[at + 1..].char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        match c {
            '\0' => break,
            _ if c != quote => inside.push(c),
            _ if chars.next_if(|(_, next)| *next == quote).is_some() => inside.push(quote),
            _ => return Ok((inside, offset + 2)),
        }
    }
    Err(QueryError::new("a quoted text does not end", at, text))
}

fn number(text: &str, at: usize) -> Result<(Token, usize), QueryError> {
    let rest = &text[at..];
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    if rest.starts_with("0x") || rest.starts_with("0X") {
        return hexadecimal(text, at);
    }
    let mut length = digits(0);
    let mut is_float = false;
    if bytes.get(length) == Some(&b'.') {
        is_float = true;
        length += 1;
        length += digits(length);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits((length + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            is_float = true;
            length += 1 + sign + exponent;
        }
    }
    ends_here(text, at, length)?;
    let written = &rest[..length];
    let integer = if is_float { None } else { written.parse().ok().map(Token::Integer) };
    match integer.or_else(|| written.parse().ok().filter(|f: &f64| f.is_finite()).map(Token::Float)) {
        Some(token) => Ok((token, length)),
        None => Err(QueryError::new("a number is out of range", at, text)),
    }
}

fn hexadecimal(text: &str, at: usize) -> Result<(Token, usize), QueryError> {
    let digits = text[at + 2..].bytes().take_while(u8::is_ascii_hexdigit).count();
    ends_here(text, at, 2 + digits)?;
    // As in SQLite, hexadecimal integers are 64 bits in two's complement.
    match u64::from_str_radix(&text[at + 2..at + 2 + digits], 16) {
        Ok(bits) => Ok((Token::Integer(bits.cast_signed()), 2 + digits)),
        Err(_) => Err(QueryError::new("a number is out of range", at, text)),
    }
}

/// A number must not run into a word.
fn ends_here(text: &str, at: usize, length: usize) -> Result<(), QueryError> {
    match text[at + length..].chars().next() {
        Some(c) if c.is_alphanumeric() || c == '_' => Err(QueryError::new("a malformed number", at, text)),
        Some(_) | None => Ok(()),
    }
}

fn blob(text: &str, at: usize) -> Result<(Token, usize), QueryError> {
    let (digits, length) = quoted(text, at + 1, '\'')?;
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        if pair.len() != 2 || pair.starts_with('+') {
            return None;
        }
        u8::from_str_radix(pair, 16).ok()
    };
    match digits.as_bytes().chunks(2).map(byte).collect() {
        Some(bytes) => Ok((Token::Blob(bytes), length + 1)),
        None => Err(QueryError::new("a malformed blob", at, text)),
    }
}
