//! The dashboards: made from their source, held to Grafana's schema and to the rules of this house, and each of their expressions
//! answered by a Prometheus that scraped real agents. `UPDATE_DASHBOARDS=1 cargo test --test programs dashboards_and` makes
//! them anew.

#[path = "dashboards/answers.rs"]
mod answers;
#[path = "dashboards/promql.rs"]
mod promql;
#[path = "dashboards/states.rs"]
mod states;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use segprobe::{
    model::{CheckKind, Expect, Reason, Verdict, Via},
    observation::{ReplyClass, TcpOutcome},
};
use serde_json::Value;

use self::promql::named;
use crate::support::{SOON, have, process, reference, skip};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// They never change: links and alerts name them.
const UIDS: [&str; 4] = ["segprobe-agents", "segprobe-boundary", "segprobe-dns", "segprobe-overview"];

/// Metrics that no agent of this tree exports, and why a dashboard may name them.
const OTHERS: [(&str, &str); 5] = [
    ("kube_node_info", "of kube-state-metrics: which nodes there are"),
    ("segprobe_discovery_heartbeat_timestamp_seconds", "of discovery: what it wrote, and no agent may have"),
    ("scrape_duration_seconds", "Prometheus adds it to each scrape"),
    ("scrape_samples_scraped", "Prometheus adds it to each scrape"),
    ("up", "Prometheus adds it to each scrape"),
];

struct Dashboard {
    uid: &'static str,
    path: PathBuf,
    text: String,
    json: Value,
}

/// A query of a panel.
struct Query<'a> {
    panel: &'a Value,
    reference: &'a str,
    expression: &'a str,
    instant: bool,
}

impl Dashboard {
    fn all() -> Vec<Self> {
        let mut files: Vec<_> = fs::read_dir(Path::new(ROOT).join("dashboards")).unwrap().map(|e| e.unwrap()).collect();
        files.retain(|file| file.path().extension().is_some_and(|extension| extension == "json"));
        let mut names: Vec<_> = files.iter().map(|file| file.file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, UIDS.map(|uid| format!("{uid}.json")), "a sidecar lays all files into one folder");
        UIDS.map(|uid| {
            let path = Path::new(ROOT).join("dashboards").join(format!("{uid}.json"));
            let text = fs::read_to_string(&path).unwrap();
            let json = serde_json::from_str(&text).unwrap();
            Self { uid, path, text, json }
        })
        .into()
    }

    /// Rows included.
    fn panels(&self) -> &[Value] {
        self.json["panels"].as_array().unwrap()
    }

    fn queries(&self) -> Vec<Query<'_>> {
        let mut queries = Vec::new();
        for panel in self.panels() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let (reference, expression) = (text(&target["refId"]), text(&target["expr"]));
                queries.push(Query { panel, reference, expression, instant: target["instant"] == true });
            }
        }
        queries
    }

    fn variables(&self) -> &[Value] {
        self.json["templating"]["list"].as_array().unwrap()
    }

    fn annotations(&self) -> impl Iterator<Item = &str> {
        self.json["annotations"]["list"].as_array().unwrap().iter().map(|annotation| text(&annotation["expr"]))
    }

    /// Every expression, those of variables as `label_values` has them.
    fn expressions(&self) -> Vec<&str> {
        let queries = self.queries();
        let of_variables = self.variables().iter().filter(|v| v["type"] == "query").map(|v| label_values(v).0);
        queries.iter().map(|query| query.expression).chain(of_variables).chain(self.annotations()).collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}"))
}

/// The expression of a panel's query.
fn expression_of<'a>(dashboards: &'a [Dashboard], uid: &str, title: &str, query: usize) -> &'a str {
    let dashboard = dashboards.iter().find(|dashboard| dashboard.uid == uid).unwrap();
    let mut panels = dashboard.panels().iter().filter(|panel| panel["type"] != "row");
    let panel = panels.find(|panel| panel["title"] == title).unwrap_or_else(|| panic!("{uid}: no panel {title}"));
    text(&panel["targets"][query]["expr"])
}

/// What Grafana would ask: its own variables for a range of ten minutes, and the given values for the dashboard's.
fn interpolate(expression: &str, variables: &[(&str, String)]) -> String {
    let own = [("$__rate_interval", "10s"), ("$__interval_ms", "60000"), ("$__range_s", "600"), ("$__range", "600s")];
    let mut asked = own.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
    for (name, value) in variables {
        asked = asked.replace(&format!("${name}"), value);
    }
    asked
}

/// The selector and the label of a variable's query.
fn label_values(variable: &Value) -> (&str, &str) {
    let query = text(&variable["query"]["query"]);
    assert_eq!(query, text(&variable["definition"]));
    let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
    inner.rsplit_once(", ").unwrap()
}

