use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use rusqlite::Connection;
use rusqlite::hooks::{AuthContext, Authorization};
use serde_json::json;

use super::*;

fn checked(expression: &str) -> String {
    Query::from(expression).check().unwrap_or_else(|error| panic!("{error}"))
}

fn refused(expression: &str) -> String {
    match Query::from(expression).check() {
        Ok(sql) => panic!("{expression:?} became {sql:?}"),
        Err(error) => error.what.into_owned(),
    }
}

#[test]
fn the_originals_own_examples_are_queries() {
    assert_eq!(checked("true"), "TRUE");
    assert_eq!(checked("j.state = json('[\"created\"]')"), "(j.state = (json(?1)))");
    assert_eq!(checked("json_extract(state, '$[0]') = 'created'"), "((json_extract(j.state, '$[0]')) = ?1)");
}

#[test]
fn terms_of_a_list_must_all_hold() {
    let query = Query::from(&["id > 1", "modified < 10 or false"][..]);
    assert_eq!(query.check().expect("a query"), "(j.id > ?1) AND ((j.modified < ?2) OR FALSE)");
    assert_eq!(Query::all().check().expect("a query"), "TRUE");
}

#[test]
fn precedence_is_sqlites() {
    let cases = [
        ("1 + 2 * 3 = 7 and not 1 > 2 or 0", "((((1 + (2 * 3)) = ?1) AND (NOT (?2 > ?3))) OR 0)"),
        ("id in (1, 2) is not null", "((j.id IN (?1, ?2)) IS NOT NULL)"),
        ("id not between 1 and 2 and true", "((j.id NOT BETWEEN ?1 AND ?2) AND TRUE)"),
        ("state ->> '$[0]' || 'x' = 'ax'", "(((j.state ->> '$[0]') || 'x') = ?1)"),
        ("-id < - 5", "((- j.id) < ?1)"),
        ("id = 1 = 1", "((j.id = ?1) = ?2)"),
        ("1 | 2 < 3", "((1 | 2) < ?1)"),
    ];
    for (expression, sql) in cases {
        assert_eq!(checked(expression), sql, "{expression}");
    }
}

#[test]
fn identifiers_may_be_quoted_and_a_double_quoted_stranger_is_a_string() {
    assert_eq!(checked("`state` IS [j].\"id\""), "(j.state IS j.id)");
    assert_eq!(checked("state = \"created\""), "(j.state = ?1)");
}

#[test]
fn more_than_one_expression_is_refused() {
    for expression in [
        "true; drop table job",
        "true) or (true",
        "id in (select 1)",
        "exists (select 1)",
        "(select 1)",
        "1 union select 2",
        "true limit 1",
        "true order by id",
        "id = ?1",
        "id = :id",
        "id = @id",
        "true -- and more",
        "true /* and more",
        "sqlite_master.name = 'x'",
        "job.id = 1",
        "name = 'x'",
        "load_extension('x')",
        "readfile('/etc/passwd')",
        "zeroblob(1000000000)",
        "randomblob(1000000000)",
        "printf('%1000000000d', 1)",
        "fts5(1)",
        "count(*) = 1",
        "max(id) = 1",
        "raise(ignore)",
        "id match 'x'",
        "id collate other = 1",
        "cast(id as other) = 1",
        "case end",
        "",
        "'unended",
        "1e999",
        "12abc",
        "x'0'",
        "json_extract(state, '$') over ()",
        "json('1') filter (where true)",
        "pragma journal_mode",
        "attach 'x' as y",
    ] {
        refused(expression);
    }
}

#[test]
fn only_like_has_an_escape() {
    checked("payload like 'a!%' escape '!'");
    checked("payload not like 'a!%' escape '!'");
    // SQLite would not prepare it.
    refused("payload glob 'a!*' escape '!'");
    refused("payload not glob 'a!*' escape '!'");
}

#[test]
fn what_is_too_deep_or_too_large_is_refused() {
    assert_eq!(refused(&"(".repeat(5_000)), "the expression is too large");
    assert_eq!(refused(&"(".repeat(500)), "the expression is too deep");
    assert_eq!(refused(&"not ".repeat(500)), "the expression is too deep");
    assert_eq!(refused(&"- ".repeat(500)), "the expression is too deep");
    assert_eq!(refused(&format!("1{}", "+1".repeat(500))), "the expression is too deep");
    assert_eq!(refused(&"a".repeat(100_000)), "the text is too long");
    checked(&format!("1{}", " or 1".repeat(900)));
}

#[test]
fn the_least_integer_is_an_integer() {
    let compiled = Query::from("id > -9223372036854775808").compile().expect("a query");
    assert_eq!(compiled.sql, "(j.id > ?1)");
    refused("-");
}

