//! Checks of what decides: batches, hot rows, pages, graphs, deletes.

use std::collections::BTreeSet;

use forebay_domain::batch::{Batch, Extent, JobWrite, LaneRow, LaneState, LeaseRow, March, Sequence, WorkflowRow};
use forebay_domain::catalog::{Match, Paging, Query, Statement, StatementOutcome, TABLES, Table, Value};
use forebay_domain::graph::Edges;
use forebay_domain::ids::{
    BarrierId, Epoch, Grant, JobId, LaneId, Lsn, NodeId, RequirementId, ResultId, SchedulerId, Timestamp, WorkflowId,
};
use forebay_domain::job::{JobFlags, JobRow, RelationKind};
use forebay_domain::lane::LabelSet;
use forebay_domain::port::{
    Dependents, GraphRows, JobQuery, JobSort, Read, Reader, Rows, Store, TaskName, WorkflowRows,
};
use forebay_domain::state::{JobState, STATE_LIST, STATES};

use super::*;

pub(super) fn checks<S: Store, R: Reader>() -> Vec<Check<S, R>> {
    vec![
        ("a new store is empty and its first epoch is 1", a_new_store_is_empty),
        ("each recovery makes a new epoch durable", each_recovery_makes_a_new_epoch),
        ("sequences are kept at their last mark", sequences_are_kept),
        ("timers are read by pages, soonest first, as their jobs are now", timers_are_read),
        ("leases are recovered until they are over", leases_are_kept),
        ("the jobs that a node holds are found", jobs_of_a_node_are_found),
        ("the same batch again changes nothing and answers as it did", the_same_batch_again),
        ("an older batch again changes nothing", an_older_batch_again),
        ("every field of a hot row is read back as it was written", every_field_is_read_back),
        ("a workflow is read with its requirements and lanes", a_workflow_is_read),
        ("jobs of all workflows are summed by state", totals_are_summed),
        ("a page holds what is ready, in order, strictly after a key", a_page_is_in_order),
        ("a page follows each change of state, priority and lane", a_page_follows_changes),
        ("a page leaves out payloads that are too large", a_page_leaves_out_large_payloads),
        ("jobs and payloads are read by id, absent ones left out", jobs_are_read_by_id),
        ("a graph has all jobs, stored edges and implied edges", a_graph_is_whole),
        ("the edges of a job are cut before others are added", edges_are_replaced),
        ("an edge, a relation and a detail that are there already stay or are replaced", repeats_are_harmless),
        ("jobs wait at a barrier, and lists name what it waits for", jobs_wait_at_a_barrier),
        ("a deleted job takes all with it that hangs on it", a_deleted_job_takes_all),
        ("a deleted workflow takes all with it and nothing else", a_deleted_workflow_takes_all),
        ("a job of an endless workflow is found by its name until it is over", a_task_is_found),
        ("who waits for a job is read by pages, with the states of all that each waits for", dependents_are_read),
        ("a list of jobs filters, sorts and pages", a_list_of_jobs),
        ("dependencies are listed in order with names", dependencies_are_listed),
        ("latest results are those that hot rows name", latest_results_are_listed),
    ]
}

fn a_new_store_is_empty<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    let recovered = bench.store.recover().expect("recovers");
    assert_eq!((recovered.lsn, recovered.epoch), (Lsn(0), Epoch(1)));
    assert_eq!(recovered.sequences, []);
    assert_eq!(bench.read(Read::Due { after: None, limit: 10 }), Rows::Due(vec![]));
    assert_eq!(bench.read(Read::Workflow(W)), Rows::Workflow(None));
    assert_eq!(bench.page(LANE, None, 10), NONE);
    assert_eq!(bench.reader.workflow(W).expect("reads"), None);
    assert_eq!(bench.reader.job(JobId(1)).expect("reads"), None);
}

fn each_recovery_makes_a_new_epoch<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    for epoch in 1..4 {
        let recovered = bench.store.recover().expect("recovers");
        assert_eq!((recovered.epoch, recovered.lsn), (Epoch(epoch), bench.lsn));
        bench.commit(if epoch == 1 { ground() } else { Batch::default() });
    }
    bench.store.sync().expect("syncs");
    bench.store.close().expect("closes");
}

fn sequences_are_kept<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    let all: Vec<Sequence> =
        [Sequence::Job, Sequence::Lane].into_iter().chain(TABLES.into_iter().map(Sequence::Row)).collect();
    bench.commit(Batch { sequences: all.iter().map(|&s| (s, 10)).collect(), ..Batch::default() });
    bench.commit(Batch { sequences: vec![(Sequence::Lane, 33)], ..Batch::default() });
    let kept: BTreeSet<(Sequence, i64)> =
        bench.store.recover().expect("recovers").sequences.into_iter().filter(|&(_, next)| next != 1).collect();
    let expected = all.iter().map(|&s| (s, if s == Sequence::Lane { 33 } else { 10 })).collect();
    assert_eq!(kept, expected);
}

