//! JSON as text, written as the original writes it.
//!
//! jobq compares states as text: what `json.dumps` makes, with the spaces taken out by SQLite. So
//! the text here is ASCII with `\u` escapes, without spaces, with keys in the order given, and with
//! floats as Python prints them.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::ser::{CharEscape, Formatter};

use crate::Error;

/// A JSON document, kept as its text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Json(String);

impl Json {
    /// The document `null`.
    #[must_use]
    pub fn null() -> Self {
        Json("null".to_owned())
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// If it has a map with keys that are not strings, or fails by itself.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        let mut text = Vec::with_capacity(512);
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, AsPython);
        value.serialize(&mut serializer).map_err(|error| Error::NotJson(error.to_string()))?;
        Ok(Json(String::from_utf8(text).expect("the formatter writes ASCII")))
    }

    /// Takes a text that is JSON already; the spaces outside its strings are left out.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let _: serde::de::IgnoredAny = serde_json::from_str(text).map_err(|error| Error::NotJson(error.to_string()))?;
        Ok(Json(minified(text)))
    }

    /// Takes a text as it is. Use it for what was JSON when it was stored.
    #[must_use]
    pub fn from_trusted(text: String) -> Self {
        Json(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// Reads the document as a type.
    ///
    /// # Errors
    /// If it is not of that type.
    pub fn to<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_str(&self.0).map_err(|error| Error::NotJson(error.to_string()))
    }
}

impl Default for Json {
    fn default() -> Self {
        Json::null()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        Json::from(&value)
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        Json::of(value).expect("a JSON value is JSON")
    }
}

impl From<&Json> for Json {
    fn from(json: &Json) -> Self {
        json.clone()
    }
}

/// A JSON string.
impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Json::of(text).expect("a string is JSON")
    }
}

/// No document is `null`, as in the original.
impl<T: Into<Json>> From<Option<T>> for Json {
    fn from(value: Option<T>) -> Self {
        value.map_or_else(Json::null, Into::into)
    }
}

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &serde_json::value::RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// A document's text without spaces and with escapes for what is not ASCII, which only strings have.
fn minified(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', ' ', '\t', '\n', '\r']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        if tail.starts_with('"') {
            let end = end_of_string(tail);
            push_ascii(&mut out, &tail[..end]);
            rest = &tail[end..];
        } else {
            rest = &tail[1..];
        }
    }
    out.push_str(rest);
    out
}

fn push_ascii(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| !is_plain(c)) {
        out.push_str(&rest[..at]);
        let odd = rest[at..].chars().next().expect("a char was found here");
        for unit in odd.encode_utf16(&mut [0; 2]) {
            write!(out, "\\u{unit:04x}").expect("a string takes any text");
        }
        rest = &rest[at + odd.len_utf8()..];
    }
    out.push_str(rest);
}

/// Python writes the character as it is.
fn is_plain(c: char) -> bool {
    c.is_ascii() && c != '\x7f'
}

/// The length of the JSON string that `text` starts with, its quotes included.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Writes as `json.dumps` does, without its spaces.
struct AsPython;

impl Formatter for AsPython {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(python_float(value).as_bytes())
    }

    fn write_f32<W: ?Sized + Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        self.write_f64(writer, f64::from(value))
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // Most text is plain, and this look at it is quick.
        if fragment.is_ascii() && !fragment.as_bytes().contains(&0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut ascii = String::with_capacity(fragment.len() * 2);
        push_ascii(&mut ascii, fragment);
        writer.write_all(ascii.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::Quote => writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => writer.write_all(b"\\\\"),
            CharEscape::Solidus => writer.write_all(b"/"),
            CharEscape::Backspace => writer.write_all(b"\\b"),
            CharEscape::FormFeed => writer.write_all(b"\\f"),
            CharEscape::LineFeed => writer.write_all(b"\\n"),
            CharEscape::CarriageReturn => writer.write_all(b"\\r"),
            CharEscape::Tab => writer.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(writer, "\\u{byte:04x}"),
        }
    }
}

/// The shortest digits that read back as `value`, laid out as Python's `repr` lays them out.
fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("{:e} writes an exponent");
    let exponent: i32 = exponent.parse().expect("{:e} writes a decimal exponent");
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_written_as_python_writes_it() {
        let json = Json::from(json!(["é", "\u{1F600}", "a\"b\\c\n\u{1}\u{7f}/"]));
        assert_eq!(json.as_str(), "[\"\\u00e9\",\"\\ud83d\\ude00\",\"a\\\"b\\\\c\\n\\u0001\\u007f/\"]");
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let written: Vec<String> = [1.0, 1.5, 1e15, 1e16, 1e22, 1e-4, 1e-5, 0.1, -0.0, 1.25e-7, 1e100, 123_456_789.125]
            .map(python_float)
            .to_vec();
        let python = [
            "1.0",
            "1.5",
            "1000000000000000.0",
            "1e+16",
            "1e+22",
            "0.0001",
            "1e-05",
            "0.1",
            "-0.0",
            "1.25e-07",
            "1e+100",
            "123456789.125",
        ];
        assert_eq!(written, python);
    }

    #[test]
    fn spaces_are_left_out_except_in_strings() {
        let json = Json::parse(" { \"a b\" : [ 1 , \"\\\" [ \" ],\n\"k\":\ttrue } ").expect("JSON");
        assert_eq!(json.as_str(), r#"{"a b":[1,"\" [ "],"k":true}"#);
    }

    #[test]
    fn what_is_not_ascii_is_escaped_in_a_text_too() {
        let json = Json::parse("{\"é\": [\"\u{1F600}\\n\u{7f}\"]}").expect("JSON");
        assert_eq!(json.as_str(), r#"{"\u00e9":["\ud83d\ude00\n\u007f"]}"#);
        assert_eq!(json, Json::from(json!({"é": ["\u{1F600}\n\u{7f}"]})));
    }

    #[test]
    fn keys_keep_their_order() {
        let json = Json::parse(r#"{"b": 1, "a": 2}"#).expect("JSON");
        assert_eq!(json.as_str(), r#"{"b":1,"a":2}"#);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "NaN", "[1", "{'a': 1}", "1 2", "\"\\x\""] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_is_null() {
        assert_eq!(Json::from(None::<Json>).as_str(), "null");
    }
}
