//! torc's own example files, unmodified.

use std::collections::BTreeSet;
use std::path::Path;

use forebay_spec::{Format, load};

use crate::dependency_pairs;
use crate::torc_crate::torc_crate;

/// File, jobs, files, user data, dependencies. Counted by a separate reading of the files.
///
/// In KDL torc comes to fewer dependencies: its reader passes over `depends_on_job`,
/// `input_files` and `output_files`, and takes one argument of `depends_on_regexes`.
const EXAMPLES: [(&str, usize, usize, usize, usize); 77] = [
    ("json/data_pipeline_parameterized.json5", 36, 20, 0, 40),
    ("json/diamond_workflow.json5", 4, 6, 0, 4),
    ("json/failure_handler_simulation.json", 18, 0, 0, 9),
    ("json/hundred_jobs_parameterized.json5", 100, 0, 0, 0),
    ("json/hundred_jobs_workflow.json5", 100, 0, 0, 0),
    ("json/hyperparameter_sweep.json5", 38, 38, 0, 54),
    ("json/hyperparameter_sweep_shared_params.json5", 38, 38, 0, 54),
    ("json/multi_stage_barrier_pattern.json5", 2104, 0, 0, 3201),
    ("json/resource_monitoring_demo.json5", 3, 0, 0, 0),
    ("json/sample_workflow.json", 3, 5, 3, 2),
    ("json/sample_workflow.json5", 3, 5, 3, 2),
    ("json/simulation_sweep.json5", 49, 49, 0, 48),
    ("json/slurm_staged_pipeline.json5", 12, 21, 0, 20),
    ("json/variables_demo.json", 6, 1, 0, 8),
    ("json/variables_demo.json5", 6, 1, 0, 8),
    ("json/workflow_actions_data_pipeline.json5", 14, 0, 0, 13),
    ("json/workflow_actions_ml_training.json5", 10, 0, 0, 16),
    ("json/workflow_actions_simple.json5", 3, 0, 0, 2),
    ("json/workflow_actions_simple_slurm.json5", 3, 0, 0, 2),
    ("json/zip_parameter_mode.json5", 6, 3, 0, 3),
    ("kdl/diamond_workflow.kdl", 4, 6, 0, 4),
    ("kdl/failure_handler_simulation.kdl", 18, 0, 0, 9),
    ("kdl/hundred_jobs_parameterized.kdl", 101, 0, 0, 100),
    ("kdl/hyperparameter_sweep.kdl", 38, 38, 0, 54),
    ("kdl/hyperparameter_sweep_shared_params.kdl", 38, 38, 0, 54),
    ("kdl/mixed_workload.kdl", 121, 0, 0, 120),
    ("kdl/resource_monitoring_demo.kdl", 3, 0, 0, 0),
    ("kdl/sample_workflow.kdl", 3, 5, 3, 2),
    ("kdl/simple_slurm.kdl", 3, 0, 0, 2),
    ("kdl/slurm_staged_pipeline.kdl", 5, 7, 0, 6),
    ("kdl/variables_demo.kdl", 6, 1, 0, 8),
    ("kdl/workflow_actions_data_pipeline.kdl", 3, 0, 0, 2),
    ("kdl/workflow_actions_ml_training.kdl", 5, 0, 0, 6),
    ("kdl/workflow_actions_simple.kdl", 3, 0, 0, 2),
    ("kdl/workflow_actions_simple_slurm.kdl", 3, 0, 0, 2),
    ("kdl/zip_parameter_mode.kdl", 6, 3, 0, 3),
    ("subgraphs/subgraphs_workflow.json5", 15, 17, 0, 22),
    ("subgraphs/subgraphs_workflow.kdl", 15, 17, 0, 22),
    ("subgraphs/subgraphs_workflow.yaml", 15, 17, 0, 22),
    ("subgraphs/subgraphs_workflow_no_slurm.json5", 15, 17, 0, 22),
    ("subgraphs/subgraphs_workflow_no_slurm.kdl", 15, 17, 0, 22),
    ("subgraphs/subgraphs_workflow_no_slurm.yaml", 15, 17, 0, 22),
    ("yaml/chained_allocations.yaml", 4, 0, 0, 3),
    ("yaml/data_pipeline_parameterized.yaml", 36, 20, 0, 40),
    ("yaml/diamond_workflow.yaml", 4, 6, 0, 4),
    ("yaml/direct_mode_checkpointing.yaml", 5, 5, 0, 6),
    ("yaml/dynamic_orchestrator_local.yaml", 2, 0, 0, 0),
    ("yaml/dynamic_orchestrator_slurm.yaml", 2, 0, 0, 0),
    ("yaml/failure_handler_demo.yaml", 4, 0, 0, 4),
    ("yaml/failure_handler_simulation.yaml", 18, 0, 0, 9),
    ("yaml/fan_in_with_regexes.yaml", 30, 30, 0, 52),
    ("yaml/hundred_jobs_parameterized.yaml", 100, 0, 0, 0),
    ("yaml/hyperparameter_sweep.yaml", 38, 38, 0, 54),
    ("yaml/hyperparameter_sweep_shared_params.yaml", 38, 38, 0, 54),
    ("yaml/labeled_jobs.yaml", 6, 0, 0, 5),
    ("yaml/multi_node_slurm.yaml", 7, 10, 0, 9),
    ("yaml/multi_stage_barrier_pattern.yaml", 2104, 0, 0, 3201),
    ("yaml/parameterized_from_csv.yaml", 4, 4, 0, 0),
    ("yaml/parameterized_from_json.yaml", 4, 0, 0, 0),
    ("yaml/parameterized_shared_table.yaml", 9, 4, 0, 8),
    ("yaml/parameterized_user_data.yaml", 3, 0, 3, 0),
    ("yaml/priority_workflow.yaml", 5, 0, 0, 6),
    ("yaml/resource_monitoring_demo.yaml", 3, 0, 0, 0),
    ("yaml/ro_crate_provenance.yaml", 5, 5, 0, 3),
    ("yaml/sample_workflow.yaml", 3, 5, 3, 2),
    ("yaml/simple_retry.yaml", 2, 0, 0, 1),
    ("yaml/simulation_sweep.yaml", 49, 49, 0, 48),
    ("yaml/single_allocation_mpi_stages.yaml", 302, 302, 0, 500),
    ("yaml/slurm_staged_pipeline.yaml", 12, 21, 0, 20),
    ("yaml/stdio_configuration.yaml", 4, 0, 0, 3),
    ("yaml/variables_demo.yaml", 6, 1, 0, 8),
    ("yaml/workflow_actions_data_pipeline.yaml", 14, 0, 0, 13),
    ("yaml/workflow_actions_ml_training.yaml", 10, 0, 0, 16),
    ("yaml/workflow_actions_multi_class_slurm.yaml", 31, 0, 0, 30),
    ("yaml/workflow_actions_simple.yaml", 3, 0, 0, 2),
    ("yaml/workflow_actions_simple_slurm.yaml", 5, 0, 0, 6),
    ("yaml/zip_parameter_mode.yaml", 8, 6, 0, 9),
];

