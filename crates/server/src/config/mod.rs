//! The configuration: defaults, then a file, then the environment, then flags; later wins.
//!
//! - `schema`: every setting with its type and default. `values`, `secret`: how they are written.
//! - `files`, `environment`: each layer to a `tree` whose nodes know where they were written.
//! - `reader`, `fault`: the merged tree to the schema. `check`: what types can't say.
//! - `error`: what is said about a mistake, with its line.

mod check;
mod environment;
mod error;
mod fault;
mod files;
mod reader;
mod schema;
mod secret;
mod tree;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use check::network_of_text;
pub(crate) use error::ConfigError;
pub(crate) use schema::*;
use tree::{Node as Tree, Origin, Value};
pub(crate) use values::parse_duration;

use crate::cli::Settings;

/// Names the configuration file where no flag does.
const FILE_VARIABLE: &str = "TIDEWIRE_CONFIG";

/// The effective configuration, of the process's environment and these flags.
///
/// # Errors
/// On an unknown setting, a bad value or an unreadable file: see [`ConfigError`].
pub(crate) fn load(flags: &Settings) -> Result<Config, ConfigError> {
    let named = std::env::var_os(FILE_VARIABLE)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let file = flags.config.clone().or(named);
    layer(file.as_deref(), std::env::vars_os(), flags)
}

fn layer(
    file: Option<&Path>,
    variables: impl Iterator<Item = (OsString, OsString)>,
    flags: &Settings,
) -> Result<Config, ConfigError> {
    let mut tree = Tree::empty();
    if let Some(file) = file {
        tree.merge(files::read(file)?);
    }
    tree.merge(environment::read(variables)?);
    for (flag, key, value) in flags.values() {
        let value = Value::Untyped(value.to_owned());
        tree.insert(
            key,
            Tree {
                value,
                origin: Origin::Flag(flag),
            },
        );
    }
    let config = reader::read(&tree)?;
    check::check(&config, &tree)?;
    Ok(config)
}

impl Config {
    /// As TOML that a `--config` file may hold, with secrets masked.
    pub(crate) fn to_toml(&self) -> String {
        toml::to_string(self).expect("every setting has a TOML form")
    }
}

#[cfg(test)]
mod tests;
