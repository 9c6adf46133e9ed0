//! What was not tested, and why: each test program notes it here, and `tests/skipped.rs` lists it at the end of `cargo test`.
//!
//! All notes of one run are in one file. It is named after the process that started the test programs, cargo, so that no run sees
//! the notes of another one.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Where the notes are; any other file in it is left alone.
const DIRECTORY: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/skipped");

/// True in CI, where everything that a test needs must be there.
pub fn is_required() -> bool {
    env::var_os("CI").is_some_and(|ci| !ci.is_empty())
}

/// Notes that `what`, a test or a group of tests, is skipped, and says so at once.
pub fn skip(what: &str, why: &str) {
    // Not eprintln!, which libtest keeps to itself where a test passes.
    let _ = writeln!(io::stderr(), "\n*** SKIPPED {what}: {why} ***\n");
    let line = format!("{}\t{what}\n", why.replace(['\n', '\t'], " "));
    let note = || {
        fs::create_dir_all(DIRECTORY)?;
        // One write, so that test programs that run at the same time do not mix their lines.
        File::options().create(true).append(true).open(notes_of_this_run())?.write_all(line.as_bytes())
    };
    // A directory that cannot be written to costs the list at the end, and no test.
    let _ = note();
}

/// Gives the notes of this run, each as reason and test, and removes them and those of runs that have ended.
#[allow(dead_code, reason = "only the last test program lists the notes")]
pub fn take() -> Vec<(String, String)> {
    let notes = fs::read_to_string(notes_of_this_run()).unwrap_or_default();
    let _ = fs::remove_file(notes_of_this_run());
    for file in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let of_run = name.split_once('-').filter(|(id, _)| id.parse::<u32>().is_ok());
        if of_run.is_some_and(|(id, started)| start_of(id).as_deref() != Some(started)) {
            let _ = fs::remove_file(file.path());
        }
    }
    notes.lines().filter_map(|line| line.split_once('\t')).map(|(why, what)| (why.into(), what.into())).collect()
}

/// A process id is used again; with the time of its start it is unique until the machine starts again.
fn notes_of_this_run() -> PathBuf {
    let cargo = std::os::unix::process::parent_id().to_string();
    Path::new(DIRECTORY).join(format!("{cargo}-{}", start_of(&cargo).unwrap_or_default()))
}

/// When a process was started, in the kernel's ticks since it came up.
fn start_of(process: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name before the last parenthesis may have spaces; the time of the start is the 20th field after it.
    Some(stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned())
}
