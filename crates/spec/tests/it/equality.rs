//! The same workflow in four formats, and what its hash depends on.

use std::path::Path;

use forebay_spec::{Format, Workflow, parse};

use crate::yaml;

const YAML: &str = r#"
# A comment.
name: same
variables: {root: /data}
parameters: {k: [1, 2]}
env: {ROOT: "{root}"}
jobs:
  - name: make_{k}
    command: make ${files.output.out_{k}}
    env: {N: "{k}"}
    use_parameters: [k]
    labels: [a, b]
    stdio: {mode: combined, delete_on_success: true}
  - name: use
    command: use ${user_data.input.settings}
    invocation_script: run.sh
    priority: 3
    input_file_regexes: ["^out_\\d$"]
    depends_on_regexes: ["make_.*"]
    resource_requirements: small
    failure_handler: again
    cancel_on_blocking_job_failure: false
files:
  - name: out_{k}
    path: "{root}/out_{k}.txt"
    use_parameters: [k]
user_data:
  - name: settings
    is_ephemeral: false
    data: {deep: [1, {x: true}]}
resource_requirements:
  - {name: small, num_cpus: 2, memory: 1g, runtime: PT5M}
failure_handlers:
  - name: again
    rules: [{exit_codes: [1, 2], max_retries: 5, recovery_script: fix.sh}]
execution_config: {mode: direct, sigterm_lead_seconds: 5}
"#;

const JSON5: &str = r#"
{
  name: 'same', // A comment.
  variables: {root: '/data'},
  parameters: {k: '1:2'},
  env: {ROOT: '{root}'},
  jobs: [
    {
      name: 'make_{k}', command: 'make ${files.output.out_{k}}', env: {N: '{k}'},
      parameters: {k: '[1, 2]'}, labels: ['a', 'b'], stdio: {mode: 'combined', delete_on_success: true},
    },
    {
      name: 'use', command: 'use ${user_data.input.settings}', invocation_script: 'run.sh', priority: 3,
      input_file_regexes: ['^out_\\d$'], depends_on_regexes: ['make_.*'],
      resource_requirements: 'small', failure_handler: 'again', cancel_on_blocking_job_failure: false,
    },
  ],
  files: [{name: 'out_{k}', path: '{root}/out_{k}.txt', parameters: {k: [1, 2]}}],
  user_data: [{name: 'settings', is_ephemeral: false, data: {deep: [1, {x: true}]}}],
  resource_requirements: [{name: 'small', num_cpus: 2, memory: '1g', runtime: 'PT5M'}],
  failure_handlers: [{name: 'again', rules: [{exit_codes: [1, 2], max_retries: 5, recovery_script: 'fix.sh'}]}],
  execution_config: {mode: 'direct', sigterm_lead_seconds: 5},
}
"#;

