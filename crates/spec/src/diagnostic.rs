//! What is wrong with a file, where, and what to write instead.

use std::cell::RefCell;
use std::fmt;

use crate::workflow::Notice;

/// The most diagnostics of one file that are kept; the rest are counted.
const DIAGNOSTICS_MAX: usize = 20;

/// A place in a file, counted from 1, in characters. 0 means that it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl Position {
    pub(crate) fn new(line: usize, column: usize) -> Self {
        let saturated = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: saturated(line), column: saturated(column) }
    }
}

/// What sort of mistake it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The file is not well-formed YAML, JSON, JSON5 or KDL.
    Syntax,
    /// A field that workflow files do not have.
    UnknownField,
    /// A field that has to be there.
    MissingField,
    /// A value of the wrong type, or a word that is not among the choices.
    BadValue,
    /// A name that nothing in the file has.
    UnknownReference,
    /// Jobs that wait for each other.
    Cycle,
    /// A name that two things have.
    DuplicateName,
    /// Parameters, ranges and tables that cannot be expanded.
    BadParameter,
    /// A memory string that cannot be read.
    BadMemory,
    /// A duration that cannot be read.
    BadDuration,
    /// A regular expression that cannot be read, or that no name matches.
    BadRegex,
    /// Fields that cannot be used together.
    Conflict,
    /// More of something than we take.
    TooLarge,
    /// A file that cannot be read.
    Unreadable,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub kind: Kind,
    pub position: Position,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The line of the file, as it is written there; empty if the place is not known.
    pub source_line: String,
}

/// A workflow file that cannot be used. Nothing has been created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecError {
    /// The file's name, as it was given.
    pub file: String,
    /// What is wrong with it, in the order of the file; never empty.
    pub diagnostics: Vec<Diagnostic>,
    /// Mistakes beyond those that are listed.
    pub unlisted: usize,
}

impl std::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            diagnostic.write(f, &self.file)?;
        }
        if self.unlisted > 0 {
            write!(f, "\nand {} more", self.unlisted)?;
        }
        Ok(())
    }
}

impl Diagnostic {
    fn write(&self, f: &mut fmt::Formatter<'_>, file: &str) -> fmt::Result {
        /// Characters of the source line that are shown.
        const SHOWN_MAX: usize = 160;
        let Position { line, column } = self.position;
        match (line, column) {
            (0, _) => write!(f, "{file}: {}", self.message)?,
            (_, 0) => write!(f, "{file}:{line}: {}", self.message)?,
            _ => write!(f, "{file}:{line}:{column}: {}", self.message)?,
        }
        if line > 0 && !self.source_line.trim().is_empty() {
            let shown: String = self.source_line.trim_end().chars().take(SHOWN_MAX).collect();
            write!(f, "\n{line:>5} | {shown}")?;
            let before = column.saturating_sub(1) as usize;
            if column > 0 && before < SHOWN_MAX {
                // Tabs stay tabs, so that the mark stands under the text.
                let indent = shown.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' });
                write!(f, "\n      | {}^", indent.collect::<String>())?;
            }
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Collects the mistakes of one file, so that one reading finds them all.
pub(crate) struct Report<'s> {
    file: &'s str,
    source: &'s str,
    found: RefCell<Found>,
}

#[derive(Default)]
struct Found {
    diagnostics: Vec<Diagnostic>,
    unlisted: usize,
    notices: Vec<Notice>,
}

impl<'s> Report<'s> {
    pub(crate) fn new(file: &'s str, source: &'s str) -> Self {
        Self { file, source, found: RefCell::default() }
    }

    /// Records a mistake. A template that expands to many jobs makes it once: the same kind at
    /// the same place is not recorded again.
    pub(crate) fn error(&self, kind: Kind, position: Position, message: impl Into<String>) {
        self.error_with(kind, position, message, || None);
    }

    /// As [`Self::error`], with something to do about it.
    pub(crate) fn error_with(
        &self,
        kind: Kind,
        position: Position,
        message: impl Into<String>,
        help: impl FnOnce() -> Option<String>,
    ) {
        let mut found = self.found.borrow_mut();
        let known = |d: &Diagnostic| d.kind == kind && d.position == position && position.line > 0;
        if found.diagnostics.iter().any(known) {
            return;
        }
        if found.diagnostics.len() == DIAGNOSTICS_MAX {
            found.unlisted += 1;
            return;
        }
        let source_line = match position.line {
            0 => "",
            line => self.source.lines().nth(line as usize - 1).unwrap_or(""),
        };
        found.diagnostics.push(Diagnostic {
            kind,
            position,
            message: message.into(),
            help: help(),
            source_line: source_line.to_owned(),
        });
    }

    /// Records something that is no mistake, but that the file's author should know.
    pub(crate) fn notice(&self, position: Position, message: impl Into<String>) {
        self.found.borrow_mut().notices.push(Notice { position, message: message.into() });
    }

    /// The notices so far, in the order of the file.
    pub(crate) fn take_notices(&self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.found.borrow_mut().notices);
        notices.sort_by_key(|notice| notice.position);
        notices
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.found.borrow().diagnostics.is_empty()
    }

    /// The mistakes so far as an error, if there are any.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        if !self.has_errors() {
            return Ok(());
        }
        let Found { mut diagnostics, unlisted, .. } = self.found.take();
        diagnostics.sort_by_key(|diagnostic| diagnostic.position);
        Err(SpecError { file: self.file.to_owned(), diagnostics, unlisted })
    }
}

