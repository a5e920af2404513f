//! How soon a server takes claims with many ready jobs in its database, and what it holds in memory; how
//! soon it listens after a kill with a long log, and with many names of tasks that are over.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use serde_json::json;

use crate::http::Http;
use crate::server::{Server, given_or_built, runtime};

/// Claims, of ten jobs each, before the memory is looked at: windows and caches have filled by then.
const CLAIMS: usize = 2_000;

/// Names of tasks that are over: as many as can gather, and as many that are going.
const NAMES: i64 = 2 * 65_536;

/// With each commit that ended any.
const NAMES_OF_COMMIT: i64 = 64;

/// `log`: how long the log is at the kill, in bytes.
pub fn run(ready: u64, log: u64, binary: Option<PathBuf>) -> anyhow::Result<()> {
    let binary = given_or_built(binary)?;
    let scratch = tempfile::tempdir_in(".")?;
    let db = scratch.path().join("start.db");
    let runtime = runtime()?;
    let server = Server::start(&binary, &db, "power")?;
    let workflow = runtime.block_on(one_ready_job(&server))?;
    server.stop()?;
    let began = Instant::now();
    multiply(&db, ready, |column| (column == "name").then(|| "t.name || '_' || n.id".to_owned()))?;
    let bytes = std::fs::metadata(&db)?.len();
    forget(&db)?;
    println!("{ready} ready jobs, {:.1} GB, made in {:.0} s", bytes as f64 / 1e9, began.elapsed().as_secs_f64());

    let began = Instant::now();
    let server = Server::start(&binary, &db, "power")?;
    let listening = began.elapsed();
    let claim = format!("/workflows/{workflow}/claim_next_jobs?limit=10");
    let (first, rate) = runtime.block_on(async {
        let mut http = Http::connect(server.address).await?;
        http.call("POST", &claim, None).await?;
        let first = began.elapsed();
        let since = Instant::now();
        for _ in 0..CLAIMS {
            let claimed = http.call("POST", &claim, None).await?;
            ensure!(claimed["jobs"].as_array().is_some_and(|jobs| jobs.len() == 10), "a claim found no jobs");
        }
        // A page of a list, as an operator looks at it.
        http.call("GET", &format!("/jobs?workflow_id={workflow}&limit=10000"), None).await?;
        anyhow::Ok((first, CLAIMS as f64 / since.elapsed().as_secs_f64()))
    })?;
    println!(
        "listens after {:.3} s, the first claim is answered after {:.3} s; resident {:.0} MB, at most {:.0} MB; \
         {rate:.0} claims of 10 jobs a second by one caller",
        listening.as_secs_f64(),
        first.as_secs_f64(),
        server.memory("VmRSS")? as f64 / 1e6,
        server.memory("VmHWM")? as f64 / 1e6,
    );
    let bytes = runtime.block_on(kill_with_a_long_log(server, &db, log))?;
    println!("killed with a log of {:.0} MB: listens after {:.3} s", bytes as f64 / 1e6, listens(&binary, &db)?);
    end_tasks(&db)?;
    println!("{NAMES} names of tasks that are over: listens after {:.3} s", listens(&binary, &db)?);
    Ok(())
}

/// Seconds until a server listens. It is stopped well.
fn listens(binary: &Path, db: &Path) -> anyhow::Result<f64> {
    let began = Instant::now();
    let server = Server::start(binary, db, "power")?;
    let listening = began.elapsed().as_secs_f64();
    server.stop()?;
    Ok(listening)
}

/// Creates jobs until the log is so long; how long it is.
async fn kill_with_a_long_log(server: Server, db: &Path, least: u64) -> anyhow::Result<u64> {
    // As long as somebody reads what was there before, the log does not begin anew.
    let reader = Connection::open(db)?;
    reader.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    reader.execute_batch("BEGIN")?;
    reader.query_row("SELECT count(*) FROM workflow", [], |_| Ok(()))?;
    let log = db.with_extension("db-wal");
    let mut http = Http::connect(server.address).await?;
    let workflow = http.call("POST", "/workflows", Some(json!({"name": "log", "user": "bench"}))).await?;
    let job = |n: u32| json!({"workflow_id": workflow["id"], "name": format!("job {n}"), "command": "x".repeat(1_000)});
    let mut created = 0;
    while std::fs::metadata(&log)?.len() < least {
        let jobs: Vec<_> = (created..created + 1_000).map(job).collect();
        http.call("POST", "/bulk_jobs", Some(json!({"jobs": jobs}))).await?;
        created += 1_000;
    }
    server.kill()?;
    drop(reader);
    forget(db)?;
    forget(&log)?;
    Ok(std::fs::metadata(&log)?.len())
}

