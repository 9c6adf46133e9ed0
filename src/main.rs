//! The binary: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use segprobe::{
    cli::Cli,
    command::{self, EXIT_USAGE},
};

/// Thousands of connects come and go between results that stay: glibc's allocator keeps a tenth more memory for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => command::run(cli),
        Err(error) => {
            // Help and version are no errors; clap knows where each is printed.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS }
        }
    }
}
