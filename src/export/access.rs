//! Who may see what shows the protected zone's inventory, and who may steer the agent: whoever asks over the loopback address; others
//! only where the command line allows it, and when they have proven who they are.

use std::net::SocketAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::web::{Authenticated, Peer, is_loopback};

/// What the command line allows beyond the loopback address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `--web.enable-detail`: verdicts, checks and the configuration.
    pub detail: bool,
    /// `--web.enable-lifecycle`: reloads.
    pub lifecycle: bool,
}

/// What a request is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The protected zone's inventory and the holes in the wall.
    Detail,
    /// Another state of the agent.
    Lifecycle,
}

const LOOPBACK_ONLY: &str = "only over the loopback address, where `kubectl port-forward` leads, or with --web.enable-detail and authentication\n";
const LOOPBACK_ONLY_RELOAD: &str =
    "only over the loopback address (SIGHUP works too), or with --web.enable-lifecycle and authentication\n";
const BY_NAME: &str = "over the loopback address, ask for it by its name: localhost, 127.0.0.1 or [::1]\n";
const PROVE: &str =
    "only with authentication: a password of basic_auth_users or a client certificate, as --web.config.file has them\n";
const FOREIGN: &str = "a web page of another origin asks: open this address itself\n";

/// Whether an agent may start: what is shown or steered from other machines needs authentication.
///
/// # Errors
/// One line that says how to do it right.
pub fn may_start(listen: &str, access: Access, authenticates: bool) -> Result<(), String> {
    let flag = match access {
        Access { detail: true, .. } => "--web.enable-detail",
        Access { lifecycle: true, .. } => "--web.enable-lifecycle",
        Access { detail: false, lifecycle: false } => return Ok(()),
    };
    if authenticates || names_loopback(listen) {
        return Ok(());
    }
    Err(format!(
        "{flag} with --web.listen-address {listen}: other machines would see it without authentication; give a --web.config.file with \
         basic_auth_users or client_auth_type RequireAndVerifyClientCert, or leave the flag away: `kubectl port-forward` works without"
    ))
}

/// Lets through who may have what is wanted, and answers the others.
pub async fn guard(access: Access, want: Want, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let asking = Asking {
        loopback: extensions.get::<Peer>().is_some_and(|peer| peer.loopback),
        authenticated: extensions.get::<Authenticated>().is_some_and(|authenticated| authenticated.0),
        headers: request.headers(),
        uri: request.uri(),
    };
    let mut response = match asking.may(access, want) {
        Ok(()) => next.run(request).await,
        Err(why) => (StatusCode::FORBIDDEN, why).into_response(),
    };
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What is known of who asks.
struct Asking<'a> {
    loopback: bool,
    authenticated: bool,
    headers: &'a HeaderMap,
    uri: &'a Uri,
}

impl Asking<'_> {
    fn may(&self, access: Access, want: Want) -> Result<(), &'static str> {
        if self.is_foreign(want) {
            return Err(FOREIGN);
        }
        // A web page that points a name of its own here (DNS rebinding) comes over loopback, but says its name.
        let named = self.names().all(|name| name.is_some_and(names_loopback));
        let loopback = self.loopback && !self.is_forwarded();
        if loopback && named {
            return Ok(());
        }
        let (allowed, only) = match want {
            Want::Detail => (access.detail, LOOPBACK_ONLY),
            Want::Lifecycle => (access.lifecycle, LOOPBACK_ONLY_RELOAD),
        };
        match (allowed, self.authenticated) {
            (true, true) => Ok(()),
            (true, false) => Err(PROVE),
            (false, _) if loopback => Err(BY_NAME),
            (false, _) => Err(only),
        }
    }

    /// By which names it asks, in HTTP/1 and HTTP/2; none for one that cannot be read.
    fn names(&self) -> impl Iterator<Item = Option<&str>> {
        let hosts = self.headers.get_all(header::HOST).iter().map(|host| host.to_str().ok());
        hosts.chain(self.uri.authority().map(|authority| Some(authority.as_str())))
    }

    /// A proxy beside the agent asks over loopback for whoever asked it.
    fn is_forwarded(&self) -> bool {
        self.headers.keys().map(HeaderName::as_str).any(|name| {
            matches!(name, "forwarded" | "via" | "x-real-ip")
                || name.starts_with("x-forwarded-")
                || name.starts_with("x-envoy-")
        })
    }

    /// A browser asks with the passwords and certificates of its user, whichever page made it ask, and says so. A link to the page may
    /// be followed from anywhere; nothing else of another origin has business here.
    fn is_foreign(&self, want: Want) -> bool {
        let header = |name: &str| self.headers.get(name).map(HeaderValue::as_bytes);
        let origin = header("origin").is_some_and(|origin| {
            let origin = std::str::from_utf8(origin).ok().and_then(|origin| origin.split_once("://"));
            !origin.is_some_and(|(_, origin)| {
                self.names().all(|name| name.is_some_and(|n| n.eq_ignore_ascii_case(origin)))
            })
        });
        let site = header("sec-fetch-site").is_some_and(|site| site != b"same-origin" && site != b"none");
        let link = header("sec-fetch-mode") == Some(b"navigate") && header("sec-fetch-dest") == Some(b"document");
        origin || site && !(link && want == Want::Detail)
    }
}

