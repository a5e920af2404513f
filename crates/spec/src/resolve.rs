//! Names into references, substitutions into paths, and jobs into an order.

use std::collections::BTreeMap;

use crate::diagnostic::{Kind, Position, Report};
use crate::expand::{Expanded, check_names};
use crate::graph::{self, Edges};
use crate::names::Names;
use crate::node::Text;
use crate::notices;
use crate::spec::{ActionSpec, FileSpec, JobSpec, Spec, UserDataSpec, Wanted};
use crate::workflow::{Action, File, Job, Settings, UserData, Workflow};

/// The most dependencies that one file may name.
const DEPENDENCIES_MAX: usize = 50_000_000;

/// Puts the workflow together. Mistakes are reported; then what comes back is not whole.
pub(crate) fn resolve(spec: Spec, expanded: Expanded, report: &Report<'_>) -> Workflow {
    notices::record(&spec, &expanded.jobs, report);
    let Expanded { env, jobs: drafts, files, user_data } = expanded;
    let Spec { mut settings, resource_requirements, failure_handlers, slurm_schedulers, actions, .. } = spec;
    check_names("resource requirements", resource_requirements.iter().map(|(name, _)| name), report);
    check_names("failure handler", failure_handlers.iter().map(|(name, _)| name), report);
    check_names("Slurm scheduler", slurm_schedulers.iter().map(|(name, _)| name), report);
    check_identifiers(&files, &settings, report);
    keep_stdio(&drafts, &mut settings);

    let mut files: Vec<File> = files.into_iter().map(file).collect();
    let user_data: Vec<UserData> = user_data.into_iter().map(user_datum).collect();
    let job_names: Vec<String> = drafts.iter().map(|job| job.name.value.clone()).collect();
    let places: Vec<Position> = drafts.iter().map(|job| job.name.at).collect();
    let (mut jobs, mut actions) = {
        let mut references = References {
            jobs: Names::new("job", job_names.iter().map(String::as_str).collect(), report),
            files: Names::new("file", files.iter().map(|file| file.name.as_str()).collect(), report),
            user_data: Names::new("user data", user_data.iter().map(|data| data.name.as_str()).collect(), report),
            requirements: Names::new("resource requirements", text_names(&resource_requirements), report),
            handlers: Names::new("failure handler", text_names(&failure_handlers), report),
            schedulers: Names::new("Slurm scheduler", text_names(&slurm_schedulers), report),
            file_list: &files,
            user_data_list: &user_data,
            chosen: Chosen::default(),
            dependencies: 0,
            report,
        };
        let jobs: Vec<Job> = drafts.into_iter().map(|draft| references.job(draft)).collect();
        let actions: Vec<Action> = actions.into_iter().map(|action| references.action(action)).collect();
        (jobs, actions)
    };
    for job in &jobs {
        job.input_files.iter().for_each(|file| files[*file as usize].is_input = true);
        job.output_files.iter().for_each(|file| files[*file as usize].is_output = true);
    }

    let mut level_ends = Vec::new();
    if !report.has_errors() {
        match graph::order(Edges { jobs: &jobs, files: files.len(), user_data: user_data.len() }) {
            Ok(order) => {
                jobs = order.apply(jobs);
                let moved = order.moved();
                for named in actions.iter_mut().filter_map(|action| action.jobs.as_mut()) {
                    named.iter_mut().for_each(|job| *job = moved[*job as usize]);
                }
                level_ends = order.level_ends;
            }
            Err(cycle) => {
                let (message, help) = cycle.describe(&jobs, &files, &user_data);
                report.error_with(Kind::Cycle, places[cycle.first_job()], message, || Some(help));
            }
        }
    }
    Workflow {
        settings,
        env: plain_map(env),
        files,
        user_data,
        resource_requirements: resource_requirements.into_iter().map(|(_, requirements)| requirements).collect(),
        failure_handlers: failure_handlers.into_iter().map(|(_, handler)| handler).collect(),
        slurm_schedulers: slurm_schedulers.into_iter().map(|(_, scheduler)| scheduler).collect(),
        jobs,
        level_ends,
        actions,
        notices: report.take_notices(),
    }
}

fn check_identifiers(files: &[FileSpec], settings: &Settings, report: &Report<'_>) {
    let mut identifiers = files.iter().filter_map(|file| file.identifier.as_ref());
    check_names("file identifier", identifiers.clone(), report);
    if let Some(identifier) = identifiers.next().filter(|_| settings.enable_ro_crate != Some(true)) {
        let message = "an `identifier` has no effect without `enable_ro_crate: true`";
        report.error(Kind::Conflict, identifier.at, message);
    }
}

