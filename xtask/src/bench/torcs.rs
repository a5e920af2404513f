//! torc's own command line on torc-server and on ours: its largest test workflow, and a chain.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::compat;
use crate::server::{Server, given_or_built};

/// The servers that torc's command line is pointed at.
struct Sides {
    torc: PathBuf,
    forebay: PathBuf,
    torc_server: PathBuf,
    scratch: tempfile::TempDir,
}

impl Sides {
    fn new(binary: Option<PathBuf>) -> anyhow::Result<Sides> {
        let forebay = given_or_built(binary)?;
        let (torc, torc_server) = (compat::torc()?, compat::torc_server()?);
        Ok(Sides { torc, forebay, torc_server, scratch: tempfile::tempdir_in(".")? })
    }

    /// torc-server as it is by default; its database is empty.
    fn theirs(&self) -> anyhow::Result<Server> {
        let db = self.folder("torc-server")?.join("torc.db");
        std::fs::File::create(&db).context("torc-server wants a file that is there")?;
        Server::torc(&self.torc_server, &db)
    }

    fn ours(&self, durability: &str) -> anyhow::Result<Server> {
        Server::start(&self.forebay, &self.folder("forebay")?.join(format!("{durability}.db")), durability)
    }

    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = std::path::absolute(self.scratch.path())?.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// torc's command line on this server, and how long it took, in seconds.
    fn torc(&self, server: &Server, folder: &str, args: &[&str]) -> anyhow::Result<(String, f64)> {
        let mut command = Command::new(&self.torc);
        let tools = self.torc.parent().context("a binary is in a folder")?.display();
        let path = format!("{tools}:{}", std::env::var("PATH").unwrap_or_default());
        command.env("TORC_API_URL", format!("http://{}/torc-service/v1", server.address));
        command.env("USER", "bench").env("PATH", path).args(args).current_dir(self.folder(folder)?);
        timed(command)
    }
}

fn timed(mut command: Command) -> anyhow::Result<(String, f64)> {
    let begin = Instant::now();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} cannot be started"))?;
    let seconds = begin.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    Ok((said, seconds))
}

/// torc's `scale_test`: four rounds of so many jobs, a barrier after each.
const ROUNDS: usize = 4;

/// Creates and initializes a workflow of the shape of torc's `scale_test`.
pub fn scale(jobs: usize, binary: Option<PathBuf>) -> anyhow::Result<()> {
    let sides = Sides::new(binary)?;
    let file = sides.folder("spec")?.join("scale_test.yaml");
    std::fs::write(&file, scale_test(jobs / ROUNDS)?)?;
    println!("{} jobs in {ROUNDS} rounds, created and initialized by torc's command line", jobs + ROUNDS);
    for (name, server) in [("forebay", sides.ours("power")?), ("torc-server", sides.theirs()?)] {
        let idle = server.memory("VmRSS")?;
        let cpu = server.cpu_seconds()?;
        let (said, create) = sides.torc(&server, name, &["-f", "json", "create", &file.to_string_lossy()])?;
        let created: serde_json::Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        let workflow = created["workflow_id"].to_string();
        let created_cpu = server.cpu_seconds()? - cpu;
        let (_, init) = sides.torc(&server, name, &["workflows", "init", &workflow, "--no-prompts"])?;
        let init_cpu = server.cpu_seconds()? - cpu - created_cpu;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "  {name:12} create {create:6.2} s (server CPU {created_cpu:5.2} s)  init {init:6.2} s ({init_cpu:5.2} s)  \
             resident {:5.0} MiB, at most {:5.0} MiB, before {:4.0} MiB",
            mib(server.memory("VmRSS")?),
            mib(server.memory("VmHWM")?),
            mib(idle)
        );
        server.kill()?;
    }
    Ok(())
}

fn scale_test(round: usize) -> anyhow::Result<String> {
    let mut text = String::from("name: scale test\njobs:\n");
    for n in 1..=ROUNDS {
        write!(
            text,
            "  - name: \"r{n}_{{i:05d}}\"\n    command: \"echo r{n}_{{i}}\"\n    resource_requirements: minimal\n    \
             parameters: {{i: \"0:{}\"}}\n",
            round - 1
        )?;
        if n > 1 {
            writeln!(text, "    depends_on: [barrier_r{}]", n - 1)?;
        }
        write!(
            text,
            "  - name: barrier_r{n}\n    command: echo done\n    resource_requirements: minimal\n    \
             depends_on_regexes: [\"^r{n}_\\\\d+$\"]\n"
        )?;
    }
    text.push_str(
        "resource_requirements:\n  - {name: minimal, num_cpus: 1, num_gpus: 0, num_nodes: 1, memory: 10m, \
         runtime: PT1M}\n",
    );
    Ok(text)
}

/// Runs a chain of stages in each way that there is; without the peer on ours alone.
pub fn chain(stages: usize, with_peer: bool, binary: Option<PathBuf>) -> anyhow::Result<()> {
    let sides = Sides::new(binary)?;
    let file = sides.folder("spec")?.join("chain.yaml");
    let mut text = String::from("name: chain\njobs:\n");
    for n in 0..stages {
        writeln!(text, "  - name: stage_{n}\n    command: \"true\"")?;
        if n > 0 {
            writeln!(text, "    depends_on: [stage_{}]", n - 1)?;
        }
    }
    std::fs::write(&file, text)?;
    let spec = file.to_string_lossy().into_owned();
    println!("a chain of {stages} jobs of `true`, from the command to its end");
    let print = |how: &str, seconds: f64| println!("  {how:32} {seconds:7.2} s");
    {
        let server = sides.ours("power")?;
        print("forebay, torc run", sides.torc(&server, "forebay", &["run", &spec])?.1);
        print("forebay, forebay worker", worker(&sides, &server, &file)?);
    }
    let mut run = Command::new(&sides.forebay);
    run.args(["run", "--quiet", "--db"]).arg(sides.folder("run")?.join("run.db")).arg(&file);
    run.current_dir(sides.folder("run")?);
    print("forebay run", timed(run)?.1);
    if with_peer {
        let server = sides.theirs()?;
        print("torc-server, torc run", sides.torc(&server, "torc-server", &["run", &spec])?.1);
    }
    Ok(())
}

/// Created before: what a worker needs from its start to its end.
fn worker(sides: &Sides, server: &Server, file: &Path) -> anyhow::Result<f64> {
    let url = format!("http://{}", server.address);
    let folder = sides.folder("worker")?;
    let mut create = Command::new(&sides.forebay);
    create.arg("create").arg(file).args(["--url", &url]).current_dir(&folder);
    let (said, _) = timed(create)?;
    let workflow = said.split(|letter: char| !letter.is_ascii_digit()).find(|word| !word.is_empty());
    let mut worker = Command::new(&sides.forebay);
    worker.args(["worker", "--quiet", "--url", &url, "--workflow", workflow.context("it names the workflow")?]);
    worker.current_dir(&folder);
    Ok(timed(worker)?.1)
}