fn timers_are_read<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    let due = |bench: &mut Bench<S, R>, after: Option<&JobRow>, limit| match bench
        .read(Read::Due { after: after.and_then(JobRow::moment), limit })
    {
        Rows::Due(moments) => moments,
        other => panic!("moments were asked for: {other:?}"),
    };
    let moments = |rows: &[&JobRow]| rows.iter().filter_map(|row| row.moment()).collect::<Vec<_>>();
    bench.commit(ground());
    assert_eq!(due(bench, None, 10), []);
    let scheduled = |id, at| JobRow { state: JobState::Scheduled, due_at: Some(Timestamp(at)), ..job_row(id, 0) };
    let draft = JobRow { state: JobState::Draft, ..scheduled(6, 50) };
    let rows = [scheduled(1, 300), scheduled(2, 100), job_row(3, 0), scheduled(4, 200), scheduled(5, 100), draft];
    bench.commit(create(rows));
    let [a, b, _, d, e, _] = &rows;
    assert_eq!(due(bench, None, 10), moments(&[b, e, d, a]));
    assert_eq!(due(bench, None, 2), moments(&[b, e]));
    assert_eq!(due(bench, Some(b), 10), moments(&[e, d, a]));
    assert_eq!(due(bench, Some(e), 1), moments(&[d]));
    assert_eq!(due(bench, Some(a), 10), []);
    let later = JobRow { due_at: Some(Timestamp(400)), ..*b };
    let expiring = JobRow { expires_at: Some(Timestamp(310)), ..job_row(7, 0) };
    let held = JobRow { state: JobState::Running, policy: Some(POLICY), due_at: Some(Timestamp(320)), ..job_row(8, 0) };
    bench.commit(create([expiring, held]));
    bench.commit(change([later, JobRow { state: JobState::Ready, ..*d }, JobRow { state: JobState::Canceled, ..*e }]));
    assert_eq!(due(bench, None, 10), moments(&[a, &expiring, &held, &later]));
    bench.commit(Batch { jobs_deleted: vec![a.id], ..Batch::default() });
    assert_eq!(due(bench, None, 10), moments(&[&expiring, &held, &later]));
    bench.commit(Batch { workflows_deleted: vec![W], ..Batch::default() });
    assert_eq!(due(bench, None, 10), []);
}

fn leases_are_kept<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    let lease = |node, workflow| LeaseRow { node: NodeId(node), workflow: WorkflowId(workflow), lease_ms: node * 1000 };
    let of = |bench: &mut Bench<S, R>| {
        let mut leases = bench.store.recover().expect("recovers").leases;
        leases.sort_by_key(|lease| lease.node);
        leases
    };
    assert_eq!(of(bench), []);
    bench.commit(ground());
    bench.commit(workflow_batch(2));
    let all = [lease(5, 1), lease(7, 2), lease(9, 1)];
    bench.commit(Batch { leases: all.map(|lease| (lease, true)).to_vec(), ..Batch::default() });
    assert_eq!(of(bench), all);
    bench.commit(Batch { leases: vec![(all[0], false)], ..Batch::default() });
    assert_eq!(of(bench), all[1..]);
    // Begun and over within one batch.
    bench.commit(Batch { leases: vec![(all[0], true), (all[0], false)], ..Batch::default() });
    assert_eq!(of(bench), all[1..]);
    bench.commit(Batch { workflows_deleted: vec![W], ..Batch::default() });
    assert_eq!(of(bench), [all[1]]);
}

fn jobs_of_a_node_are_found<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    let held = |bench: &mut Bench<S, R>, node| match bench.read(Read::Held(NodeId(node))) {
        Rows::Held(jobs) => jobs.into_iter().map(|job| job.0).collect::<BTreeSet<i64>>(),
        other => panic!("jobs of a node were asked for: {other:?}"),
    };
    let on = |id, node| JobRow { state: JobState::Running, node: Some(NodeId(node)), ..job_row(id, 0) };
    bench.commit(ground());
    bench.commit(create([on(1, 5), on(2, 7), on(3, 5), job_row(4, 0)]));
    assert_eq!(held(bench, 5), BTreeSet::from([1, 3]));
    bench.commit(change([job_row(1, 0), on(4, 5), on(2, 8)]));
    assert_eq!(held(bench, 5), BTreeSet::from([3, 4]));
    assert_eq!(held(bench, 7), BTreeSet::new());
    assert_eq!(held(bench, 8), BTreeSet::from([2]));
}

fn the_same_batch_again<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let batch = Batch {
        lsn: bench.lsn.next(),
        statements: vec![insert(Table::Event, [row(Table::Event, 1, 1)])],
        appends: vec![(Table::Result, row(Table::Result, 1, 1))],
        edges: Edges::between(vec![(JobId(2), JobId(1))]),
        ..create([job_row(1, 0), job_row(2, 0)])
    };
    bench.lsn = batch.lsn;
    assert_eq!(bench.store.commit(&batch).expect("commits"), [StatementOutcome::Inserted]);
    let before = bench.read(Read::Graph(W));
    assert_eq!(bench.store.commit(&batch).expect("is a no-op"), [StatementOutcome::Inserted]);
    assert_eq!(bench.read(Read::Graph(W)), before);
}

