//! `segprobe schema`: the JSON Schema of the configuration, from the types that read it.

use std::{io::Write, process::ExitCode};

use super::Failure;

pub fn run() -> Result<ExitCode, Failure> {
    let schema = serde_json::to_string_pretty(&crate::config::json_schema());
    let text = schema.map_err(|e| Failure::system("write the schema")(e.into()))?;
    writeln!(std::io::stdout(), "{text}").map_err(Failure::system("write the schema"))?;
    Ok(ExitCode::SUCCESS)
}
