//! What an operator reads while jobs run: a line a second for each workflow in which some ended.

use std::time::Duration;

use forebay_engine::{EngineHandle, Progress, WorkflowId};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);
/// Where jobs of more workflows ended within that time, one line tells of them all.
const LINES_MAX: usize = 20;

/// Writes the lines until the server stops. The engine is asked only if something was committed, and
/// it is not its thread that waits for the log.
pub(crate) async fn tell(engine: EngineHandle, mut stopping: watch::Receiver<bool>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = 0;
    loop {
        let stops = tokio::select! {
            _ = tick.tick() => false,
            _ = stopping.wait_for(|stopping| *stopping) => true,
        };
        let committed = engine.counters().changes;
        if std::mem::replace(&mut seen, committed) != committed {
            let Ok(progress) = engine.take_progress().await else { return };
            for line in lines(&progress) {
                tracing::info!("{line}");
            }
        }
        if stops {
            return;
        }
    }
}

fn lines(progress: &[(WorkflowId, Progress)]) -> Vec<String> {
    let line = |of: String, Progress { ended, freed, lost }| {
        let (completions, jobs) = (number(ended, "completion"), number(freed, "job"));
        let mut line = format!("processed {completions} of {of}, {jobs} became ready");
        if lost > 0 {
            line += &format!("; {} lost: their time ran out, or their worker is gone", number(lost, "attempt"));
        }
        line
    };
    if progress.len() <= LINES_MAX {
        return progress.iter().map(|(id, progress)| line(format!("workflow {id}"), *progress)).collect();
    }
    let sum = progress.iter().fold(Progress::default(), |sum, (_, one)| Progress {
        ended: sum.ended + one.ended,
        freed: sum.freed + one.freed,
        lost: sum.lost + one.lost,
    });
    vec![line(number(progress.len() as u64, "workflow"), sum)]
}

fn number(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(ended: u64, freed: u64) -> Progress {
        Progress { ended, freed, lost: 0 }
    }

    #[test]
    fn what_was_lost_is_told_where_something_was() {
        let told = lines(&[(WorkflowId(1), Progress { lost: 2, ..progress(0, 0) })]);
        assert!(told[0].ends_with("; 2 attempts lost: their time ran out, or their worker is gone"), "{told:?}");
    }

    #[test]
    fn each_workflow_has_a_line() {
        let told = lines(&[(WorkflowId(42), progress(15, 8)), (WorkflowId(43), progress(1, 0))]);
        let expected = [
            "processed 15 completions of workflow 42, 8 jobs became ready",
            "processed 1 completion of workflow 43, 0 jobs became ready",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn many_workflows_share_a_line() {
        let many: Vec<_> = (1..=30).map(|id| (WorkflowId(id), progress(2, 1))).collect();
        assert_eq!(lines(&many), ["processed 60 completions of 30 workflows, 30 jobs became ready"]);
    }
}