/// Leaves as many names of tasks that are over as there can be, in the database of a server that was stopped.
fn end_tasks(db: &Path) -> anyhow::Result<()> {
    let db = Connection::open(db)?;
    db.execute_batch("PRAGMA synchronous = OFF")?;
    // 36 characters, as most have.
    db.execute(
        "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT ?1) \
         INSERT INTO gone_names (lsn, names) \
         SELECT -id, json_group_array(json_array(1, name, id)) \
         FROM (SELECT id, lower(hex(randomblob(16))) || '----' AS name FROM n) GROUP BY id / ?2",
        [NAMES, NAMES_OF_COMMIT],
    )?;
    db.execute_batch(
        "INSERT INTO job_name (workflow_id, name, job_id) \
         SELECT e.value ->> 0, e.value ->> 1, e.value ->> 2 FROM gone_names, json_each(names) e",
    )?;
    Ok(())
}

/// Lets the kernel forget what it has of a file, as after a start of the machine.
fn forget(path: &Path) -> anyhow::Result<()> {
    std::fs::File::open(path)?.sync_all()?;
    let file = format!("if={}", path.display());
    let forgot = Command::new("dd").args([&file, "iflag=nocache", "count=0", "status=none"]).status()?;
    ensure!(forgot.success(), "dd: {forgot}");
    Ok(())
}

async fn one_ready_job(server: &Server) -> anyhow::Result<i64> {
    let mut http = Http::connect(server.address).await?;
    let workflow = http.call("POST", "/workflows", Some(json!({"name": "start", "user": "bench"}))).await?;
    let workflow = workflow["id"].as_i64().context("a workflow has an id")?;
    let job = json!({"workflow_id": workflow, "name": "job", "command": "echo a job like others, with some arguments"});
    http.call("POST", "/bulk_jobs", Some(json!({"jobs": [job]}))).await?;
    http.call("POST", &format!("/workflows/{workflow}/initialize_jobs"), None).await?;
    Ok(workflow)
}

/// Makes many ready jobs of the one that is there, in the database of a server that was stopped: the
/// same rows with other numbers `n.id`, whatever columns they have, but for what `differs` has another
/// term for; and indexes made anew at the end.
pub(super) fn multiply(path: &Path, jobs: u64, differs: impl Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let db = Connection::open(path)?;
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")?;
    let indexes: Vec<(String, String)> = db
        .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name IN ('job', 'job_detail') AND sql <> ''")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (name, _) in &indexes {
        db.execute_batch(&format!("DROP INDEX {name}"))?;
    }
    let first: i64 = db.query_row("SELECT id FROM job", [], |row| row.get(0))?;
    for (table, key) in [("job", "id"), ("job_detail", "job_id"), ("job_name", "job_id")] {
        let columns: Vec<String> = db
            .prepare("SELECT name FROM pragma_table_info(?1)")?
            .query_map([table], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let values: Vec<String> = columns
            .iter()
            .map(|name| match differs(name) {
                Some(term) => term,
                None if name == key => "n.id".to_owned(),
                None => format!("t.{name}"),
            })
            .collect();
        // What is read from the table that it goes to would all be kept aside first.
        db.execute(&format!("CREATE TEMP TABLE one AS SELECT * FROM {table} WHERE {key} = ?1"), [first])?;
        db.execute(
            &format!(
                "WITH RECURSIVE n(id) AS (SELECT ?1 + 1 UNION ALL SELECT id + 1 FROM n LIMIT ?2) \
                 INSERT INTO {table} ({}) SELECT {} FROM n CROSS JOIN one t",
                columns.join(", "),
                values.join(", ")
            ),
            (first, jobs as i64 - 1),
        )?;
        db.execute_batch("DROP TABLE one")?;
    }
    for (_, sql) in &indexes {
        db.execute_batch(sql)?;
    }
    db.execute("UPDATE workflow_state SET ready = ?1", [jobs as i64])?;
    db.execute("UPDATE sequence SET next = ?1 WHERE name = 'job'", [first + jobs as i64])?;
    // As a server leaves it.
    db.execute_batch("PRAGMA journal_mode = WAL")?;
    Ok(())
}
