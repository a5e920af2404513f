//! Checks of what is stored for people and runners and decides nothing.

use forebay_domain::batch::Batch;
use forebay_domain::catalog::{Match, Paging, Query, Statement, StatementOutcome, TABLES, Table, Value};
use forebay_domain::port::{Reader, Store};

use super::*;

pub(super) fn checks<S: Store, R: Reader>() -> Vec<Check<S, R>> {
    vec![
        ("a row of each table is read back as it was written", rows_are_read_back),
        ("statements answer what they did, in their order", statements_answer),
        ("a refused statement fails alone and whole", a_refused_statement_fails_alone),
        ("a list filters, sorts and pages", a_list_filters_sorts_and_pages),
        ("odd values survive", odd_values_survive),
    ]
}

fn rows_are_read_back<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    for table in TABLES {
        let rows = [row(table, 21, 1), row(table, 22, 1)];
        assert_eq!(
            bench.commit(Batch { statements: vec![insert(table, rows.clone())], ..Batch::default() }),
            [StatementOutcome::Inserted],
            "{table:?}"
        );
        assert_eq!(bench.reader.get(table, 22).expect("reads"), Some(rows[1].clone()));
        assert_eq!(bench.reader.get(table, 23).expect("reads"), None);
    }
    for table in [Table::Result, Table::Event] {
        bench.commit(Batch { appends: vec![(table, row(table, 31, 1))], ..Batch::default() });
        assert_eq!(bench.reader.get(table, 31).expect("reads"), Some(row(table, 31, 1)));
    }
}

fn statements_answer<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    use StatementOutcome::{Count, Inserted, Row};
    bench.commit(ground());
    bench.commit(workflow_batch(2));
    let t = Table::File;
    let path = place(t, "path");
    let changed = with(t, row(t, 2, 1), "path", text("elsewhere"));
    let statements = vec![
        insert(t, [row(t, 1, 1), row(t, 2, 1), row(t, 3, 1), row(t, 4, 2)]),
        Statement::Update { table: t, id: 2, only_if: Vec::new(), set: vec![(path, text("elsewhere"))] },
        Statement::Update { table: t, id: 9, only_if: Vec::new(), set: vec![(path, text("nowhere"))] },
        Statement::Update { table: t, id: 2, only_if: Vec::new(), set: vec![] },
        Statement::Update { table: t, id: 2, only_if: vec![(path, text("nowhere"))], set: vec![(path, text("far"))] },
        Statement::Update { table: t, id: 2, only_if: vec![(path, text("nowhere"))], set: vec![] },
        Statement::Update {
            table: t,
            id: 2,
            only_if: vec![(path, text("elsewhere"))],
            set: vec![(path, text("elsewhere"))],
        },
        Statement::Delete { table: t, id: 2 },
        Statement::Delete { table: t, id: 2 },
        Statement::DeleteAll { table: t, workflow: W },
        Statement::DeleteAll { table: t, workflow: W },
    ];
    let outcomes = bench.commit(Batch { statements, ..Batch::default() });
    let expected = [
        Inserted,
        Row(Some(changed.clone())),
        Row(None),
        Row(Some(changed.clone())),
        Row(None),
        Row(None),
        Row(Some(changed.clone())),
        Row(Some(changed)),
        Row(None),
        Count(2),
        Count(0),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(list(bench, t, vec![], None, false), [4]);
}

fn a_refused_statement_fails_alone<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let t = Table::UserData;
    let statements = vec![
        insert(t, [row(t, 1, 1)]),
        insert(t, [row(t, 2, 1), row(t, 1, 1)]),
        Statement::Update { table: t, id: 1, only_if: Vec::new(), set: vec![(place(t, "name"), Value::Null)] },
        insert(t, [with(t, row(t, 3, 1), "name", Value::Null)]),
        insert(t, [row(t, 4, 1)]),
    ];
    let outcomes = bench.commit(Batch { statements, ..create([job_row(1, 0)]) });
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(matches!(outcome, StatementOutcome::Refused(_)), (1..4).contains(&n), "{n}: {outcome:?}");
    }
    assert_eq!(list(bench, t, vec![], None, false), [1, 4]);
    assert_eq!(bench.reader.get(t, 1).expect("reads"), Some(row(t, 1, 1)));
    assert_eq!(bench.page(LANE, None, 10), [1]);
}