/// Every string of a document.
fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| strings(field, found)),
        _ => {}
    }
}

fn all_strings(value: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    strings(value, &mut found);
    found
}

/// The names after each `$` or `${`, without Grafana's own (`__…`) and the groups of `label_replace` (`$1`).
fn variables_in(text: &str) -> BTreeSet<&str> {
    text.split('$')
        .skip(1)
        .map(|rest| {
            let rest = rest.strip_prefix('{').unwrap_or(rest);
            &rest[..rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len())]
        })
        .filter(|name| !name.starts_with("__") && !name.starts_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// One test, so that what is made anew is made in this order.
#[test]
fn dashboards_and_their_document_are_what_the_source_says() {
    if have("jsonnet") && have("jsonnetfmt") {
        make_dashboards();
    }
    make_document();
}

fn make_dashboards() {
    let source = Path::new(ROOT).join("dashboards/src");
    for uid in UIDS {
        let file = source.join(format!("{}.jsonnet", uid.strip_prefix("segprobe-").unwrap()));
        let mut command = Command::new("jsonnet");
        command.arg(&file);
        let made = process::run(command, SOON);
        assert_eq!((made.code, made.stderr.as_str()), (Some(0), ""), "{}", file.display());
        let path = Path::new(ROOT).join("dashboards").join(format!("{uid}.json"));
        if env::var_os("UPDATE_DASHBOARDS").is_some() {
            fs::write(&path, &made.stdout).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == made.stdout, "{} is not what {} makes", path.display(), file.display());
    }
    let mut command = Command::new("jsonnetfmt");
    command.arg("--test").args(fs::read_dir(&source).unwrap().map(|file| file.unwrap().path()));
    let ended = process::run(command, SOON);
    assert_eq!(ended.code, Some(0), "jsonnetfmt would write the source in another way: {ended:?}");
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/dashboards.md");
const BEGIN: &str =
    "<!-- Made by `UPDATE_DASHBOARDS=1 cargo test --test programs dashboards_and`; a test compares it. -->\n";
const END: &str = "<!-- end -->\n";

fn make_document() {
    let one_line = |value: &Value| text(value).split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let mut made = String::from("\n| uid | title | shows | variables |\n|---|---|---|---|\n");
    let dashboards = Dashboard::all();
    for dashboard in &dashboards {
        let variables: Vec<_> = dashboard.variables().iter().map(|v| format!("`{}`", text(&v["name"]))).collect();
        let [title, says] = ["title", "description"].map(|field| one_line(&dashboard.json[field]));
        made += &format!("| `{}` | {title} | {says} | {} |\n", dashboard.uid, variables.join(", "));
    }
    for dashboard in &dashboards {
        made += &format!("\n### {}\n\n| panel | unit | shows |\n|---|---|---|\n", text(&dashboard.json["title"]));
        for panel in dashboard.panels().iter().filter(|panel| panel["type"] != "row") {
            let unit = text(&panel["fieldConfig"]["defaults"]["unit"]).trim_start_matches("suffix: ");
            made += &format!("| {} | {unit} | {} |\n", one_line(&panel["title"]), one_line(&panel["description"]));
        }
    }
    made += "\n";
    let document = fs::read_to_string(DOCUMENT).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the tables' beginning");
    let (committed, after) = rest.split_once(END).expect("the tables' end");
    if env::var_os("UPDATE_DASHBOARDS").is_some() {
        fs::write(DOCUMENT, [before, BEGIN, &made, END, after].concat()).unwrap();
    } else {
        assert!(committed == made, "docs/dashboards.md is not what the dashboards say: UPDATE_DASHBOARDS=1 writes it");
    }
}

/// Where `.ci/run` puts the package.
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/grafana-schema");

#[test]
fn dashboards_are_as_grafanas_schema_says() {
    if !have("python3") {
        return;
    }
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.env("PYTHONPATH", SCHEMA).env("PYTHONDONTWRITEBYTECODE", "1").args(arguments);
        process::run(command, SOON)
    };
    if python(&["-c", "import grafana_foundation_sdk"]).code != Some(0) {
        skip(
            "Python's package grafana-foundation-sdk is absent: \
             `python3 -m pip install --upgrade --target target/grafana-schema grafana-foundation-sdk==0.0.21`",
        );
        return;
    }
    let checker = format!("{ROOT}/tests/programs/dashboards/schema.py");
    let dashboards = Dashboard::all();
    let mut arguments = vec![checker.as_str()];
    arguments.extend(dashboards.iter().map(|dashboard| dashboard.path.to_str().unwrap()));
    let ended = python(&arguments);
    assert_eq!((ended.code, ended.stdout.trim(), ended.stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn dashboards_variables_are_defined_and_used() {
    for dashboard in Dashboard::all() {
        let defined: BTreeSet<&str> = dashboard.variables().iter().map(|variable| text(&variable["name"])).collect();
        assert_eq!(defined.len(), dashboard.variables().len(), "{}: a variable is defined twice", dashboard.uid);
        let used: BTreeSet<&str> = all_strings(&dashboard.json).into_iter().flat_map(variables_in).collect();
        assert_eq!(used, defined, "{}: used on the left, defined on the right", dashboard.uid);
        // Whatever is asked is asked of the chosen clusters.
        for expression in dashboard.expressions().iter().filter(|e| **e != "segprobe_build_info") {
            let selectors = expression.matches('{').count();
            assert_eq!(
                expression.matches("{cluster=~\"$cluster\"").count(),
                selectors,
                "{}: {expression}",
                dashboard.uid
            );
        }
        for target in dashboard.panels().iter().flat_map(|p| p["targets"].as_array().into_iter().flatten()) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}: {target:#}", dashboard.uid);
        }
    }
}

#[test]
fn dashboards_panels_are_documented_and_have_their_place() {
    let mut sizes = BTreeMap::new();
    for dashboard in Dashboard::all() {
        let uid = dashboard.uid;
        assert_eq!(dashboard.json["uid"], uid);
        assert_eq!(dashboard.json.get("id"), None, "{uid}: Grafana gives ids");
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        let mut titles = BTreeSet::new();
        for panel in dashboard.panels() {
            let title = text(&panel["title"]);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{uid}: {title}: its id is another panel's");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= 24, "{uid}: {title}: it is out of the grid");
            for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(place), "{uid}: {title}: it lies on another panel");
            }
            if panel["type"] == "row" {
                continue;
            }
            assert!(titles.insert(title), "{uid}: two panels are called {title}");
            let description = panel["description"].as_str().unwrap_or_default().trim();
            assert!(description.len() > 30 && description.ends_with(['.', ')']), "{uid}: {title} is not described");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
            assert!(!unit.is_empty(), "{uid}: {title} has no unit");
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{uid}: {title} asks nothing");
            let transformations = panel["transformations"].as_array().into_iter().flatten().map(|t| text(&t["id"]));
            for transformation in transformations {
                assert!(["merge", "organize", "groupingToMatrix"].contains(&transformation), "{uid}: {transformation}");
            }
        }
        sizes.insert(uid, dashboard.text.len());
    }
    // `kubectl apply` keeps a copy of a ConfigMap in an annotation of at most 262,144 bytes, each quote escaped.
    assert!(sizes.values().all(|size| *size < 160_000), "{sizes:?}");
}

/// Shades follow the theme where colours are names; what has a colour has a word beside it.
#[test]
fn dashboards_read_in_light_and_dark_and_without_colours() {
    const PALETTE: [&str; 6] = ["text", "green", "blue", "purple", "orange", "red"];
    fn colours<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| colours(item, found)),
            Value::Object(fields) => {
                for (name, field) in fields {
                    if ["color", "fixedColor", "iconColor"].contains(&name.as_str()) && !field.is_object() {
                        found.push(field);
                    }
                    colours(field, found);
                }
            }
            _ => {}
        }
    }
    for dashboard in Dashboard::all() {
        let mut found = Vec::new();
        colours(&dashboard.json, &mut found);
        assert!(found.iter().all(|colour| PALETTE.contains(&text(colour))), "{}: {found:?}", dashboard.uid);
        for literal in ["rgb(", "rgba(", "#0", "#f", "color-background", "\"background\""] {
            assert!(!dashboard.text.contains(literal), "{}: {literal}", dashboard.uid);
        }
        for mapping in dashboard.panels().iter().flat_map(|p| {
            let field = &p["fieldConfig"];
            let overridden = field["overrides"].as_array().into_iter().flatten();
            let properties = overridden.flat_map(|o| o["properties"].as_array().unwrap());
            let mappings = properties.filter(|p| p["id"] == "mappings").map(|p| &p["value"]);
            mappings.chain(field.get("defaults").map(|d| &d["mappings"])).flat_map(|m| m.as_array().unwrap())
        }) {
            for (value, shown) in mapping["options"].as_object().unwrap() {
                assert!(!text(&shown["text"]).is_empty(), "{}: {value} has a colour and no word", dashboard.uid);
            }
        }
    }
}

