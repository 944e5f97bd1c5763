//! The `tidewire` program: from the command line to what it asks for. A library only for its binary and the fuzz targets.

#[cfg(feature = "acme")]
mod acme;
mod auth;
mod cli;
mod client;
mod config;
mod exit;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod metrics;
mod nodes;
mod publish;
mod repair;
mod routes;
mod serve;
mod services;
mod tls;
mod token;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, Settings};
use crate::config::Config;
use crate::exit::Exit;
#[doc(hidden)]
pub use crate::guard::{Declared, Need};
#[doc(hidden)]
pub use crate::routes::declared_routes;

/// Runs what the command line asks for; the answer is the exit code of the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = match cli.command.unwrap_or(Command::Serve(cli.settings)) {
        Command::Serve(settings) => configured(&settings, serve::run),
        Command::Token(args) => configured(&args.settings, |config| token::run(&args, config)),
        Command::Config(settings) => configured(&settings, print_config),
        Command::Nodes(args) => block_on(nodes::run(args)),
        Command::Watch(args) => block_on(watch::run(args)),
        Command::Repair(args) => repair::run(&args),
        Command::Publish(args) => block_on(publish::run(args)),
    };
    exit.into()
}

/// Runs a command that needs the configuration.
fn configured(settings: &Settings, command: impl FnOnce(&Config) -> Exit) -> Exit {
    match config::load(settings) {
        Ok(mut config) => {
            services::add_history_rules(&mut config);
            command(&config)
        }
        Err(error) => {
            client::notice(format_args!("error: {error}"));
            Exit::Usage
        }
    }
}

fn print_config(config: &Config) -> Exit {
    // A closed standard output is no reason to fail.
    let _ = write!(std::io::stdout(), "{}", config.to_toml());
    match serve::check(config) {
        Ok(()) => Exit::Ok,
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
