//! A certificate authority, a certificate for 127.0.0.1, and a kubeconfig that trusts it.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

pub fn server(directory: &Path) -> TlsAcceptor {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    fs::write(directory.join("ca.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);

    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate.der().clone()], key).unwrap()))
}

pub fn kubeconfig(directory: &Path, address: SocketAddr, token: &str) {
    let authority = directory.join("ca.pem");
    let text = format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: fake, cluster: {{server: 'https://{address}', certificate-authority: '{}'}}}}]
users: [{{name: discover, user: {{token: {token}}}}}]
contexts: [{{name: fake, context: {{cluster: fake, user: discover}}}}]
current-context: fake
",
        authority.display()
    );
    fs::write(directory.join("kubeconfig"), text).unwrap();
}
