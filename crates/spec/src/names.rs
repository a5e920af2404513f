//! Finds things by name and by regular expression.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use regex::Regex;

use crate::diagnostic::{Kind, Report, did_you_mean};
use crate::node::Text;

/// The names of one sort of thing, in the order of their indexes.
pub(crate) struct Names<'n> {
    /// What one of them is called.
    what: &'static str,
    names: Vec<&'n str>,
    by_name: HashMap<&'n str, u32>,
    sorted: OnceCell<Vec<u32>>,
    /// What each expression matched; many jobs share one.
    matched: RefCell<HashMap<String, Rc<[u32]>>>,
    report: &'n Report<'n>,
}

impl<'n> Names<'n> {
    pub(crate) fn new(what: &'static str, names: Vec<&'n str>, report: &'n Report<'n>) -> Self {
        let by_name = names.iter().enumerate().map(|(index, name)| (*name, as_index(index))).collect();
        Self { what, names, by_name, sorted: OnceCell::new(), matched: RefCell::default(), report }
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    fn get(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// The index of the thing that `user` refers to; reported if there is none.
    pub(crate) fn find(&self, wanted: &Text, user: &str) -> Option<u32> {
        let found = self.get(&wanted.value);
        if found.is_none() {
            let message = format!("{user} refers to the {} `{}`, which is not in this file", self.what, wanted.value);
            let help = || did_you_mean(&wanted.value, self.names.iter().copied());
            self.report.error_with(Kind::UnknownReference, wanted.at, message, help);
        }
        found
    }

    /// The indexes of all names that match; reported if the expression is bad or matches none.
    pub(crate) fn matching(&self, wanted: &Text, user: &str) -> Rc<[u32]> {
        if let Some(known) = self.matched.borrow().get(&wanted.value) {
            return known.clone();
        }
        let found: Rc<[u32]> = match Regex::new(&wanted.value) {
            Ok(regex) => self.candidates(&wanted.value).filter(|i| regex.is_match(self.names[*i as usize])).collect(),
            Err(error) => {
                let reason =
                    error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let message = format!("{user}: `{}` is not a regular expression: {reason}", wanted.value);
                self.report.error(Kind::BadRegex, wanted.at, message);
                return Rc::new([]);
            }
        };
        if found.is_empty() {
            let message = format!("{user}: `{}` does not match the name of any {}", wanted.value, self.what);
            self.report.error(Kind::BadRegex, wanted.at, message);
        }
        self.matched.borrow_mut().insert(wanted.value.clone(), found.clone());
        found
    }

    /// The names that an expression may match, in order: those that begin with the text that it
    /// demands at the start, or all.
    fn candidates(&self, regex: &str) -> Box<dyn Iterator<Item = u32> + '_> {
        let prefix = literal_prefix(regex);
        if prefix.is_empty() {
            return Box::new(0..as_index(self.names.len()));
        }
        let name = |index: &u32| self.names[*index as usize];
        let sorted = self.sorted.get_or_init(|| {
            let mut sorted: Vec<u32> = (0..as_index(self.names.len())).collect();
            sorted.sort_unstable_by_key(name);
            sorted
        });
        let start = sorted.partition_point(|index| name(index) < prefix);
        let mut range: Vec<u32> =
            sorted[start..].iter().take_while(|index| name(index).starts_with(prefix)).copied().collect();
        range.sort_unstable();
        Box::new(range.into_iter())
    }
}

/// The text that everything matched by `regex` begins with, as far as it is plain to see.
fn literal_prefix(regex: &str) -> &str {
    let Some(body) = regex.strip_prefix('^').filter(|body| !body.contains('|')) else { return "" };
    let is_literal = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | ' ' | ':' | '=' | ',');
    let end = body.find(|c| !is_literal(c)).unwrap_or(body.len());
    let (prefix, rest) = body.split_at(end);
    // A repetition is of the last character, which may then be absent.
    let repeated = rest.starts_with(['?', '*', '{', '+']);
    let last = prefix.chars().next_back().filter(|_| repeated).map_or(0, char::len_utf8);
    &prefix[..prefix.len() - last]
}

fn as_index(index: usize) -> u32 {
    u32::try_from(index).expect("lists are bounded far below")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_only_what_every_match_begins_with() {
        for (regex, prefix) in [
            (r"^sim_north_\d+$", "sim_north_"),
            ("^abc?", "ab"),
            ("^ab{0,3}", "a"),
            ("^a|b", ""),
            ("abc", ""),
            ("^(abc)", ""),
            ("^é*x", ""),
            ("^", ""),
        ] {
            assert_eq!(literal_prefix(regex), prefix, "{regex}");
        }
    }

    #[test]
    fn an_anchored_expression_finds_what_a_scan_finds() {
        let owned: Vec<String> = (0..50).map(|i| format!("job_{}_{}", i % 7, i)).collect();
        let report = Report::new("w", "");
        let names = Names::new("job", owned.iter().map(String::as_str).collect(), &report);
        for regex in [r"^job_3_\d+$", r"job_3_\d+$", "^job_?1", "^job_4_1[18]$"] {
            let compiled = Regex::new(regex).unwrap();
            let expected: Vec<u32> = (0..50).filter(|i| compiled.is_match(&owned[*i as usize])).collect();
            let wanted = Text { value: regex.into(), ..Text::default() };
            assert_eq!(names.matching(&wanted, "x")[..], expected, "{regex}");
        }
    }
}