#[test]
fn triples_compare_plain_values() {
    let query = |triple| Query::from_value(&json!([triple])).and_then(|query| query.check());
    assert_eq!(
        query(json!(["IS", "json_extract(state, '$[0]')", "CREATED"])).expect("a query"),
        "((json_extract(j.state, '$[0]')) IS ?1)"
    );
    assert_eq!(query(json!(["is not", "id", null])).expect("a query"), "(j.id IS NOT NULL)");
    assert_eq!(query(json!(["LIKE", "payload", "%x%"])).expect("a query"), "(j.payload LIKE ?1)");
    assert!(query(json!(["; drop", "id", 1])).is_err());
    assert!(query(json!(["=", "id; drop", 1])).is_err());
    assert!(query(json!(["=", "id"])).is_err());
    assert!(query(json!(7)).is_err());
    assert!(Query::from_value(&json!({"a": 1})).is_err());
}

#[test]
fn a_json_column_is_compared_as_json() {
    let compiled =
        Query::from_value(&json!([["IS", "j.state", null]])).and_then(|query| query.compile()).expect("a query");
    assert_eq!(compiled.sql, "(j.state IS ?1)");
    let expected = Query::from("j.state IS 'null'").compile().expect("a query");
    assert_eq!(compiled.values, expected.values);
}

#[test]
fn a_comparison_of_the_state_with_a_constant_can_have_an_index() {
    let index = |expression: &str| Query::from(expression).compile().expect("a query").index;
    let tag = Some("(json_extract(state, '$[0]'))".to_owned());
    assert_eq!(index("json_extract(j.state, '$[0]') = 'created'"), tag);
    assert_eq!(index("id > 1 and 'created' is json_extract(state, '$[0]')"), tag);
    assert_eq!(index("state = json('[\"created\"]')"), Some("state".to_owned()));
    assert_eq!(index("state ->> 0 = 'x'"), Some("(state ->> 0)".to_owned()));
    for none in ["true", "state = payload", "id = 1", "json_extract(state, payload) = 1", "state > 1"] {
        assert_eq!(index(none), None, "{none}");
    }
}

/// A database that counts what is more than reading `job`.
fn guarded() -> (Connection, Arc<Mutex<Vec<String>>>) {
    let mut db = Connection::open_in_memory().expect("memory");
    db.execute_batch(
        "CREATE TABLE job (id INTEGER PRIMARY KEY, payload TEXT, events TEXT, state TEXT, \
         modified INTEGER)",
    )
    .expect("a table");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&seen);
    db.authorizer(Some(move |context: AuthContext<'_>| {
        use rusqlite::hooks::AuthAction::{Function, Read, Select};
        match context.action {
            Select | Read { table_name: "job", .. } => {}
            Function { function_name } if is_known_function(function_name) => {}
            other => hook.lock().expect("no panic").push(format!("{other:?}")),
        }
        Authorization::Allow
    }))
    .expect("an authorizer");
    (db, seen)
}

fn expressions() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "id",
        "j.state",
        "payload",
        "'x'",
        "1",
        "2.5",
        "null",
        "true",
        "(",
        ")",
        "=",
        "<",
        "and",
        "or",
        "not",
        "is",
        "in",
        "like",
        "between",
        "json_extract(",
        "json(",
        ",",
        "'$[0]'",
        "||",
        "->>",
        "case",
        "when",
        "then",
        "else",
        "end",
        "cast(",
        "as",
        "text",
        "collate",
        "nocase",
        "select",
        "from",
        "job",
        ";",
        "--",
        "\"",
        "'",
        "x'00'",
        "+",
        "-",
        "~",
        "escape",
        "?",
        "[",
        "]",
        "`",
        "\0",
        "é",
        "isnull",
        "0x1f",
        "1e3",
        "glob",
        "distinct",
        "max(",
        "union",
    ]);
    prop::collection::vec(words, 0..14).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_text_is_refused_or_reads_only_jobs(expression in prop_oneof![expressions(), ".{0,40}"]) {
        let Ok(compiled) = Query::from(expression.as_str()).compile() else { return Ok(()) };
        let (db, seen) = guarded();
        let sql = format!("SELECT id FROM job AS j WHERE {} LIMIT 1", compiled.sql);
        let prepared = db.prepare(&sql);
        prop_assert!(prepared.is_ok(), "{sql}: {prepared:?}");
        prop_assert!(prepared.expect("just checked").readonly());
        let seen = seen.lock().expect("no panic");
        prop_assert!(seen.is_empty(), "{sql}: {seen:?}");
    }
}
