//! `docs/errors.md` has every message, and none that the program does not say. It is held to the messages that the tables of bad
//! configurations assert, and to the texts in the sources.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Stands for what differs.
const ANY: char = '…';

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs")).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The program's sources, less their comments and tests.
fn program() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code = |path: &PathBuf| -> String {
        let text = read(path);
        let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
    };
    sources(&root.join("src")).iter().map(code).collect()
}

/// The string literals of a source, in their order, as the compiler reads them.
fn literals(source: &str) -> Vec<String> {
    let (mut found, mut chars) = (Vec::new(), source.chars().peekable());
    while let Some(c) = chars.next() {
        // A quotation mark as a character is no string.
        if c == '\'' && chars.peek() == Some(&'"') {
            chars.next();
        }
        if c != '"' {
            continue;
        }
        let mut literal = String::new();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => match chars.next() {
                    Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                    Some('n') => literal.push('\n'),
                    Some(c) => literal.push(c),
                    None => break,
                },
                c => literal.push(c),
            }
        }
        found.push(literal);
    }
    found
}

/// A text of `format!` with what differs told as such.
fn template(literal: &str) -> String {
    let (mut template, mut chars) = (String::new(), literal.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.next_if_eq(&c).is_some() => template.push(c),
            '{' => {
                chars.by_ref().take_while(|c| *c != '}').for_each(drop);
                template.push(ANY);
            }
            c => template.push(c),
        }
    }
    template
}

