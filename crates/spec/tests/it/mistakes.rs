//! Files with mistakes: what is said, where, and what is suggested.

use std::path::Path;

use forebay_spec::{Diagnostic, Format, Kind, SpecError, parse};

fn mistakes(text: &str) -> SpecError {
    parse("w.yaml", text, Format::Yaml, Path::new(".")).expect_err("the file has a mistake")
}

fn only(text: &str) -> Diagnostic {
    let error = mistakes(text);
    assert_eq!(error.diagnostics.len(), 1, "{error}");
    error.diagnostics.into_iter().next().expect("one")
}

/// Kind, line, words of the message, words of the help.
fn check(text: &str, kind: Kind, line: u32, message: &str, help: &str) {
    let found = only(text);
    assert_eq!((found.kind, found.position.line), (kind, line), "{found:?}");
    assert!(found.message.contains(message), "{found:?}");
    assert!(found.help.as_deref().unwrap_or_default().contains(help), "{found:?}");
}

const HEAD: &str = "name: w\njobs:\n";

fn with_job(fields: &str) -> String {
    format!("{HEAD}  - name: a\n    command: b\n    {fields}\n  - name: train\n    command: c\n")
}

#[test]
fn an_unknown_field_is_named_with_its_line_and_a_suggestion() {
    let error = mistakes("name: w\njobs:\n  - name: a\n    command: b\n    depend_on: [x]\n");
    assert_eq!(
        error.to_string(),
        "w.yaml:5:5: unknown field `depend_on` in a job\n    5 |     depend_on: [x]\n      |     ^\n  \
         help: did you mean `depends_on`?"
    );
    check("name: w\njob: []\njobs: []\n", Kind::UnknownField, 2, "`job`", "`jobs`");
    check("name: w\njobs: []\nslurm_config: {}\n", Kind::UnknownField, 3, "`slurm_config`", "execution_config");
    check(&with_job("stdio: {mod: none}"), Kind::UnknownField, 5, "`mod` in stdio", "`mode`");
}

#[test]
fn a_reference_to_nothing_is_named() {
    for (fields, what) in [
        ("depends_on: [trian]", "job `trian`"),
        ("input_files: [x]", "file `x`"),
        ("output_files: [x]", "file `x`"),
        ("input_user_data: [x]", "user data `x`"),
        ("resource_requirements: x", "resource requirements `x`"),
        ("failure_handler: x", "failure handler `x`"),
        ("scheduler: x", "Slurm scheduler `x`"),
        ("use_parameters: [x]", "no parameter `x`"),
    ] {
        check(&with_job(fields), Kind::UnknownReference, 5, what, "");
    }
    check(&with_job("depends_on: [trian]"), Kind::UnknownReference, 5, "the job `a`", "`train`");
    let text = "name: w\nfiles: [{name: data, path: d}]\njobs:\n  - name: a\n    command: cat ${files.input.dat}\n";
    check(text, Kind::UnknownReference, 5, "file `dat`", "`data`");
    let text = "name: w\nuser_data: [{name: u}]\njobs:\n  - name: a\n    command: cat ${user_data.input.u}\n";
    check(text, Kind::UnknownReference, 5, "no `data`", "");
}

#[test]
fn a_cycle_is_named_job_by_job() {
    let text = "name: w\njobs:\n- {name: a, command: x, depends_on: [c]}\n- {name: b, command: x, depends_on: [a]}\n\
                - {name: c, command: x, depends_on: [b]}\n- {name: d, command: x}\n";
    check(text, Kind::Cycle, 3, "`a` → `c` → `b` → `a`", "`a` depends_on `c`, `c` depends_on `b`, `b` depends_on `a`");
    let text = "name: w\nfiles: [{name: f, path: f}]\njobs:\n- {name: a, command: 'x ${files.output.f}', depends_on: [b]}\n\
                - {name: b, command: 'x ${files.input.f}'}\n";
    check(text, Kind::Cycle, 4, "`a` → `b` → `a`", "`b` reads the file `f` of `a`");
    let text = "name: w\njobs:\n- {name: a, command: x, depends_on_regexes: ['.*']}\n- {name: b, command: x}\n";
    check(text, Kind::Cycle, 3, "`a` → `a`", "");
}

#[test]
fn a_name_that_two_things_have_is_named() {
    let text = "name: w\njobs:\n- {name: a, command: x}\n- {name: a, command: y}\n";
    check(text, Kind::DuplicateName, 4, "a second job has the name `a`", "line 3");
    let text = "name: w\njobs:\n- {name: a, command: x, parameters: {i: '1:3'}}\n";
    check(text, Kind::DuplicateName, 3, "`a`", "each of its parameters");
    for list in ["files: [{name: x, path: a}, {name: x, path: b}]", "user_data: [{name: x}, {name: x}]"] {
        check(&format!("name: w\njobs: []\n{list}\n"), Kind::DuplicateName, 3, "`x`", "");
    }
    let text = "name: w\njobs: []\nresource_requirements:\n- {name: default, num_cpus: 1, memory: 1g}\n";
    check(text, Kind::DuplicateName, 4, "`default` is taken", "another name");
    check("name: w\nname: v\njobs: []\n", Kind::Syntax, 2, "`name` is there twice", "");
}

