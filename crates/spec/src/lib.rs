//! Workflow files (YAML, JSON, JSON5, KDL) into wire requests.
//!
//! A file is read into one kind of document whatever its format, its templates are expanded, its
//! references are found, and the result is a [`Workflow`], whose [`Workflow::create`] gives the
//! requests that create it on a server. The fields are torc's. A file with mistakes gives a
//! [`SpecError`] that names them all, and nothing is created.
//!
//! Where torc drops something in silence, this refuses: an unknown node of a KDL file, an empty
//! range, an unknown name in `use_parameters` or in `${files.input.NAME}`, trailing text after a
//! duration. A KDL node takes all its arguments (torc takes the first), and what a command's
//! `${files.input.NAME}` implies is added to `input_files` (torc replaces them).

use std::io::Read;
use std::path::Path;

mod diagnostic;
mod expand;
mod fields;
mod graph;
mod json;
mod kdl;
mod names;
mod node;
mod notices;
mod parameters;
mod plan;
mod resolve;
mod settings;
mod spec;
mod tables;
mod variables;
mod workflow;
mod yaml;

pub use diagnostic::{Diagnostic, Kind, Position, SpecError};
pub use plan::{BadAnswer, Creation, Request};
pub use workflow::{
    Action, FailureHandler, File, Job, Notice, ResourceRequirements, Settings, SlurmScheduler, UserData, Workflow,
};

use diagnostic::Report;
use json::Dialect;
use node::{Malformed, Node, Value};

/// The most bytes of a workflow file.
pub const FILE_BYTES_MAX: u64 = 1 << 30;

/// How a workflow file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Yaml,
    Json,
    Json5,
    Kdl,
}

impl Format {
    /// The format that a file's extension names.
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_lowercase();
        match extension.as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "json5" => Some(Self::Json5),
            "kdl" => Some(Self::Kdl),
            _ => None,
        }
    }

    /// The first format, in torc's order, in which `text` is a map; KDL if none is.
    pub fn detect(text: &str) -> Self {
        let is_map = |node: Result<Node, Malformed>| node.is_ok_and(|node| matches!(node.value, Value::Map(_)));
        if is_map(json::read(text, Dialect::Json)) {
            Self::Json
        } else if is_map(json::read(text, Dialect::Json5)) {
            Self::Json5
        } else if is_map(yaml::read(text)) {
            Self::Yaml
        } else {
            Self::Kdl
        }
    }
}

/// Reads the workflow file at `path`. Paths inside it (tables, lists of values) are relative to
/// `directory`, which is the current one for torc.
pub fn load(path: &Path, directory: &Path) -> Result<Workflow, SpecError> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|error| unreadable(&name, &error))?;
    read(file, &name, Format::of_path(path), directory)
}

/// Reads a workflow file from `source`, such as standard input; `name` is what errors call it.
/// Without a format, the format is detected.
pub fn read(source: impl Read, name: &str, format: Option<Format>, directory: &Path) -> Result<Workflow, SpecError> {
    let mut text = String::new();
    source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| unreadable(name, &error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let report = Report::new(name, "");
        report.error(Kind::TooLarge, Position::default(), format!("larger than {FILE_BYTES_MAX} bytes"));
        report.check()?;
    }
    parse(name, &text, format.unwrap_or_else(|| Format::detect(&text)), directory)
}

/// Reads a workflow file that is in memory; `name` is what errors call it.
pub fn parse(name: &str, text: &str, format: Format, directory: &Path) -> Result<Workflow, SpecError> {
    let report = Report::new(name, text);
    let document = match format {
        Format::Yaml => yaml::read(text),
        Format::Json => json::read(text, Dialect::Json),
        Format::Json5 => json::read(text, Dialect::Json5),
        Format::Kdl => kdl::read(text, &report),
    };
    let mut document = match document {
        Ok(document) => document,
        Err(Malformed { at, message, help }) => {
            report.error_with(Kind::Syntax, at, message, || help);
            return Err(report.check().expect_err("a mistake was just reported"));
        }
    };
    let tables = tables::Tables::new(directory);
    variables::substitute(&mut document, &tables, &report);
    let spec = spec::Spec::decode(&document, &tables, &report);
    report.check()?;
    let mut spec = spec.expect("a document that cannot be decoded is reported");
    let expanded = expand::expand(&mut spec, &tables, &report);
    report.check()?;
    let workflow = resolve::resolve(spec, expanded, &report);
    report.check()?;
    Ok(workflow)
}

fn unreadable(name: &str, error: &std::io::Error) -> SpecError {
    let report = Report::new(name, "");
    report.error(Kind::Unreadable, Position::default(), format!("cannot be read: {error}"));
    report.check().expect_err("a mistake was just reported")
}
