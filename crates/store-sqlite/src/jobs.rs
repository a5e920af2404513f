//! The list of a workflow's jobs.

use forebay_domain::ids::{JobId, LaneId, WorkflowId};
use forebay_domain::job::RelationKind;
use forebay_domain::port::{JobQuery, JobSort, JobView};
use forebay_domain::state::JobState;
use rusqlite::types::Value as Bound;
use rusqlite::{Connection, Row, params_from_iter};

use crate::catalog::{bound, count, total_of_part};
use crate::encode::{JOB_COLUMNS, job_row};
use crate::sql::{JOB_VIEW, JOB_VIEW_BY_NAME};

/// A list as text with its values: the rows, and how many there are without `LIMIT` and `OFFSET`.
pub(crate) struct JobList {
    rows: String,
    count: String,
    values: Vec<Bound>,
    offset: u64,
    limit: u64,
}

impl JobList {
    /// Jobs from `hidden` on are left out.
    pub(crate) fn new(query: &JobQuery, hidden: Option<JobId>) -> JobList {
        let JobQuery {
            workflow,
            state,
            name,
            command,
            node,
            upstream,
            needs_file,
            lanes,
            offset,
            limit,
            sort,
            reverse,
        } = query;
        // With one of these there are few jobs to look at; their workflow is then no way to find them.
        let plus = if upstream.is_some() || needs_file.is_some() { "+" } else { "" };
        let mut filter = format!(" WHERE {plus}j.workflow_id = ?");
        if let Some(state) = state {
            filter.push_str(&format!(" AND j.state = {}", state.number()));
            if state.number() > 5 {
                // Word for word the condition of the partial index that has them.
                filter.push_str(" AND j.state > 5");
            }
        }
        let mut values = vec![Bound::Integer(workflow.0)];
        let mut add = |condition: &str, value: Bound| {
            filter.push_str(" AND ");
            filter.push_str(condition);
            // A value goes to each place that asks for it.
            values.extend(condition.matches('?').map(|_| value.clone()));
        };
        if let Some(hidden) = hidden {
            add("j.id < ?", Bound::Integer(hidden.0));
        }
        if let Some(name) = name {
            add("instr(lower(d.name), lower(?)) > 0", Bound::Text(name.to_string()));
        }
        if let Some(command) = command {
            add(
                "CASE WHEN json_valid(CAST(d.payload AS TEXT)) \
                 THEN instr(lower(json_extract(CAST(d.payload AS TEXT), '$.command')), lower(?)) > 0 END",
                Bound::Text(command.to_string()),
            );
        }
        if let Some(node) = node {
            add("j.node_id = ?", Bound::Integer(node.0));
        }
        if let Some(upstream) = upstream {
            let direct = "SELECT job_id FROM dependency WHERE depends_on = ?";
            let waiting = "SELECT m.job_id FROM barrier b CROSS JOIN barrier_member m ON m.barrier_id = b.barrier_id \
                           WHERE b.depends_on = ?";
            add(&format!("j.id IN ({direct} UNION ALL {waiting})"), Bound::Integer(upstream.0));
        }
        if let Some(file) = needs_file {
            let kind = RelationKind::InputFile as i64;
            let readers = format!("j.id IN (SELECT job_id FROM relation WHERE kind = {kind} AND item = ?)");
            add(&readers, Bound::Integer(*file));
        }
        if let Some(lanes) = lanes {
            add("j.lane_id IN (SELECT value FROM json_each(?))", Bound::Text(json_list(lanes)));
        }
        let turn = if *reverse { " DESC" } else { "" };
        let order = match sort {
            JobSort::Id => format!("j.id{turn}"),
            JobSort::Name if plus.is_empty() => format!("n.name{turn}, n.job_id{turn}"),
            JobSort::Name => format!("d.name{turn}, d.job_id{turn}"),
            JobSort::State => format!("j.state{turn}, j.id{turn}"),
            JobSort::Priority => format!("j.priority{turn}, j.id{turn}"),
        };
        // Every job has a detail, which is looked at for the count only if it is asked about.
        let detail = if name.is_some() || command.is_some() { " JOIN job_detail d ON d.job_id = j.id" } else { "" };
        // All in the order of their names; few are better sorted.
        let rows = if *sort == JobSort::Name && plus.is_empty() { JOB_VIEW_BY_NAME } else { JOB_VIEW };
        JobList {
            rows: format!("{rows}{filter} ORDER BY {order} LIMIT ? OFFSET ?"),
            count: format!("SELECT count(*) FROM job j{detail}{filter}"),
            values,
            offset: *offset,
            limit: *limit,
        }
    }

    /// To be called within a snapshot.
    pub(crate) fn read(&self, db: &Connection) -> rusqlite::Result<(Vec<JobView>, u64)> {
        let paging = [bound(self.limit), bound(self.offset)];
        let mut statement = db.prepare_cached(&self.rows)?;
        let jobs = statement
            .query_map(params_from_iter(self.values.iter().chain(&paging)), job_view)?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let total = match total_of_part(jobs.len(), self.offset, self.limit) {
            Some(total) => total,
            None => count(db, &self.count, &self.values)?,
        };
        Ok((jobs, total))
    }
}

