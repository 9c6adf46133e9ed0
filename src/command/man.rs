//! `segprobe man`: the manual pages, from the command line's own description.

use std::{io::Write, process::ExitCode};

use clap::CommandFactory;
use clap_mangen::Man;

use super::Failure;
use crate::cli::{Cli, ManArgs};

pub fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(directory) = &args.output_dir else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page).map_err(Failure::system("make the manual page"))?;
        std::io::stdout().write_all(&page).map_err(Failure::output)?;
        return Ok(ExitCode::SUCCESS);
    };
    let subcommands: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    for page in subcommands.into_iter().chain([command]).map(Man::new) {
        let path = directory.join(page.get_filename());
        page.generate_to(directory).map_err(Failure::system(format!("write {}", path.display())))?;
    }
    Ok(ExitCode::SUCCESS)
}
