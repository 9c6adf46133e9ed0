//! `segprobe man`: the manual pages, from the command line's own description.

use std::{
    fs,
    io::{self, Write},
    process::ExitCode,
};

use clap::CommandFactory;
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::Failure;
use crate::{
    cli::{Cli, ManArgs},
    export::VERSION,
};

pub fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let Some(directory) = &args.output_dir else {
        let page = page(command).map_err(Failure::system("make the manual page"))?.1;
        io::stdout().write_all(&page).map_err(Failure::output)?;
        return Ok(ExitCode::SUCCESS);
    };
    let subcommands: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    for command in subcommands.into_iter().chain([command]) {
        let (name, page) = page(command).map_err(Failure::system("make the manual page"))?;
        let path = directory.join(name);
        fs::write(&path, page).map_err(Failure::system(format!("write {}", path.display())))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A page, and its file's name. Its date is blank: two builds give the same bytes.
fn page(command: clap::Command) -> io::Result<(String, Vec<u8>)> {
    let below = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let has_subcommands = command.has_subcommands();
    let title = command.get_display_name().unwrap_or(command.get_name()).to_uppercase();
    let man = Man::new(command).title(title).date(" ").source(format!("segprobe {VERSION}")).manual("segprobe");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    for paragraph in below.split("\n\n") {
        let (title, lines) = paragraph.split_once(":\n").unwrap_or(("", paragraph));
        let title = if title == "Exit codes" { "Exit status" } else { title };
        let mut section = Roff::new();
        section.control("SH", [title.to_uppercase().as_str()]).control("nf", []);
        lines.lines().for_each(|line| {
            section.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
        });
        section.control("fi", []).to_writer(&mut page)?;
    }
    Ok((man.get_filename(), page))
}