fn an_older_batch_again<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let old = Batch { lsn: Lsn(2), ..create([job_row(1, 0)]) };
    bench.commit(old.clone());
    let running = JobRow { state: JobState::Claimed, ..job_row(1, 0) };
    bench.commit(change([running]));
    bench.store.commit(&old).expect("is a no-op");
    assert_eq!(bench.read(Read::Jobs(vec![JobId(1)])), Rows::Jobs(vec![running]));
}

fn every_field_is_read_back<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let full = JobRow {
        id: JobId(1 << 40),
        workflow: W,
        lane: LANE,
        state: JobState::Running,
        priority: i64::MAX,
        attempt: 77,
        flags: JobFlags(7),
        node: Some(NodeId(5)),
        grant: Grant(12),
        started_at: Some(Timestamp(1_700_000_000_123)),
        due_at: Some(Timestamp(i64::MAX)),
        result: Some(ResultId(9)),
        tries: Tries { failures: 3, losses: u16::MAX },
        policy: Some(POLICY),
        expires_at: Some(Timestamp(7)),
    };
    let rows: Vec<JobRow> =
        STATE_LIST.iter().zip(1..).map(|(&state, id)| JobRow { state, ..job_row(id, id) }).chain([full]).collect();
    bench.commit(create(rows.clone()));
    let ids: Vec<JobId> = rows.iter().map(|row| row.id).collect();
    let Rows::Jobs(mut read) = bench.read(Read::Jobs(ids)) else { panic!("jobs were asked for") };
    read.sort_by_key(|row| row.id);
    assert_eq!(read, rows);
    let tries = Tries::default();
    let bare = JobRow { node: None, started_at: None, due_at: None, result: None, attempt: 78, tries, ..full };
    bench.commit(change([bare]));
    assert_eq!(bench.reader.job(full.id).expect("reads").map(|view| view.row), Some(bare));
    let claimed = JobRow { state: JobState::Claimed, flags: JobFlags(2), grant: Grant(13), ..bare };
    let started = JobRow { state: JobState::Running, node: Some(NodeId(6)), started_at: Some(Timestamp(8)), ..claimed };
    for (row, extent) in [(claimed, Extent::Step), (started, Extent::Node)] {
        bench.commit(Batch { jobs: vec![JobWrite { row, extent }], ..Batch::default() });
        assert_eq!(bench.reader.job(full.id).expect("reads").map(|view| view.row), Some(row));
    }
}

fn a_workflow_is_read<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    bench.commit(workflow_batch(2));
    let labels = LabelSet::new(["gpu".into(), "größe 2, \"x\"".into()]);
    let lane = LaneRow { labels, scheduler: Some(SchedulerId(4)), ..lane_row(3, 1) };
    let row = WorkflowRow {
        run: 3,
        canceled: true,
        archived: true,
        endless: false,
        paused: false,
        has_edges: true,
        march: Some(March::Create { from: JobId(9) }),
        graph_bytes: 5_000,
        lanes: 7,
        counts: std::array::from_fn(|n| n as i64 * 1000),
        ..workflow_row(1)
    };
    let needs = forebay_domain::claim::Needs { gpus: 2, nodes: 4, ..NEEDS };
    bench.commit(Batch {
        workflows: vec![row],
        lanes: vec![lane.clone()],
        requirements: vec![(W, RequirementId(8), NEEDS), (W, RequirementId(1), needs)],
        ..create([job_row(1, 0)])
    });
    let Rows::Workflow(Some(read)) = bench.read(Read::Workflow(W)) else { panic!("it is there") };
    let WorkflowRows { row: read_row, mut requirements, mut lanes, lane_states } = *read;
    requirements.sort_by_key(|&(id, _)| id);
    lanes.sort_by_key(|(lane, _)| lane.id);
    assert_eq!(read_row, row);
    assert_eq!(requirements, [(RequirementId(1), needs), (RequirementId(8), NEEDS)]);
    assert_eq!(lanes, [(lane_row(1, 1), true), (lane, false)]);
    assert_eq!(lane_states, []);
    let state = |lane, held, paused| LaneState { lane: LaneId(lane), held, paused };
    let lane_states = vec![state(1, 2, false), state(2, 9, true)];
    bench.commit(Batch { lane_states, ..Batch::default() });
    bench.commit(Batch { lane_states: vec![state(1, 1, true)], ..Batch::default() });
    let Rows::Workflow(Some(read)) = bench.read(Read::Workflow(W)) else { panic!("it is there") };
    assert_eq!(read.lane_states, [state(1, 1, true)]);
    assert_eq!(bench.reader.workflow(W).expect("reads"), Some(row));
    let listed = bench.reader.workflows(&[WorkflowId(2), WorkflowId(9), W]).expect("reads");
    assert_eq!(listed, [workflow_row(2), row]);
    let second = WorkflowRow { graph_bytes: 30, lanes: 2, ..workflow_row(2) };
    bench.commit(Batch { workflows: vec![second], ..Batch::default() });
    let recovered = bench.store.recover().expect("recovers");
    assert_eq!((recovered.graph_bytes, recovered.lanes), (5_030, 9), "of all workflows");
}