#[test]
fn dashboards_links_lead_somewhere() {
    let dashboards = Dashboard::all();
    let variables: BTreeMap<&str, BTreeSet<&str>> =
        dashboards.iter().map(|d| (d.uid, d.variables().iter().map(|v| text(&v["name"])).collect())).collect();
    for dashboard in &dashboards {
        let mut reached = BTreeSet::new();
        for url in all_strings(&dashboard.json) {
            if let Some(link) = url.strip_prefix("/d/") {
                let (uid, query) = link.split_once('?').unwrap();
                let known = variables.get(uid).unwrap_or_else(|| panic!("{}: {url}: no such dashboard", dashboard.uid));
                reached.insert(uid);
                for parameter in query.split('&') {
                    let name = match (parameter.strip_prefix("var-"), parameter.strip_suffix(":queryparam}")) {
                        (Some(assigned), _) => assigned.split_once('=').unwrap().0,
                        (_, Some(whole)) => whole.strip_prefix("${").unwrap(),
                        _ => continue,
                    };
                    assert!(known.contains(name), "{}: {url}: {uid} has no variable {name}", dashboard.uid);
                }
            }
            if let Some(document) = url.strip_prefix("https://") {
                let path = document
                    .strip_prefix("github.com/segprobe/segprobe/blob/main/")
                    .unwrap_or_else(|| panic!("{}: {url} is not of this repository", dashboard.uid));
                assert_document(dashboard.uid, path);
            }
        }
        assert!(dashboard.uid != "segprobe-overview" || reached.contains("segprobe-boundary"), "{reached:?}");
        // All of them are one click away.
        let links = dashboard.json["links"].as_array().unwrap();
        assert!(links.iter().any(|l| l["type"] == "dashboards" && l["tags"][0] == "segprobe"), "{}", dashboard.uid);
        assert_eq!(dashboard.json["tags"][0], "segprobe", "{}", dashboard.uid);
    }
}