/// One of each kind, with their names.
pub(crate) fn statements() -> impl Iterator<Item = (String, String)> {
    let all = JobQuery::of(WorkflowId(1), 0, 10);
    let kinds = [
        ("jobs", all.clone()),
        ("jobs.by_name", JobQuery { sort: JobSort::Name, ..all.clone() }),
        ("jobs.by_priority", JobQuery { sort: JobSort::Priority, ..all.clone() }),
        ("jobs.of_state", JobQuery { state: Some(JobState::Ready), ..all.clone() }),
        ("jobs.failed", JobQuery { state: Some(JobState::Failed), ..all.clone() }),
        ("jobs.of_name", JobQuery { name: Some("a".into()), ..all.clone() }),
        ("jobs.of_command", JobQuery { command: Some("a".into()), ..all.clone() }),
        ("jobs.of_lanes", JobQuery { lanes: Some(vec![LaneId(1)]), ..all.clone() }),
        ("jobs.dependents", JobQuery { upstream: Some(JobId(1)), ..all.clone() }),
        ("jobs.readers_of_file", JobQuery { needs_file: Some(1), ..all }),
    ];
    kinds.into_iter().flat_map(|(name, query)| {
        let JobList { rows, count, .. } = JobList::new(&query, None);
        [(name.to_owned(), rows), (format!("{name}.count"), count)]
    })
}

/// From the columns of `JOB_VIEW`.
pub(crate) fn job_view(row: &Row) -> rusqlite::Result<JobView> {
    Ok(JobView {
        row: job_row(row)?,
        name: row.get_ref(JOB_COLUMNS)?.as_str()?.into(),
        payload: row.get_ref(JOB_COLUMNS + 1)?.as_blob()?.into(),
    })
}

fn json_list(lanes: &[LaneId]) -> String {
    let ids: Vec<i64> = lanes.iter().map(|lane| lane.0).collect();
    serde_json::to_string(&ids).expect("a list of numbers can be written as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::{migrated, plan};
    use forebay_domain::ids::NodeId;
    use forebay_domain::state::STATE_LIST;

    const ALL: JobQuery = JobQuery::of(WorkflowId(1), 0, 10);
    const DETAIL: &str = "SEARCH d USING INTEGER PRIMARY KEY (rowid=?)";

    fn plan_of(query: &JobQuery) -> Vec<String> {
        plan(&migrated(), &JobList::new(query, None).rows)
    }

    #[test]
    fn a_list_is_read_in_the_order_of_ids_and_of_names() {
        let by_id = ["SEARCH j USING INDEX job_workflow (workflow_id=?)", DETAIL];
        assert_eq!(plan_of(&ALL), by_id);
        assert_eq!(plan_of(&JobQuery { reverse: true, ..ALL }), by_id);
        let of_node = ["SEARCH j USING INDEX job_node (node_id=?)", DETAIL];
        assert_eq!(plan_of(&JobQuery { node: Some(NodeId(1)), name: Some("a".into()), ..ALL }), of_node);
        assert_eq!(
            plan_of(&JobQuery { sort: JobSort::Name, ..ALL }),
            ["SEARCH n USING PRIMARY KEY (workflow_id=?)", "SEARCH j USING INTEGER PRIMARY KEY (rowid=?)", DETAIL]
        );
    }

    #[test]
    fn jobs_of_the_rarer_states_are_found_by_an_index_of_these() {
        for state in STATE_LIST {
            let steps = plan_of(&JobQuery { state: Some(state), ..ALL });
            let index = match state {
                JobState::Draft
                | JobState::Blocked
                | JobState::Ready
                | JobState::Claimed
                | JobState::Running
                | JobState::Completed => "SEARCH j USING INDEX job_workflow (workflow_id=?)",
                JobState::Failed
                | JobState::Canceled
                | JobState::Terminated
                | JobState::Disabled
                | JobState::PendingFailed
                | JobState::Scheduled => "SEARCH j USING INDEX job_few (state=? AND workflow_id=?)",
            };
            assert_eq!(steps, [index, DETAIL], "{state:?}");
        }
    }

    #[test]
    fn dependents_and_readers_of_a_file_are_found_from_these() {
        for (query, list) in [
            (JobQuery { upstream: Some(JobId(1)), ..ALL }, "dependency USING COVERING INDEX dependency_dependents"),
            (JobQuery { needs_file: Some(1), ..ALL }, "relation USING COVERING INDEX relation_item"),
        ] {
            let steps = plan_of(&query);
            assert_eq!(steps[0], "SEARCH j USING INTEGER PRIMARY KEY (rowid=?)", "{steps:?}");
            assert!(steps.iter().any(|step| step.contains(list)), "{steps:?}");
            assert!(!steps.iter().any(|step| step.contains("SCAN")), "{steps:?}");
        }
    }
}
