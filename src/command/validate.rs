//! `segprobe validate`: the configuration as it would be used, without a packet.

use std::{io::Write, process::ExitCode};

use super::Failure;
use crate::{cli::ConfigArgs, config::load, inventory::stands::Stand, model::VantageMode, plan::plan};

pub fn run(args: &ConfigArgs) -> Result<ExitCode, Failure> {
    let (config, _) = load(&args.config_file)?;
    // The system's DNS servers belong to the machine that the agent will run on, not to this one.
    let stand = Stand::own(&config, &[], "");
    let plan = plan(&config, std::slice::from_ref(&stand));
    let checks: usize = plan.legs.iter().map(|leg| leg.checks().count()).sum();
    let each = if config.vantage.mode == VantageMode::Pods { " for each identity" } else { "" };
    let text = format!(
        "{}: valid: {} zones, {} boundaries, {} targets, {checks} checks{each} besides those of the system's DNS servers",
        args.config_file.display(),
        config.zones.len(),
        config.boundaries.len(),
        config.targets.len(),
    );
    writeln!(std::io::stdout(), "{text}").map_err(Failure::output)?;
    Ok(ExitCode::SUCCESS)
}