/// On the wire the jobs' stdio settings are part of the workflow's.
fn keep_stdio(drafts: &[JobSpec], settings: &mut Settings) {
    let own: Vec<_> = drafts.iter().filter_map(|job| Some((job.name.value.clone(), job.stdio.clone()?))).collect();
    if !own.is_empty() {
        let config = settings.execution_config.get_or_insert_default();
        config.job_stdio_overrides.get_or_insert_default().extend(own);
    }
}

fn file(spec: FileSpec) -> File {
    File {
        name: spec.name.value,
        path: spec.path.value,
        identifier: spec.identifier.map(|identifier| identifier.value),
        st_mtime: spec.st_mtime,
        is_input: false,
        is_output: false,
    }
}

fn user_datum(spec: UserDataSpec) -> UserData {
    UserData { name: spec.name.value, is_ephemeral: spec.is_ephemeral, data: spec.data.map(|node| node.to_json()) }
}

fn text_names<T>(named: &[(Text, T)]) -> Vec<&str> {
    named.iter().map(|(name, _)| name.value.as_str()).collect()
}

fn plain_map(entries: Vec<(Text, Text)>) -> BTreeMap<String, String> {
    entries.into_iter().map(|(name, value)| (name.value, value.value)).collect()
}

/// Everything that a job can refer to.
struct References<'n> {
    jobs: Names<'n>,
    files: Names<'n>,
    user_data: Names<'n>,
    requirements: Names<'n>,
    handlers: Names<'n>,
    schedulers: Names<'n>,
    file_list: &'n [File],
    user_data_list: &'n [UserData],
    chosen: Chosen,
    /// Named so far.
    dependencies: usize,
    report: &'n Report<'n>,
}

impl References<'_> {
    fn job(&mut self, draft: JobSpec) -> Job {
        let user = format!("the job `{}`", draft.name.value);
        let mut job = Job {
            command: String::new(),
            invocation_script: None,
            env: plain_map(draft.env),
            cancel_on_blocking_job_failure: draft.cancel_on_blocking_job_failure.unwrap_or(true),
            resource_requirements: index(&self.requirements, draft.resource_requirements.as_ref(), &user),
            failure_handler: index(&self.handlers, draft.failure_handler.as_ref(), &user),
            scheduler: index(&self.schedulers, draft.scheduler.as_ref(), &user),
            depends_on: self.chosen.choose(&self.jobs, &draft.depends_on, &user),
            input_files: self.chosen.choose(&self.files, &draft.input_files, &user),
            output_files: self.chosen.choose(&self.files, &draft.output_files, &user),
            input_user_data: self.chosen.choose(&self.user_data, &draft.input_user_data, &user),
            output_user_data: self.chosen.choose(&self.user_data, &draft.output_user_data, &user),
            stdio: draft.stdio,
            priority: draft.priority,
            labels: draft.labels.iter().map(|label| label.value.clone()).collect(),
            name: draft.name.value,
        };
        job.command = self.substitute(draft.command, &user, &mut job);
        job.invocation_script = draft.invocation_script.map(|script| self.substitute(script, &user, &mut job));
        self.check_labels(&draft.labels, draft.scheduler.as_ref(), &user);
        let before = self.dependencies;
        self.dependencies += job.depends_on.len();
        if before <= DEPENDENCIES_MAX && self.dependencies > DEPENDENCIES_MAX {
            let message = format!("more than {DEPENDENCIES_MAX} dependencies");
            let help = || Some("put a job between the two groups: each waits for it, or it for them".to_owned());
            self.report.error_with(Kind::TooLarge, draft.name.at, message, help);
        }
        job
    }

    fn check_labels(&self, labels: &[Text], scheduler: Option<&Text>, user: &str) {
        for label in labels {
            if let Err(bad) = forebay_wire::check_label(&label.value) {
                self.report.error(Kind::BadValue, label.at, format!("{user}: {bad}"));
            }
        }
        if let Some(scheduler) = scheduler.filter(|_| !labels.is_empty()) {
            let message = format!("{user} has `labels` and a `scheduler`, whose runners take no labelled jobs");
            self.report.error(Kind::Conflict, scheduler.at, message);
        }
    }

    /// Puts paths and data in place of `${files.input.NAME}` and the like, and notes on the job
    /// that it uses them.
    fn substitute(&self, text: Text, user: &str, job: &mut Job) -> String {
        let mut result = String::new();
        let mut rest = text.value.as_str();
        while let Some((start, token)) = next_token(rest) {
            result.push_str(&rest[..start]);
            rest = &rest[start + token.written.len()..];
            let name = Text { value: token.name.to_owned(), at: text.at };
            let names = if token.is_file { &self.files } else { &self.user_data };
            let Some(index) = names.find(&name, user) else { continue };
            let used = match (token.is_file, token.is_input) {
                (true, true) => &mut job.input_files,
                (true, false) => &mut job.output_files,
                (false, true) => &mut job.input_user_data,
                (false, false) => &mut job.output_user_data,
            };
            if !used.contains(&index) {
                used.push(index);
            }
            if token.is_file {
                result.push_str(&self.file_list[index as usize].path);
                continue;
            }
            match &self.user_data_list[index as usize].data {
                Some(data) => result.push_str(&data.to_string()),
                None => {
                    let message = format!("{user} has `{}` put in, but that has no `data`", token.written);
                    self.report.error(Kind::UnknownReference, text.at, message);
                }
            }
        }
        if result.is_empty() && rest.len() == text.value.len() { text.value } else { result + rest }
    }

    fn action(&mut self, spec: ActionSpec) -> Action {
        let is_slurm = spec.scheduler_type.as_deref() == Some("slurm");
        let user = "an action";
        let jobs = spec.names_jobs.then(|| self.chosen.choose(&self.jobs, &spec.jobs, user));
        Action {
            trigger_type: spec.trigger_type,
            action_type: spec.action_type,
            jobs,
            commands: spec.commands,
            scheduler: index(&self.schedulers, spec.scheduler.as_ref().filter(|_| is_slurm), user),
            scheduler_type: spec.scheduler_type,
            num_allocations: spec.num_allocations,
            start_one_worker_per_node: spec.start_one_worker_per_node,
            max_parallel_jobs: spec.max_parallel_jobs,
            persistent: spec.persistent.unwrap_or(false),
        }
    }
}

