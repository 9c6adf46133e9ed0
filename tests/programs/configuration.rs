//! Configurations that are large, deep, recursive, in another encoding, or no file at all: one clear line, at once, in little
//! memory.

use std::{fs, path::Path, process::Command, time::Duration};

use crate::support::{SEGPROBE, directory, hostile, process, segprobe};

/// Address space that `validate` may take, in KiB: it has no threads, so that little more than its memory counts.
const MOST_MEMORY: u32 = 400_000;
/// A debug build reads the largest of these files in a tenth of it.
const WITHIN: Duration = Duration::from_secs(60);

const GOOD: &str = "zones: {low: {namespaces: [web]}, high: {namespaces: [payments]}}
boundaries:
  - {name: b, from: low, to: high}
targets:
  - {zone: high, namespace: payments, service: ledger, endpoints: [127.0.0.1], ports: [5432]}
dns: {resolver: 127.0.0.1, servers: []}
";

fn validate(path: &Path) -> process::Ended {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        &format!("ulimit -v {MOST_MEMORY}; exec \"$0\" \"$@\""),
        SEGPROBE,
        "validate",
        "--config.file",
    ]);
    command.arg(path);
    process::run(command, WITHIN)
}

/// Validates a file with this content; gives the one line that it must have caused, without the file's name.
fn complaint(content: impl AsRef<[u8]>) -> String {
    let directory = directory();
    let path = directory.path().join("segprobe.yaml");
    fs::write(&path, content).unwrap();
    complaint_of(&path)
}

fn complaint_of(path: &Path) -> String {
    let ended = validate(path);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""), "{ended:?}");
    let line = ended.stderr.strip_suffix('\n').unwrap();
    assert!(line.len() < 1_000 && !line.contains(['\n', '\r']) && !line.contains(hostile), "{line:?}");
    let lead = format!("segprobe: {}:", path.display());
    line.strip_prefix(&lead).unwrap_or_else(|| panic!("{line:?} does not begin with {lead:?}")).to_owned()
}

#[test]
fn a_good_one_is_good() {
    let directory = directory();
    let path = directory.path().join("segprobe.yaml");
    fs::write(&path, GOOD).unwrap();
    assert_eq!(validate(&path).code, Some(0));
    // As an editor on another system saves it.
    fs::write(&path, format!("\u{feff}{}", GOOD.replace('\n', "\r\n"))).unwrap();
    assert_eq!(validate(&path).code, Some(0));
}

#[test]
fn ten_megabytes() {
    let large = format!("{GOOD}# {}\n", "x".repeat(10 << 20));
    assert_eq!(complaint(large), " larger than 4 MiB, which is the most that is read");
}

#[test]
fn large_and_yet_read() {
    // Nodes, keys, one value: what must be held before anything is known to be wrong.
    let nodes = format!("zones: {{low: {{namespaces: [{}]}}}}\n", "a,".repeat(300_000));
    assert_eq!(complaint(nodes), "1:1: missing field `boundaries`");
    let keys: String = (0..50_000).map(|i| format!("  z{i}: {{}}\n")).collect();
    assert_eq!(complaint(format!("zones:\n{keys}")), "1:1: missing field `boundaries`");
    let value = GOOD.replace("5432", &"9".repeat(4_000_000));
    let line = complaint(value);
    assert!(line.starts_with("5:88: "), "{line}");
    let all_wrong = GOOD.replace("from: low", "from: x").replace("low: {", &format!("{}low: {{", many_zones(30_000)));
    let line = complaint(all_wrong);
    assert!(
        line.starts_with("3:21: from: no zone `x`, expected one of `high`, `low`, `z0`, ") && line.ends_with(", …")
    );
}

fn many_zones(count: u32) -> String {
    (0..count).map(|i| format!("z{i}: {{}}, ")).collect()
}

#[test]
fn nested_aliases() {
    let laughs = |first: &str| {
        let mut text = format!("&a [{first}]");
        for pair in ('a'..='z').zip('b'..='z') {
            text += &format!(", &{} [{}]", pair.1, vec![format!("*{}", pair.0); 10].join(", "));
        }
        text
    };
    // Where the type is read at once, and where it must first be held because two types are possible.
    for place in ["endpoints: [127.0.0.1]", "ports: [5432]"] {
        let key = place.split_once(' ').unwrap().0;
        let line = complaint(GOOD.replace(place, &format!("{key} [{}]", laughs("1, 1"))));
        assert!(line.starts_with("5:"), "{line}");
    }
    let line = complaint(GOOD.replace("servers: []", &format!("servers: [{}]", laughs("system"))));
    assert!(line.starts_with("6:"), "{line}");
    let recursive = complaint(GOOD.replace("servers: []", "servers: &s [*s]"));
    assert!(recursive.starts_with("6:"), "{recursive}");
    // Many aliases of something large, all of them well-typed: what they unfold to is bounded too.
    let targets = format!("&t {{zone: high, name: t, endpoints: [{}], ports: [1]}}", "127.0.0.1,".repeat(20_000));
    let line = complaint(GOOD.replace("targets:\n", &format!("targets:\n  - {targets}\n{}", "  - *t\n".repeat(900))));
    assert!(line.starts_with(|c: char| c.is_ascii_digit()), "{line}");
}