/// A "did you mean" for `word`, if one of `known` is close to it.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    closest(word, known).map(|known| format!("did you mean `{known}`?"))
}

/// The known word that is closest to `word`, if it is close enough to be meant; else the first
/// that goes on where `word` ends.
fn closest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    /// A shorter beginning says too little.
    const BEGINNING_MIN: usize = 3;
    let beginning = word;
    let word: Vec<char> = word.chars().flat_map(char::to_lowercase).collect();
    let limit = (word.len() / 3).clamp(1, 4);
    let mut best: Option<(usize, &str)> = None;
    let mut longer = None;
    for candidate in known {
        if word.len() >= BEGINNING_MIN && candidate.starts_with(beginning) {
            longer.get_or_insert(candidate);
        }
        let letters: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        if letters.len().abs_diff(word.len()) > limit {
            continue;
        }
        let distance = edit_distance(&word, &letters);
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate).or(longer)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut row = vec![0; b.len() + 1];
    for (i, x) in a.iter().enumerate() {
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = last[j] + usize::from(x != y);
            row[j + 1] = substituted.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                row[j + 1] = row[j + 1].min(before_last[j - 1] + 1);
            }
        }
        std::mem::swap(&mut before_last, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_word_is_suggested_and_a_far_one_is_not() {
        let fields = ["name", "command", "depends_on", "depends_on_regexes"];
        assert_eq!(closest("comand", fields), Some("command"));
        assert_eq!(closest("nmae", fields), Some("name"));
        assert_eq!(closest("Depend_on", fields), Some("depends_on"));
        assert_eq!(closest("depends", fields), Some("depends_on"));
        assert_eq!(closest("schedule", fields), None);
    }

    #[test]
    fn a_mistake_is_shown_with_its_line_and_a_mark() {
        let report = Report::new("w.yaml", "name: a\n  comand: b\n");
        report.error_with(Kind::UnknownField, Position::new(2, 3), "unknown field `comand`", || Some("no".into()));
        let shown = report.check().unwrap_err().to_string();
        assert_eq!(shown, "w.yaml:2:3: unknown field `comand`\n    2 |   comand: b\n      |   ^\n  help: no");
    }

    #[test]
    fn the_same_mistake_at_the_same_place_is_told_once_and_many_are_counted() {
        let report = Report::new("w.yaml", "");
        for column in [1, 1, 2] {
            report.error(Kind::UnknownReference, Position::new(1, column), "x");
        }
        assert_eq!(report.found.borrow().diagnostics.len(), 2);
        for line in 0..30 {
            report.error(Kind::BadValue, Position::new(line + 1, 1), "x");
        }
        let error = report.check().unwrap_err();
        assert_eq!((error.diagnostics.len(), error.unlisted), (20, 12));
    }
}
