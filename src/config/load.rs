//! Reading: files to documents, with limits, and every error at its place.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_saphyr::{budget, options};
use sha2::{Digest, Sha256};

use super::{
    Config, cross_checks,
    document::{Document, JsonTargetFile, Target, TargetFile},
    scalars::{Located, NodeName, Position},
};
use crate::model::plain;

/// Largest configuration file, in bytes.
const MOST_CONFIG_BYTES: u32 = 4 << 20;
/// Largest target file, in bytes.
const MOST_TARGET_BYTES: u32 = 32 << 20;
/// Most target files.
const MOST_FILES: usize = 1_000;
/// Longest message, in characters.
const MOST_MESSAGE: usize = 400;
/// Deepest nesting of a document.
const MOST_DEPTH: usize = 24;

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line and column, 1-based; 0 where the whole file is meant.
    pub line: u64,
    /// See `line`.
    pub column: u64,
    /// What was found and what was expected.
    pub message: String,
}

impl Problem {
    pub(super) fn new(file: &Path, at: Position, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: at.line, column: at.column, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        // One line that fits on a screen, whatever the file held.
        let message = plain(&self.message);
        match message.char_indices().nth(MOST_MESSAGE) {
            Some((end, _)) => write!(f, " {} …", &message[..end]),
            None => write!(f, " {message}"),
        }
    }
}

/// Everything that is wrong with a configuration: one line each, never empty.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct LoadError(pub Vec<Problem>);

impl From<Problem> for LoadError {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// The files that a configuration was read from, for telling whether they changed. Contents are compared, because
/// Kubernetes swaps a ConfigMap's symlinks.
#[derive(Clone, Debug)]
pub struct Files {
    main: PathBuf,
    patterns: Vec<String>,
}

impl Files {
    /// SHA-256 over names and contents of all files as they are now, in hex.
    ///
    /// # Errors
    /// A file that cannot be read or is too large.
    pub fn digest(&self) -> Result<String, LoadError> {
        let main = read(&self.main, MOST_CONFIG_BYTES)?;
        let targets = self.read_targets()?;
        Ok(digest(&main, &targets))
    }