fn a_task_is_found<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let endless = WorkflowRow { endless: true, paused: true, run: -1, ..workflow_row(2) };
    bench.commit(Batch {
        workflows: vec![endless],
        lanes: vec![lane_row(2, 2)],
        requirements: vec![(endless.id, RequirementId(2), NEEDS)],
        statements: vec![insert(Table::Application, [row(Table::Application, 1, 2)])],
        ..Batch::default()
    });
    let task = |id| JobRow { workflow: endless.id, lane: LaneId(2), ..job_row(id, 0) };
    let detail_of = |id: i64, name| detail(&task(id), name, b"payload");
    let details = vec![detail_of(1, "a"), detail_of(2, "b"), detail_of(3, "b")];
    bench.commit(Batch { details, ..create([task(1), task(2), task(3)]) });
    bench.commit(create([job_row(4, 0)]));
    let named = |bench: &mut Bench<S, R>, workflow, name: &str| {
        let found = bench.reader.task(&TaskName::Named { workflow, name: name.into() }).expect("reads");
        found.map(|view| (view.row.id.0, view.payload.len()))
    };
    let by_id = |bench: &mut Bench<S, R>, id| {
        let found = bench.reader.task(&TaskName::Job(JobId(id))).expect("reads");
        found.map(|view| view.name.to_string())
    };
    assert_eq!(named(bench, endless.id, "a"), Some((1, 7)));
    assert_eq!(named(bench, endless.id, "b"), Some((2, 7)));
    assert_eq!(named(bench, endless.id, "c"), None);
    assert_eq!(named(bench, W, "job-4"), None);
    assert_eq!((by_id(bench, 2), by_id(bench, 4)), (Some("b".to_owned()), None));
    // Who asks for jobs and workflows does not see them.
    assert_eq!(bench.reader.job(JobId(1)).expect("reads"), None);
    assert_eq!(bench.reader.workflow(endless.id).expect("reads"), None);
    assert_eq!(bench.reader.workflows(&[endless.id]).expect("reads"), [endless]);
    // Also one that is new in the same batch.
    bench.commit(Batch { jobs_over: vec![JobId(2), JobId(5)], ..create([task(5)]) });
    assert_eq!(named(bench, endless.id, "b"), Some((3, 7)));
    assert_eq!((by_id(bench, 2), by_id(bench, 5)), (None, None));
    assert_eq!(bench.page(LaneId(2), None, 10), [1, 3]);
    let Rows::Payloads(left) = bench.read(Read::Payloads(vec![JobId(2), JobId(5)])) else { panic!("payloads") };
    assert_eq!(left, []);
}

fn totals_are_summed<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    assert_eq!(bench.reader.totals().expect("reads"), [0; STATES]);
    let counts = std::array::from_fn(|state| state as i64);
    let rows = [1, 2].map(|id| WorkflowRow { counts, ..workflow_row(id) });
    bench.commit(Batch { workflows: rows.into(), ..Batch::default() });
    assert_eq!(bench.reader.totals().expect("reads"), counts.map(|count| 2 * count));
}

fn a_page_is_in_order<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let rows = [job_row(1, 0), job_row(2, 5), job_row(3, 0), job_row(4, 5), job_row(5, 9), job_row(6, -1)];
    bench.commit(create(rows));
    bench.commit(Batch { lanes: vec![lane_row(2, 1)], ..create([JobRow { lane: LaneId(2), ..job_row(7, 7) }]) });
    assert_eq!(bench.page(LANE, None, 10), [5, 2, 4, 1, 3, 6]);
    assert_eq!(bench.page(LANE, None, 3), [5, 2, 4]);
    assert_eq!(bench.page(LANE, Some(&rows[3]), 2), [1, 3]);
    assert_eq!(bench.page(LANE, Some(&rows[2]), 10), [6]);
    assert_eq!(bench.page(LANE, Some(&job_row(9, 5)), 10), [1, 3, 6]);
    assert_eq!(bench.page(LANE, Some(&job_row(0, 0)), 1), [1]);
    assert_eq!(bench.page(LANE, Some(&rows[5]), 10), NONE);
    assert_eq!(bench.page(LaneId(2), None, 10), [7]);
    assert_eq!(bench.page(LaneId(3), None, 10), NONE);
}