/// Whether an address or name, with or without a port, is one of loopback.
fn names_loopback(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return is_loopback(address.ip());
    }
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.parse::<u16>().is_ok() { name } else { host });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        for host in ["localhost", "localhost:11450", "127.0.0.1:11450", "127.0.0.1", "[::1]:11450", "[::1]"] {
            assert!(names_loopback(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:11450", "127.0.0.1.evil.example", "10.0.0.1:11450", "localhost.evil:1", ""]
        {
            assert!(!names_loopback(host), "{host}");
        }
    }

    #[test]
    fn what_other_machines_may_have_needs_authentication() {
        let (none, detail) = (Access::default(), Access { detail: true, lifecycle: false });
        let lifecycle = Access { detail: false, lifecycle: true };
        let both = Access { detail: true, lifecycle: true };
        for listen in [":11450", "0.0.0.0:11450", "[::]:11450", "10.0.0.1:80", "node7:11450", "192.168.0.1:0", ":0"] {
            assert_eq!(may_start(listen, none, false), Ok(()), "{listen}");
            for (access, flag) in [(detail, "detail"), (lifecycle, "lifecycle"), (both, "detail")] {
                assert_eq!(may_start(listen, access, true), Ok(()), "{listen}");
                let told = may_start(listen, access, false).unwrap_err();
                for part in [
                    flag,
                    listen,
                    "--web.config.file",
                    "basic_auth_users",
                    "RequireAndVerifyClientCert",
                    "port-forward",
                ] {
                    assert!(told.contains(part) && told.lines().count() == 1, "{part}: {told}");
                }
            }
        }
        for listen in ["127.0.0.1:11450", "127.9.9.9:1", "[::1]:11450", "localhost:11450", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(may_start(listen, both, false), Ok(()), "{listen}");
        }
    }

    const NO: Access = Access { detail: false, lifecycle: false };
    const ALL: Access = Access { detail: true, lifecycle: true };

    fn ask(
        (loopback, authenticated): (bool, bool),
        access: Access,
        want: Want,
        uri: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(), &'static str> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect();
        Asking { loopback, authenticated, headers: &headers, uri: &uri.parse().unwrap() }.may(access, want)
    }

    #[test]
    fn loopback_freely_others_by_flag_and_proof() {
        for want in [Want::Detail, Want::Lifecycle] {
            let only = if want == Want::Detail { LOOPBACK_ONLY } else { LOOPBACK_ONLY_RELOAD };
            let by = |who, access, host| ask(who, access, want, "/", &[("host", host)]);
            for access in [NO, ALL] {
                assert_eq!(by((true, false), access, "localhost:11450"), Ok(()));
                assert_eq!(ask((true, false), access, want, "/", &[]), Ok(()));
            }
            assert_eq!(by((false, false), NO, "localhost:11450"), Err(only));
            assert_eq!(by((false, true), NO, "node7:11450"), Err(only));
            assert_eq!(by((false, false), ALL, "node7:11450"), Err(PROVE));
            assert_eq!(by((false, true), ALL, "node7:11450"), Ok(()));
            // Each flag opens its own.
            let other = Access { detail: want == Want::Lifecycle, lifecycle: want == Want::Detail };
            assert_eq!(by((false, true), other, "node7:11450"), Err(only));
            // Rebinding: the connection is of loopback, the name is not; HTTP/2 and proxies put it elsewhere.
            assert_eq!(by((true, false), NO, "evil.example"), Err(BY_NAME));
            assert_eq!(by((true, false), NO, "ev\u{ef}l.example"), Err(BY_NAME));
            assert_eq!(by((true, false), ALL, "evil.example"), Err(PROVE));
            assert_eq!(ask((true, false), NO, want, "https://evil.example/", &[]), Err(BY_NAME));
            assert_eq!(ask((true, false), NO, want, "https://evil.example/", &[("host", "localhost")]), Err(BY_NAME));
            assert_eq!(ask((true, false), NO, want, "/", &[("host", "localhost"), ("host", "evil")]), Err(BY_NAME));
            assert_eq!(ask((true, false), NO, want, "https://localhost/", &[]), Ok(()));
        }
    }

    #[test]
    fn what_a_proxy_forwards_is_not_of_loopback() {
        for name in ["x-forwarded-for", "x-forwarded-proto", "forwarded", "via", "x-real-ip", "x-envoy-internal"] {
            let by = |who, access| ask(who, access, Want::Detail, "/", &[("host", "localhost:11450"), (name, "x")]);
            assert_eq!(by((true, false), NO), Err(LOOPBACK_ONLY), "{name}");
            assert_eq!(by((true, false), ALL), Err(PROVE), "{name}");
            assert_eq!(by((true, true), ALL), Ok(()), "{name}");
        }
    }

    #[test]
    fn pages_of_other_origins_may_link_here_and_nothing_else() {
        let link = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let frame = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        for (headers, detail, lifecycle) in [
            (&[("origin", "http://localhost:11450")] as &[_], true, true),
            (&[("origin", "http://localhost:3000")], false, false),
            (&[("origin", "https://evil.example")], false, false),
            (&[("origin", "null")], false, false),
            (&[("sec-fetch-site", "none")], true, true),
            (&[("sec-fetch-site", "same-origin")], true, true),
            (&[("sec-fetch-site", "same-site")], false, false),
            (&[("sec-fetch-site", "cross-site")], false, false),
            (&[("sec-fetch-site", "cross-site"), link[0], link[1]], true, false),
            (&[("sec-fetch-site", "cross-site"), frame[0], frame[1]], false, false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"), link[0], link[1]], false, false),
        ] {
            let headers = [&[("host", "localhost:11450")], headers].concat();
            for (want, may) in [(Want::Detail, detail), (Want::Lifecycle, lifecycle)] {
                let told = if may { Ok(()) } else { Err(FOREIGN) };
                assert_eq!(ask((true, true), ALL, want, "/", &headers), told, "{want:?} {headers:?}");
            }
        }
    }
}