/// What the document says: the messages of its tables.
fn documented() -> Vec<String> {
    let document = read("docs/errors.md");
    let cell = |line: &str| -> Option<String> {
        let cell = line.strip_prefix("| ")?.split(" | ").next()?;
        let fence = if cell.starts_with("``") { "``" } else { "`" };
        Some(cell.strip_prefix(fence)?.strip_suffix(fence)?.trim().to_owned())
    };
    document.lines().filter_map(cell).collect()
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split(ANY);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Patterns that say something: `…: …` would match whatever is forgotten.
fn telling() -> Vec<String> {
    documented().into_iter().filter(|pattern| pattern.chars().filter(|c| c.is_alphabetic()).count() >= 5).collect()
}

/// The messages of bad configurations, as the tables in `src/config` and the programs' tests assert them.
fn asserted() -> Vec<String> {
    let tables = [("src/config/tests.rs", "f.yaml:"), ("src/web/file/tests.rs", "web.yml:")];
    let of_table = |(file, prefix): (&str, &'static str)| {
        let told =
            literals(&read(file)).into_iter().filter_map(move |text| Some(text.strip_prefix(prefix)?.to_owned()));
        let lines =
            told.flat_map(move |text| text.split(&format!("\n{prefix}")).map(str::to_owned).collect::<Vec<_>>());
        lines.filter_map(|line| Some(line.split_once(": ")?.1.to_owned()))
    };
    tables.into_iter().flat_map(of_table).collect()
}

/// The literal that follows each of these.
fn after(source: &str, marker: &str) -> Vec<String> {
    let rests = source.split(marker).skip(1).filter(|rest| rest.trim_start().starts_with(['"', 'f']));
    // `format!(` may stand between, and nothing else.
    let rests = rests.map(|rest| rest.trim_start().trim_start_matches("format!(").trim_start());
    rests.filter(|rest| rest.starts_with('"')).map(|rest| template(&literals(rest)[0])).collect()
}

/// The message of each log event of these severities: the last literal of the macro.
fn logged(source: &str) -> Vec<String> {
    let events = ["warn!(", "error!("].iter().flat_map(|log| source.split(log).skip(1));
    let ends = |line: &str| line.ends_with(");") || line.trim() == "),";
    let message = |rest: &str| {
        let lines = rest.lines().position(ends)?;
        literals(&rest.lines().take(lines + 1).collect::<Vec<_>>().join("\n")).pop()
    };
    events.filter_map(message).map(|text| template(&text)).collect()
}

#[test]
fn every_message_of_a_bad_configuration_is_told() {
    let (patterns, asserted) = (telling(), asserted());
    assert!(asserted.len() > 100, "{asserted:#?}");
    let untold: Vec<&String> = asserted.iter().filter(|text| !patterns.iter().any(|p| matches(p, text))).collect();
    assert!(untold.is_empty(), "docs/errors.md lacks {untold:#?}");
}

#[test]
fn every_message_of_the_program_is_told() {
    let (patterns, program) = (telling(), program());
    let mut messages = Vec::new();
    for source in &program {
        messages.extend(after(source, "Failure::system(").into_iter().map(|what| format!("{what}: {ANY}")));
        messages.extend(after(source, "Self::system(").into_iter().map(|what| format!("{what}: {ANY}")));
        messages.extend(after(source, "Failure::Usage("));
        messages.extend(after(source, "c.problem(at, "));
        messages.extend(logged(source));
    }
    for file in ["src/config/cross_checks.rs", "src/config/cross_checks/dns.rs", "src/discovery/settings.rs"] {
        let code = read(file);
        let literals = literals(code.split("\n#[cfg(test)]").next().unwrap());
        messages.extend(literals.iter().filter(|text| text.contains(", expected ")).map(|text| template(text)));
    }
    for file in ["src/vantage/netns.rs", "src/vantage/listeners.rs", "src/inventory/cri/error.rs"] {
        messages.extend(after(&read(file), "#[error("));
    }
    // What HTTP answers, and the flags that are refused: a new text there is to be told too.
    for (file, marker) in [
        ("src/export/access.rs", ": &str ="),
        ("src/export/access.rs", "Err(format!("),
        ("src/web/guard.rs", "later(wait, "),
        ("src/web/guard.rs", "from_secs(1), "),
        ("src/web/guard.rs", "UNAUTHORIZED, challenge, "),
        ("src/export/http.rs", "SERVICE_UNAVAILABLE, "),
        ("src/cli.rs", "Err("),
    ] {
        let code = read(file);
        let found = after(code.split("\n#[cfg(test)]").next().unwrap(), marker);
        assert!(!found.is_empty(), "{file} has no text after {marker}");
        messages.extend(found.iter().map(|text| text.trim_end().to_owned()));
    }
    // Breaches are no errors.
    messages.retain(|text| !["segmentation breach", "segmentation breach over", "open while new"].contains(&&**text));
    // A message of nothing but what another says.
    messages.retain(|text| text.chars().any(char::is_alphabetic));
    assert!(messages.len() > 50, "{messages:#?}");
    let untold: Vec<&String> = messages.iter().filter(|text| !patterns.iter().any(|p| matches(p, text))).collect();
    assert!(untold.is_empty(), "docs/errors.md lacks {untold:#?}");
}

#[test]
fn no_message_is_told_that_nobody_says() {
    let mut said: Vec<String> =
        program().iter().flat_map(|source| literals(source)).flat_map(|text| [template(&text), text]).collect();
    said.extend(asserted());
    let unsaid: Vec<String> = documented()
        .into_iter()
        // What the system says is added where it is told, and so are remedies: each part must stand somewhere.
        .filter(|pattern| {
            let whole = said.iter().any(|text| matches(pattern, text));
            let parts =
                || pattern.split(ANY).map(|part| part.trim_matches([':', ';', ' '])).filter(|part| part.len() > 3);
            !whole && !parts().all(|part| said.iter().any(|text| text.contains(part)))
        })
        .collect();
    assert!(unsaid.is_empty(), "docs/errors.md tells of {unsaid:#?}");
}

#[test]
fn texts_are_read_as_the_compiler_reads_them() {
    let source = "let c = '\"'; f(\"a \\\n    b\", \"\\\"x\\\" {y:?} {{z}}\");";
    assert_eq!(literals(source), ["a b", "\"x\" {y:?} {{z}}"]);
    assert_eq!(template("\"x\" {y:?} {{z}}"), "\"x\" … {z}");
    assert!(matches("a … b", "a x b") && matches("…: b", "x: y: b") && !matches("a …", "b a ") && !matches("a", "ab"));
}
