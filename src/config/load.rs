//! Reading: files to documents, with limits, and every error at its place.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_saphyr::{budget, options};
use sha2::{Digest, Sha256};

use super::{
    Config, Source, cross_checks,
    document::{Document, JsonTargetFile, MoreNamespaces, Negative, Target, TargetFile},
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
    /// A problem at a place of a file.
    pub fn new(file: &Path, at: Position, message: impl Into<String>) -> Self {
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

/// Discovery's word for a target file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The file, relative to the configuration's directory.
    pub file: Arc<str>,
    /// The API still said so then.
    pub at: Timestamp,
}

/// The files as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// SHA-256 over names and contents of all files, in hex, without their heartbeats.
    pub digest: String,
    /// The heartbeats, in the order of the files.
    pub heartbeats: Vec<Heartbeat>,
}

impl Files {
    /// Looks at all files.
    ///
    /// # Errors
    /// A file that cannot be read or is too large.
    pub fn look(&self) -> Result<Look, LoadError> {
        let main = read_text(&self.main, MOST_CONFIG_BYTES)?;
        let targets = self.read_targets()?;
        let beating = targets.iter().filter_map(|(path, text)| {
            let (_, at) = heartbeat_in(path, text)?;
            Some(Heartbeat { file: self.label(path), at })
        });
        Ok(Look { digest: digest(&main, &targets), heartbeats: beating.collect() })
    }

    fn label(&self, path: &Path) -> Arc<str> {
        let directory = self.main.parent().unwrap_or(Path::new(""));
        path.strip_prefix(directory).unwrap_or(path).to_string_lossy().into()
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
                let text = read_text(&path, MOST_TARGET_BYTES)?;
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
        let beat = heartbeat_in(path, text).map_or(0..0, |(place, _)| place);
        hash.update(&text.as_bytes()[..beat.start]);
        hash.update(&text.as_bytes()[beat.end..]);
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// A file's heartbeat and the place of its value, where it is found without a parser: as the first member of a JSON file, or on a
/// line of its own in YAML. So it may change every minute, and neither is the file parsed nor the configuration loaded again.
fn heartbeat_in(path: &Path, text: &str) -> Option<(Range<usize>, Timestamp)> {
    let value = if is_json(path) {
        let after = |text: &'_ str, what: &str| Some(text.trim_start().strip_prefix(what)?.len());
        let from_end = |left: usize| &text[text.len() - left..];
        let mut left = text.len();
        for what in ["{", "\"heartbeat\"", ":", "\""] {
            left = after(from_end(left), what)?;
        }
        from_end(left).split('"').next()?
    } else {
        let line = text.split('\n').find_map(|line| line.strip_prefix("heartbeat:"))?;
        line.trim().trim_matches(['"', '\''])
    };
    let start = value.as_ptr() as usize - text.as_ptr() as usize;
    Some((start..start + value.len(), value.parse().ok()?))
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"))
}

/// Reads a configuration and all its target files.
///
/// # Errors
/// Everything that is wrong with them; nothing is applied by halves.
pub fn load(path: &Path) -> Result<(Config, Files), LoadError> {
    let text = read_text(path, MOST_CONFIG_BYTES)?;
    let document: Document = parse_yaml(path, &text)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let patterns = document.target_files.iter().map(|p| directory.join(&p.value).to_string_lossy().into_owned());
    let files = Files { main: path.to_owned(), patterns: patterns.collect() };
    let targets = files.read_targets()?;
    for (pattern, at) in files.patterns.iter().zip(&document.target_files) {
        if !pattern.contains(['*', '?', '[']) && !targets.iter().any(|(path, _)| path == Path::new(pattern)) {
            return Err(Problem::new(path, at.at, format!("target file `{}` does not exist", at.value)).into());
        }
    }
    let config = finish(path, &text, document, &targets, |path| files.label(path))?;
    Ok((config, files))
}

/// Checks a configuration that is one text, without target files. `name` stands for the file in errors.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(name: &Path, text: &str) -> Result<Config, LoadError> {
    let document: Document = parse_yaml(name, text)?;
    if let Some(file) = document.target_files.first() {
        return Err(Problem::new(name, file.at, "target_files need a configuration file to be relative to").into());
    }
    finish(name, text, document, &[], |path| path.to_string_lossy().into())
}

fn finish(
    main: &Path,
    text: &str,
    mut document: Document,
    targets: &[(PathBuf, String)],
    label: impl Fn(&Path) -> Arc<str>,
) -> Result<Config, LoadError> {
    let hash = digest(text, targets);
    let own = std::mem::take(&mut document.targets);
    let (mut heartbeats, mut files, mut more) = (Vec::new(), Vec::with_capacity(targets.len()), Vec::new());
    let mut nodes = Vec::new();
    for (path, text) in targets {
        let file = target_file(path, text)?;
        nodes.extend(file.nodes);
        let mut vouched_by = None;
        if let Some(Located { value, at }) = file.heartbeat {
            let at = value.parse().map_err(|_| {
                Problem::new(
                    path,
                    at,
                    format!("heartbeat: found `{value}`, expected a time such as 2026-11-26T03:34:19Z"),
                )
            })?;
            vouched_by = u16::try_from(heartbeats.len()).ok();
            heartbeats.push(Heartbeat { file: label(path), at });
        }
        // One discovery serves agents of several configurations, and each takes what its own zones need.
        let of_file = file.zones.iter().flat_map(|zones| zones.value.keys());
        let foreign: BTreeSet<String> = of_file.filter(|zone| !document.zones.contains_key(*zone)).cloned().collect();
        more.push(More { file: path, zones: file.zones, negative: file.negative });
        files.push((path.as_path(), vouched_by, foreign, file.targets));
    }
    let files = files.into_iter().flat_map(|(path, vouched_by, foreign, targets)| {
        let is_ours = move |target: &Result<Located<Target>, _>| {
            target.as_ref().map_or(true, |target| !foreign.contains(&target.value.zone))
        };
        targets.filter(is_ours).map(move |target| Listed { file: path, vouched_by, target })
    });
    let own = own.into_iter().map(|t| Listed { file: main, vouched_by: None, target: Ok(t) });
    let mut config = cross_checks::check(main, document, &more, own.chain(files), nodes, hash)?;
    config.heartbeats = heartbeats.into();
    let files = targets.iter().map(|(path, _)| path.clone()).collect();
    config.source = Arc::new(Source { path: main.to_owned(), text: text.into(), targets: files });
    Ok(config)
}

/// What a target file has beside its targets.
pub struct More<'a> {
    pub file: &'a Path,
    pub zones: Option<Located<MoreNamespaces>>,
    pub negative: Option<Located<Vec<Negative>>>,
}

