//! TLS to the server, with rustls: whom to trust, and how far.
//!
//! A connection here names its own cryptography (ring), so that it works whatever the program around it installed as rustls's
//! default, or where nothing is installed.

mod verify;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barge_core::{Error, ErrorKind, Result};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::verify::{Anchors, Verifier};

/// How the connection to the server is protected, as libpq's `sslmode`. A Unix socket needs no protection and has none.
///
/// libpq's `allow`, without TLS unless the server insists, is not supported.
///
/// What is verified must be of X.509 version 3, and a host's name or address among its subject alternative names: the common
/// name isn't looked at. Revocation lists aren't read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted where the server offers it; once it does, a handshake that fails is an error. Whoever sits in between can
    /// listen and change what is sent. The default.
    #[default]
    Prefer,
    /// Encrypted, or no connection. The server's certificate is verified, as by [`VerifyCa`](Self::VerifyCa), only where
    /// root certificates were named or are in `~/.postgresql/root.crt`; otherwise anybody can pose as the server.
    Require,
    /// Encrypted, with a certificate from an authority that is trusted, for whichever host. Right for an authority that makes
    /// certificates only for these servers.
    VerifyCa,
    /// Encrypted, with a certificate from an authority that is trusted, for the host that was asked for.
    VerifyFull,
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        })
    }
}

/// The TLS of a store's connections.
#[derive(Clone)]
pub(crate) enum Tls {
    Off,
    Rustls(MakeRustlsConnect),
}

/// What is verified of the server's certificate.
pub(crate) enum Check {
    Nothing,
    /// That an authority made it.
    Chain(Roots),
    /// That an authority made it for the host.
    ChainAndName(Roots),
}

/// The authorities that are trusted.
pub(crate) enum Roots {
    File(PathBuf),
    /// The operating system's.
    System,
}

/// The files of a certificate to log in with.
pub(crate) struct Identity<'a> {
    pub(crate) certificate: &'a Path,
    pub(crate) key: &'a Path,
}

/// A connector that verifies what is asked for.
pub(crate) fn connector(check: &Check, identity: Option<Identity<'_>>) -> Result<MakeRustlsConnect> {
    Ok(MakeRustlsConnect::new(client(check, identity)?))
}

fn client(check: &Check, identity: Option<Identity<'_>>) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = match check {
        Check::Nothing => Verifier { anchors: None, names: false, algorithms },
        Check::Chain(roots) => Verifier { anchors: Some(anchors(roots)?), names: false, algorithms },
        Check::ChainAndName(roots) => Verifier { anchors: Some(anchors(roots)?), names: true, algorithms },
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("TLS can't be used".into()).with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    Ok(match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(client_key(&identity, &provider)?)),
        None => builder.with_no_client_auth(),
    })
}

fn anchors(roots: &Roots) -> Result<Anchors> {
    let (certificates, source) = match roots {
        Roots::File(file) => (certificates(file, "sslrootcert")?, file.display().to_string()),
        Roots::System => (system_certificates()?, "the system".into()),
    };
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        if let Err(error) = store.add(certificate.clone()) {
            tracing::warn!("a root certificate of {source} is not used: {error}");
        }
    }
    if store.is_empty() {
        return Err(invalid(format!(
            "none of the {} root certificates of {source} can be used",
            certificates.len()
        )));
    }
    // A server's own certificate is something to trust in a file that names it, and not among hundreds of the system's.
    let pinned = if matches!(roots, Roots::File(_)) { certificates } else { Vec::new() };
    Ok(Anchors { store, pinned })
}

fn system_certificates() -> Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(invalid(format!(
            "the system has no root certificates ({}): install them, or name a file with sslrootcert",
            causes.join("; ")
        )));
    }
    Ok(found.certs)
}

/// The certificates of a PEM file, of which there is at least one.
fn certificates(file: &Path, parameter: &str) -> Result<Vec<CertificateDer<'static>>> {
    let unreadable = |error: rustls::pki_types::pem::Error| {
        invalid(format!("{parameter}: the certificates in {} can't be read: {error}", file.display()))
            .with_source(error)
    };
    let certificates = CertificateDer::pem_file_iter(file).map_err(unreadable)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(invalid(format!(
            "{parameter}: there is no certificate in {}, a PEM file",
            file.display()
        )));
    }
    Ok(certificates)
}

fn client_key(identity: &Identity<'_>, provider: &CryptoProvider) -> Result<SingleCertAndKey> {
    let (certificate, key) = (identity.certificate.display(), identity.key.display());
    let chain = certificates(identity.certificate, "sslcert")?;
    let private = PrivateKeyDer::from_pem_file(identity.key).map_err(|error| {
        let message = "can't be read; it must be PKCS#8, PKCS#1 or SEC1 in PEM, and not encrypted";
        invalid(format!("sslkey: the private key in {key} {message}: {error}")).with_source(error)
    })?;
    let private = provider.key_provider.load_private_key(private).map_err(|error| {
        invalid(format!("sslkey: the private key in {key} can't be used: {error}")).with_source(error)
    })?;
    let certified = CertifiedKey::new(chain, private);
    // Other failures mean that it can't be told, as for a certificate of X.509 version 1; the server knows what it takes.
    if let Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = certified.keys_match() {
        return Err(invalid(format!("sslkey: {key} is not the key of the certificate in {certificate}")));
    }
    Ok(SingleCertAndKey::from(certified))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}
