//! What every request passes: the rate limit, who asks, and the headers of the answer.

use std::time::{Duration, Instant};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Authenticated, Peer, Web, live::Serving, logins::Login};

/// Longest `Authorization`: a longer one is refused unread.
const MOST_CREDENTIALS: usize = 1024;

impl Web {
    /// A site behind the web configuration: requests are limited, passwords asked for, [`Authenticated`] and headers set. `/-/healthy`
    /// and `/-/ready` are answered whoever asks: they tell nothing, and a kubelet has no password.
    pub fn guard(&self, app: Router) -> Router {
        app.layer(from_fn_with_state(self.clone(), guard))
    }
}

async fn guard(State(web): State<Web>, mut request: Request, next: Next) -> Response {
    let serving = web.serving();
    let asked = Asked {
        open: matches!(request.uri().path(), "/-/healthy" | "/-/ready"),
        peer: request.extensions().get::<Peer>().copied(),
        credentials: credentials(request.headers()),
    };
    let mut answer = match admit(&web, &serving, asked).await {
        Ok(authenticated) => {
            request.extensions_mut().insert(authenticated);
            next.run(request).await
        }
        Err(refusal) => refusal,
    };
    for (name, value) in &serving.headers {
        if name == header::CONTENT_SECURITY_POLICY {
            // Beside the page's own: browsers hold to both, so that no configuration loosens it.
            answer.headers_mut().append(name, value.clone());
        } else {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer
}

/// What of a request decides whether it is answered.
struct Asked {
    /// For something that is answered whoever asks.
    open: bool,
    peer: Option<Peer>,
    credentials: Option<(String, Vec<u8>)>,
}

async fn admit(web: &Web, serving: &Serving, asked: Asked) -> Result<Authenticated, Response> {
    let certificate = Authenticated(asked.peer.is_some_and(|peer| peer.certificate));
    if asked.open {
        return Ok(certificate);
    }
    serving.take_token(Instant::now()).map_err(|wait| later(wait, "too many requests: rate_limit"))?;
    let Some(users) = &serving.users else { return Ok(certificate) };
    let (Some((user, password)), Some(peer)) = (asked.credentials, asked.peer) else { return Err(log_in()) };
    match web.logins().check(users, peer.address.ip(), &user, &password).await {
        Login::Good => Ok(Authenticated(true)),
        Login::Bad => Err(log_in()),
        Login::Busy => Err(later(Duration::from_secs(1), "too many logins wait")),
    }
}

fn log_in() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"segprobe\", charset=\"UTF-8\"")];
    (StatusCode::UNAUTHORIZED, challenge, "a user and a password are needed\n").into_response()
}

fn later(wait: Duration, why: &str) -> Response {
    // Whole seconds, rounded up.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds.to_string())], format!("{why}\n")).into_response()
}

/// User and password of `Authorization: Basic`.
fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = value.split_at_checked("Basic ".len()).filter(|_| value.len() <= MOST_CREDENTIALS)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    let user = std::str::from_utf8(&decoded[..colon]).ok()?.to_owned();
    Some((user, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn credentials_are_read_as_written_and_junk_is_none() {
        let read = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
            credentials(&headers)
        };
        let alice = Some(("alice".to_owned(), b"a:b".to_vec()));
        // alice:a:b
        for good in ["Basic YWxpY2U6YTpi", "basic YWxpY2U6YTpi", "BASIC  YWxpY2U6YTpi "] {
            assert_eq!(read(good.as_bytes()), alice, "{good}");
        }
        let long = format!("Basic {}", "YWxp".repeat(300));
        for bad in ["", "Basic", "Basic ", "Bearer YWxpY2U6YTpi", "Basic YWxpY2U", "Basic !!!!", "Basic /zph", &long] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(read(b"Basic\xff\xfe"), None);
        assert_eq!(credentials(&HeaderMap::new()), None);
    }
}