fn a_page_follows_changes<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    bench.commit(Batch { lanes: vec![lane_row(2, 1)], ..create([job_row(1, 0), job_row(2, 0), job_row(3, 0)]) });
    bench.commit(change([job_row(3, 4)]));
    assert_eq!(bench.page(LANE, None, 10), [3, 1, 2]);
    bench.commit(change([JobRow { lane: LaneId(2), ..job_row(1, 0) }]));
    assert_eq!((bench.page(LANE, None, 10), bench.page(LaneId(2), None, 10)), (vec![3, 2], vec![1]));
    for state in STATE_LIST {
        bench.commit(change([JobRow { state, ..job_row(2, 0) }]));
        let expected: &[i64] = if state == JobState::Ready { &[3, 2] } else { &[3] };
        assert_eq!(bench.page(LANE, None, 10), expected, "{state:?}");
    }
}

fn a_page_leaves_out_large_payloads<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let rows = [job_row(1, 0), job_row(2, 0), job_row(3, 0)];
    let large: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let payloads: [&[u8]; 3] = [b"", b"\x00\xff12", &large];
    let details = rows.iter().zip(payloads).map(|(row, payload)| detail(row, "same name", payload)).collect();
    bench.commit(Batch { details, ..create(rows) });
    let page = Read::Page { lane: LANE, after: None, limit: 10, payload_max: 4 };
    let expected = vec![(rows[0], Some(payloads[0].into())), (rows[1], Some(payloads[1].into())), (rows[2], None)];
    assert_eq!(bench.read(page), Rows::Page(expected));
    let page = Read::Page { lane: LANE, after: None, limit: 1, payload_max: 0 };
    assert_eq!(bench.read(page), Rows::Page(vec![(rows[0], Some(payloads[0].into()))]));
    let all = bench.read(Read::Payloads(vec![JobId(3)]));
    assert_eq!(all, Rows::Payloads(vec![(JobId(3), large.as_slice().into())]));
}

fn jobs_are_read_by_id<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    bench.commit(create([job_row(1, 0), job_row(2, 0)]));
    let Rows::Jobs(mut rows) = bench.read(Read::Jobs(vec![JobId(2), JobId(9), JobId(1)])) else { panic!("jobs") };
    rows.sort_by_key(|row| row.id);
    assert_eq!(rows, [job_row(1, 0), job_row(2, 0)]);
    let Rows::Payloads(mut read) = bench.read(Read::Payloads(vec![JobId(9), JobId(2), JobId(1)])) else {
        panic!("payloads")
    };
    read.sort();
    assert_eq!(read, [(JobId(1), b"1".as_slice().into()), (JobId(2), b"2".as_slice().into())]);
    assert_eq!(bench.read(Read::Jobs(vec![])), Rows::Jobs(vec![]));
    let names = bench.reader.job_names(&[JobId(2), JobId(9), JobId(1)]).expect("reads");
    assert_eq!(names, [(JobId(2), "job-2".into()), (JobId(1), "job-1".into())]);
}

fn a_graph_is_whole<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    use RelationKind::*;
    bench.commit(ground());
    bench.commit(workflow_batch(2));
    let rows: Vec<JobRow> = (1..=5).map(|id| job_row(id, 0)).collect();
    let other = JobRow { workflow: WorkflowId(2), lane: LaneId(2), ..job_row(6, 0) };
    let j = JobId;
    let batch = create(rows.iter().copied().chain([other]));
    bench.commit(Batch {
        edges: Edges::between(vec![(j(2), j(1)), (j(3), j(1)), (j(3), j(2))]),
        relations: vec![
            (j(1), OutputFile, 7),
            (j(2), InputFile, 7),
            (j(4), InputFile, 7),
            (j(4), OutputFile, 7),
            (j(1), OutputUserData, 7),
            (j(4), InputUserData, 7),
            (j(3), OutputUserData, 8),
            (j(5), InputFile, 8),
        ],
        ..batch
    });
    let Rows::Graph(graph) = bench.read(Read::Graph(W)) else { panic!("a graph was asked for") };
    let GraphRows { jobs, mut edges, mut implied } = *graph;
    edges.sort();
    implied.sort_unstable();
    assert_eq!(jobs, rows);
    assert_eq!(edges, Edges::between(vec![(j(2), j(1)), (j(3), j(1)), (j(3), j(2))]));
    // 2 depends on 4 too: both write what it reads. 4 does not depend on itself.
    assert_eq!(implied, [(j(2), j(1)), (j(2), j(4)), (j(4), j(1))]);
    let mut relations = bench.reader.relations(W).expect("reads");
    relations.sort_unstable();
    assert_eq!(relations.len(), 8);
    assert_eq!(relations[0], (j(1), OutputFile, 7));
    assert_eq!(bench.reader.relations(WorkflowId(2)).expect("reads"), []);
    // What ties jobs to a row goes with the row.
    let statements = vec![
        Statement::Delete { table: Table::File, id: 7 },
        Statement::DeleteAll { table: Table::UserData, workflow: W },
        Statement::Delete { table: Table::Node, id: 8 },
    ];
    bench.commit(Batch { statements, ..Batch::default() });
    assert_eq!(bench.reader.relations(W).expect("reads"), [(j(5), InputFile, 8)]);
}

