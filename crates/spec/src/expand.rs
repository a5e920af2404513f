//! Templates into jobs, files and user data: one for each combination of parameters.

use std::collections::HashMap;

use crate::diagnostic::{Kind, Position, Report, did_you_mean};
use crate::node::{Node, Text, Value};
use crate::parameters::{COMBINATIONS_MAX, Combinations, Parameter, Row, Template};
use crate::spec::{Expansion, FileSpec, JobSpec, ParameterMode, Spec, UserDataSpec, Wanted};
use crate::tables::Tables;

/// Everything of the file, each thing by itself.
pub(crate) struct Expanded {
    pub(crate) env: Vec<(Text, Text)>,
    pub(crate) jobs: Vec<JobSpec>,
    pub(crate) files: Vec<FileSpec>,
    pub(crate) user_data: Vec<UserDataSpec>,
}

/// Takes the templates of `spec` and expands them.
pub(crate) fn expand(spec: &mut Spec, tables: &Tables, report: &Report<'_>) -> Expanded {
    let shared = Shared { parameters: spec.parameters.take(), table: spec.parameters_file.take(), tables, report };
    if let (Some(_), Some(table)) = (&shared.parameters, &shared.table) {
        let message = "a workflow has `parameters` or a `parameters_file`, not both";
        report.error(Kind::Conflict, table.at, message);
    }
    let mut env = std::mem::take(&mut spec.env);
    shared.fill_env(&mut env);
    let expanded = Expanded {
        env,
        jobs: shared.expand(std::mem::take(&mut spec.jobs)),
        files: shared.expand(std::mem::take(&mut spec.files)),
        user_data: shared.expand(std::mem::take(&mut spec.user_data)),
    };
    check_names("job", expanded.jobs.iter().map(|job| &job.name), report);
    check_names("file", expanded.files.iter().map(|file| &file.name), report);
    check_names("user data", expanded.user_data.iter().map(|data| &data.name), report);
    expanded
}

/// What templates share: the parameters and the table of the workflow.
struct Shared<'s> {
    parameters: Option<Vec<Parameter>>,
    table: Option<Text>,
    tables: &'s Tables,
    report: &'s Report<'s>,
}

impl Shared<'_> {
    /// The workflow's environment sees its parameters as wholes.
    fn fill_env(&self, env: &mut [(Text, Text)]) {
        let parameters = self.parameters.as_deref().unwrap_or_default();
        let names: Vec<_> = parameters.iter().map(|parameter| parameter.name.value.as_str()).collect();
        let values: Vec<_> = parameters.iter().map(Parameter::whole).collect();
        let row: Row<'_> = values.iter().map(Some).collect();
        for (_, value) in env {
            value.value = Template::new(&value.value, &names).render(&row);
        }
    }

    fn expand<T: Expandable>(&self, templates: Vec<(T, Expansion)>) -> Vec<T> {
        let mut expanded = Vec::with_capacity(templates.len());
        for (mut template, expansion) in templates {
            let name = template.name().clone();
            let Some(combinations) = self.combinations(&name, expansion) else {
                expanded.push(template);
                continue;
            };
            let room = COMBINATIONS_MAX - expanded.len().min(COMBINATIONS_MAX);
            let Some(count) = combinations.count().filter(|count| *count <= room) else {
                let message = format!("`{}` makes more than {COMBINATIONS_MAX} {}", name.value, T::PLURAL);
                self.report.error(Kind::TooLarge, name.at, message);
                continue;
            };
            let names = combinations.names();
            let mut texts = Vec::new();
            template.texts(&mut |text| texts.push(Template::new(text, &names)));
            expanded.reserve(count);
            let mut row = Row::new();
            for index in 0..count {
                combinations.row(index, &mut row);
                let mut one = template.clone();
                let mut texts = texts.iter();
                one.texts(&mut |text| {
                    let template = texts.next().expect("a template has the same texts each time");
                    if template.has_values() {
                        *text = template.render(&row);
                    }
                });
                expanded.push(one);
            }
        }
        expanded
    }

    /// What a template is expanded over; `None` if it is not a template, or wrong.
    fn combinations(&self, name: &Text, expansion: Expansion) -> Option<Combinations> {
        let Expansion { parameters, mode, use_parameters, parameters_file, use_parameters_file } = expansion;
        let inline = parameters.is_some() || use_parameters.is_some() || mode.is_some();
        let table_at = parameters_file.as_ref().map(|path| path.at).or(use_parameters_file);
        if let Some(at) = table_at.filter(|_| inline) {
            let message = format!("`{}` takes its combinations from a table and from parameters", name.value);
            let help =
                || Some("a table stands alone: leave out `parameters`, `use_parameters` and `parameter_mode`".into());
            self.report.error_with(Kind::Conflict, at, message, help);
            return None;
        }
        match (parameters_file, use_parameters_file) {
            (Some(path), Some(_)) => {
                let message = format!("`{}` has a `parameters_file` of its own and uses the workflow's", name.value);
                self.report.error(Kind::Conflict, path.at, message);
                None
            }
            (Some(path), None) => self.table(&path),
            (None, Some(at)) => match &self.table {
                Some(path) => self.table(path),
                None => {
                    let message = "`use_parameters_file` needs a `parameters_file` of the workflow";
                    self.report.error(Kind::BadParameter, at, message);
                    None
                }
            },
            (None, None) => {
                let parameters = parameters.or_else(|| self.shared_parameters(use_parameters?))?;
                self.combine(name, parameters, mode)
            }
        }
    }

    fn table(&self, path: &Text) -> Option<Combinations> {
        match self.tables.load(&path.value) {
            Ok(table) => Some(Combinations::Table(table)),
            Err(message) => {
                self.report.error(Kind::BadParameter, path.at, message);
                None
            }
        }
    }

    fn shared_parameters(&self, wanted: Vec<Text>) -> Option<Vec<Parameter>> {
        let shared = self.parameters.as_deref().unwrap_or_default();
        let find = |name: &Text| {
            let found = shared.iter().find(|parameter| parameter.name.value == name.value);
            if found.is_none() {
                let message = format!("the workflow has no parameter `{}`", name.value);
                let known = shared.iter().map(|parameter| parameter.name.value.as_str());
                self.report.error_with(Kind::UnknownReference, name.at, message, || did_you_mean(&name.value, known));
            }
            found.cloned()
        };
        let found: Vec<_> = wanted.iter().filter_map(find).collect();
        (!found.is_empty()).then_some(found)
    }

    fn combine(
        &self,
        name: &Text,
        parameters: Vec<Parameter>,
        mode: Option<(ParameterMode, Position)>,
    ) -> Option<Combinations> {
        let Some((ParameterMode::Zip, at)) = mode else { return Some(Combinations::Product(parameters)) };
        let lengths = || parameters.iter().map(|parameter| (&parameter.name.value, parameter.values.len()));
        if let Some((first, length)) = lengths().next()
            && let Some((other, differs)) = lengths().find(|(_, other)| *other != length)
        {
            let message = format!(
                "`{}` zips parameters of different lengths: `{first}` has {length} values, `{other}` has {differs}",
                name.value
            );
            self.report.error(Kind::BadParameter, at, message);
            return None;
        }
        Some(Combinations::Zip(parameters))
    }
}