#[test]
fn deep_nesting() {
    for (open, place) in [
        ("[", "zones: "),
        ("{a: ", "zones: "),
        ("{low: ", "zones: "),
        ("- ", ""),
        ("[", "dns: {servers: "),
        ("[", "dns: {servers: ["),
        ("{a: ", "dns: {servers: [{name: "),
        ("&a [", "targets: "),
        ("!!seq [", "targets: "),
        ("? ", ""),
    ] {
        let line = complaint(format!("{place}{}", open.repeat(20_000)));
        assert!(line.starts_with("1:"), "{place}{open}: {line}");
    }
    let line = complaint((0..2_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect::<String>());
    assert!(line.starts_with("1:1: unknown field `a`"), "{line}");
}

#[test]
fn deep_nesting_in_a_target_file() {
    let directory = directory();
    let path = directory.path().join("segprobe.yaml");
    fs::write(&path, format!("{GOOD}target_files: [more.json]\n")).unwrap();
    let more = directory.path().join("more.json");
    for content in [
        format!("{{\"targets\": {}", "[".repeat(200_000)),
        format!("{{\"targets\": [{}{}]}}", "[".repeat(200_000), "]".repeat(200_000)),
        format!("{{\"targets\": [{{\"zone\": {}{}}}]}}", "[".repeat(200_000), "]".repeat(200_000)),
        "{\"targets\": [".to_owned() + &"0,".repeat(4_000_000) + "0]}",
    ] {
        fs::write(&more, content).unwrap();
        let ended = validate(&path);
        assert_eq!(ended.code, Some(64), "{ended:?}");
        let line = ended.stderr.lines().next().unwrap();
        assert!(line.starts_with(&format!("segprobe: {}:1:", more.display())) && line.len() < 1_000, "{line}");
    }
}

#[test]
fn other_encodings() {
    for (bytes, name) in [(u16::to_le_bytes as fn(u16) -> [u8; 2], "little"), (u16::to_be_bytes, "big")] {
        let encode = |text: &str| text.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
        let line = complaint(encode(&format!("\u{feff}{GOOD}")));
        assert_eq!(line, "1:1: not UTF-8; save the file as UTF-8 without a byte order mark", "{name}");
        // Without a mark it is UTF-8 with a NUL in every other place.
        let line = complaint(encode(GOOD));
        assert!(line.starts_with("1:"), "{name}: {line}");
    }
    let line = complaint([GOOD.as_bytes(), b"# \xff\n"].concat());
    assert_eq!(line, "7:3: not UTF-8; save the file as UTF-8 without a byte order mark");
}

#[test]
fn nul_and_control_characters() {
    let line = complaint(format!("{GOOD}\0\0"));
    assert!(line.starts_with("7:1: ") && line.contains(r"\u{0}"), "{line}");
    let line = complaint(GOOD.replace("zones:", "zo\0nes:"));
    assert!(line.starts_with("1:"), "{line}");
    // Shown in escapes, in the file and by YAML's own escapes.
    let line = complaint(format!("{GOOD}\"\\e[31m\\u202Ered\\r\\n\": 1\n"));
    assert!(line.starts_with(r"7:1: unknown field `\u{1b}[31m\u{202e}red\r\n`"), "{line}");
    let line = complaint(format!("{GOOD}re\u{202e}d: 1\n"));
    assert!(line.starts_with(r"7:1: unknown field `re\u{202e}d`"), "{line}");
}

#[test]
fn no_file() {
    let directory = directory();
    let line = complaint_of(directory.path());
    assert!(line.starts_with(" cannot read: Is a directory"), "{line}");
    let line = complaint_of(&directory.path().join("absent.yaml"));
    assert!(line.starts_with(" cannot read: No such file"), "{line}");
    let line = complaint_of(Path::new("/dev/zero"));
    assert!(line.starts_with(" larger than 4 MiB"), "{line}");
    assert_eq!(complaint(""), "1:1: unexpected end of input");
}

#[test]
fn unknown_and_duplicate_keys() {
    let line = complaint(format!("{GOOD}colour: red\n"));
    assert!(line.starts_with("7:1: unknown field `colour`, expected one of zones, boundaries, targets"), "{line}");
    let line = complaint(GOOD.replace("name: b,", "name: b, colour: red,"));
    assert!(line.starts_with("3:15: unknown field `colour`, expected one of name, from, to"), "{line}");
    assert_eq!(complaint(format!("{GOOD}dns: {{}}\n")), "7:1: the key `dns` stands here a second time");
    let line = complaint(GOOD.replace("from: low", "from: low, from: high"));
    assert_eq!(line, "3:26: the key `from` stands here a second time");
    let line = complaint(format!("{GOOD}---\n{GOOD}"));
    assert!(line.starts_with("8:1: a second document begins, expected one"), "{line}");
}

#[test]
fn the_same_words_from_every_subcommand() {
    let directory = directory();
    let path = directory.path().join("segprobe.yaml");
    fs::write(&path, format!("{GOOD}colour: red\n")).unwrap();
    let path = path.to_str().unwrap();
    let said = segprobe(&["validate", "--config.file", path]).stderr;
    for subcommand in ["agent", "check"] {
        let ended = segprobe(&[subcommand, "--config.file", path]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(64), said.as_str()), "{subcommand}");
    }
}
