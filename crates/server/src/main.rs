//! The `tidewire` binary.

mod cli;
mod config;
mod exit;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::exit::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.settings)) {
        Command::Serve(settings) | Command::Config(settings) => match config::load(&settings) {
            Ok(config) => {
                print!("{}", config.to_toml());
                Exit::Ok
            }
            Err(error) => {
                eprintln!("error: {error}");
                Exit::Usage
            }
        },
        Command::Watch(_) | Command::Publish(_) => Exit::Failure,
    }
    .into()
}