#[test]
fn bad_parameters_are_named() {
    for (value, message) in [
        ("'10:1'", "the range `10:1` is empty"),
        ("'1:x'", "`1:x` is not a range"),
        ("'1:10:0'", "the step of `1:10:0` is 0"),
        ("'1:999999999'", "at most"),
        ("'@none.txt'", "cannot read `none.txt`"),
        ("{a: 1}", "found a map"),
    ] {
        let text = format!("{HEAD}- name: a_{{i}}\n  command: x\n  parameters:\n    i: {value}\n");
        check(&text, Kind::BadParameter, 6, message, "");
    }
    let zip = "- {name: 'a_{i}_{j}', command: x, parameters: {i: '1:3', j: [a, b]}, parameter_mode: zip}\n";
    check(&format!("{HEAD}{zip}"), Kind::BadParameter, 3, "`i` has 3 values, `j` has 2", "");
    check(&format!("{HEAD}{}", zip.replace("zip", "zipp")), Kind::BadValue, 3, "`zipp`", "product, zip");
    let table = "- {name: 'a_{i}', command: x, parameters_file: none.csv}\n";
    check(&format!("{HEAD}{table}"), Kind::BadParameter, 3, "cannot read `none.csv`", "");
    let both = "- {name: 'a_{i}', command: x, parameters_file: a.csv, parameters: {i: 1}}\n";
    check(&format!("{HEAD}{both}"), Kind::Conflict, 3, "a table and from parameters", "stands alone");
    let shared = "- {name: 'a_{i}', command: x, use_parameters_file: true}\n";
    check(&format!("{HEAD}{shared}"), Kind::BadParameter, 3, "`parameters_file` of the workflow", "");
    let many = "- {name: 'a_{i}_{j}', command: x, parameters: {i: '1:2000', j: '1:2000'}}\n";
    check(&format!("{HEAD}{many}"), Kind::TooLarge, 3, "more than 2000000 jobs", "");
}

#[test]
fn variables_are_checked() {
    let with = |variables: &str, command: &str| {
        format!(
            "name: w\nvariables: {variables}\njobs:\n- {{name: 'a_{{i}}', command: '{command}', parameters: {{i: 1}}}}\n"
        )
    };
    check(&with("{root: /d}", "{rot}"), Kind::UnknownReference, 4, "`{rot}`", "`root`");
    check(&with("{i: x}", "y"), Kind::Conflict, 2, "`i` is a variable and a parameter", "rename");
    check(&with("{r: '{q}', q: x}", "y"), Kind::BadParameter, 2, "refers to `{q}`", "");
    check(&with("{r: 5}", "y"), Kind::BadValue, 2, "has to be a text", "\"5\"");
    check(&with("{1r: x}", "y"), Kind::BadValue, 2, "`1r`", "letters");
}

#[test]
fn bad_values_are_named() {
    let needs = |fields: &str| format!("name: w\njobs: []\nresource_requirements:\n- name: r\n  {fields}\n");
    check(&needs("num_cpus: 1\n  memory: 4gb"), Kind::BadMemory, 6, "`4gb`", "512m");
    check(&needs("num_cpus: 1\n  memory: 1g\n  runtime: 30m"), Kind::BadDuration, 7, "`30m`", "PT30M");
    check(&needs("num_cpus: 0\n  memory: 1g"), Kind::BadValue, 5, "at least 1", "");
    check(&needs("memory: 1g"), Kind::MissingField, 4, "`num_cpus`", "");
    check(&with_job("depends_on_regexes: ['(']"), Kind::BadRegex, 5, "`(` is not a regular expression", "");
    check(&with_job("depends_on_regexes: ['^z']"), Kind::BadRegex, 5, "does not match the name of any job", "");
    check(&with_job("priority: -1"), Kind::BadValue, 5, "at least 0", "");
    check(&with_job("labels: ['a,b']"), Kind::BadValue, 5, "no comma", "");
    check(&with_job("env: {1A: x}"), Kind::BadValue, 5, "`1A`", "digit");
    check(&with_job("env: {A: 5}"), Kind::BadValue, 5, "has to be a text", "quote it: \"5\"");
    check(&with_job("depends_on: train"), Kind::BadValue, 5, "`depends_on` has to be a list, found a text", "");
    check("jobs: []\n", Kind::MissingField, 1, "`name`", "");
    check("name: w\n", Kind::MissingField, 1, "`jobs`", "");
    check("- a\n", Kind::BadValue, 1, "expected a workflow", "");
    check(
        "name: w\njobs: []\nexecution_config: {enable_cpu_bind: true}\n",
        Kind::Conflict,
        3,
        "`enable_cpu_bind` has no meaning in direct mode",
        "",
    );
    check(
        "name: w\njobs: []\nactions: [{trigger_type: on_ready_jobs, action_type: run_commands, commands: [x]}]\n",
        Kind::BadValue,
        3,
        "`on_ready_jobs`",
        "on_jobs_ready",
    );
}

#[test]
fn all_mistakes_are_found_at_once_and_a_template_makes_its_mistake_once() {
    let error = mistakes("name: w\njobs:\n- {nam: a, command: b}\n- {name: c, comand: d}\nfils: []\n");
    let lines: Vec<_> = error.diagnostics.iter().map(|diagnostic| diagnostic.position.line).collect();
    assert_eq!(lines, [3, 3, 4, 4, 5]);
    let text =
        format!("{HEAD}- {{name: 'a_{{i}}', command: x, depends_on: ['b_{{i}}'], parameters: {{i: '1:500'}}}}\n");
    check(&text, Kind::UnknownReference, 3, "`b_1`", "");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = forebay_spec::load(Path::new("no/such.yaml"), Path::new(".")).unwrap_err();
    assert_eq!(error.diagnostics[0].kind, Kind::Unreadable);
    assert!(error.to_string().starts_with("no/such.yaml: cannot be read"), "{error}");
    check("name: [\n", Kind::Syntax, 2, "", "");
    check("name: w\njobs:\n\t- x\n", Kind::Syntax, 3, "", "");
}
