//! The `tidewire` binary: from the command line to what it asks for.

mod cli;
mod client;
mod config;
mod exit;
mod publish;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, Settings};
use crate::exit::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = match cli.command.unwrap_or(Command::Serve(cli.settings)) {
        Command::Serve(_) => Exit::Failure,
        Command::Config(settings) => print_config(&settings),
        Command::Watch(args) => block_on(watch::run(args)),
        Command::Publish(args) => block_on(publish::run(args)),
    };
    exit.into()
}

fn print_config(settings: &Settings) -> Exit {
    match config::load(settings) {
        Ok(config) => {
            // A closed standard output is no reason to fail.
            let _ = write!(std::io::stdout(), "{}", config.to_toml());
            Exit::Ok
        }
        Err(error) => {
            client::notice(format_args!("error: {error}"));
            Exit::Usage
        }
    }
}

/// Runs a client command, for which one thread is plenty.
fn block_on(command: impl Future<Output = Exit>) -> Exit {
    match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => {
            client::notice(format_args!("error: {error}"));
            Exit::Failure
        }
    }
}
