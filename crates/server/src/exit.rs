//! The exit codes of every command, in one place, since scripts and service managers rely on them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done, or stopped as asked.
    Ok,
    /// 1: it ran and failed: refused by the hub, out of retries, an address in use.
    Failure,
    /// 2: it did not start: bad arguments or a bad configuration. clap ends with the same code.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
        })
    }
}
