//! The document that every format is read into: values with their places.

use crate::diagnostic::Position;

/// How deep a document may be nested.
pub(crate) const DEPTH_MAX: usize = 128;

/// The most values of one document, counted with what YAML's aliases repeat.
pub(crate) const NODES_MAX: usize = 10_000_000;

/// A text and where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) value: String,
    pub(crate) at: Position,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) at: Position,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; no key twice.
    Map(Vec<(Text, Node)>),
}

impl Node {
    pub(crate) fn new(value: Value, at: Position) -> Self {
        Self { value, at }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The field of this name, if this is a map that has it.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.value == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// What a person calls this kind of value.
    pub(crate) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// As JSON. Floats that JSON cannot write become null.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(flag) => (*flag).into(),
            Value::Int(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                let entries = entries.iter().map(|(key, node)| (key.value.clone(), node.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }
}

/// A document that is not well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) at: Position,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Malformed {
    pub(crate) fn new(at: Position, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), help: None }
    }

    pub(crate) fn too_deep(at: Position) -> Self {
        Self::new(at, format!("nested more than {DEPTH_MAX} deep"))
    }

    pub(crate) fn duplicate(key: &Text) -> Self {
        Self::new(key.at, format!("the key `{}` is there twice", key.value))
    }
}

/// The first key that is there twice.
pub(crate) fn duplicate_key(entries: &[(Text, Node)]) -> Option<&Text> {
    /// Up to here a scan is cheaper than a set.
    const FEW: usize = 16;
    if entries.len() <= FEW {
        let repeated = |(index, (key, _)): (usize, &(Text, Node))| {
            entries[..index].iter().any(|(other, _)| other.value == key.value).then_some(index)
        };
        return entries.iter().enumerate().find_map(repeated).map(|index| &entries[index].0);
    }
    let mut seen = std::collections::HashSet::with_capacity(entries.len());
    entries.iter().map(|(key, _)| key).find(|key| !seen.insert(key.value.as_str()))
}
