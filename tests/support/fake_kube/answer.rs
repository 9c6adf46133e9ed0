//! Lists, watches and applies, and their opposite.

use std::{collections::HashMap, convert::Infallible, io, time::Instant};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State as Extracted},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Duration};

use super::{Asked, BOOKMARKS, Misbehaviour, Shared, TOKEN, Verb};

pub fn router(shared: Shared) -> Router {
    Router::new().fallback(answer).with_state(shared)
}

async fn answer(Extracted(shared): Extracted<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path().to_owned();
    let query = query(parts.uri.query().unwrap_or_default());
    let segments: Vec<&str> = path.split('/').collect();
    let is_patch = parts.method == "PATCH";
    let verb = match &query.get("watch") {
        _ if is_patch => Verb::Patch,
        Some(_) => Verb::Watch,
        None => Verb::List,
    };
    // …/namespaces/N/configmaps/NAME, or …/PLURAL.
    let plural = if is_patch { segments[segments.len() - 2] } else { segments[segments.len() - 1] }.to_owned();
    let header = |name| text(&parts.headers, name);
    let asked = Asked {
        verb,
        plural: plural.clone(),
        path: path.clone(),
        query: query.clone(),
        content_type: header(header::CONTENT_TYPE),
        authorization: header(header::AUTHORIZATION),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        at: Instant::now(),
    };
    let (how, is_known) = {
        let mut state = shared.lock();
        state.asked.push(asked.clone());
        let how = state.misbehaviours.get_mut(&(plural.clone(), verb)).and_then(|queue| queue.pop_front());
        (how, !state.unknown.contains(&plural))
    };
    if asked.authorization != format!("Bearer {TOKEN}") {
        return status(401, "Unauthorized", None);
    }
    while !is_patch && shared.lock().frozen {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    match how {
        None => {}
        Some(Misbehaviour::Status(code, retry_after)) => return status(code, "told to say so", retry_after),
        Some(Misbehaviour::ErrorEvent(code)) => {
            let object = json!({"kind": "Status", "code": code, "message": "told to say so"});
            return format!("{}\n", json!({"type": "ERROR", "object": object})).into_response();
        }
        Some(Misbehaviour::Bytes(bytes)) => return bytes.into_response(),
        Some(Misbehaviour::Stall) => std::future::pending::<()>().await,
        Some(Misbehaviour::Cut) => {
            let cut = Err(io::Error::other("told to cut"));
            return Body::from_stream(stream::iter([Ok("{\"metadata\":{\"resourceV".to_owned()), cut])).into_response();
        }
    }
    if !is_known {
        return status(404, "the server could not find the requested resource", None);
    }
    match verb {
        Verb::List => list(&shared, &plural, &query),
        Verb::Watch => watch(shared, plural, &query),
        Verb::Patch => apply(&shared, &segments, &query, &asked),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

fn query(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), unescaped(value))).collect()
}

fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn status(code: u16, message: &str, retry_after: Option<u64>) -> Response {
    let object = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message});
    let mut response = (StatusCode::from_u16(code).unwrap(), object.to_string()).into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// What the field selector of pods leaves.
fn is_selected(object: &Value, query: &HashMap<String, String>) -> bool {
    let ended = ["Succeeded", "Failed"].contains(&object["status"]["phase"].as_str().unwrap_or_default());
    !query.contains_key("fieldSelector") || !ended
}

fn list(shared: &Shared, plural: &str, query: &HashMap<String, String>) -> Response {
    let state = shared.lock();
    let of = |((kind, ..), object): (&(String, String, String), &Value)| {
        (kind == plural && is_selected(object, query)).then(|| object.clone())
    };
    let all: Vec<Value> = state.objects.iter().filter_map(of).collect();
    // A token that has to be escaped.
    let from: usize = query.get("continue").map_or(0, |token| token.trim_start_matches("from=&").parse().unwrap());
    let limit = query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap()).min(state.page);
    let items: Vec<&Value> = all.iter().skip(from).take(limit).collect();
    let next = from + items.len();
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if next < all.len() {
        metadata["continue"] = format!("from=&{next}").into();
    }
    // Go writes an empty list as null in some versions.
    let items = if items.is_empty() { Value::Null } else { json!(items) };
    json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}).to_string().into_response()
}

fn watch(shared: Shared, plural: String, query: &HashMap<String, String>) -> Response {
    let mut at: u64 = query["resourceVersion"].parse().unwrap();
    if at < shared.lock().oldest {
        return status(410, "too old resource version", None);
    }
    let seconds: u64 = query["timeoutSeconds"].parse().unwrap();
    assert_eq!(query.get("allowWatchBookmarks").map(String::as_str), Some("true"));
    let query = query.clone();
    let (sender, mut receiver) = mpsc::channel::<String>(64);
    tokio::spawn(async move {
        let ends = tokio::time::Instant::now() + Duration::from_secs(seconds);
        let mut bookmarks = tokio::time::interval(BOOKMARKS);
        bookmarks.tick().await;
        let mut changed = shared.changed.subscribe();
        loop {
            let mut lines = Vec::new();
            {
                let state = shared.lock();
                // What it did not hear is forgotten.
                if at < state.oldest {
                    return;
                }
                for event in state.events.iter().filter(|e| !state.frozen && e.version > at && e.plural == plural) {
                    // What is no longer selected is deleted, to whoever watches.
                    let kind = if is_selected(&event.object, &query) { event.kind } else { "DELETED" };
                    lines.push(json!({"type": kind, "object": event.object}).to_string());
                }
                if !state.frozen {
                    at = at.max(state.version);
                }
            }
            for line in lines {
                if sender.send(format!("{line}\n")).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep_until(ends) => return,
                told = changed.changed() => {
                    if told.is_err() || *changed.borrow() == u64::MAX {
                        return;
                    }
                }
                _ = bookmarks.tick() => {
                    let (frozen, silent) = { let state = shared.lock(); (state.frozen, state.no_bookmarks) };
                    let object = json!({"metadata": {"resourceVersion": at.to_string()}});
                    let line = format!("{}\n", json!({"type": "BOOKMARK", "object": object}));
                    if !frozen && !silent && sender.send(line).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    let lines = stream::poll_fn(move |context| receiver.poll_recv(context).map(|line| line.map(Ok::<_, Infallible>)));
    Body::from_stream(lines).into_response()
}

fn apply(shared: &Shared, segments: &[&str], query: &HashMap<String, String>, asked: &Asked) -> Response {
    let [.., namespace, _, name] = segments else { return status(404, "no such path", None) };
    if asked.content_type != "application/apply-patch+yaml" {
        return status(415, "expected server-side apply", None);
    }
    if !query.contains_key("fieldManager") {
        return status(422, "PatchOptions.meta.k8s.io: fieldManager: Required value", None);
    }
    let mut state = shared.lock();
    let Some(config_map) = state.config_maps.get_mut(&((*namespace).to_owned(), (*name).to_owned())) else {
        // As for a role with `patch` on named objects and without `create`.
        let message =
            format!("configmaps \"{name}\" is forbidden: User cannot create resource in namespace {namespace}");
        return status(403, &message, None);
    };
    *config_map = asked.body["data"].clone();
    asked.body.to_string().into_response()
}
