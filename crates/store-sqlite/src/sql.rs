//! Every statement of fixed text, in one list, so that a test can ask how each is carried out.

use rusqlite::{CachedStatement, Connection};

/// A statement of fixed text. Only this module makes them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sql(&'static str);

impl Sql {
    /// Prepares it, or takes it as it was prepared before.
    pub(crate) fn on(self, db: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
        db.prepare_cached(self.0)
    }
}

/// So many new rows go with one statement where there are so many: to begin and to end it takes half as
/// long as a row of it.
pub(crate) const TOGETHER: usize = 16;
/// The places of a row, for as many as [`TOGETHER`].
macro_rules! together {
    ($row:literal) => {
        concat!(together!(4 $row), ", ", together!(4 $row), ", ", together!(4 $row), ", ", together!(4 $row))
    };
    (4 $row:literal) => {
        concat!($row, ", ", $row, ", ", $row, ", ", $row)
    };
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* pub(crate) const $name: Sql = Sql($text);)*
        const ALL: &[(&str, Sql)] = &[$((stringify!($name), $name)),*];
    };
}

/// The hot row of a job, as `encode::job_row` reads it.
macro_rules! job_columns {
    () => {
        "j.id, j.workflow_id, j.lane_id, j.state, j.priority, j.attempt, j.flags, j.node_id, j.grant_number, \
         j.started_at, j.due_at, j.result_id, j.tries, j.policy, j.expires_at"
    };
}
/// What each change of a job writes of its hot row.
macro_rules! step {
    () => {
        "state = ?2, attempt = ?3, flags = ?4, grant_number = ?5, started_at = ?6, due_at = ?7, result_id = ?8, \
         tries = ?9"
    };
}
/// The columns of a new job: those of `step` first, in their order.
macro_rules! new_job {
    () => {
        "INSERT INTO job (id, state, attempt, flags, grant_number, started_at, due_at, result_id, tries, node_id, \
         lane_id, priority, timer_at, expires_at, policy, workflow_id) VALUES "
    };
}
/// The hot row of a workflow, as `encode::workflow_row` reads it.
macro_rules! workflow_columns {
    () => {
        "id, run, is_canceled, is_archived, has_edges, default_requirement_id, march, march_at, graph_bytes, \
         is_endless, is_paused, lanes, draft, blocked, ready, claimed, \
         running, completed, failed, canceled, terminated, disabled, pending_failed, scheduled"
    };
}
/// A ready job and its payload if that has at most ?2 bytes. A length is known without reading it.
macro_rules! page {
    () => {
        concat!(
            "SELECT ",
            job_columns!(),
            ", CASE WHEN length(d.payload) <= ?2 THEN d.payload END \
             FROM job j LEFT JOIN job_detail d ON d.job_id = j.id WHERE j.lane_id = ?1 AND j.state = 2 "
        )
    };
}

/// What a job's list shows of it, and where from.
pub(crate) const JOB_VIEW: &str =
    concat!("SELECT ", job_columns!(), ", d.name, d.payload FROM job j JOIN job_detail d ON d.job_id = j.id");

/// The same, read in the order of their names.
pub(crate) const JOB_VIEW_BY_NAME: &str = concat!(
    "SELECT ",
    job_columns!(),
    ", d.name, d.payload FROM job_name n CROSS JOIN job j ON j.id = n.job_id AND j.workflow_id = n.workflow_id \
     CROSS JOIN job_detail d ON d.job_id = n.job_id"
);

/// All of them: only to look through a whole database.
pub(crate) const WORKFLOWS: &str = concat!("SELECT ", workflow_columns!(), " FROM workflow_state");