fn edges_are_replaced<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let barrier = BarrierId(3);
    let edges = Edges {
        direct: vec![(JobId(2), JobId(1)), (JobId(5), JobId(1))],
        barriers: vec![(barrier, JobId(1)), (barrier, JobId(2))],
        members: vec![(JobId(3), barrier), (JobId(4), barrier)],
    };
    bench.commit(Batch { edges, ..create((1..=5).map(|id| job_row(id, 0))) });
    let cut =
        |jobs: &[i64], edges| Batch { edges_cut: jobs.iter().copied().map(JobId).collect(), edges, ..Batch::default() };
    let graph = |bench: &mut Bench<S, R>| match bench.read(Read::Graph(W)) {
        Rows::Graph(graph) => graph.edges,
        other => panic!("a graph was asked for, not {other:?}"),
    };
    bench.commit(cut(&[2, 3], Edges::between(vec![(JobId(3), JobId(2))])));
    let left = graph(bench);
    assert_eq!(left.direct, [(JobId(3), JobId(2)), (JobId(5), JobId(1))]);
    assert_eq!((left.members.len(), left.barriers.len()), (1, 2));
    bench.commit(cut(&[4], Edges::default()));
    let left = graph(bench);
    assert_eq!((left.direct.len(), left.members, left.barriers), (2, vec![], vec![]));
}

fn repeats_are_harmless<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let rows = [job_row(1, 0), job_row(2, 0)];
    bench.commit(Batch { edges: Edges::between(vec![(JobId(2), JobId(1))]), ..create(rows) });
    bench.commit(Batch {
        edges: Edges::between(vec![(JobId(2), JobId(1))]),
        details: vec![detail(&rows[0], "renamed", b"new")],
        ..Batch::default()
    });
    let Rows::Graph(graph) = bench.read(Read::Graph(W)) else { panic!("a graph was asked for") };
    assert_eq!(graph.edges, Edges::between(vec![(JobId(2), JobId(1))]));
    let view = bench.reader.job(JobId(1)).expect("reads").expect("is there");
    assert_eq!((&*view.name, &*view.payload), ("renamed", b"new".as_slice()));
}

fn jobs_wait_at_a_barrier<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let rows = [1, 2, 3, 4, 5].map(|id| job_row(id, 0));
    let barrier = BarrierId(3);
    let edges = Edges {
        direct: vec![(JobId(5), JobId(4))],
        barriers: vec![(barrier, JobId(1)), (barrier, JobId(2))],
        members: vec![(JobId(3), barrier), (JobId(4), barrier)],
    };
    bench.commit(Batch { edges: edges.clone(), ..create(rows) });
    let Rows::Graph(graph) = bench.read(Read::Graph(W)) else { panic!("a graph was asked for") };
    assert_eq!(graph.edges, edges);
    let pairs = |of: &[(i64, i64)]| of.iter().map(|&(job, on)| (JobId(job), JobId(on))).collect::<Vec<_>>();
    let (page, total) =
        bench.reader.dependencies(W, Paging { offset: 1, limit: 3, sort_by: None, reverse: false }).expect("reads");
    let page: Vec<_> = page.iter().map(|edge| (edge.job, edge.depends_on)).collect();
    assert_eq!((page, total), (pairs(&[(3, 2), (4, 1), (4, 2)]), 5));
    assert_eq!(bench.reader.prerequisites(&[JobId(4)]).expect("reads"), pairs(&[(4, 1), (4, 2)]));
    let behind = JobQuery { upstream: Some(JobId(2)), ..JobQuery::of(W, 0, 10) };
    let (jobs, _) = bench.reader.jobs(&behind).expect("reads");
    assert_eq!(jobs.iter().map(|job| job.row.id).collect::<Vec<_>>(), [JobId(3), JobId(4)]);

    bench.commit(Batch { jobs_deleted: vec![JobId(1), JobId(3)], ..Batch::default() });
    assert_eq!(bench.reader.prerequisites(&[JobId(4)]).expect("reads"), pairs(&[(4, 2)]));
    bench.commit(Batch { jobs_deleted: vec![JobId(4)], ..Batch::default() });
    let Rows::Graph(graph) = bench.read(Read::Graph(W)) else { panic!("a graph was asked for") };
    assert_eq!(graph.edges, Edges::default(), "a barrier goes with the last who waits");
}

fn a_deleted_job_takes_all<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let rows = [job_row(1, 0), job_row(2, 0), job_row(3, 0)];
    let result = |id, job| with(Table::Result, row(Table::Result, id, 1), "job_id", Value::Int(job));
    bench.commit(Batch {
        edges: Edges::between(vec![(JobId(2), JobId(1)), (JobId(3), JobId(2)), (JobId(3), JobId(1))]),
        relations: vec![(JobId(2), RelationKind::InputFile, 1), (JobId(3), RelationKind::InputFile, 1)],
        appends: vec![(Table::Result, result(1, 2)), (Table::Result, result(2, 3))],
        ..create(rows)
    });
    bench.commit(Batch { jobs_deleted: vec![JobId(2)], ..Batch::default() });
    let Rows::Graph(graph) = bench.read(Read::Graph(W)) else { panic!("a graph was asked for") };
    assert_eq!((graph.jobs, graph.edges), (vec![rows[0], rows[2]], Edges::between(vec![(JobId(3), JobId(1))])));
    assert_eq!(bench.page(LANE, None, 10), [1, 3]);
    assert_eq!(bench.reader.job(JobId(2)).expect("reads"), None);
    assert_eq!(bench.read(Read::Payloads(vec![JobId(2)])), Rows::Payloads(vec![]));
    assert_eq!(bench.reader.relations(W).expect("reads"), [(JobId(3), RelationKind::InputFile, 1)]);
    assert_eq!(bench.reader.list(&everything(Table::Result)).expect("reads").0, [result(2, 3)]);
}

