//! What a name asks of CoreDNS' kubernetes plugin (plugin/kubernetes/parse.go).

/// Nothing is called so: NXDOMAIN, or whoever is asked next.
pub struct NoItems;

/// What a name asks for (parse.go): `[_port._protocol.|endpoint.]service.namespace.(svc|pod).zone`.
pub struct Request<'q> {
    pub pod: bool,
    pub namespace: &'q str,
    pub service: &'q str,
    pub endpoint: Option<&'q str>,
    /// Port and protocol.
    pub port: Option<(&'q str, &'q str)>,
}

impl<'q> Request<'q> {
    /// `Ok(None)` for the zone's own names, which exist and have nothing.
    pub fn parse(labels: &'q [String]) -> Result<Option<Self>, NoItems> {
        let mut labels = labels.iter().rev().map(String::as_str);
        let pod = match labels.next() {
            None => return Ok(None),
            Some("svc") => false,
            Some("pod") => true,
            Some(_) => return Err(NoItems),
        };
        let Some(namespace) = labels.next() else { return Ok(None) };
        let service = labels.next().unwrap_or_default();
        let (endpoint, port) = match (labels.next(), labels.next(), labels.next()) {
            (endpoint, None, _) => (endpoint, None),
            (Some(protocol), Some(port), None) => (None, Some((strip_underscore(port), strip_underscore(protocol)))),
            _ => return Err(NoItems),
        };
        Ok(Some(Self { pod, namespace, service, endpoint, port }))
    }
}

fn strip_underscore(label: &str) -> &str {
    label.strip_prefix('_').unwrap_or(label)
}