statements! {
    BEGIN_READ = "BEGIN DEFERRED";
    BEGIN_WRITE = "BEGIN IMMEDIATE";
    COMMIT = "COMMIT";
    ROLLBACK = "ROLLBACK";
    SAVEPOINT = "SAVEPOINT statement";
    ROLLBACK_TO = "ROLLBACK TO statement";
    RELEASE = "RELEASE statement";

    COPY = "VACUUM INTO ?1";

    LSN = "SELECT value FROM meta WHERE name = 'lsn'";
    SET_LSN = "UPDATE meta SET value = ?1 WHERE name = 'lsn'";
    NEXT_EPOCH = "UPDATE meta SET value = value + 1 WHERE name = 'epoch' RETURNING value";
    SEQUENCES = "SELECT name, next FROM sequence";

    MARCHING = "SELECT id FROM workflow_state WHERE march > 0";
    GRAPH_BYTES = "SELECT coalesce(sum(graph_bytes), 0) FROM workflow_state WHERE graph_bytes > 0";
    LANES_RESERVED = "SELECT coalesce(sum(lanes), 0) FROM workflow_state WHERE lanes > 0";
    HIDDEN_FROM = "SELECT march_at FROM workflow_state WHERE id = ?1 AND march = 6";

    PUT_SEQUENCE = "INSERT OR REPLACE INTO sequence (name, next) VALUES (?1, ?2)";
    PUT_WORKFLOW = concat!(
        "INSERT OR REPLACE INTO workflow_state (", workflow_columns!(), ") \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, \
         ?22, ?23, ?24)"
    );
    NEW_LANE = "INSERT INTO lane (id, workflow_id, requirement_id, labels, scheduler_id) VALUES (?1, ?2, ?3, ?4, ?5)";
    PUT_LANE_STATE = "INSERT OR REPLACE INTO lane_state (lane_id, held, is_paused) VALUES (?1, ?2, ?3)";
    PUT_NEEDS =
        "INSERT OR REPLACE INTO requirement_needs \
         (workflow_id, requirement_id, cpus, memory_bytes, gpus, nodes, runtime_seconds) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    NEW_JOB = concat!(new_job!(), "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    NEW_JOBS = concat!(new_job!(), together!("(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
    /// Each index on a column that a statement names is looked at, whether the value changes or not: so
    /// most changes are written without those that they leave alone.
    STEP_JOB = concat!("UPDATE job SET ", step!(), " WHERE id = ?1");
    NODE_JOB = concat!("UPDATE job SET ", step!(), ", node_id = ?10 WHERE id = ?1");
    /// It does not name the workflow, so that the index on it is left alone, nor the policy, which stays.
    SET_JOB = concat!(
        "UPDATE job SET ", step!(), ", node_id = ?10, lane_id = ?11, priority = ?12, timer_at = ?13, \
         expires_at = ?14 WHERE id = ?1"
    );
    NEW_DETAIL = "INSERT INTO job_detail (job_id, workflow_id, name, payload) VALUES (?1, ?2, ?3, ?4)";
    PUT_DETAIL = "INSERT OR REPLACE INTO job_detail (job_id, workflow_id, name, payload) VALUES (?1, ?2, ?3, ?4)";
    NEW_NAME = "INSERT OR IGNORE INTO job_name (workflow_id, name, job_id) VALUES (?1, ?2, ?3)";
    WORKFLOW_OF_JOB = "SELECT workflow_id FROM job WHERE id = ?1";
    NEW_EDGE = "INSERT OR IGNORE INTO dependency (workflow_id, job_id, depends_on) VALUES (?1, ?2, ?3)";
    NEW_BARRIER = "INSERT OR IGNORE INTO barrier (workflow_id, barrier_id, depends_on) VALUES (?1, ?2, ?3)";
    NEW_MEMBER = "INSERT OR IGNORE INTO barrier_member (workflow_id, job_id, barrier_id) VALUES (?1, ?2, ?3)";
    NEW_RELATION = "INSERT OR IGNORE INTO relation (workflow_id, job_id, kind, item) VALUES (?1, ?2, ?3, ?4)";

    LEASES = "SELECT workflow_id, node_id, lease_ms FROM lease";
    NEW_LEASE = "INSERT OR REPLACE INTO lease (workflow_id, node_id, lease_ms) VALUES (?1, ?2, ?3)";
    DELETE_LEASE = "DELETE FROM lease WHERE workflow_id = ?1 AND node_id = ?2";
    HELD = "SELECT id FROM job WHERE node_id = ?1";

    DEPENDENTS = concat!(
        "SELECT ", job_columns!(), " FROM dependency d CROSS JOIN job j ON j.id = d.job_id \
         WHERE d.depends_on = ?1 AND d.job_id > ?2 ORDER BY d.job_id LIMIT ?3"
    );
    PREREQUISITE_STATES =
        "SELECT j.id, j.state FROM dependency d CROSS JOIN job j ON j.id = d.depends_on \
         WHERE d.workflow_id = ?1 AND d.job_id = ?2 ORDER BY d.depends_on";

    DELETE_JOB = "DELETE FROM job WHERE id = ?2 AND workflow_id = ?1";
    /// Before its detail, which says how it is called.
    DELETE_JOB_NAME =
        "DELETE FROM job_name \
         WHERE workflow_id = ?1 AND name = (SELECT name FROM job_detail WHERE job_id = ?2) AND job_id = ?2";
    DELETE_JOB_DETAIL = "DELETE FROM job_detail WHERE job_id = ?2 AND workflow_id = ?1";
    DELETE_JOB_PREREQUISITES = "DELETE FROM dependency WHERE workflow_id = ?1 AND job_id = ?2";
    DELETE_JOB_DEPENDENTS = "DELETE FROM dependency WHERE depends_on = ?2 AND workflow_id = ?1";
    DELETE_BARRIER_PREREQUISITE = "DELETE FROM barrier WHERE depends_on = ?2 AND workflow_id = ?1";
    DELETE_MEMBER = "DELETE FROM barrier_member WHERE workflow_id = ?1 AND job_id = ?2 RETURNING barrier_id";
    DELETE_LEFT_BARRIER =
        "DELETE FROM barrier WHERE workflow_id = ?1 AND barrier_id = ?2 \
         AND NOT EXISTS (SELECT 1 FROM barrier_member m WHERE m.barrier_id = ?2)";
    DELETE_JOB_RELATIONS = "DELETE FROM relation WHERE workflow_id = ?1 AND job_id = ?2";
    OVER_NAME = "SELECT workflow_id, name FROM job_detail WHERE job_id = ?1";
    DELETE_OVER = "DELETE FROM job WHERE id = ?1";
    DELETE_OVER_DETAIL = "DELETE FROM job_detail WHERE job_id = ?1";
    GONE_NAMES = "SELECT names FROM gone_names ORDER BY lsn";
    NEW_GONE_NAMES = "INSERT INTO gone_names (lsn, names) VALUES (?1, ?2)";
    DELETE_GONE_NAMES = "DELETE FROM gone_names WHERE lsn <= ?1";
    DELETE_NAME = "DELETE FROM job_name WHERE workflow_id = ?1 AND name = ?2 AND job_id = ?3";
    DELETE_TIES = "DELETE FROM relation WHERE kind = ?1 AND item = ?2";
    DELETE_WORKFLOW_TIES = "DELETE FROM relation WHERE workflow_id = ?1 AND +kind = ?2";
    DELETE_JOB_RESULTS = "DELETE FROM result WHERE job_id = ?2 AND +workflow_id = ?1";

    DOOM = "INSERT OR IGNORE INTO doomed (workflow_id) VALUES (?1)";
    DOOMED = "SELECT min(workflow_id) FROM doomed";
    UNDOOM = "DELETE FROM doomed WHERE workflow_id = ?1";
    SOME_JOBS = "SELECT id FROM job WHERE workflow_id = ?1 LIMIT ?2";
    DELETE_SOME_EVENTS =
        "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE workflow_id = ?1 LIMIT ?2)";
    DELETE_SOME_RESULTS =
        "DELETE FROM result WHERE id IN (SELECT id FROM result WHERE workflow_id = ?1 LIMIT ?2)";

    DELETE_WORKFLOW_STATE = "DELETE FROM workflow_state WHERE id = ?1";
    DELETE_WORKFLOW_LEASES = "DELETE FROM lease WHERE workflow_id = ?1";
    DELETE_WORKFLOW_LANE_STATES =
        "DELETE FROM lane_state WHERE lane_id IN (SELECT id FROM lane WHERE workflow_id = ?1)";
    DELETE_WORKFLOW_LANES = "DELETE FROM lane WHERE workflow_id = ?1";
    DELETE_WORKFLOW_NEEDS = "DELETE FROM requirement_needs WHERE workflow_id = ?1";

    /// From the start of a lane.
    PAGE = concat!(page!(), "ORDER BY j.priority DESC, j.id LIMIT ?3");
    /// After a key, of its priority. Together with the next: one search each, whatever lies before.
    PAGE_SAME = concat!(page!(), "AND j.priority = ?4 AND j.id > ?5 ORDER BY j.id LIMIT ?3");
    /// After a key, of lower priorities.
    PAGE_BELOW = concat!(page!(), "AND j.priority < ?4 ORDER BY j.priority DESC, j.id LIMIT ?3");
    /// The rest of the time of a moment.
    DUE_SAME = "SELECT timer_at, id FROM job WHERE timer_at = ?2 AND id > ?3 ORDER BY id LIMIT ?1";
    /// The later ones.
    DUE_AFTER = "SELECT timer_at, id FROM job WHERE timer_at > ?2 ORDER BY timer_at, id LIMIT ?1";
    JOB = concat!("SELECT ", job_columns!(), " FROM job j WHERE j.id = ?1");
    PAYLOAD = "SELECT payload FROM job_detail WHERE job_id = ?1";

    WORKFLOW = concat!("SELECT ", workflow_columns!(), " FROM workflow_state WHERE id = ?1");
    /// How many jobs of all workflows are in each state.
    TOTALS =
        "SELECT coalesce(sum(draft), 0), coalesce(sum(blocked), 0), coalesce(sum(ready), 0), \
         coalesce(sum(claimed), 0), coalesce(sum(running), 0), coalesce(sum(completed), 0), \
         coalesce(sum(failed), 0), coalesce(sum(canceled), 0), coalesce(sum(terminated), 0), \
         coalesce(sum(disabled), 0), coalesce(sum(pending_failed), 0), coalesce(sum(scheduled), 0) \
         FROM workflow_state";
    WORKFLOW_NEEDS =
        "SELECT requirement_id, cpus, memory_bytes, gpus, nodes, runtime_seconds \
         FROM requirement_needs WHERE workflow_id = ?1 ORDER BY requirement_id";
    WORKFLOW_LANES =
        "SELECT l.id, l.requirement_id, l.labels, l.scheduler_id, \
         EXISTS (SELECT 1 FROM job j WHERE j.lane_id = l.id AND j.state = 2) \
         FROM lane l WHERE l.workflow_id = ?1 ORDER BY l.id";

    WORKFLOW_LANE_STATES =
        "SELECT s.lane_id, s.held, s.is_paused FROM lane l CROSS JOIN lane_state s ON s.lane_id = l.id \
         WHERE l.workflow_id = ?1 ORDER BY l.id";

    WORKFLOW_JOBS = concat!("SELECT ", job_columns!(), " FROM job j WHERE j.workflow_id = ?1 ORDER BY j.id");
    WORKFLOW_EDGES =
        "SELECT job_id, depends_on FROM dependency WHERE workflow_id = ?1 ORDER BY job_id, depends_on";
    WORKFLOW_BARRIERS =
        "SELECT barrier_id, depends_on FROM barrier WHERE workflow_id = ?1 ORDER BY barrier_id, depends_on";
    WORKFLOW_MEMBERS = "SELECT job_id, barrier_id FROM barrier_member WHERE workflow_id = ?1 ORDER BY job_id";
    /// Who reads depends on who writes: kind 0 on kind 1 (files), 2 on 3 (user data).
    WORKFLOW_IMPLIED =
        "SELECT r.job_id, w.job_id FROM relation r CROSS JOIN relation w ON w.kind = r.kind + 1 AND w.item = r.item \
         WHERE r.workflow_id = ?1 AND r.kind IN (0, 2) AND w.job_id <> r.job_id AND w.workflow_id = r.workflow_id";
    WORKFLOW_RELATIONS =
        "SELECT job_id, kind, item FROM relation WHERE workflow_id = ?1 AND job_id < ?2 ORDER BY job_id, kind, item";

    JOB_WITH_DETAIL = concat!(
        "SELECT ", job_columns!(), ", d.name, d.payload \
         FROM job j JOIN job_detail d ON d.job_id = j.id CROSS JOIN workflow_state w ON w.id = j.workflow_id \
         WHERE j.id = ?1 AND w.is_endless = 0 AND (w.march IS NOT 6 OR j.id < w.march_at)"
    );
    TASK = concat!(
        "SELECT ", job_columns!(), ", d.name, d.payload \
         FROM job j JOIN job_detail d ON d.job_id = j.id CROSS JOIN workflow_state w ON w.id = j.workflow_id \
         WHERE j.id = ?1 AND w.is_endless = 1"
    );
    TASK_NAMED = concat!(
        "SELECT ", job_columns!(), ", d.name, d.payload \
         FROM workflow_state w CROSS JOIN job_name n ON n.workflow_id = w.id CROSS JOIN job j ON j.id = n.job_id \
         CROSS JOIN job_detail d ON d.job_id = n.job_id \
         WHERE w.id = ?1 AND w.is_endless = 1 AND n.name = ?2 ORDER BY n.job_id LIMIT 1"
    );
    JOB_NAME = "SELECT name FROM job_detail WHERE job_id = ?1";
    JOB_PREREQUISITES =
        "SELECT d.depends_on FROM job j CROSS JOIN dependency d ON d.workflow_id = j.workflow_id AND d.job_id = j.id \
         WHERE j.id = ?1 \
         UNION ALL \
         SELECT b.depends_on FROM job j \
         CROSS JOIN barrier_member m ON m.workflow_id = j.workflow_id AND m.job_id = j.id \
         CROSS JOIN barrier b ON b.workflow_id = m.workflow_id AND b.barrier_id = m.barrier_id \
         WHERE j.id = ?1 ORDER BY 1";
    DEPENDENCIES =
        "SELECT d.job_id, a.name, d.depends_on, b.name \
         FROM (SELECT job_id, depends_on FROM dependency WHERE workflow_id = ?1 AND job_id < ?4 \
               UNION ALL \
               SELECT m.job_id, b.depends_on FROM barrier_member m \
               CROSS JOIN barrier b ON b.workflow_id = m.workflow_id AND b.barrier_id = m.barrier_id \
               WHERE m.workflow_id = ?1 AND m.job_id < ?4 \
               ORDER BY 1, 2 LIMIT ?2 OFFSET ?3) d \
         CROSS JOIN job_detail a ON a.job_id = d.job_id CROSS JOIN job_detail b ON b.job_id = d.depends_on \
         ORDER BY d.job_id, d.depends_on";
    DEPENDENCIES_COUNT =
        "SELECT count(*) FROM (SELECT job_id FROM dependency WHERE workflow_id = ?1 AND job_id < ?2 \
         UNION ALL \
         SELECT m.job_id FROM barrier_member m \
         CROSS JOIN barrier b ON b.workflow_id = m.workflow_id AND b.barrier_id = m.barrier_id \
         WHERE m.workflow_id = ?1 AND m.job_id < ?2) d";
}

/// Those that read a whole table: a dozen rows, one for each worker and one for each batch of some at a
/// start; a row for each workflow, when an operator asks.
pub(crate) const WHOLE: [&str; 4] = ["SEQUENCES", "LEASES", "GONE_NAMES", "TOTALS"];

/// Each with its name.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.iter().map(|(name, sql)| (*name, sql.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn every_statement_is_a_search_on_an_index() {
        let db = schema::tests::migrated();
        for (name, sql) in ALL {
            for step in schema::tests::plan(&db, sql.0) {
                // Or rows that it has in hand, and the planner's name for others.
                let whole = WHOLE.contains(name) || step == "SCAN d" || step == "SCAN 16-ROW VALUES CLAUSE";
                assert!(whole || !step.contains("SCAN"), "{name}: {step}");
                assert!(!step.contains("TEMP B-TREE"), "{name}: {step}");
            }
        }
    }

    #[test]
    fn a_page_is_read_from_the_index_of_its_order() {
        let db = schema::tests::migrated();
        for (sql, range) in [
            (PAGE, "(lane_id=?)"),
            (PAGE_SAME, "(lane_id=? AND priority=? AND rowid>?)"),
            (PAGE_BELOW, "(lane_id=? AND priority<?)"),
        ] {
            assert_eq!(
                schema::tests::plan(&db, sql.0),
                [
                    format!("SEARCH j USING INDEX job_page {range}"),
                    "SEARCH d USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN".to_owned()
                ]
            );
        }
    }

    #[test]
    fn timers_are_read_from_their_index_alone() {
        let db = schema::tests::migrated();
        for (sql, step) in [
            (DUE_SAME, "SEARCH job USING COVERING INDEX job_timer (timer_at=? AND rowid>?)"),
            (DUE_AFTER, "SEARCH job USING COVERING INDEX job_timer (timer_at>?)"),
        ] {
            assert_eq!(schema::tests::plan(&db, sql.0), [step]);
        }
    }

    #[test]
    fn what_a_node_holds_is_found_by_index() {
        let db = schema::tests::migrated();
        assert_eq!(schema::tests::plan(&db, HELD.0), ["SEARCH job USING COVERING INDEX job_node (node_id=?)"]);
    }

    #[test]
    fn a_change_of_a_job_leaves_its_workflow_index_alone() {
        assert!(!SET_JOB.0.contains("workflow_id"));
    }

    #[test]
    fn a_step_of_a_job_leaves_the_indexes_on_nodes_and_timers_alone() {
        assert!(!STEP_JOB.0.contains("timer_at") && !NODE_JOB.0.contains("timer_at"));
        assert!(!STEP_JOB.0.contains("node_id"));
    }
}