fn a_list_filters_sorts_and_pages<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    bench.commit(workflow_batch(2));
    let t = Table::File;
    let file =
        |id, workflow, name: &str, mtime| with(t, with(t, row(t, id, workflow), "name", text(name)), "st_mtime", mtime);
    let rows = [
        file(1, 1, "Beta", Value::Real(2.5)),
        file(2, 1, "alpha", Value::Null),
        file(3, 2, "beta", Value::Real(1.5)),
        file(4, 1, "alphabet", Value::Real(0.5)),
        file(5, 1, "alpha", Value::Real(9.5)),
        file(6, 1, "100% _x", Value::Null),
    ];
    bench.commit(Batch { statements: vec![insert(t, rows)], ..Batch::default() });
    let (name, mtime) = (place(t, "name"), place(t, "st_mtime"));
    let first = (1, Match::Equal(Value::Int(1)));
    assert_eq!(list(bench, t, vec![], None, false), [1, 2, 3, 4, 5, 6]);
    assert_eq!(list(bench, t, vec![first.clone()], None, true), [6, 5, 4, 2, 1]);
    assert_eq!(list(bench, t, vec![(name, Match::Equal(text("alpha")))], None, false), [2, 5]);
    assert_eq!(list(bench, t, vec![first, (name, Match::Contains("BET".into()))], None, false), [1, 4]);
    assert_eq!(list(bench, t, vec![(name, Match::Contains("%".into()))], None, false), [6]);
    assert_eq!(list(bench, t, vec![(name, Match::Contains("0_".into()))], None, false), NONE);
    assert_eq!(list(bench, t, vec![(mtime, Match::Above(Value::Real(1.5)))], None, false), [1, 5]);
    assert_eq!(list(bench, t, vec![(0, Match::Above(Value::Int(4)))], None, false), [5, 6]);
    assert_eq!(list(bench, t, vec![], Some(name), false), [6, 1, 2, 5, 4, 3]);
    assert_eq!(list(bench, t, vec![(mtime, Match::Above(Value::Real(0.0)))], Some(mtime), false), [4, 3, 1, 5]);
    assert_eq!(list(bench, t, vec![(mtime, Match::Above(Value::Real(0.0)))], Some(mtime), true), [5, 1, 3, 4]);
    let paging = Paging { offset: 2, limit: 3, sort_by: Some(name), reverse: false };
    let (rows, total) = bench.reader.list(&Query { table: t, filters: vec![], paging }).expect("reads");
    assert_eq!((ids(&rows), total), (vec![2, 5, 4], 6));
    let paging = Paging { offset: 7, ..paging };
    let (rows, total) = bench.reader.list(&Query { table: t, filters: vec![], paging }).expect("reads");
    assert_eq!((ids(&rows), total), (vec![], 6));
}

fn odd_values_survive<S: Store, R: Reader>(bench: &mut Bench<S, R>) {
    bench.commit(ground());
    let t = Table::Node;
    let odd = |id, hostname: &str, pid, memory| {
        let row = with(t, row(t, id, 1), "hostname", text(hostname));
        with(t, with(t, row, "pid", Value::Int(pid)), "memory_gb", Value::Real(memory))
    };
    let rows = [
        odd(1, "", i64::MIN, 0.0),
        odd(2, "größe 東京 '\"; --", i64::MAX, 1e300),
        odd(3, &"x".repeat(70_000), 0, -0.1),
        odd(4, "12", 12, 3.0),
    ];
    bench.commit(Batch { statements: vec![insert(t, rows.clone())], ..Batch::default() });
    for (row, id) in rows.iter().zip(1..) {
        assert_eq!(bench.reader.get(t, id).expect("reads").as_ref(), Some(row));
    }
}

fn list<S: Store, R: Reader>(
    bench: &mut Bench<S, R>,
    table: Table,
    filters: Vec<(usize, Match)>,
    sort_by: Option<usize>,
    reverse: bool,
) -> Vec<i64> {
    let paging = Paging { offset: 0, limit: 1000, sort_by, reverse };
    let (rows, total) = bench.reader.list(&Query { table, filters, paging }).expect("reads");
    assert_eq!(rows.len() as u64, total);
    ids(&rows)
}

fn ids(rows: &[Row]) -> Vec<i64> {
    rows.iter()
        .map(|row| match row[0] {
            Value::Int(id) => id,
            ref other => panic!("an id is a whole number, not {other:?}"),
        })
        .collect()
}