/// Something that parameters make many of.
trait Expandable: Clone {
    /// What many of them are called.
    const PLURAL: &'static str;

    fn name(&self) -> &Text;

    /// Visits the texts that may hold parameters, always in the same order.
    fn texts(&mut self, visit: &mut dyn FnMut(&mut String));
}

impl Expandable for JobSpec {
    const PLURAL: &'static str = "jobs";

    fn name(&self) -> &Text {
        &self.name
    }

    fn texts(&mut self, visit: &mut dyn FnMut(&mut String)) {
        visit(&mut self.name.value);
        visit(&mut self.command.value);
        let single = [
            &mut self.invocation_script,
            &mut self.resource_requirements,
            &mut self.failure_handler,
            &mut self.scheduler,
        ];
        single.into_iter().flatten().for_each(|text| visit(&mut text.value));
        self.env.iter_mut().for_each(|(_, value)| visit(&mut value.value));
        self.labels.iter_mut().for_each(|label| visit(&mut label.value));
        let wanted = [
            &mut self.depends_on,
            &mut self.input_files,
            &mut self.output_files,
            &mut self.input_user_data,
            &mut self.output_user_data,
        ];
        for Wanted { names, regexes } in wanted {
            names.iter_mut().chain(regexes).for_each(|text| visit(&mut text.value));
        }
    }
}

impl Expandable for FileSpec {
    const PLURAL: &'static str = "files";

    fn name(&self) -> &Text {
        &self.name
    }

    fn texts(&mut self, visit: &mut dyn FnMut(&mut String)) {
        visit(&mut self.name.value);
        visit(&mut self.path.value);
        self.identifier.iter_mut().for_each(|identifier| visit(&mut identifier.value));
    }
}

impl Expandable for UserDataSpec {
    const PLURAL: &'static str = "pieces of user data";

    fn name(&self) -> &Text {
        &self.name
    }

    fn texts(&mut self, visit: &mut dyn FnMut(&mut String)) {
        visit(&mut self.name.value);
        self.data.iter_mut().for_each(|data| node_texts(data, visit));
    }
}

/// Visits the texts of a value; keys are names and stay.
fn node_texts(node: &mut Node, visit: &mut dyn FnMut(&mut String)) {
    match &mut node.value {
        Value::Text(text) => visit(text),
        Value::List(items) => items.iter_mut().for_each(|item| node_texts(item, visit)),
        Value::Map(entries) => entries.iter_mut().for_each(|(_, node)| node_texts(node, visit)),
        _ => {}
    }
}

/// Reports names that are there twice.
pub(crate) fn check_names<'t>(what: &str, names: impl Iterator<Item = &'t Text>, report: &Report<'_>) {
    let mut seen: HashMap<&str, Position> = HashMap::with_capacity(names.size_hint().0);
    for name in names {
        let Some(first) = seen.insert(&name.value, name.at) else { continue };
        let message = format!("a second {what} has the name `{}`", name.value);
        let help = || {
            Some(match first == name.at {
                true => "a template's name has to hold each of its parameters; to gather what many jobs make, use \
                         `depends_on_regexes` or `input_file_regexes`"
                    .to_owned(),
                false => format!("the first one is in line {}", first.line),
            })
        };
        report.error_with(Kind::DuplicateName, name.at, message, help);
    }
}
