//! YAML 1.2 into a document.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use crate::diagnostic::Position;
use crate::node::{DEPTH_MAX, Malformed, NODES_MAX, Node, Text, Value, duplicate_key};

/// Reads one YAML document.
pub(crate) fn read(source: &str) -> Result<Node, Malformed> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(source) {
        let (event, span) = event.map_err(malformed)?;
        builder.accept(event, position(span.start))?;
    }
    builder.root.ok_or_else(|| Malformed::new(Position::new(1, 1), "the file is empty"))
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    /// With how many values they are.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

/// A list or map whose end has not come yet.
struct Open {
    at: Position,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<(Text, Node)>, key: Option<Text> },
}

impl Builder {
    fn accept(&mut self, event: Event<'_>, at: Position) -> Result<(), Malformed> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                Err(Malformed::new(at, "a second document: a workflow file has one"))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref(), at)?;
                self.place(Node::new(value, at), anchor)
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor);
                let (node, nodes) = known.ok_or_else(|| Malformed::new(at, "an alias inside its own anchor"))?;
                self.nodes += nodes;
                if self.nodes > NODES_MAX {
                    return Err(too_many(at));
                }
                let node = Node::new(node.value.clone(), at);
                self.place(node, 0)
            }
            Event::SequenceStart(anchor, tag) => self.open(at, anchor, tag.as_deref(), Content::List(Vec::new())),
            Event::MappingStart(anchor, tag) => {
                let content = Content::Map { entries: Vec::new(), key: None };
                self.open(at, anchor, tag.as_deref(), content)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { at, anchor, content } = self.open.pop().expect("the parser closes only what it opened");
                let value = match content {
                    Content::List(items) => Value::List(items),
                    Content::Map { entries, .. } => match duplicate_key(&entries) {
                        Some(key) => return Err(Malformed::duplicate(key)),
                        None => Value::Map(entries),
                    },
                };
                self.place(Node::new(value, at), anchor)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd => Ok(()),
            Event::DocumentStart(_) | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, at: Position, anchor: usize, tag: Option<&Tag>, content: Content) -> Result<(), Malformed> {
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            return Err(Malformed::new(at, format!("the tag `{tag}` means nothing here")));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(Malformed::too_deep(at));
        }
        self.open.push(Open { at, anchor, content });
        Ok(())
    }

    /// Puts a finished value where it belongs: into what is open, or at the root.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), Malformed> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(too_many(node.at));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), count(&node)));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, key } => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(as_key(node)?),
            },
        }
        Ok(())
    }
}

fn as_key(node: Node) -> Result<Text, Malformed> {
    let value = match node.value {
        Value::Text(text) => text,
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null => "null".to_owned(),
        Value::List(_) | Value::Map(_) => return Err(Malformed::new(node.at, "a key has to be a text")),
    };
    Ok(Text { value, at: node.at })
}

fn too_many(at: Position) -> Malformed {
    Malformed::new(at, format!("more than {NODES_MAX} values"))
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| count(node)).sum::<usize>(),
        _ => 1,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Value, Malformed> {
    let plain = matches!(style, ScalarStyle::Plain);
    match tag {
        None if plain => Ok(plain_scalar(text)),
        None => Ok(Value::Text(text.to_owned())),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Value::Text(text.to_owned())),
        Some(tag) if tag.is_yaml_core_schema() => Ok(plain_scalar(text)),
        Some(tag) => Err(Malformed::new(at, format!("the tag `{tag}` means nothing here"))),
    }
}

/// What an unquoted word is in YAML 1.2's core schema. A number with leading zeros is a text.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Value::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    let based = [("0x", 16), ("0o", 8), ("0b", 2)];
    for (prefix, radix) in based {
        let digits = unsigned.strip_prefix(prefix).filter(|digits| digits.chars().all(|c| c.is_digit(radix)));
        if let Some(Ok(number)) = digits.map(|digits| i64::from_str_radix(digits, radix)) {
            return Value::Int(if text.starts_with('-') { -number } else { number });
        }
    }
    let digits = unsigned.as_bytes();
    let leading_zero = digits.len() > 1 && digits[0] == b'0' && digits.iter().all(u8::is_ascii_digit);
    let numeric = digits.first().is_some_and(|first| first.is_ascii_digit() || *first == b'.');
    if leading_zero || !numeric {
        return Value::Text(text.to_owned());
    }
    if let Ok(number) = text.parse::<i64>() {
        return Value::Int(number);
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

fn position(marker: Marker) -> Position {
    Position::new(marker.line(), marker.col() + 1)
}

fn malformed(error: ScanError) -> Malformed {
    let tabs = error.info().contains("tab");
    let help = tabs.then(|| "YAML is indented with spaces".to_owned());
    Malformed { at: position(*error.marker()), message: error.info().to_owned(), help }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(source: &str) -> serde_json::Value {
        read(source).unwrap().to_json()
    }

    #[test]
    fn scalars_are_what_yaml_1_2_says() {
        let value = json(
            "a: 1\nb: -2\nc: 1.5\nd: 1e3\ne: true\nf: yes\ng: ~\nh:\ni: '1'\nj: 007\nk: 0x1F\nl: 1:100\nm: PT1M\nn: 1.2.3\no: +4\n",
        );
        assert_eq!(
            value,
            serde_json::json!({"a": 1, "b": -2, "c": 1.5, "d": 1000.0, "e": true, "f": "yes", "g": null, "h": null,
                "i": "1", "j": "007", "k": 31, "l": "1:100", "m": "PT1M", "n": "1.2.3", "o": 4})
        );
    }

    #[test]
    fn block_texts_anchors_and_flows_are_read() {
        let value = json("base: &b {x: [1, 2]}\nagain: *b\ntext: |\n  one\n  two\nfold: >-\n  one\n  two\n");
        assert_eq!(
            value,
            serde_json::json!({"base": {"x": [1, 2]}, "again": {"x": [1, 2]}, "text": "one\ntwo\n", "fold": "one two"})
        );
    }

    #[test]
    fn places_are_kept() {
        let root = read("name: a\njobs:\n  - name: é\n    command: b\n").unwrap();
        let Value::List(jobs) = &root.get("jobs").unwrap().value else { panic!("a list") };
        assert_eq!(jobs[0].get("command").unwrap().at, Position::new(4, 14));
        assert_eq!(jobs[0].get("name").unwrap().at, Position::new(3, 11));
    }

    #[test]
    fn malformed_files_are_refused_at_their_place() {
        for (source, line, words) in [
            ("a: 1\na: 2\n", 2, "twice"),
            ("a: 1\n---\nb: 2\n", 2, "second document"),
            ("a: [1\n", 2, ""),
            ("a: !thing 1\n", 1, "tag"),
            ("", 1, "empty"),
        ] {
            let error = read(source).unwrap_err();
            assert!(error.message.contains(words), "{source:?}: {error:?}");
            assert_eq!(error.at.line, line, "{source:?}: {error:?}");
        }
    }

    #[test]
    fn aliases_cannot_blow_up() {
        let mut source = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let below = format!("*a{}", level - 1);
            source += &format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", "));
        }
        assert!(read(&source).unwrap_err().message.contains("more than"));
    }
}
