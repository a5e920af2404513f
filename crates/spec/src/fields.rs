//! Takes the fields of a map one by one, and tells what is missing, wrong or left over.

use crate::diagnostic::{Kind, Position, Report, did_you_mean};
use crate::node::{Node, Text, Value};

/// The fields of one map of the file.
pub(crate) struct Fields<'n, 'r> {
    entries: &'n [(Text, Node)],
    at: Position,
    /// What a person calls this map: "a job".
    place: &'static str,
    known: Vec<&'static str>,
    report: &'r Report<'r>,
}

impl<'n, 'r> Fields<'n, 'r> {
    /// The fields of `node`, if it is a map.
    pub(crate) fn of(node: &'n Node, place: &'static str, report: &'r Report<'r>) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => Some(Self { entries, at: node.at, place, known: Vec::new(), report }),
            _ => {
                let message = format!("expected {place} with its fields, found {}", node.kind());
                report.error(Kind::BadValue, node.at, message);
                None
            }
        }
    }

    pub(crate) fn report(&self) -> &'r Report<'r> {
        self.report
    }

    /// The value of a field; null is the same as absent.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<&'n Node> {
        self.known.push(name);
        let entry = self.entries.iter().find(|(key, _)| key.value == name);
        entry.map(|(_, node)| node).filter(|node| !node.is_null())
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Option<Text> {
        let node = self.take(name)?;
        self.as_text(node, name)
    }

    /// A text that has to be there; empty, and reported, if it is not.
    pub(crate) fn required_text(&mut self, name: &'static str) -> Text {
        match self.take(name) {
            Some(node) => self.as_text(node, name).unwrap_or_default(),
            None => {
                self.missing(name);
                Text::default()
            }
        }
    }

    pub(crate) fn texts(&mut self, name: &'static str) -> Vec<Text> {
        let items = self.list(name).unwrap_or_default();
        items.iter().filter_map(|item| self.as_text(item, name)).collect()
    }

    /// A map of texts, in the order of the file.
    pub(crate) fn text_map(&mut self, name: &'static str) -> Vec<(Text, Text)> {
        let entries = self.map(name).unwrap_or_default();
        let entries = entries.iter().filter_map(|(key, node)| Some((key.clone(), self.as_text(node, name)?)));
        entries.collect()
    }

    pub(crate) fn bool(&mut self, name: &'static str) -> Option<bool> {
        let node = self.take(name)?;
        match node.value {
            Value::Bool(flag) => Some(flag),
            _ => self.wrong(node, name, "true or false"),
        }
    }

    pub(crate) fn int(&mut self, name: &'static str) -> Option<i64> {
        let node = self.take(name)?;
        match node.value {
            Value::Int(number) => Some(number),
            _ => self.wrong(node, name, "a whole number"),
        }
    }

    /// A whole number that has to be at least `least`, with its place.
    pub(crate) fn int_from(&mut self, name: &'static str, least: i64) -> Option<i64> {
        let at = self.take(name)?.at;
        let number = self.int(name)?;
        if number < least {
            let message = format!("`{name}` has to be at least {least}, not {number}");
            self.report.error(Kind::BadValue, at, message);
            return None;
        }
        Some(number)
    }

    pub(crate) fn int32(&mut self, name: &'static str) -> Option<i32> {
        let at = self.take(name)?.at;
        let number = self.int(name)?;
        let small = i32::try_from(number).ok();
        if small.is_none() {
            self.report.error(Kind::BadValue, at, format!("`{name}` is too large: {number}"));
        }
        small
    }

    pub(crate) fn float(&mut self, name: &'static str) -> Option<f64> {
        let node = self.take(name)?;
        match node.value {
            Value::Float(number) => Some(number),
            Value::Int(number) => Some(number as f64),
            _ => self.wrong(node, name, "a number"),
        }
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(&mut self, name: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(name)?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let message = format!("`{name}` cannot be `{}`", text.value);
            let help = || Some(format!("it is one of {}", known.join(", ")));
            self.report.error_with(Kind::BadValue, text.at, message, help);
        }
        found.map(|(_, value)| *value)
    }

    pub(crate) fn list(&mut self, name: &'static str) -> Option<&'n [Node]> {
        let node = self.take(name)?;
        match &node.value {
            Value::List(items) => Some(items),
            _ => self.wrong(node, name, "a list"),
        }
    }

    pub(crate) fn map(&mut self, name: &'static str) -> Option<&'n [(Text, Node)]> {
        let node = self.take(name)?;
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ => self.wrong(node, name, "a map"),
        }
    }

    pub(crate) fn missing(&self, name: &str) {
        self.report.error(Kind::MissingField, self.at, format!("{} needs `{name}`", self.place));
    }

    /// Reports the fields that nothing took.
    pub(crate) fn finish(self) {
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.known.contains(&key.value.as_str())) {
            let message = format!("unknown field `{}` in {}", key.value, self.place);
            let help = || did_you_mean(&key.value, self.known.iter().copied());
            self.report.error_with(Kind::UnknownField, key.at, message, help);
        }
    }

    /// Tells of the fields that nothing took, where torc passes over them.
    pub(crate) fn finish_leniently(self) {
        for (key, _) in self.entries.iter().filter(|(key, _)| !self.known.contains(&key.value.as_str())) {
            self.report.notice(key.at, format!("`{}` in {} has no effect: it is not known", key.value, self.place));
        }
    }

    pub(crate) fn as_text(&self, node: &Node, name: &str) -> Option<Text> {
        match &node.value {
            Value::Text(text) => Some(Text { value: text.clone(), at: node.at }),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                let written = node.to_json();
                let message = format!("`{name}` has to be a text, found {} `{written}`", node.kind());
                let help = || Some(format!("quote it: \"{written}\""));
                self.report.error_with(Kind::BadValue, node.at, message, help);
                None
            }
            _ => self.wrong(node, name, "a text"),
        }
    }

    pub(crate) fn wrong<T>(&self, node: &Node, name: &str, expected: &str) -> Option<T> {
        let message = format!("`{name}` has to be {expected}, found {}", node.kind());
        self.report.error(Kind::BadValue, node.at, message);
        None
    }
}
