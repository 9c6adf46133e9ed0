//! The Kubernetes API, as far as it is asked: list, watch and server-side apply, with bounds on what is read and waited for.
//!
//! kube's client does TLS, credentials and their renewal. Its watcher is not used: it hides bookmarks, and they are what a
//! heartbeat rests on; and one object that it cannot read costs it the whole list.

use std::{borrow::Cow, collections::BTreeSet, error::Error, marker::PhantomData, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::{Body, Client};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::objects::{Meta, Object};

/// Most objects in one page of a list.
pub const PAGE: usize = 500;
/// Most bytes of a page: of large objects there are fewer in one.
const MOST_PAGE: usize = 32 << 20;
/// Most bytes of one event: etcd takes objects of 1.5 MiB.
const MOST_EVENT: usize = 8 << 20;
/// Most bytes of an error's text.
const MOST_ERROR: usize = 64 << 10;
/// Time for an answer, other than a watch's.
const PATIENCE: Duration = Duration::from_secs(60);
/// A watch that is silent for so long past its own end is dead.
const GRACE: Duration = Duration::from_secs(15);
/// Longest that a server may tell to wait.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Who owns what is applied.
const MANAGER: &str = "segprobe-discover";

/// Why the API did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server answered, with an error.
    #[error("{code}: {message}")]
    Refused {
        /// HTTP status, or the status within a watch.
        code: u16,
        /// What it says of it.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It was not reached, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// It answered with something that it should not.
    #[error("{0}")]
    Odd(String),
    /// It answered with more bytes than are read.
    #[error("an answer of more than {} KiB", .0 >> 10)]
    TooLarge(usize),
    /// It did not answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
}

impl ApiError {
    /// What was asked for is too old, or the kind is not known.
    pub const fn is(&self, status: u16) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == status)
    }

    /// When the server wants to be asked again.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The API.
#[derive(Clone)]
pub struct Api {
    client: Client,
    labels: Arc<BTreeSet<String>>,
}

/// An object, or its namespace and name where it cannot be read.
pub type Told<T> = Result<T, (String, String)>;

/// A page of a list.
pub struct Page<T> {
    /// Its objects.
    pub items: Vec<Told<T>>,
    /// The state that it shows.
    pub version: String,
    /// What to ask for the next page with; empty for the last one.
    pub next: String,
}

/// What a watch tells.
#[derive(Debug, PartialEq)]
pub enum Event<T> {
    /// It is there, or is different.
    Is(Told<T>),
    /// It is not there any more: namespace and name.
    IsGone((String, String)),
    /// Nothing changed up to here.
    Bookmark,
}

/// A watch under way.
pub struct Watch<T> {
    body: Body,
    read: Vec<u8>,
    patience: Duration,
    labels: Arc<BTreeSet<String>>,
    /// The state that was told last.
    pub version: String,
    of: PhantomData<T>,
}

#[derive(Deserialize)]
struct ListBody<'a> {
    metadata: ListMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(default)]
    r#continue: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    metadata: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    resource_version: String,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
    message: String,
}

impl Api {
    /// Asks through a client, and keeps these labels of objects.
    pub fn new(client: Client, labels: BTreeSet<String>) -> Self {
        Self { client, labels: Arc::new(labels) }
    }