fn dependents_are_read<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let done = JobRow { state: JobState::Completed, ..job_row(1, 0) };
    let waiting = |id| JobRow { state: JobState::Blocked, ..job_row(id, 0) };
    bench.commit(Batch {
        edges: Edges::between(vec![
            (JobId(3), JobId(1)),
            (JobId(4), JobId(1)),
            (JobId(4), JobId(2)),
            (JobId(5), JobId(2)),
        ]),
        ..create([done, job_row(2, 0), waiting(3), waiting(4), waiting(5)])
    });
    let mut read = |after: Option<i64>, limit| {
        let what = Read::Dependents { job: JobId(1), after: after.map(JobId), limit };
        let Rows::Dependents(found) = bench.read(what) else { panic!("dependents were asked for") };
        assert_eq!(found.of, Some(done));
        found.rows
    };
    let met = (JobId(1), JobState::Completed);
    let third = (waiting(3), vec![met]);
    let fourth = (waiting(4), vec![met, (JobId(2), JobState::Ready)]);
    assert_eq!(read(None, 10), [third.clone(), fourth.clone()]);
    assert_eq!(read(None, 1), [third]);
    assert_eq!(read(Some(3), 1), [fourth]);
    assert_eq!(read(Some(4), 1), []);
    let none = Read::Dependents { job: JobId(9), after: None, limit: 9 };
    assert_eq!(bench.read(none), Rows::Dependents(Dependents { of: None, rows: vec![] }));
}

fn a_deleted_workflow_takes_all<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    bench.commit(workflow_batch(2));
    let other = JobRow { workflow: WorkflowId(2), lane: LaneId(2), ..job_row(3, 0) };
    let tables: Vec<Table> =
        TABLES.into_iter().filter(|t| !matches!(t, Table::Workflow | Table::Requirement)).collect();
    bench.commit(Batch {
        edges: Edges::between(vec![(JobId(2), JobId(1))]),
        relations: vec![(JobId(2), RelationKind::OutputUserData, 1)],
        statements: tables.iter().map(|&t| insert(t, [row(t, 11, 1), row(t, 12, 2)])).collect(),
        ..create([job_row(1, 0), job_row(2, 0), other])
    });
    bench.commit(Batch { workflows_deleted: vec![W], ..Batch::default() });
    assert_eq!(bench.read(Read::Workflow(W)), Rows::Workflow(None));
    assert_eq!(bench.read(Read::Graph(W)), Rows::Graph(Box::default()));
    assert_eq!(bench.read(Read::Jobs(vec![JobId(1), JobId(2), JobId(3)])), Rows::Jobs(vec![other]));
    assert_eq!((bench.page(LANE, None, 10), bench.page(LaneId(2), None, 10)), (vec![], vec![3]));
    for table in TABLES {
        let (rows, total) = bench.reader.list(&everything(table)).expect("reads");
        let of_other = if matches!(table, Table::Workflow | Table::Requirement) { 2 } else { 12 };
        assert_eq!((rows, total), (vec![row(table, of_other, 2)], 1), "{table:?}");
    }
}