/// A target and where it is listed.
pub struct Listed<'a> {
    pub file: &'a Path,
    pub vouched_by: Option<u16>,
    pub target: Result<Located<Target>, Problem>,
}

/// Reads a file of `most` bytes at most.
///
/// # Errors
/// It cannot be read, is larger, or is not UTF-8.
pub fn read_text(path: &Path, most: u32) -> Result<String, Problem> {
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

/// The targets of one file, each read when it is asked for where the format allows it.
type Targets<'a> = Box<dyn Iterator<Item = Result<Located<Target>, Problem>> + 'a>;

/// A target file.
struct Parsed<'a> {
    heartbeat: Option<Located<String>>,
    zones: Option<Located<MoreNamespaces>>,
    negative: Option<Located<Vec<Negative>>>,
    nodes: Vec<NodeName>,
    targets: Targets<'a>,
}

fn target_file<'a>(path: &'a Path, text: &'a str) -> Result<Parsed<'a>, Problem> {
    if is_json(path) {
        return json_target_file(path, text);
    }
    let TargetFile { heartbeat, zones, negative, nodes, targets } = parse_yaml(path, text)?;
    Ok(Parsed { heartbeat, zones, negative, nodes, targets: Box::new(targets.into_iter().map(Ok)) })
}

/// Reads YAML, with bounds on its depth and size; `path` stands for the file in errors.
///
/// # Errors
/// What is wrong with it, in our words and at its place.
pub fn parse_yaml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Problem> {
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

const START: Position = Position { line: 1, column: 1 };

/// Walks through a JSON text and tells the places of its values.
struct Places<'a> {
    path: &'a Path,
    text: &'a str,
    at: Position,
    seen: usize,
}

impl<'a> Places<'a> {
    const fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, at: START, seen: 0 }
    }

    /// Reads a value that stands behind all that were read before.
    fn read<T: DeserializeOwned>(&mut self, raw: &RawValue) -> Result<Located<T>, Problem> {
        // The raw value borrows from the text, so the difference of their addresses is its offset.
        let offset = raw.get().as_ptr() as usize - self.text.as_ptr() as usize;
        for byte in &self.text.as_bytes()[self.seen..offset] {
            if *byte == b'\n' {
                self.at = Position { line: self.at.line + 1, column: 1 };
            } else {
                self.at.column += 1;
            }
        }
        self.seen = offset;
        let value = serde_json::from_str(raw.get()).map_err(|e| json_problem(self.path, &e, self.at))?;
        Ok(Located { value, at: self.at })
    }
}

fn json_problem(path: &Path, e: &serde_json::Error, base: Position) -> Problem {
    let line = base.line + e.line() as u64 - 1;
    let column = if e.line() == 1 { base.column + (e.column() as u64).max(1) - 1 } else { e.column() as u64 };
    let message = e.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    Problem::new(path, Position { line, column }, message)
}

fn json_target_file<'a>(path: &'a Path, text: &'a str) -> Result<Parsed<'a>, Problem> {
    let file: JsonTargetFile<'_> = serde_json::from_str(text).map_err(|e| json_problem(path, &e, START))?;
    // The few values around the targets may stand in any order.
    let heartbeat = file.heartbeat.map(|raw| Places::new(path, text).read(raw)).transpose()?;
    let zones = file.zones.map(|raw| Places::new(path, text).read(raw)).transpose()?;
    let negative = file.negative.map(|raw| Places::new(path, text).read(raw)).transpose()?;
    let mut places = Places::new(path, text);
    // One at a time: as a list they would take several times the memory of what is kept of them.
    let targets = Box::new(file.targets.into_iter().map(move |raw| places.read(raw)));
    Ok(Parsed { heartbeat, zones, negative, nodes: file.nodes, targets })
}
