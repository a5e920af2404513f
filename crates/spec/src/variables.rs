//! Workflow `variables`: constants put in place of `{name}` in every text of the file, before
//! anything else is looked at. Only a file that has variables has its templates checked: there,
//! a `{name}` that is neither a variable nor a parameter is a mistake.

use std::collections::{HashMap, HashSet};

use crate::diagnostic::{Kind, Report, did_you_mean};
use crate::node::{Node, Text, Value};
use crate::tables::Tables;

/// Puts the variables of the file into its texts.
pub(crate) fn substitute(root: &mut Node, tables: &Tables, report: &Report<'_>) {
    let Some(declared) = root.get("variables").filter(|node| !node.is_null()) else { return };
    let Some(variables) = read(declared, report) else { return };
    if variables.is_empty() {
        return;
    }
    let parameters = parameter_names(root, &variables, tables);
    for (name, at) in declared_names(root) {
        if parameters.contains(&name) {
            let message = format!("`{name}` is a variable and a parameter");
            report.error_with(Kind::Conflict, at, message, || Some("rename one of them".to_owned()));
        }
    }
    Substitution { variables: &variables, parameters: &parameters, report }.map(root);
}

fn declared_names(root: &Node) -> Vec<(String, crate::diagnostic::Position)> {
    match root.get("variables").map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.iter().map(|(key, _)| (key.value.clone(), key.at)).collect(),
        _ => Vec::new(),
    }
}

fn read(declared: &Node, report: &Report<'_>) -> Option<HashMap<String, String>> {
    let Value::Map(entries) = &declared.value else {
        let message = format!("`variables` has to be a map of texts, found {}", declared.kind());
        report.error(Kind::BadValue, declared.at, message);
        return None;
    };
    let mut variables = HashMap::new();
    for (name, node) in entries {
        if !is_identifier(&name.value) {
            let message = format!("`{}` cannot be the name of a variable", name.value);
            let help = || Some("names are letters, digits and underscores".to_owned());
            report.error_with(Kind::BadValue, name.at, message, help);
            continue;
        }
        let Value::Text(text) = &node.value else {
            let message = format!("the variable `{}` has to be a text, found {}", name.value, node.kind());
            let help = || Some(format!("quote it: \"{}\"", node.to_json()));
            report.error_with(Kind::BadValue, node.at, message, help);
            continue;
        };
        if let Some(token) = tokens(text).next() {
            let message = format!("the variable `{}` refers to `{{{token}}}`", name.value);
            let help = || Some("a variable is a constant: put them together where they are used".to_owned());
            report.error_with(Kind::BadParameter, node.at, message, help);
        }
        variables.insert(name.value.clone(), text.clone());
    }
    Some(variables)
}

/// Every name that parameters or the columns of tables give a meaning to.
fn parameter_names(root: &Node, variables: &HashMap<String, String>, tables: &Tables) -> HashSet<String> {
    let mut names = HashSet::new();
    let mut collect = |node: &Node| {
        if let Some(Value::Map(entries)) = node.get("parameters").map(|node| &node.value) {
            names.extend(entries.iter().map(|(key, _)| key.value.clone()));
        }
        if let Some(Value::Text(path)) = node.get("parameters_file").map(|node| &node.value) {
            // A table that cannot be read is reported where it is expanded.
            let table = tables.load(&replace(path, variables));
            names.extend(table.iter().flat_map(|table| table.columns.iter().cloned()));
        }
    };
    collect(root);
    for field in ["jobs", "files", "user_data"] {
        if let Some(Value::List(items)) = root.get(field).map(|node| &node.value) {
            items.iter().for_each(&mut collect);
        }
    }
    names
}

struct Substitution<'v> {
    variables: &'v HashMap<String, String>,
    parameters: &'v HashSet<String>,
    report: &'v Report<'v>,
}

impl Substitution<'_> {
    /// Keys are names, and so are the entries of `use_parameters`: they stay as they are.
    fn map(&self, node: &mut Node) {
        match &mut node.value {
            Value::Map(entries) => {
                let texts = entries
                    .iter_mut()
                    .filter(|(Text { value: key, .. }, _)| !matches!(key.as_str(), "variables" | "use_parameters"));
                texts.for_each(|(_, node)| self.map(node));
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.map(item)),
            Value::Text(text) => {
                for token in tokens(text) {
                    self.check(token, node.at);
                }
                *text = replace(text, self.variables);
            }
            _ => {}
        }
    }

    fn check(&self, token: &str, at: crate::diagnostic::Position) {
        let name = token.split(':').next().unwrap_or(token);
        if self.variables.contains_key(name) || self.parameters.contains(name) {
            return;
        }
        let message = format!("`{{{token}}}` is neither a variable nor a parameter");
        let known = self.variables.keys().chain(self.parameters).map(String::as_str);
        self.report.error_with(Kind::UnknownReference, at, message, || did_you_mean(name, known));
    }
}

/// The insides of all `{name}` and `{name:format}` of a text, but not of `${name}`, which is the
/// shell's.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    let mut before = None;
    std::iter::from_fn(move || {
        loop {
            let open = rest.find('{')?;
            let preceded = rest[..open].chars().next_back().or(before);
            rest = &rest[open + 1..];
            before = Some('{');
            let end = rest.find(['{', '}'])?;
            if preceded == Some('$') || !rest[end..].starts_with('}') {
                continue;
            }
            let inner = &rest[..end];
            rest = &rest[end + 1..];
            before = Some('}');
            if is_identifier(inner.split(':').next().unwrap_or(inner)) {
                return Some(inner);
            }
        }
    })
}

fn replace(text: &str, variables: &HashMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        result.push_str(&rest[..open]);
        let inner_on = &rest[open + 1..];
        let inner = inner_on.find('}').map(|end| &inner_on[..end]);
        let name = inner.map(|inner| inner.split(':').next().unwrap_or(inner));
        match (inner, name.and_then(|name| variables.get(name))) {
            (Some(inner), Some(value)) if !result.ends_with('$') => {
                result.push_str(value);
                rest = &inner_on[inner.len() + 1..];
            }
            _ => {
                result.push('{');
                rest = inner_on;
            }
        }
    }
    result.push_str(rest);
    result
}

fn is_identifier(name: &str) -> bool {
    forebay_wire::is_env_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_and_the_shells_are_left() {
        let found: Vec<_> = tokens(r#"{a} ${b} {c:03d} {"x": 1} {} {{d}} ${files.input.{e}} {1:2}"#).collect();
        assert_eq!(found, ["a", "c:03d", "d", "e"]);
    }

    #[test]
    fn variables_are_replaced_in_one_pass() {
        let variables = [("a".to_owned(), "{b}".to_owned()), ("b".to_owned(), "2".to_owned())].into();
        assert_eq!(replace("{a} {b:x} ${a} {c} {{b}}", &variables), "{b} 2 ${a} {c} {2}");
    }
}