    /// A page of all objects of a kind, so many at most. No version is asked for, so it is what etcd has now.
    ///
    /// # Errors
    /// No answer, or none that is a list, or a larger one than is read.
    pub async fn list<T: Object>(&self, next: &str, limit: usize) -> Result<Page<T>, ApiError> {
        let next = if next.is_empty() { String::new() } else { format!("&continue={}", escaped(next)) };
        let (path, select) = (T::PATH, T::SELECT);
        let answer = self.ask(get(&format!("{path}?limit={limit}{next}&{select}"))?).await?;
        let bytes = timed(read(answer.into_body(), MOST_PAGE)).await?;
        let list: ListBody<'_> =
            serde_json::from_slice(&bytes).map_err(|e| ApiError::Odd(format!("not a list: {e}")))?;
        let items = list.items.unwrap_or_default().into_iter().map(|raw| told(raw, &self.labels)).collect();
        Ok(Page { items, version: list.metadata.resource_version, next: list.metadata.r#continue })
    }

    /// Begins a watch that the server ends after `time`.
    ///
    /// # Errors
    /// No answer, or an error; status 410 where the version is too old.
    pub async fn watch<T: Object>(&self, version: &str, time: Duration) -> Result<Watch<T>, ApiError> {
        let (path, select, seconds) = (T::PATH, T::SELECT, time.as_secs().max(1));
        let from = escaped(version);
        let path = format!(
            "{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={from}&{select}"
        );
        let body = self.ask(get(&path)?).await?.into_body();
        let (labels, version) = (self.labels.clone(), version.to_owned());
        Ok(Watch { body, read: Vec::new(), patience: time + GRACE, labels, version, of: PhantomData })
    }

    /// Writes one key of a ConfigMap by server-side apply, and takes it from whoever else had it.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub async fn apply(&self, namespace: &str, name: &str, key: &str, text: &str) -> Result<(), ApiError> {
        let object = serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": {key: text},
        });
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}?fieldManager={MANAGER}&force=true");
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/apply-patch+yaml")
            .header(header::ACCEPT, "application/json")
            .body(Body::from(object.to_string().into_bytes()));
        let answer = self.ask(request.map_err(|e| ApiError::Odd(e.to_string()))?).await?;
        // To its end, so that the connection can be used again.
        timed(read(answer.into_body(), MOST_PAGE)).await.map(|_| ())
    }

    async fn ask(&self, request: Request<Body>) -> Result<Response<Body>, ApiError> {
        let answer =
            timed(async { self.client.send(request).await.map_err(|e| ApiError::Unreachable(chain(&e))) }).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        Err(refusal(answer, status).await)
    }
}

impl<T: Object> Watch<T> {
    /// What is told next; nothing when the server has ended the watch.
    ///
    /// # Errors
    /// The connection broke or is silent, or the server told an error.
    pub async fn next(&mut self) -> Result<Option<Event<T>>, ApiError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return self.event(&line).map(Some);
            }
            if self.read.len() > MOST_EVENT {
                return Err(ApiError::Odd(format!("an event of more than {} MiB", MOST_EVENT >> 20)));
            }
            let frame = tokio::time::timeout(self.patience, self.body.frame()).await;
            match frame.map_err(|_| ApiError::Silent(self.patience))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(ApiError::Unreachable(chain(&error))),
                Some(Ok(frame)) => self.read.extend_from_slice(&frame.into_data().unwrap_or_default()),
            }
        }
    }

    fn event(&mut self, line: &[u8]) -> Result<Event<T>, ApiError> {
        let odd = |e: serde_json::Error| ApiError::Odd(format!("not an event: {e}"));
        let line: Line<'_> = serde_json::from_slice(line).map_err(odd)?;
        let event = match &*line.r#type {
            "ADDED" | "MODIFIED" => Event::Is(told(line.object, &self.labels)),
            "DELETED" => Event::IsGone(name(line.object)),
            "BOOKMARK" => Event::Bookmark,
            "ERROR" => {
                let Status { code, message } = serde_json::from_str(line.object.get()).map_err(odd)?;
                return Err(ApiError::Refused { code, message: bounded(&message), retry_after: None });
            }
            other => return Err(ApiError::Odd(format!("an event of type `{}`", bounded(other)))),
        };
        let Versioned { metadata } = serde_json::from_str(line.object.get()).map_err(odd)?;
        self.version = metadata.resource_version;
        Ok(event)
    }
}

fn told<T: Object>(raw: &RawValue, labels: &BTreeSet<String>) -> Told<T> {
    let mut object: T = serde_json::from_str(raw.get()).map_err(|_| name(raw))?;
    object.metadata_mut().keep(labels);
    Ok(object)
}

fn name(raw: &RawValue) -> (String, String) {
    let Named { metadata } = serde_json::from_str(raw.get()).unwrap_or_default();
    (metadata.namespace, metadata.name)
}

fn get(path: &str) -> Result<Request<Body>, ApiError> {
    // Uncompressed: of a compressed watch each event is a stream of its own.
    Request::get(path)
        .header(header::ACCEPT, "application/json")
        .header(header::ACCEPT_ENCODING, "identity")
        .body(Body::empty())
        .map_err(|e| ApiError::Odd(e.to_string()))
}

async fn timed<T>(answer: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(ApiError::Silent(PATIENCE)))
}

async fn read(mut body: Body, most: usize) -> Result<Vec<u8>, ApiError> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let bytes = frame.map_err(|e| ApiError::Unreachable(chain(&e)))?.into_data().unwrap_or_default();
        if read.len() + bytes.len() > most {
            return Err(ApiError::TooLarge(most));
        }
        read.extend_from_slice(&bytes);
    }
    Ok(read)
}

