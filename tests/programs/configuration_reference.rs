//! `docs/configuration.md` is made from the JSON Schema and the samples: every key, its form and what it says.

use std::{collections::BTreeSet, fmt::Write};

use serde_json::Value;

use crate::support::document;

/// The reference of a document: a table for each of its objects, the outermost first.
fn reference(schema: &Value) -> String {
    let mut text = String::new();
    let mut told = BTreeSet::new();
    let mut to_tell = vec![(String::new(), schema.clone())];
    while !to_tell.is_empty() {
        let (title, object) = to_tell.remove(0);
        if !told.insert(title.clone()) {
            continue;
        }
        if !title.is_empty() {
            write!(text, "\n### {title}\n\n{}\n\n", says(&object)).unwrap();
        }
        text += "| key | form | default | says |\n|---|---|---|---|\n";
        let required = object["required"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (key, value) in object["properties"].as_object().unwrap() {
            let default = if required.iter().any(|r| *r == **key) { "required".into() } else { default(value) };
            let says = says(value).replace('\n', " ").replace('|', "\\|");
            writeln!(text, "| `{key}` | {} | {default} | {says} |", form(schema, value, &mut to_tell)).unwrap();
        }
    }
    text
}

fn says(value: &Value) -> &str {
    value["description"].as_str().unwrap_or_default()
}

/// What holds where the key is absent; empty where that is nothing, or is told with the keys of its own.
fn default(value: &Value) -> String {
    match &value["default"] {
        Value::Null | Value::Object(_) => String::new(),
        Value::Array(list) if list.is_empty() => String::new(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{}`", other.to_string().replace('"', "").replace(',', ", ").replace(':', ": ")),
    }
}

/// What may stand there, in words. Objects that have keys of their own are told later.
fn form(schema: &Value, value: &Value, to_tell: &mut Vec<(String, Value)>) -> String {
    if let Some(reference) = value["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        let object = &schema["$defs"][name];
        if object["properties"].is_object() {
            to_tell.push((name.to_owned(), object.clone()));
            return format!("[{name}](#{})", name.to_lowercase());
        }
        return form(schema, object, to_tell);
    }
    let several = value["anyOf"].as_array().or(value["oneOf"].as_array());
    // An address is a text with two formats.
    if let Some(several) = several.filter(|s| !s.iter().all(|of| of["format"].is_string())) {
        let mut forms: Vec<String> = Vec::new();
        for of in several.iter().filter(|of| of["type"] != "null") {
            let form = form(schema, of, to_tell);
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        return forms.join(" or ");
    }
    if let Some(word) = value["const"].as_str() {
        return format!("`{word}`");
    }
    if let Some(words) = value["enum"].as_array() {
        return words
            .iter()
            .map(|word| format!("`{}`", word.to_string().trim_matches('"')))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    let kind = value["type"].as_array().and_then(|kinds| kinds.iter().find(|kind| **kind != "null"));
    match kind.unwrap_or(&value["type"]).as_str() {
        Some("array") => format!("list of {}", form(schema, &value["items"], to_tell)),
        Some("object") => format!("mapping to {}", form(schema, &value["additionalProperties"], to_tell)),
        Some("integer" | "number") => "number".into(),
        Some("boolean") => "`true` or `false`".into(),
        Some("string") if value["anyOf"].is_array() => "address".into(),
        Some("string") => "text".into(),
        other => panic!("a form that the reference does not know: {other:?} of {value}"),
    }
}

#[test]
fn the_reference_has_every_key() {
    document::holds("docs/configuration.md", "reference", &reference(&segprobe::config::json_schema()));
}

#[test]
fn forms_are_told_in_words() {
    let schema = serde_json::json!({
        "properties": {
            "a": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}], "default": null, "description": "One | two."},
            "b": {"type": "array", "items": {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}], "type": "string"}},
            "c": {"type": "integer", "default": 3},
            "d": {"type": "array", "items": {"type": "string"}, "default": [{"x": "y", "z": 1}]},
        },
        "required": ["b"],
        "$defs": {"A": {"description": "An A.", "properties": {"w": {"oneOf": [{"const": "x"}, {"const": "y"}]}}}},
    });
    let expected = "| key | form | default | says |
|---|---|---|---|
| `a` | [A](#a) |  | One \\| two. |
| `b` | list of address | required |  |
| `c` | number | `3` |  |
| `d` | list of text | `[{x: y, z: 1}]` |  |

### A

An A.

| key | form | default | says |
|---|---|---|---|
| `w` | `x` or `y` |  |  |
";
    assert_eq!(reference(&schema), expected);
}