fn assert_document(uid: &str, path: &str) {
    let (file, anchor) = path.split_once('#').map_or((path, None), |(file, anchor)| (file, Some(anchor)));
    let file = Path::new(ROOT).join(file);
    assert!(file.exists(), "{uid}: {path} is not in the repository");
    if let Some(anchor) = anchor {
        let document = fs::read_to_string(file).unwrap();
        let mut headings = document.lines().filter_map(|line| Some(line.strip_prefix('#')?.trim_start_matches('#')));
        let anchor_of = |heading: &str| heading.trim().to_lowercase().replace(' ', "-");
        assert!(headings.any(|heading| anchor_of(heading) == anchor), "{uid}: {path}: no such heading");
    }
}

/// The metrics of an agent, and the series of its histograms.
fn exported() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, metric) in reference::metrics("Agents") {
        if metric.kind == "histogram" {
            names.extend(["bucket", "count", "sum"].map(|part| format!("{name}_{part}")));
        }
        names.insert(name);
    }
    names
}

#[test]
fn dashboards_name_what_there_is() {
    let exported = exported();
    let mut others: BTreeMap<&str, &str> = OTHERS.into();
    for (name, why) in OTHERS {
        assert!(!exported.contains(name), "the agent exports {name}: it is no longer one of the others ({why})");
    }
    let words: [(&str, Vec<&str>); 6] = [
        ("check", CheckKind::ALL.iter().map(|w| w.as_str()).collect()),
        ("expect", Expect::ALL.iter().map(|w| w.as_str()).collect()),
        ("reason", Reason::ALL.iter().map(|w| w.as_str()).collect()),
        ("verdict", Verdict::ALL.iter().map(|w| w.as_str()).collect()),
        ("via", Via::ALL.iter().map(|w| w.as_str()).collect()),
        (
            "outcome",
            TcpOutcome::ALL
                .iter()
                .map(|w| w.as_str())
                .chain(ReplyClass::ALL.iter().map(|w| w.as_str()))
                .chain(["lost"])
                .collect(),
        ),
    ];
    let words: BTreeMap<&str, Vec<&str>> = words.into();
    for dashboard in Dashboard::all() {
        for expression in dashboard.expressions() {
            let named = named(expression);
            for metric in &named.metrics {
                let known = exported.contains(metric)
                    || metric.starts_with("process_")
                    || OTHERS.iter().any(|(o, _)| o == metric);
                assert!(known, "{}: nobody exports {metric}: {expression}", dashboard.uid);
                others.remove(metric.as_str());
            }
            for (label, value) in named.matchers.iter().filter(|(_, value)| !value.is_empty() && !value.contains('$')) {
                let known = |word: &str| words.get(label.as_str()).is_none_or(|all| all.contains(&word));
                assert!(value.split('|').all(known), "{}: {label}={value}: no such word: {expression}", dashboard.uid);
            }
            // Names of clusters, namespaces and the like are chosen, never written down.
            for (label, value) in &named.matchers {
                let fixed = words.contains_key(label.as_str()) || value.is_empty() || value == &format!("${label}");
                let server = label == "target" && value == "$server";
                assert!(fixed || server, "{}: {label}={value} is written down: {expression}", dashboard.uid);
            }
        }
    }
    assert!(others.is_empty(), "no dashboard names {others:?}");
}
