//! Tells the binary its own origin, for `segprobe_build_info`: the compiler's version and the source's revision.

use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    // "rustc 1.95.0 (59807616e 2026-04-14)": the second word.
    let version = output(&rustc, &["--version"]).and_then(|v| v.split(' ').nth(1).map(str::to_owned));
    println!("cargo::rustc-env=SEGPROBE_RUSTVERSION={}", version.as_deref().unwrap_or("unknown"));

    // A build without the repository, as in an image, passes the revision in.
    println!("cargo::rerun-if-env-changed=SEGPROBE_REVISION");
    // In a worktree it is elsewhere than in .git, and a missing file would run this again in every build.
    if let Some(head) = output("git", &["rev-parse", "--git-path", "HEAD"]) {
        println!("cargo::rerun-if-changed={head}");
    }
    let revision = std::env::var("SEGPROBE_REVISION").ok();
    let revision = revision.or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]));
    println!("cargo::rustc-env=SEGPROBE_REVISION={}", revision.as_deref().unwrap_or("unknown"));
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|text| !text.is_empty())
}