async fn refusal(answer: Response<Body>, status: StatusCode) -> ApiError {
    let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = seconds.map(|seconds| Duration::from_secs(seconds).min(MOST_RETRY_AFTER));
    let text = timed(read(answer.into_body(), MOST_ERROR)).await.unwrap_or_default();
    let told: Status = serde_json::from_slice(&text).unwrap_or_default();
    let message = if told.message.is_empty() { status.canonical_reason().unwrap_or_default() } else { &told.message };
    ApiError::Refused { code: status.as_u16(), message: bounded(message), retry_after }
}

/// A server's words, as much of them as fits a line.
fn bounded(text: &str) -> String {
    crate::model::plain(&text.chars().take(300).collect::<String>())
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Wrappers repeat what they wrap.
        if !told.iter().any(|known| known.contains(&text)) {
            told.push(text);
        }
        source = error.source();
    }
    bounded(&told.join(": "))
}

/// A value of a query.
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::objects::Service;

    fn watch(body: Body) -> Watch<Service> {
        let labels = Arc::new(["kept".to_owned()].into());
        Watch { body, read: Vec::new(), patience: GRACE, labels, version: "1".into(), of: PhantomData }
    }

    fn event(line: &str) -> Result<(Event<Service>, String), String> {
        let mut watch = watch(Body::empty());
        let event = watch.event(line.as_bytes()).map_err(|e| e.to_string())?;
        Ok((event, watch.version))
    }

    #[test]
    fn events() {
        let line = |kind: &str, object: &str| format!(r#"{{"type":"{kind}","object":{object}}}"#);
        let good = r#"{"metadata":{"namespace":"n","name":"s","resourceVersion":"7"},"spec":{"clusterIP":"10.0.0.1"}}"#;
        let (told, version) = event(&line("ADDED", good)).unwrap();
        assert!(matches!(told, Event::Is(Ok(service)) if service.spec.cluster_ip == "10.0.0.1") && version == "7");
        let key = || ("n".to_owned(), "s".to_owned());
        assert_eq!(event(&line("DELETED", good)).unwrap(), (Event::IsGone(key()), "7".into()));
        assert_eq!(event(&line("BOOKMARK", good)).unwrap(), (Event::Bookmark, "7".into()));
        // Of what anybody may write, only what is asked for is kept.
        let labelled = r#"{"metadata":{"labels":{"kept":"1","other":"2"},"ownerReferences":[{"name":"a"},{"name":"b","controller":true}],
            "resourceVersion":"7"}}"#;
        let (Event::Is(Ok(service)), _) = event(&line("ADDED", labelled)).unwrap() else { panic!("it is read") };
        assert_eq!(service.metadata.labels, [("kept".to_owned(), "1".to_owned())].into());
        assert_eq!(service.metadata.owner_references.iter().map(|o| &*o.name).collect::<Vec<_>>(), ["b"]);
        // One that is odd is known by its name.
        let odd = r#"{"metadata":{"namespace":"n","name":"s","resourceVersion":"8"},"spec":{"ports":"none"}}"#;
        assert_eq!(event(&line("MODIFIED", odd)).unwrap(), (Event::Is(Err(key())), "8".into()));
        let gone = r#"{"code":410,"message":"too old\u001b[31m"}"#;
        assert_eq!(event(&line("ERROR", gone)).unwrap_err(), "410: too old\\u{1b}[31m");
        for wrong in
            ["", "{", "[]", r#"{"type":"ADDED"}"#, r#"{"type":"ODD","object":{}}"#, r#"{"type":"ADDED","object":{}}"#]
        {
            event(wrong).unwrap_err();
        }
    }

    #[tokio::test]
    async fn an_event_without_an_end_is_not_read_to_its_end() {
        let of = |bytes: Vec<u8>| watch(Body::from(bytes));
        assert!(matches!(of(vec![b'x'; MOST_EVENT + 1]).next().await, Err(ApiError::Odd(_))));
        assert!(matches!(of(vec![b'x'; 100]).next().await, Ok(None)), "a server that ended in mid-event");
        assert!(matches!(of(b"\n\n".into()).next().await, Ok(None)));
    }

    #[test]
    fn values_of_queries_are_escaped() {
        assert_eq!(escaped("aZ9-._~"), "aZ9-._~");
        assert_eq!(escaped("a=b&c d\u{e9}"), "a%3Db%26c%20d%C3%A9");
    }
}
