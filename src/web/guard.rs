//! What every request passes: the rate limit, who asks, and the headers of the answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
    let Some(mut users) = serving.users.clone() else { return Ok(certificate) };
    let (Some((user, password)), Some(peer)) = (asked.credentials, asked.peer) else { return Err(log_in()) };
    let login = loop {
        let login = web.logins().check(&users, peer.address.ip(), &user, &password).await;
        match &web.serving().users {
            // They changed while it waited: who was taken away is not let in any more.
            Some(now) if !Arc::ptr_eq(now, &users) => users = now.clone(),
            _ => break login,
        }
    };
    match login {
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
    use std::{fs, net::SocketAddr};

    use axum::{Extension, body::Body, http::HeaderValue, routing::get};
    use tower::ServiceExt;

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

    const PEER: Peer = Peer {
        address: SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1),
        loopback: true,
        certificate: false,
    };

    /// A site with a page of its own policy, behind a web configuration.
    fn site(text: &str, peer: Peer) -> (Web, Router) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yml");
        fs::write(&path, text).unwrap();
        let web = Web::load(&path, false).unwrap_or_else(|e| panic!("{e}"));
        let page = |Extension(authenticated): Extension<Authenticated>| async move {
            ([(header::CONTENT_SECURITY_POLICY, "default-src 'none'")], format!("{}", authenticated.0))
        };
        let app = Router::new().route("/", get(page)).route("/-/healthy", get(page)).route("/-/ready", get(page));
        let app = web.guard(app).layer(Extension(peer));
        (web, app)
    }

    async fn ask(app: &Router, path: &str, login: Option<&str>) -> (Response, String) {
        let mut request = Request::builder().uri(path);
        if let Some(login) = login {
            request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(login)));
        }
        let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (Response::from_parts(parts, Body::empty()), String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn everything_but_health_asks_for_the_password() {
        let hash = bcrypt::hash("right", 4).unwrap();
        let (web, app) = site(&format!("basic_auth_users: {{alice: {hash}}}"), PEER);
        for path in ["/", "/nothing", "//-/ready", "/-/ready/", "/-/healthy/..", "/-/reload"] {
            for login in [None, Some("alice:wrong"), Some("bob:right"), Some("alice")] {
                let (answer, _) = ask(&app, path, login).await;
                assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path} {login:?}");
                assert!(answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Basic realm="));
            }
        }
        for path in ["/-/healthy", "/-/ready", "/-/ready?a=b"] {
            let (answer, body) = ask(&app, path, None).await;
            assert_eq!((answer.status(), body.as_str()), (StatusCode::OK, "false"), "{path}");
        }
        let (answer, body) = ask(&app, "/", Some("alice:right")).await;
        assert_eq!((answer.status(), body.as_str()), (StatusCode::OK, "true"));
        assert_eq!(ask(&app, "/nothing", Some("alice:right")).await.0.status(), StatusCode::NOT_FOUND);
        // Two refusals, two of them remembered, and one good one; a login without a colon is none.
        assert_eq!(web.status().unwrap().hashes, 3);
    }

    #[tokio::test]
    async fn who_waited_is_looked_up_among_the_users_of_the_moment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.yml");
        let write = |password: &str| {
            fs::write(&path, format!("basic_auth_users: {{alice: {}}}", bcrypt::hash(password, 4).unwrap())).unwrap();
        };
        write("old");
        let web = Web::load(&path, false).unwrap_or_else(|e| panic!("{e}"));
        let app = web.guard(Router::new().route("/", get(|| async {}))).layer(Extension(PEER));
        for (password, expected) in [("old", 401), ("new", 200)] {
            write("old");
            web.reload("test").unwrap();
            let held = web.logins().hold().await;
            let asking = app.clone();
            let login = format!("alice:{password}");
            let asked = tokio::spawn(async move { ask(&asking, "/", Some(&login)).await.0.status() });
            while web.logins().waiting() == 0 {
                tokio::task::yield_now().await;
            }
            write("new");
            web.reload("test").unwrap();
            drop(held);
            assert_eq!(asked.await.unwrap(), expected, "{password}");
        }
    }

    #[tokio::test]
    async fn a_verified_certificate_is_somebody_but_no_password() {
        let peer = Peer { certificate: true, ..PEER };
        assert_eq!(ask(&site("{}", PEER).1, "/", None).await.1, "false");
        assert_eq!(ask(&site("{}", peer).1, "/", None).await.1, "true");
        let hash = bcrypt::hash("right", 4).unwrap();
        let (_, app) = site(&format!("basic_auth_users: {{alice: {hash}}}"), peer);
        assert_eq!(ask(&app, "/", None).await.0.status(), StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn headers_are_added_and_loosen_nothing() {
        let headers = "X-Frame-Options: deny, Content-Security-Policy: \"default-src *\", X-XSS-Protection: ''";
        let (_, app) = site(&format!("http_server_config: {{headers: {{{headers}}}}}"), PEER);
        let (answer, _) = ask(&app, "/", None).await;
        let policies: Vec<_> = answer.headers().get_all(header::CONTENT_SECURITY_POLICY).iter().collect();
        assert_eq!(policies, ["default-src 'none'", "default-src *"], "a browser holds to both");
        assert_eq!(answer.headers()[header::X_FRAME_OPTIONS], "deny");
        assert!(!answer.headers().contains_key(header::X_XSS_PROTECTION));
        assert!(ask(&app, "/nothing", None).await.0.headers().contains_key(header::X_FRAME_OPTIONS));
    }

    #[tokio::test]
    async fn more_requests_than_the_limit_are_sent_away_but_not_a_kubelet() {
        let (_, app) = site("rate_limit: {interval: 90s, burst: 2}", PEER);
        let mut ends = Vec::new();
        for _ in 0..3 {
            ends.push(ask(&app, "/", None).await.0);
        }
        assert_eq!(ends.iter().map(Response::status).collect::<Vec<_>>(), [200, 200, 429]);
        assert_eq!(ends[2].headers()[header::RETRY_AFTER], "90");
        assert_eq!(ask(&app, "/-/ready", None).await.0.status(), StatusCode::OK);
    }
}
