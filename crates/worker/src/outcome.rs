//! What an ended process means: status and return code, and the report of it.

use std::time::{Duration, SystemTime};

use forebay_wire::{ExecutionConfig, FailureHandlerRule, JobStatus, ResultModel};

use crate::launcher::protocol::Ended;

/// Why we ended a process, if we did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminated {
    /// It ended by itself.
    Not,
    /// Its time was up.
    Runtime,
    /// The worker stops. `forced`: it did not heed the signal and was killed.
    Stopping { forced: bool },
    /// The workflow was canceled.
    Canceled,
    /// The server has given the job to others.
    Lost,
}

/// Status and return code of an ended process, as torc's runner reports them: what was killed
/// for memory or time has the configured code, what was asked to end and ended with 0 completed,
/// what ended otherwise keeps its own code.
pub fn verdict(ended: &Ended, terminated: Terminated, config: &ExecutionConfig) -> (JobStatus, i64) {
    let code = i64::from(ended.code);
    let timeout = i64::from(config.timeout_exit_code.unwrap_or(ExecutionConfig::TIMEOUT_EXIT_CODE));
    if ended.over_memory {
        return (JobStatus::Failed, config.oom_exit_code.unwrap_or(ExecutionConfig::OOM_EXIT_CODE).into());
    }
    match (terminated, code) {
        (Terminated::Stopping { forced: true }, _) => (JobStatus::Terminated, timeout),
        (_, 0) => (JobStatus::Completed, 0),
        (Terminated::Not, _) => (JobStatus::Failed, code),
        (Terminated::Runtime, _) => (JobStatus::Terminated, timeout),
        (Terminated::Stopping { forced: false } | Terminated::Canceled | Terminated::Lost, _) => {
            (JobStatus::Terminated, code)
        }
    }
}

/// The rule for this exit code: the first that names it, else the first that is for all.
pub fn matching_rule(rules: &[FailureHandlerRule], code: i64) -> Option<&FailureHandlerRule> {
    let named = rules.iter().find(|rule| rule.exit_codes.iter().any(|named| i64::from(*named) == code));
    named.or_else(|| rules.iter().find(|rule| rule.match_all_exit_codes))
}

/// Fills in what a process used.
pub fn measure(result: &mut ResultModel, ended: &Ended) {
    let wall = Duration::from_micros(ended.wall_us).as_secs_f64();
    let bytes = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    result.exec_time_minutes = wall / 60.0;
    result.peak_memory_bytes = Some(bytes(ended.peak_bytes));
    result.avg_memory_bytes = ended.mean_bytes.map(bytes);
    if wall > 0.0 {
        let mean = 100.0 * Duration::from_micros(ended.cpu_us).as_secs_f64() / wall;
        result.avg_cpu_percent = Some(mean);
        result.peak_cpu_percent = Some(ended.peak_cpu_percent.max(mean));
    }
}

/// RFC 3339 in UTC with milliseconds, as torc writes its times.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days since 1 March of year 0, in cycles of 400 years: a leap day is then the last of its year.
    let day = days + 719_468;
    let (cycle, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 400 * cycle + year + next;
    let (hour, minute, second, milli) = (second / 3600, second / 60 % 60, second % 60, since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> Ended {
        Ended {
            key: 0,
            code,
            wall_us: 2_000_000,
            cpu_us: 1_000_000,
            peak_bytes: 5,
            mean_bytes: None,
            peak_cpu_percent: 10.0,
            over_memory: false,
        }
    }

    #[test]
    fn times_are_written_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7);
            assert_eq!(rfc3339(time), text);
        }
    }

    #[test]
    fn verdicts_are_torcs() {
        use JobStatus::{Completed, Failed, Terminated as Ended};
        let config = ExecutionConfig::default();
        let verdict = |code, why| verdict(&ended(code), why, &config);
        assert_eq!(verdict(0, Terminated::Not), (Completed, 0));
        assert_eq!(verdict(3, Terminated::Not), (Failed, 3));
        assert_eq!(verdict(143, Terminated::Runtime), (Ended, 152));
        assert_eq!(verdict(0, Terminated::Runtime), (Completed, 0));
        assert_eq!(verdict(143, Terminated::Stopping { forced: false }), (Ended, 143));
        assert_eq!(verdict(0, Terminated::Stopping { forced: false }), (Completed, 0));
        assert_eq!(verdict(137, Terminated::Stopping { forced: true }), (Ended, 152));
        assert_eq!(verdict(137, Terminated::Canceled), (Ended, 137));
    }

    #[test]
    fn too_much_memory_has_its_own_code() {
        let config = ExecutionConfig { oom_exit_code: Some(99), ..ExecutionConfig::default() };
        let killed = Ended { over_memory: true, ..ended(137) };
        assert_eq!(verdict(&killed, Terminated::Not, &config), (JobStatus::Failed, 99));
    }

    #[test]
    fn a_rule_that_names_the_code_goes_before_one_for_all() {
        let rule = |exit_codes: &[i32], all, max_retries| FailureHandlerRule {
            exit_codes: exit_codes.to_vec(),
            match_all_exit_codes: all,
            recovery_script: None,
            max_retries,
        };
        let rules = [rule(&[], true, 1), rule(&[7, 8], false, 2)];
        assert_eq!(matching_rule(&rules, 8).map(|rule| rule.max_retries), Some(2));
        assert_eq!(matching_rule(&rules, 9).map(|rule| rule.max_retries), Some(1));
        assert_eq!(matching_rule(&rules[1..], 9), None);
    }

    #[test]
    fn use_is_reported_in_torcs_units() {
        let mut result = ResultModel::default();
        measure(&mut result, &ended(0));
        assert!((result.exec_time_minutes - 2.0 / 60.0).abs() < 1e-12);
        assert_eq!((result.peak_memory_bytes, result.avg_memory_bytes), (Some(5), None));
        assert_eq!((result.avg_cpu_percent, result.peak_cpu_percent), (Some(50.0), Some(50.0)));
    }
}
