//! What is believed of a server's certificate.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

const VERSION_1: &str = "the server's certificate can't be verified, since it is of X.509 version 1: make it again with its host's name as a subject alternative name (openssl x509 -extfile)";

/// Verifies as much as the mode asks for. The signature of the handshake is always verified: it shows that the server has the
/// certificate's key, without which channel binding would prove nothing.
#[derive(Debug)]
pub(super) struct Verifier {
    /// `None` to believe any certificate.
    pub(super) anchors: Option<Anchors>,
    /// Whether the certificate must be the host's.
    pub(super) names: bool,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// What is trusted.
#[derive(Debug)]
pub(super) struct Anchors {
    pub(super) store: RootCertStore,
    /// Certificates that a server may itself have.
    pub(super) pinned: Vec<CertificateDer<'static>>,
}

impl Verifier {
    fn verify_chain(
        &self,
        anchors: &Anchors,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed =
            ParsedCertificate::try_from(certificate).map_err(|error| match old_public_key(certificate) {
                Some(_) => Error::General(VERSION_1.into()),
                None => error,
            })?;
        let (store, algorithms) = (&anchors.store, self.algorithms.all);
        match verify_server_cert_signed_by_trust_anchor(&parsed, store, intermediates, now, algorithms) {
            // What `openssl req -x509` makes is marked as an authority, which a server may not be, but it is what the user
            // said to trust. Its dates were looked at before, and have errors of their own.
            Err(Error::InvalidCertificate(CertificateError::Other(_)))
                if anchors.pinned.contains(certificate) => {}
            verified => verified?,
        }
        if self.names { verify_server_name(&parsed, host) } else { Ok(()) }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(anchors) = &self.anchors {
            self.verify_chain(anchors, end_entity, intermediates, server_name, now)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match old_public_key(certificate) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms),
            None => verify_tls13_signature(message, certificate, signature, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The public key of a certificate of X.509 version 1, which `openssl x509 -req` makes as PostgreSQL's manual uses it. rustls
/// takes no such certificate from a server, but as a root it does, and so finds the key.
fn old_public_key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    if ParsedCertificate::try_from(certificate).is_ok() {
        return None;
    }
    let mut store = RootCertStore::empty();
    store.add(certificate.clone().into_owned()).ok()?;
    let key = store.roots.first()?.subject_public_key_info.as_ref();
    // The sequence's tag and length, which a root's key comes without.
    let length = u16::try_from(key.len()).ok()?.to_be_bytes();
    let mut whole = vec![0x30];
    match length {
        [0, short @ 0..=0x7f] => whole.push(short),
        [0, byte] => whole.extend([0x81, byte]),
        [high, low] => whole.extend([0x82, high, low]),
    }
    whole.extend_from_slice(key);
    Some(SubjectPublicKeyInfoDer::from(whole))
}
