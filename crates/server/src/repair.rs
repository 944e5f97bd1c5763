//! `tidewire repair`: what is wrong with a disk broker's folder, and a log of what is left of it.

use std::io::Write;

use tidewire::broker::{RepairError, inspect, repair};

use crate::cli::RepairArgs;
use crate::client::notice;
use crate::exit::Exit;

/// Looks, and with `--yes` repairs.
pub(crate) fn run(args: &RepairArgs) -> Exit {
    look(args).unwrap_or_else(|error| {
        notice(format_args!("error: {error}"));
        Exit::Failure
    })
}

fn look(args: &RepairArgs) -> Result<Exit, RepairError> {
    let mut out = std::io::stdout();
    // A closed standard output is no reason to fail.
    let mut say = |text: String| drop(writeln!(out, "{text}"));
    let findings = inspect(&args.folder)?;
    if findings.is_empty() {
        say(format!("{}: nothing is wrong", args.folder.display()));
        return Ok(Exit::Ok);
    }
    for finding in &findings {
        say(finding.to_string());
    }
    if !args.yes {
        say("nothing was changed; to go on with what is left, add --yes".to_owned());
        return Ok(Exit::Failure);
    }
    for copy in repair(&args.folder)?.copies {
        say(format!("a copy of the damaged file is {}", copy.display()));
    }
    say("repaired; clients that come back are told of a gap".to_owned());
    Ok(Exit::Ok)
}
