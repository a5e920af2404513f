//! JSON and JSON5 into a document.

use crate::diagnostic::Position;
use crate::node::{DEPTH_MAX, Malformed, NODES_MAX, Node, Text, Value, duplicate_key};

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Json,
    /// Comments, trailing commas, unquoted keys, single quotes, more numbers.
    Json5,
}

/// Reads one document.
pub(crate) fn read(source: &str, dialect: Dialect) -> Result<Node, Malformed> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut reader = Reader { rest: source, line: 1, column: 1, dialect, depth: 0, nodes: 0 };
    reader.skip_space()?;
    let root = reader.value()?;
    reader.skip_space()?;
    match reader.rest.is_empty() {
        true => Ok(root),
        false => Err(reader.malformed("expected the end of the file")),
    }
}

struct Reader<'s> {
    rest: &'s str,
    line: usize,
    column: usize,
    dialect: Dialect,
    depth: usize,
    nodes: usize,
}

impl<'s> Reader<'s> {
    fn value(&mut self) -> Result<Node, Malformed> {
        let at = self.at();
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(self.malformed(&format!("more than {NODES_MAX} values")));
        }
        let value = match self.peek() {
            None => return Err(self.malformed("the file ends where a value is expected")),
            Some('{') => self.nested(Self::map)?,
            Some('[') => self.nested(Self::list)?,
            Some('"') => Value::Text(self.string('"')?),
            Some('\'') if self.is_json5() => Value::Text(self.string('\'')?),
            Some(c) if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number()?,
            Some(_) => self.word()?,
        };
        Ok(Node::new(value, at))
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Malformed>) -> Result<Value, Malformed> {
        if self.depth == DEPTH_MAX {
            return Err(Malformed::too_deep(self.at()));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn list(&mut self) -> Result<Value, Malformed> {
        let mut items = Vec::new();
        self.items(']', |reader| {
            items.push(reader.value()?);
            Ok(())
        })?;
        Ok(Value::List(items))
    }

    fn map(&mut self) -> Result<Value, Malformed> {
        let mut entries = Vec::new();
        self.items('}', |reader| {
            let key = reader.key()?;
            reader.skip_space()?;
            if !reader.eat(':') {
                return Err(reader.malformed("expected `:` after a key"));
            }
            reader.skip_space()?;
            entries.push((key, reader.value()?));
            Ok(())
        })?;
        match duplicate_key(&entries) {
            Some(key) => Err(Malformed::duplicate(key)),
            None => Ok(Value::Map(entries)),
        }
    }

    /// Reads items with commas between them up to `end`; the opening is next.
    fn items(&mut self, end: char, mut item: impl FnMut(&mut Self) -> Result<(), Malformed>) -> Result<(), Malformed> {
        self.bump();
        self.skip_space()?;
        if self.eat(end) {
            return Ok(());
        }
        loop {
            item(self)?;
            self.skip_space()?;
            if self.eat(end) {
                return Ok(());
            }
            if !self.eat(',') {
                return Err(self.malformed(&format!("expected `,` or `{end}`")));
            }
            self.skip_space()?;
            if self.peek() == Some(end) && !self.is_json5() {
                return Err(self.malformed(&format!("a comma before `{end}`")));
            }
            if self.eat(end) {
                return Ok(());
            }
        }
    }

    fn key(&mut self) -> Result<Text, Malformed> {
        let at = self.at();
        let value = match self.peek() {
            Some('"') => self.string('"')?,
            Some('\'') if self.is_json5() => self.string('\'')?,
            Some(c) if self.is_json5() && is_identifier_start(c) => self.take_while(is_identifier_part).to_owned(),
            _ => return Err(self.malformed("expected a key")),
        };
        Ok(Text { value, at })
    }

    fn string(&mut self, quote: char) -> Result<String, Malformed> {
        let start = self.at();
        let mut text = String::new();
        self.bump();
        loop {
            let plain = self.take_while(|c| c != quote && c != '\\' && c >= ' ' && c != '\u{7f}');
            text.push_str(plain);
            match self.bump() {
                None => return Err(Malformed::new(start, "the text that starts here does not end")),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => self.escape(&mut text)?,
                Some(c @ ('\t' | '\u{7f}')) => text.push(c),
                Some(_) => {
                    return Err(Malformed {
                        at: start,
                        message: "the text that starts here is broken over two lines".to_owned(),
                        help: Some("write `\\n` for a new line".to_owned()),
                    });
                }
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Result<(), Malformed> {
        let at = self.at();
        let Some(c) = self.bump() else { return Err(Malformed::new(at, "the file ends inside a text")) };
        let plain = match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            '"' | '\\' | '/' => c,
            'u' => return self.unicode_escape(at, text),
            _ if !self.is_json5() => return Err(Malformed::new(at, format!("unknown escape `\\{c}`"))),
            'v' => '\u{b}',
            '0' => '\0',
            'x' => char::from(u8::try_from(self.hex(at, 2)?).expect("two hexadecimal digits fit")),
            '\r' => {
                if self.peek() == Some('\n') {
                    self.bump();
                }
                return Ok(());
            }
            '\n' | '\u{2028}' | '\u{2029}' => return Ok(()),
            other => other,
        };
        text.push(plain);
        Ok(())
    }

    fn unicode_escape(&mut self, at: Position, text: &mut String) -> Result<(), Malformed> {
        let bad = || Malformed::new(at, "half of a surrogate pair");
        let first = self.hex(at, 4)?;
        let code = match first {
            0xd800..=0xdbff if self.rest.starts_with("\\u") => {
                self.bump();
                self.bump();
                let second = self.hex(at, 4)?;
                let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or_else(bad)?;
                0x10000 + ((first - 0xd800) << 10) + low
            }
            other => other,
        };
        text.push(char::from_u32(code).ok_or_else(bad)?);
        Ok(())
    }

    fn hex(&mut self, at: Position, digits: usize) -> Result<u32, Malformed> {
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.bump().and_then(|c| c.to_digit(16));
            code = code * 16 + digit.ok_or_else(|| Malformed::new(at, "expected hexadecimal digits"))?;
        }
        Ok(code)
    }

    fn number(&mut self) -> Result<Value, Malformed> {
        let at = self.at();
        let text = self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'));
        let bad = || Malformed::new(at, format!("`{text}` is not a number"));
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let sign = if text.starts_with('-') { -1 } else { 1 };
        if self.is_json5() {
            match unsigned {
                "Infinity" => return Ok(Value::Float(f64::INFINITY * f64::from(sign))),
                "NaN" => return Ok(Value::Float(f64::NAN)),
                _ => {}
            }
            if let Some(digits) = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X")) {
                let number = i64::from_str_radix(digits, 16).map_err(|_| bad())?;
                return Ok(Value::Int(number * i64::from(sign)));
            }
        }
        let strict =
            unsigned.starts_with(|c: char| c.is_ascii_digit()) && !unsigned.ends_with('.') && !text.starts_with('+');
        if !strict && !self.is_json5() {
            return Err(bad());
        }
        if let Ok(number) = text.parse::<i64>() {
            return Ok(Value::Int(number));
        }
        let finite = text.parse::<f64>().ok().filter(|number| number.is_finite());
        finite.map(Value::Float).ok_or_else(bad)
    }

    fn word(&mut self) -> Result<Value, Malformed> {
        let at = self.at();
        match self.take_while(is_identifier_part) {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "null" => Ok(Value::Null),
            "Infinity" if self.is_json5() => Ok(Value::Float(f64::INFINITY)),
            "NaN" if self.is_json5() => Ok(Value::Float(f64::NAN)),
            "" => Err(self.malformed("expected a value")),
            word => Err(Malformed {
                at,
                message: format!("`{word}` is not a value"),
                help: Some(format!("texts are quoted: \"{word}\"")),
            }),
        }
    }

    fn skip_space(&mut self) -> Result<(), Malformed> {
        loop {
            let json5 = self.is_json5();
            self.take_while(|c| {
                matches!(c, ' ' | '\t' | '\n' | '\r') || (json5 && (c.is_whitespace() || c == '\u{feff}'))
            });
            if json5 && self.rest.starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if json5 && self.rest.starts_with("/*") {
                let at = self.at();
                let end = self.rest.find("*/").ok_or_else(|| Malformed::new(at, "this comment does not end"))?;
                let after = self.rest.len() - end - 2;
                while self.rest.len() > after {
                    self.bump();
                }
            } else {
                return Ok(());
            }
        }
    }

    fn is_json5(&self) -> bool {
        self.dialect == Dialect::Json5
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Passes `wanted` if it is next.
    fn eat(&mut self, wanted: char) -> bool {
        let next = self.peek() == Some(wanted);
        if next {
            self.bump();
        }
        next
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.pass(c);
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'s str {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken.chars().for_each(|c| self.pass(c));
        taken
    }

    fn pass(&mut self, c: char) {
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
    }

    fn at(&self) -> Position {
        Position::new(self.line, self.column)
    }

    fn malformed(&self, message: &str) -> Malformed {
        Malformed::new(self.at(), message)
    }
}

fn is_identifier_start(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '$')
}

fn is_identifier_part(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json5(source: &str) -> serde_json::Value {
        read(source, Dialect::Json5).unwrap().to_json()
    }

    #[test]
    fn json5_takes_comments_commas_and_bare_keys() {
        let source = "// a\n{a: 1, 'b': 'it''s', /* c */ $c: [.5, +2, 0x1f, 1e3,],}".replace("it''s", "it\\'s");
        assert_eq!(json5(&source), serde_json::json!({"a": 1, "b": "it's", "$c": [0.5, 2, 31, 1000.0]}));
    }

    #[test]
    fn json_and_serde_json_agree() {
        for source in [
            r#"{"a": [1, -2, 3.5, 1e3, true, false, null, "x\n\u00e9\ud83d\ude00\/"], "b": {}, "c": []}"#,
            r#" [ ] "#,
            r#""text""#,
            "-0.5",
        ] {
            let expected: serde_json::Value = serde_json::from_str(source).unwrap();
            assert_eq!(read(source, Dialect::Json).unwrap().to_json(), expected);
            assert_eq!(json5(source), expected);
        }
    }

    #[test]
    fn what_serde_json_refuses_is_refused() {
        for source in
            ["{a: 1}", "[1,]", "['a']", "// c\n1", "[+1]", "[.5]", "[1.]", "{\"a\" 1}", "[1 2]", "1 2", "", "[", "\"a"]
        {
            assert!(read(source, Dialect::Json).is_err(), "{source}");
            assert!(serde_json::from_str::<serde_json::Value>(source).is_err(), "{source}");
        }
    }

    #[test]
    fn mistakes_are_placed() {
        for (source, line, column, words) in [
            ("{\n  a: 1\n  b: 2\n}", 3, 3, "expected `,`"),
            ("{a: yes}", 1, 5, "`yes` is not a value"),
            ("{a: 1,\n a: 2}", 2, 2, "twice"),
            ("{a: 'x\n'}", 1, 5, "two lines"),
            ("{a: 12ab}", 1, 5, "not a number"),
        ] {
            let error = read(source, Dialect::Json5).unwrap_err();
            assert!(error.message.contains(words), "{error:?}");
            assert_eq!(error.at, Position::new(line, column), "{error:?}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(read(&"[".repeat(100_000), Dialect::Json).unwrap_err().message.contains("deep"));
    }
}