fn a_list_of_jobs<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let node = Some(NodeId(4));
    let rows = [
        job_row(1, 5),
        JobRow { state: JobState::Running, node, ..job_row(2, 1) },
        JobRow { state: JobState::Blocked, lane: LaneId(2), ..job_row(3, 5) },
        JobRow { state: JobState::Running, node, ..job_row(4, 0) },
    ];
    let names = ["b", "a", "c", "a"];
    let payloads = [r#"{"command":"echo one"}"#, r#"{"command":"sleep 100%"}"#, r#"{"x":"echo"}"#, "{}"];
    let details =
        rows.iter().enumerate().map(|(n, row)| detail(row, names[n], payloads[n].as_bytes())).collect::<Vec<_>>();
    bench.commit(Batch {
        lanes: vec![lane_row(2, 1)],
        details: details.clone(),
        edges: Edges::between(vec![(JobId(3), JobId(1)), (JobId(4), JobId(1)), (JobId(4), JobId(2))]),
        relations: vec![(JobId(2), RelationKind::InputFile, 6), (JobId(3), RelationKind::OutputFile, 6)],
        jobs: rows.iter().map(|&row| JobWrite { row, extent: Extent::New }).collect(),
        ..Batch::default()
    });
    let base = JobQuery::of(W, 0, 100);
    let mut ask = |change: &dyn Fn(&mut JobQuery)| {
        let mut query = base.clone();
        change(&mut query);
        let (views, total) = bench.reader.jobs(&query).expect("reads");
        for view in &views {
            let n = view.row.id.0 as usize - 1;
            assert_eq!((view.row, &view.name, &view.payload), (rows[n], &details[n].name, &details[n].payload));
        }
        (views.iter().map(|view| view.row.id.0).collect::<Vec<_>>(), total)
    };
    assert_eq!(ask(&|_| ()), (vec![1, 2, 3, 4], 4));
    assert_eq!(ask(&|q| q.reverse = true), (vec![4, 3, 2, 1], 4));
    assert_eq!(ask(&|q| (q.offset, q.limit) = (1, 2)), (vec![2, 3], 4));
    assert_eq!(ask(&|q| q.offset = 9), (vec![], 4));
    assert_eq!(ask(&|q| q.state = Some(JobState::Running)), (vec![2, 4], 2));
    assert_eq!(ask(&|q| q.name = Some("a".into())), (vec![2, 4], 2));
    assert_eq!(ask(&|q| q.command = Some("echo".into())), (vec![1], 1));
    assert_eq!(ask(&|q| q.command = Some("100%".into())), (vec![2], 1));
    assert_eq!(ask(&|q| q.command = Some("%".into())), (vec![2], 1));
    assert_eq!(ask(&|q| q.node = node), (vec![2, 4], 2));
    assert_eq!(ask(&|q| q.upstream = Some(JobId(1))), (vec![3, 4], 2));
    assert_eq!(ask(&|q| q.needs_file = Some(6)), (vec![2], 1));
    assert_eq!(ask(&|q| q.lanes = Some(vec![LaneId(2), LaneId(3)])), (vec![3], 1));
    assert_eq!(ask(&|q| q.lanes = Some(vec![])), (vec![], 0));
    assert_eq!(ask(&|q| (q.upstream, q.node) = (Some(JobId(1)), node)), (vec![4], 1));
    assert_eq!(ask(&|q| q.sort = JobSort::Name), (vec![2, 4, 1, 3], 4));
    assert_eq!(ask(&|q| q.sort = JobSort::State), (vec![3, 1, 2, 4], 4));
    assert_eq!(ask(&|q| q.sort = JobSort::Priority), (vec![4, 2, 1, 3], 4));
    assert_eq!(ask(&|q| q.workflow = WorkflowId(2)), (vec![], 0));
}

fn dependencies_are_listed<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let edges = [(2, 1), (3, 1), (3, 2), (4, 3)].map(|(job, on)| (JobId(job), JobId(on)));
    bench.commit(Batch { edges: Edges::between(edges.to_vec()), ..create((1..=4).map(|id| job_row(id, 0))) });
    let paging = Paging { offset: 1, limit: 2, sort_by: None, reverse: false };
    let (listed, total) = bench.reader.dependencies(W, paging).expect("reads");
    assert_eq!(total, 4);
    assert_eq!(listed.iter().map(|d| (d.job, d.depends_on)).collect::<Vec<_>>(), edges[1..3]);
    assert_eq!((&*listed[1].job_name, &*listed[1].depends_on_name), ("job-3", "job-2"));
    let mut of = bench.reader.prerequisites(&[JobId(3), JobId(1), JobId(2)]).expect("reads");
    of.sort_unstable();
    assert_eq!(of, edges[..3]);
    assert_eq!(bench.reader.dependencies(WorkflowId(2), paging).expect("reads"), (vec![], 0));
}

fn latest_results_are_listed<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    bench.commit(workflow_batch(2));
    let result = |id: i64, job, attempt| {
        let row = with(Table::Result, row(Table::Result, id, 1), "job_id", Value::Int(job));
        with(Table::Result, row, "attempt_id", Value::Int(attempt))
    };
    let all = [result(1, 1, 1), result(2, 2, 1), result(3, 1, 2)];
    let done = |id, result| JobRow { state: JobState::Completed, result: Some(ResultId(result)), ..job_row(id, 0) };
    bench.commit(Batch {
        appends: all.iter().map(|row| (Table::Result, row.clone())).collect(),
        ..create([done(1, 3), done(2, 2), job_row(3, 0)])
    });
    let mut query = everything(Table::Result);
    query.filters.push((1, Match::Equal(Value::Int(1))));
    let latest = bench.reader.latest_results(&query).expect("reads");
    assert_eq!(latest, (vec![all[1].clone(), all[2].clone()], 2));
    query.filters.push((place(Table::Result, "attempt_id"), Match::Equal(Value::Int(2))));
    assert_eq!(bench.reader.latest_results(&query).expect("reads"), (vec![all[2].clone()], 1));
}

fn everything(table: Table) -> Query {
    Query { table, filters: vec![], paging: Paging { offset: 0, limit: 1000, sort_by: None, reverse: false } }
}
