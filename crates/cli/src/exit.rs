//! How the program ends. The numbers are told in `--help`.

use std::process::ExitCode;

/// How the program ends, unless it is an error of `anyhow`, which is 1, or of the command line,
/// which is 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All that was asked is done.
    Done,
    /// The message was printed already.
    Error,
    /// A run cannot go on, and is not at its end.
    CannotGoOn,
    /// A run is at its end, but not all jobs completed.
    SomeFailed,
    Interrupted,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Error => 1,
            Exit::CannotGoOn => 3,
            Exit::SomeFailed => 4,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