    fn read_targets(&self) -> Result<Vec<(PathBuf, String)>, Problem> {
        let mut paths = Vec::new();
        for pattern in &self.patterns {
            let found = glob::glob(pattern)
                .map_err(|e| Problem::new(&self.main, Position::default(), format!("target_files `{pattern}`: {e}")))?;
            paths.extend(found.filter_map(Result::ok));
        }
        paths.sort();
        paths.dedup();
        if paths.len() > MOST_FILES {
            let message = format!("target_files name {} files, expected {MOST_FILES} at most", paths.len());
            return Err(Problem::new(&self.main, Position::default(), message));
        }
        paths
            .into_iter()
            .map(|path| {
                let text = read(&path, MOST_TARGET_BYTES)?;
                Ok((path, text))
            })
            .collect()
    }
}

fn digest(main: &str, targets: &[(PathBuf, String)]) -> String {
    let mut hash = Sha256::new();
    hash.update(main.as_bytes());
    for (path, text) in targets {
        hash.update(path.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(text.as_bytes());
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads a configuration and all its target files.
///
/// # Errors
/// Everything that is wrong with them; nothing is applied by halves.
pub fn load(path: &Path) -> Result<(Config, Files), LoadError> {
    let text = read(path, MOST_CONFIG_BYTES)?;
    let document = document(path, &text)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let patterns = document.target_files.iter().map(|p| directory.join(&p.value).to_string_lossy().into_owned());
    let files = Files { main: path.to_owned(), patterns: patterns.collect() };
    let targets = files.read_targets()?;
    for (pattern, at) in files.patterns.iter().zip(&document.target_files) {
        if !pattern.contains(['*', '?', '[']) && !targets.iter().any(|(path, _)| path == Path::new(pattern)) {
            return Err(Problem::new(path, at.at, format!("target file `{}` does not exist", at.value)).into());
        }
    }
    let config = finish(path, &text, document, &targets)?;
    Ok((config, files))
}

/// Checks a configuration that is one text, without target files. `name` stands for the file in errors.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(name: &Path, text: &str) -> Result<Config, LoadError> {
    let document = document(name, text)?;
    if let Some(file) = document.target_files.first() {
        return Err(Problem::new(name, file.at, "target_files need a configuration file to be relative to").into());
    }
    finish(name, text, document, &[])
}

fn finish(main: &Path, text: &str, mut document: Document, targets: &[(PathBuf, String)]) -> Result<Config, LoadError> {
    let hash = digest(text, targets);
    let own = std::mem::take(&mut document.targets);
    let mut files = Vec::with_capacity(targets.len());
    let mut nodes = Vec::new();
    for (path, text) in targets {
        let (of_file, targets) = target_file(path, text)?;
        nodes.extend(of_file);
        files.push((path.as_path(), targets));
    }
    let files = files.into_iter().flat_map(|(path, targets)| targets.map(move |target| (path, target)));
    cross_checks::check(main, document, own.into_iter().map(|t| (main, Ok(t))).chain(files), nodes, hash)
}

fn read(path: &Path, most: u32) -> Result<String, Problem> {
    let whole = |message: String| Problem::new(path, Position::default(), message);
    let cannot = |e: io::Error| whole(format!("cannot read: {e}"));
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(u64::from(most) + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > u64::from(most) {
        return Err(whole(format!("larger than {} MiB, which is the most that is read", most >> 20)));
    }
    String::from_utf8(bytes).map_err(|e| {
        let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = good.iter().filter(|b| **b == b'\n').count() as u64 + 1;
        let column = good.iter().rev().take_while(|b| **b != b'\n').count() as u64 + 1;
        Problem::new(path, Position { line, column }, "not UTF-8; save the file as UTF-8 without a byte order mark")
    })
}

fn document(path: &Path, text: &str) -> Result<Document, Problem> {
    yaml(path, text)
}

/// The targets of one file, each read when it is asked for where the format allows it.
type Targets<'a> = Box<dyn Iterator<Item = Result<Located<Target>, Problem>> + 'a>;

/// Nodes that run an agent, and targets.
fn target_file<'a>(path: &'a Path, text: &'a str) -> Result<(Vec<NodeName>, Targets<'a>), Problem> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        return json_targets(path, text);
    }
    let TargetFile { nodes, targets } = yaml(path, text)?;
    Ok((nodes, Box::new(targets.into_iter().map(Ok))))
}

fn yaml<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, Problem> {
    // Enough for a file of the largest size, and an end to nesting and aliases.
    let options = options! {
        budget: budget! {
            max_depth: MOST_DEPTH,
            max_nodes: 4_000_000,
            max_events: 8_000_000,
            max_total_scalar_bytes: MOST_TARGET_BYTES as usize,
            max_aliases: 1_000,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at = error.location().map_or(Position::default(), |l| Position { line: l.line(), column: l.column() });
        let message = error.without_snippet().to_string();
        let message = message.lines().next().unwrap_or_default();
        // The position has a place of its own in our line.
        let message = in_plain_words(message.split(" at line ").next().unwrap_or(message));
        Problem::new(path, at, with_found(&message, text, at))
    })
}

/// The parser's messages speak of Rust's types, of its own options and of the grammar: ours speak of the file.
fn in_plain_words(message: &str) -> String {
    if let Some(key) = message.strip_prefix("duplicate mapping key: ") {
        return format!("the key `{}` stands here a second time", key.split(", set ").next().unwrap_or(key));
    }
    match message {
        "invalid u16" => "expected a whole number from 0 to 65535",
        "invalid u32" => "expected a whole number from 0 to 4294967295",
        "expected mapping start" => "expected a mapping",
        "expected sequence start" => "expected a list",
        "recursive references require weak recursion types" => "an alias cannot stand inside of what it stands for",
        m if m.starts_with("multiple YAML documents") => "a second document begins, expected one",
        // Our own limit, and the parser's for what is deeper still.
        m if m.starts_with("budget breached: Depth") || m == "recursion limit exceeded" => {
            return format!("nested too deep, expected {MOST_DEPTH} levels at most");
        }
        m if m.starts_with("budget breached") => "too many values or aliases for a configuration",
        m => m,
    }
    .to_owned()
}

/// Adds the value that stands at the place, where the message does not say it.
fn with_found(message: &str, text: &str, at: Position) -> String {
    let line = at.line.checked_sub(1).and_then(|line| text.lines().nth(usize::try_from(line).ok()?));
    let rest: String = line
        .map_or("", |l| l)
        .chars()
        .skip(usize::try_from(at.column).unwrap_or(0).saturating_sub(1))
        .take(40)
        .collect();
    // A plain value ends where the list or mapping around it goes on.
    let found =
        if rest.starts_with(['{', '[', '"', '\'']) { &rest } else { rest.split([',', '}', ']']).next().unwrap_or("") };
    match found.trim() {
        "" | ":" => message.to_owned(),
        _ if message.contains(['`', '"']) => message.to_owned(),
        found => format!("{message}, found `{found}`"),
    }
}

fn json_targets<'a>(path: &'a Path, text: &'a str) -> Result<(Vec<NodeName>, Targets<'a>), Problem> {
    let problem = |e: &serde_json::Error, base: Position| {
        let line = base.line + e.line() as u64 - 1;
        let column = if e.line() == 1 { base.column + (e.column() as u64).max(1) - 1 } else { e.column() as u64 };
        let message = e.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        Problem::new(path, Position { line, column }, message)
    };
    let start = Position { line: 1, column: 1 };
    let file: JsonTargetFile<'_> = serde_json::from_str(text).map_err(|e| problem(&e, start))?;
    let (mut at, mut seen) = (start, 0);
    // One at a time: as a list they would take several times the memory of what is kept of them.
    let targets = file.targets.into_iter().map(move |raw| {
        // The raw value borrows from the text, so the difference of their addresses is its offset.
        let offset = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        for byte in &text.as_bytes()[seen..offset] {
            if *byte == b'\n' {
                at = Position { line: at.line + 1, column: 1 };
            } else {
                at.column += 1;
            }
        }
        seen = offset;
        let value = serde_json::from_str(raw.get()).map_err(|e| problem(&e, at))?;
        Ok(Located { value, at })
    });
    Ok((file.nodes, Box::new(targets)))
}
