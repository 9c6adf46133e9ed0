//! Settings to what the listener needs of rustls. A pure function: the same contents give the same result.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    clients::{AnyCertificate, Named},
    file::tls::{Clients, Pem, Tls},
};
use crate::config::Problem;

/// Builds it; `path` stands for the web configuration file in errors.
///
/// # Errors
/// A text is not what it should be, or the certificate does not belong to the key.
pub fn server_config(path: &Path, tls: &Tls, http2: bool) -> Result<ServerConfig, Problem> {
    let wrong = |pem: &Pem, message: String| Problem::new(path, pem.at, format!("{}: {message}", pem.what));
    let chain = certificates(&tls.cert).map_err(|e| wrong(&tls.cert, e))?;
    let key = PrivateKeyDer::from_pem_slice(tls.key.text.as_bytes()).map_err(|e| match e {
        pem::Error::NoItemsFound => wrong(&tls.key, "no private key in it, expected PEM that is not encrypted".into()),
        e => wrong(&tls.key, not_pem(&e)),
    })?;
    let provider = Arc::new(CryptoProvider {
        cipher_suites: tls.suites.clone(),
        kx_groups: tls.groups.clone(),
        ..ring::default_provider()
    });
    let clients = verifier(&tls.clients, &provider).map_err(|(pem, e)| wrong(pem, e))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&tls.versions)
        .map_err(|e| wrong(&tls.cert, format!("no TLS is possible with these versions, suites and curves: {e}")))?;
    let mut config = builder.with_client_cert_verifier(clients).with_single_cert(chain, key).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => wrong(&tls.key, format!("it does not belong to {}", tls.cert.what)),
        rustls::Error::InvalidCertificate(e) => wrong(&tls.cert, format!("not a certificate of a server: {e}")),
        e => wrong(&tls.key, format!("not a key that can be used: {e}")),
    })?;
    config.ignore_client_order = tls.own_order;
    if matches!(tls.clients, Clients::Verified { .. }) {
        // A session that is resumed shows its certificate again unverified, and it may have expired since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    let protocols: &[&str] = if http2 { &["h2", "http/1.1"] } else { &["http/1.1"] };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.text.as_bytes()).collect();
    match all {
        Ok(all) if all.is_empty() => Err("no certificate in it, expected PEM".into()),
        Ok(all) => Ok(all),
        Err(e) => Err(not_pem(&e)),
    }
}

/// In words of our own: the error's show what it found, and a key on one line is all in it.
fn not_pem(error: &pem::Error) -> String {
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "a BEGIN line without its END: is the whole block on one line? use `|`",
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line that does not end in -----",
        pem::Error::Base64Decode(_) => "the base64 between BEGIN and END is damaged",
        _ => "it cannot be read",
    };
    format!("not PEM: {what}")
}

fn verifier<'a>(
    clients: &'a Clients,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, (&'a Pem, String)> {
    let (mandatory, ca, names) = match clients {
        Clients::Nothing => return Ok(Arc::new(NoClientAuth)),
        Clients::Any { mandatory } => return Ok(Arc::new(AnyCertificate::new(*mandatory, provider))),
        Clients::Verified { mandatory, ca, names } => (*mandatory, ca, names),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca).map_err(|e| (ca, e))? {
        roots.add(certificate).map_err(|e| (ca, format!("not a certificate of a CA: {e}")))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let builder = if mandatory { builder } else { builder.allow_unauthenticated() };
    let verified = builder.build().map_err(|e| (ca, e.to_string()))?;
    Ok(if names.is_empty() { verified } else { Arc::new(Named::new(verified, names.clone())) })
}