fn index(names: &Names<'_>, wanted: Option<&Text>, user: &str) -> Option<usize> {
    names.find(wanted?, user).map(|index| index as usize)
}

/// Remembers what one list has already, for lists that expressions make long.
#[derive(Default)]
struct Chosen {
    round: u32,
    /// By index: the round in which it was last chosen.
    last: Vec<u32>,
}

impl Chosen {
    /// The indexes of what is wanted by name, then of what is wanted by expression, each once.
    fn choose(&mut self, names: &Names<'_>, wanted: &Wanted, user: &str) -> Vec<u32> {
        if wanted.names.is_empty() && wanted.regexes.is_empty() {
            return Vec::new();
        }
        self.round += 1;
        self.last.resize(self.last.len().max(names.len()), 0);
        let mut chosen = Vec::new();
        let mut choose = |index: u32| {
            if std::mem::replace(&mut self.last[index as usize], self.round) != self.round {
                chosen.push(index);
            }
        };
        wanted.names.iter().filter_map(|name| names.find(name, user)).for_each(&mut choose);
        for regex in &wanted.regexes {
            names.matching(regex, user).iter().copied().for_each(&mut choose);
        }
        chosen
    }
}

/// A `${files.input.NAME}` or the like.
struct Token<'t> {
    written: &'t str,
    is_file: bool,
    is_input: bool,
    name: &'t str,
}

/// The first token of a text and where it begins.
fn next_token(text: &str) -> Option<(usize, Token<'_>)> {
    const FORMS: [(&str, bool, bool); 4] = [
        ("${files.input.", true, true),
        ("${files.output.", true, false),
        ("${user_data.input.", false, true),
        ("${user_data.output.", false, false),
    ];
    text.match_indices("${").find_map(|(start, _)| {
        let from = &text[start..];
        let (form, is_file, is_input) = FORMS.into_iter().find(|(form, ..)| from.starts_with(form))?;
        let end = from.find('}').filter(|end| *end > form.len())?;
        Some((start, Token { written: &from[..=end], is_file, is_input, name: &from[form.len()..end] }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_among_the_shells_own() {
        let text = "a ${HOME} ${files.input.x} ${files.none.y} ${user_data.output.z.1} ${files.input.}";
        let (start, token) = next_token(text).unwrap();
        assert_eq!((token.written, token.name, token.is_file, token.is_input), ("${files.input.x}", "x", true, true));
        let (_, token) = next_token(&text[start + token.written.len()..]).unwrap();
        assert_eq!((token.name, token.is_file, token.is_input), ("z.1", false, false));
        assert!(next_token("${files.input.} $ {files.input.x}").is_none());
    }
}