const KDL: &str = r#"
// A comment.
name "same"
variables { root "/data"; }
parameters { k 1 2; }
env { ROOT "{root}"; }
job "make_{k}" {
    command "make ${files.output.out_{k}}"
    env { N "{k}"; }
    use_parameters "k"
    labels "a" "b"
    stdio { mode "combined"; delete_on_success #true; }
}
job "use" {
    command "use ${user_data.input.settings}"
    invocation_script "run.sh"
    priority 3
    input_file_regexes "^out_\\d$"
    depends_on_regexes "make_.*"
    resource_requirements "small"
    failure_handler "again"
    cancel_on_blocking_job_failure #false
}
file "out_{k}" path="{root}/out_{k}.txt" { use_parameters "k"; }
user_data "settings" { is_ephemeral #false; data "{\"deep\": [1, {\"x\": true}]}"; }
resource_requirements "small" { num_cpus 2; memory "1g"; runtime "PT5M"; }
failure_handler "again" { rule { exit_codes 1 2; max_retries 5; recovery_script "fix.sh"; }; }
execution_config { mode "direct"; sigterm_lead_seconds 5; }
"#;

fn read(text: &str, format: Format) -> Workflow {
    parse("w", text, format, Path::new(".")).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn four_formats_give_one_workflow() {
    let without_places = |text, format| Workflow { notices: Vec::new(), ..read(text, format) };
    let yaml = without_places(YAML, Format::Yaml);
    let json5 = without_places(JSON5, Format::Json5);
    let kdl = without_places(KDL, Format::Kdl);
    assert_eq!(yaml, json5);
    assert_eq!(yaml, kdl);
    assert_eq!(yaml.content_hash(), kdl.content_hash());
    let json = r#"{"name": "a", "jobs": [{"name": "b", "command": "c"}]}"#;
    assert_eq!(read(json, Format::Json), read("name: a\njobs: [{name: b, command: c}]", Format::Yaml));
}

#[test]
fn what_it_expands_to_is_as_written() {
    let workflow = yaml(YAML);
    let names: Vec<_> = workflow.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["make_1", "make_2", "use"]);
    let [one, _, last] = &workflow.jobs[..] else { panic!("three jobs") };
    assert_eq!(one.command, "make /data/out_1.txt");
    assert_eq!(one.env["N"], "1");
    assert_eq!(one.output_files, [0]);
    assert_eq!(last.command, r#"use {"deep":[1,{"x":true}]}"#);
    assert_eq!(
        (&last.input_files[..], &last.depends_on[..], &last.input_user_data[..]),
        (&[0, 1][..], &[0, 1][..], &[0][..])
    );
    assert_eq!(workflow.env["ROOT"], "/data");
    assert_eq!(workflow.level_ends, [2, 3]);
    assert!(workflow.files[0].is_input && workflow.files[0].is_output);
    let stdio = workflow.settings.execution_config.as_ref().unwrap().job_stdio_overrides.as_ref().unwrap();
    assert_eq!(stdio.keys().collect::<Vec<_>>(), ["make_1", "make_2"]);
}

#[test]
fn the_hash_is_of_the_meaning() {
    let hash = |text: &str| yaml(text).content_hash();
    let base = "name: a\njobs:\n  - {name: x_1, command: c}\n  - {name: x_2, command: c}\n";
    let template = "# Same.\nname: a\njobs:\n- command: c\n  name: x_{i}\n  parameters: {i: '1:2'}\n";
    assert_eq!(hash(base), hash(template));
    assert_eq!(hash(base).len(), 64);
    for changed in [
        base.replace("command: c}", "command: d}"),
        base.replace("name: a\n", "name: a\ndescription: b\n"),
        base.replace("x_2", "x_3"),
        base.replace("x_2, command: c", "x_2, command: c, priority: 1"),
    ] {
        assert_ne!(hash(base), hash(&changed), "{changed}");
    }
}

#[test]
fn a_format_is_detected_from_its_text() {
    assert_eq!(Format::detect(r#"{"name": "a"}"#), Format::Json);
    assert_eq!(Format::detect("{name: 'a',} // c"), Format::Json5);
    assert_eq!(Format::detect("name: a\njobs: []\n"), Format::Yaml);
    assert_eq!(Format::detect(KDL), Format::Kdl);
    assert_eq!(Format::of_path(Path::new("a/b.YML")), Some(Format::Yaml));
    assert_eq!(Format::of_path(Path::new("a/b.txt")), None);
    let read = forebay_spec::read(JSON5.as_bytes(), "-", None, Path::new(".")).unwrap();
    assert_eq!(read.settings.name, "same");
}

#[test]
fn tables_and_lists_are_looked_for_in_the_given_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.csv"), "m,n\na,1\nb,2\n").unwrap();
    std::fs::write(folder.path().join("l.txt"), "# seeds\n7\n\n8\n").unwrap();
    let text = "name: a\nvariables: {t: t}\njobs:\n- {name: 'x_{m}_{n:02d}', command: c, parameters_file: '{t}.csv'}\n\
                - {name: 'y_{s}', command: c, parameters: {s: '@l.txt'}}\n";
    let workflow = parse("w", text, Format::Yaml, folder.path()).unwrap();
    let names: Vec<_> = workflow.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["x_a_01", "x_b_02", "y_7", "y_8"]);
}

#[test]
fn what_is_not_carried_out_is_said() {
    let workflow = yaml(
        "name: a\nenable_ro_crate: true\njobs: [{name: b, command: c, labels: [gpu]}]\n\
         actions: [{trigger_type: on_workflow_start, action_type: run_commands, commands: [x]}]\n\
         dynamic_jobs: {max_iterations: 3}\naccess_groups: [g]\nresource_monitor: {enabled: true, metrics: [x]}\n",
    );
    let said: Vec<_> = workflow.notices.iter().map(|notice| notice.message.as_str()).collect();
    for (said, words) in said.iter().zip(["RO-Crate", "labels", "actions", "dynamic_jobs", "access_groups", "metrics"])
    {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(said.len(), 6);
    assert!(yaml("name: a\njobs: [{name: b, command: c}]\nresource_monitor: {enabled: true}").notices.is_empty());
}
