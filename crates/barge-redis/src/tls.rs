//! TLS to the servers, with rustls: whom to trust, and how far.
//!
//! A connection here names its own cryptography (ring), so that it works whatever the program around it installed as rustls's
//! default, or where nothing is installed. The redis crate's own TLS takes the default, and panics where there is none.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barge_core::{Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// What is verified of a server's certificate where the connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsVerify {
    /// That an authority that is trusted made it for the host that was asked for. The default. In a cluster that is each node, under the
    /// name or address by which the cluster knows it: see `cluster-preferred-endpoint-type` in Redis's configuration.
    #[default]
    Full,
    /// That an authority that is trusted made it, for whichever host. Right for an authority that makes certificates only for these
    /// servers.
    Ca,
    /// Nothing: whoever sits in between can listen and change what is sent.
    None,
}

impl fmt::Display for TlsVerify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TlsVerify::Full => "full",
            TlsVerify::Ca => "ca",
            TlsVerify::None => "none",
        })
    }
}

/// The authorities that are trusted.
pub(crate) enum Roots<'a> {
    File(&'a Path),
    /// The operating system's.
    System,
}

/// A configuration that verifies what is asked for, with a certificate to log in with and its key.
pub(crate) fn client(
    verify: TlsVerify,
    roots: &Roots<'_>,
    identity: Option<&(PathBuf, PathBuf)>,
) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier {
        roots: if verify == TlsVerify::None { None } else { Some(root_store(roots)?) },
        names: verify == TlsVerify::Full,
        algorithms: provider.signature_verification_algorithms,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("TLS can't be used".into()).with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some((certificate, key)) = identity else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        let message = "can't be read; it must be PKCS#8, PKCS#1 or SEC1 in PEM, and not encrypted";
        invalid(format!("tls_key: the private key in {} {message}: {error}", key.display()))
            .with_source(error)
    })?;
    let with_key = builder.with_client_auth_cert(certificates(certificate, "tls_cert")?, private);
    let config = with_key.map_err(|error| {
        let (certificate, key) = (certificate.display(), key.display());
        invalid(format!("tls_key: {key} is not the key of the certificate in {certificate}: {error}"))
            .with_source(error)
    })?;
    Ok(Arc::new(config))
}

fn root_store(roots: &Roots<'_>) -> Result<RootCertStore> {
    let (certificates, source) = match roots {
        Roots::File(file) => (certificates(file, "tls_ca")?, file.display().to_string()),
        Roots::System => (system_certificates()?, "the system".into()),
    };
    let mut store = RootCertStore::empty();
    let (_, ignored) = store.add_parsable_certificates(certificates);
    if ignored > 0 {
        tracing::warn!("{ignored} root certificates of {source} can't be read, and are not used");
    }
    if store.is_empty() {
        return Err(invalid(format!("none of the root certificates of {source} can be used")));
    }
    Ok(store)
}

fn system_certificates() -> Result<Vec<CertificateDer<'static>>> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let causes: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(invalid(format!(
            "the system has no root certificates ({}): install them, or name a file with tls_ca",
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

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

/// Verifies as much as is asked for. That the server has the certificate's key is always verified.
#[derive(Debug)]
struct Verifier {
    /// `None` to believe any certificate.
    roots: Option<RootCertStore>,
    /// Whether the certificate must be the host's.
    names: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
            if self.names {
                verify_server_name(&certificate, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
