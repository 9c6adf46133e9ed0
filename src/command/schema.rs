//! `segprobe schema`: the JSON Schema of the configuration or of the result, from the types that read and write them.

use std::{io::Write, process::ExitCode};

use super::Failure;
use crate::{
    cli::{Described, SchemaArgs},
    config,
    export::json,
};

pub fn run(args: &SchemaArgs) -> Result<ExitCode, Failure> {
    let schema = match args.of {
        Described::Config => config::json_schema(),
        Described::Report => json::schema(),
    };
    writeln!(std::io::stdout(), "{schema:#}").map_err(Failure::output)?;
    Ok(ExitCode::SUCCESS)
}
