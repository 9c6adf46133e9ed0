//! The command line as people and shells see it: help in docs/cli.md, completions in a real bash, manual pages by groff and mandoc.

use std::{fs, process::Command};

use crate::support::{SEGPROBE, SOON, directory, document, have, process, segprobe};

const SUBCOMMANDS: [&str; 9] =
    ["agent", "check", "discover", "demo", "vantages", "validate", "schema", "completions", "man"];

/// The help as a terminal of 100 columns or more shows it.
fn help(arguments: &[&str]) -> String {
    let mut command = Command::new(SEGPROBE);
    command.args(arguments).env("COLUMNS", "100");
    let ended = process::run(command, SOON);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    ended.stdout.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn the_document_has_every_help() {
    let mut text = format!("## segprobe\n\n```text\n{}```\n", help(&["--help"]));
    for subcommand in SUBCOMMANDS {
        text += &format!("\n## segprobe {subcommand}\n\n```text\n{}```\n", help(&[subcommand, "--help"]));
    }
    document::holds("docs/cli.md", "command_line", &text);
    let listed = help(&["-h"]);
    let commands = listed.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let names = commands.lines().filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, [&SUBCOMMANDS[..], &["help"]].concat());
}

#[test]
fn every_help_has_an_example_and_tells_where_the_documents_are() {
    for subcommand in SUBCOMMANDS {
        let (short, long) = (help(&[subcommand, "-h"]), help(&[subcommand, "--help"]));
        assert!(long.contains("\nExamples:\n") && long.contains("/tree/main/docs"), "{long}");
        assert!(short.lines().count() < 40, "{short}");
        // What is not for ever or a mere print tells its exit codes.
        let tells = !["schema", "completions", "man"].contains(&subcommand);
        assert_eq!(long.contains("\nExit codes:\n"), tells, "{subcommand}");
        assert!(short.ends_with(if tells { "exit codes.\n" } else { "tells more: examples.\n" }), "{short}");
    }
}

#[test]
fn typing_errors_are_answered_with_what_was_meant() {
    for (arguments, meant) in [
        (&["chekc"][..], "'check'"),
        (&["check", "--confg.file", "x"], "'--config.file'"),
        (&["check", "--config.file", "x", "--output", "jnit"], "'junit'"),
        (&["agent", "--web.listen-adress", ":1"], "'--web.listen-address'"),
    ] {
        let ended = segprobe(arguments);
        assert_eq!(ended.code, Some(64));
        assert!(ended.stderr.contains(meant) && ended.stderr.contains("similar"), "{}", ended.stderr);
    }
}

#[test]
fn bash_completes() {
    if !have("bash") {
        return;
    }
    let directory = directory();
    let script = directory.path().join("segprobe.bash");
    fs::write(&script, segprobe(&["completions", "bash"]).stdout).unwrap();
    // As bash calls it when the tabulator is pressed.
    let ask = "source \"$0\"; COMP_WORDS=(\"$@\"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); \
               _segprobe segprobe \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"; echo \"${COMPREPLY[*]}\"";
    for (typed, offered) in [
        (&["segprobe", "ch"][..], "check"),
        (&["segprobe", "check", "--output", "j"], "json junit"),
        (&["segprobe", "schema", "r"], "report"),
        (&["segprobe", "check", "--req"], "--require-witness"),
        (&["segprobe", "completions", "z"], "zsh"),
    ] {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-c", ask]).arg(&script).args(typed);
        let ended = process::run(command, SOON);
        assert_eq!((ended.stdout.trim_end(), ended.stderr.as_str()), (offered, ""), "{typed:?}");
    }
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = segprobe(&["completions", shell]);
        assert!(ended.code == Some(0) && ended.stdout.contains("require-witness"), "{shell}: {ended:?}");
    }
}

#[test]
fn manual_pages_are_well_formed() {
    let directory = directory();
    let path = directory.path().to_str().unwrap();
    let ended = segprobe(&["man", "--output-dir", path]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "", ""));
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut expected: Vec<String> = SUBCOMMANDS.iter().map(|name| format!("segprobe-{name}.1")).collect();
    expected.push("segprobe.1".into());
    expected.sort();
    assert_eq!(names, expected);
    let page = fs::read_to_string(directory.path().join("segprobe.1")).unwrap();
    assert_eq!(page, segprobe(&["man"]).stdout);

    if !have("groff") || !have("mandoc") {
        return;
    }
    for name in &names {
        let file = directory.path().join(name);
        let mut groff = Command::new("groff");
        groff.args(["-man", "-Tutf8", "-K", "utf8", "-ww"]).arg(&file);
        let ended = process::run(groff, SOON);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{name}");
        // Bold is shown by overstriking or by escapes; the words of the last section are plain.
        assert!(ended.stdout.contains("/tree/main/docs"), "{name}: {}", ended.stdout);
        // clap's own paragraphs cause warnings.
        let mut mandoc = Command::new("mandoc");
        mandoc.args(["-Tlint", "-W", "error"]).arg(&file);
        let ended = process::run(mandoc, SOON);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{name}");
    }
    assert!(!segprobe(&["man", "--output-dir", "/nonexistent"]).stderr.contains("panicked"));
}