#[test]
fn every_example_of_torc_expands_to_what_it_says() {
    let root = torc_crate();
    for (name, jobs, files, user_data, dependencies) in EXAMPLES {
        let workflow = load(&root.join("examples").join(name), &root).unwrap_or_else(|error| panic!("{error}"));
        let found = (workflow.jobs.len(), workflow.files.len(), workflow.user_data.len());
        assert_eq!(found, (jobs, files, user_data), "{name}");
        assert_eq!(dependency_pairs(&workflow).len(), dependencies, "{name}");
    }
}

#[test]
fn no_example_is_left_out() {
    let examples = torc_crate().join("examples");
    let mut found = BTreeSet::new();
    for folder in ["json", "kdl", "subgraphs", "yaml"] {
        for entry in std::fs::read_dir(examples.join(folder)).expect("torc has this folder") {
            let path = entry.expect("a readable folder").path();
            if Format::of_path(&path).is_some() {
                found.insert(path.strip_prefix(&examples).expect("below the folder").to_owned());
            }
        }
    }
    let named: BTreeSet<_> = EXAMPLES.iter().map(|(name, ..)| Path::new(name).to_owned()).collect();
    assert_eq!(found, named);
}

#[test]
fn the_fan_in_takes_its_inputs_by_expression() {
    let root = torc_crate();
    let workflow = load(&root.join("examples/yaml/fan_in_with_regexes.yaml"), &root).unwrap();
    let summary = workflow.jobs.iter().find(|job| job.name == "regional_summary_south").unwrap();
    let names: Vec<_> = summary.input_files.iter().map(|file| workflow.files[*file as usize].name.as_str()).collect();
    assert_eq!(
        names,
        ["sim_south_000", "sim_south_001", "sim_south_002", "sim_south_003", "sim_south_004", "sim_south_005"]
    );
}

#[test]
fn torcs_workflow_of_a_hundred_thousand_jobs_is_read() {
    let root = torc_crate();
    let workflow = load(&root.join("tests/workflows/scale_test/workflow.yaml"), &root).unwrap();
    assert_eq!(workflow.jobs.len(), 100_004);
    assert_eq!(workflow.level_ends.last(), Some(&100_004));
}
