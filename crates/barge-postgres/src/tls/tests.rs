use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, ClientConnection, ServerConfig, ServerConnection};
use tempfile::TempDir;

use super::*;

/// What a server has: its certificate, and the key it signs with.
struct Server {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// An authority, and a directory for files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = params(&[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer, directory: TempDir::new().unwrap() }
    }

    /// A server with a certificate for names and addresses.
    fn server(&self, names: &[&str]) -> Server {
        self.server_of(params(names))
    }

    fn server_of(&self, params: CertificateParams) -> Server {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Server { certificate: certificate.der().clone(), key: der(&key) }
    }

    fn roots(&self) -> Roots {
        Roots::File(self.write("root.crt", &self.issuer.pem()))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// A certificate that signed itself, marked as an authority as `openssl req -x509` does, and the file that names it.
fn signed_by_itself(directory: &TempDir, mut params: CertificateParams) -> (Server, Roots) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = directory.path().join("own.crt");
    fs::write(&file, certificate.pem()).unwrap();
    (Server { certificate: certificate.der().clone(), key: der(&key) }, Roots::File(file))
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

fn der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// Shakes hands with a server, by TLS 1.3 and by 1.2. The server shows its certificate whether or not it has the key.
fn handshake(check: &Check, server: &Server, host: &str) -> Result<(), rustls::Error> {
    handshake_by(&rustls::version::TLS13, check, server, host)?;
    handshake_by(&rustls::version::TLS12, check, server, host)
}

fn handshake_by(
    version: &'static rustls::SupportedProtocolVersion,
    check: &Check,
    server: &Server,
    host: &str,
) -> Result<(), rustls::Error> {
    meet(
        client(check, None).unwrap(),
        listener(version, server, WebPkiClientVerifier::no_client_auth()),
        host,
    )
}

fn listener(
    version: &'static rustls::SupportedProtocolVersion,
    server: &Server,
    clients: Arc<dyn ClientCertVerifier>,
) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let key = provider.key_provider.load_private_key(server.key.clone_key()).unwrap();
    let certified = CertifiedKey::new(vec![server.certificate.clone()], key);
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
}

/// Passes bytes between the two until both are done, or one refuses.
fn meet(client: ClientConfig, server: ServerConfig, host: &str) -> Result<(), rustls::Error> {
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), host).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            server.read_tls(&mut unread).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut unread = bytes.as_slice();
        while !unread.is_empty() {
            client.read_tls(&mut unread).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn is_refused(result: Result<(), rustls::Error>, cause: impl Fn(&CertificateError) -> bool) -> bool {
    matches!(&result, Err(rustls::Error::InvalidCertificate(error)) if cause(error))
}

/// All authorities here have the same name, as one that poses as another has.
fn is_stranger(error: &CertificateError) -> bool {
    matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature)
}

fn is_other_host(error: &CertificateError) -> bool {
    matches!(error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
}

fn is_expired(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. })
}

#[test]
fn a_stranger_is_believed_only_where_nothing_is_checked() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let server = other.server(&["localhost"]);
    assert_eq!(handshake(&Check::Nothing, &server, "localhost"), Ok(()));
    assert_eq!(handshake(&Check::Nothing, &server, "elsewhere"), Ok(()));
    for check in [Check::Chain(trusted.roots()), Check::ChainAndName(trusted.roots())] {
        assert!(is_refused(handshake(&check, &server, "localhost"), is_stranger));
    }
}

#[test]
fn a_chain_is_checked_without_and_with_the_host() {
    let authority = Authority::new();
    let server = authority.server(&["db.example.com", "127.0.0.1"]);
    let (chain, full) = (Check::Chain(authority.roots()), Check::ChainAndName(authority.roots()));
    for host in ["db.example.com", "127.0.0.1"] {
        assert_eq!(handshake(&chain, &server, host), Ok(()));
        assert_eq!(handshake(&full, &server, host), Ok(()));
    }
    for host in ["evil.example.com", "127.0.0.2", "::1"] {
        assert_eq!(handshake(&chain, &server, host), Ok(()));
        assert!(is_refused(handshake(&full, &server, host), is_other_host));
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::new();
    let mut params = params(&["localhost"]);
    params.not_after = date_time_ymd(2001, 1, 1);
    params.not_before = date_time_ymd(2000, 1, 1);
    let server = authority.server_of(params.clone());
    assert!(is_refused(handshake(&Check::Chain(authority.roots()), &server, "localhost"), is_expired));
    let (server, roots) = signed_by_itself(&authority.directory, params);
    assert!(is_refused(handshake(&Check::Chain(roots), &server, "localhost"), is_expired));
}

#[test]
fn a_server_without_the_key_of_its_certificate_is_refused_in_every_mode() {
    let authority = Authority::new();
    let mut server = authority.server(&["localhost"]);
    server.key = der(&KeyPair::generate().unwrap());
    for check in [Check::Nothing, Check::Chain(authority.roots()), Check::ChainAndName(authority.roots())] {
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let result = handshake_by(version, &check, &server, "localhost");
            assert!(is_refused(result, |error| *error == CertificateError::BadSignature));
        }
    }
    let old = Server { key: der(&KeyPair::generate().unwrap()), ..old_server() };
    let result = handshake_by(&rustls::version::TLS13, &Check::Nothing, &old, "localhost");
    assert!(is_refused(result, |error| *error == CertificateError::BadSignature));
}

#[test]
fn a_certificate_that_signed_itself_is_trusted_where_it_is_named() {
    let authority = Authority::new();
    let (server, roots) = signed_by_itself(&authority.directory, params(&["localhost"]));
    let check = Check::ChainAndName(roots);
    assert_eq!(handshake(&check, &server, "localhost"), Ok(()));
    assert!(is_refused(handshake(&check, &server, "elsewhere"), is_other_host));
    let elsewhere = TempDir::new().unwrap();
    let (impostor, _) = signed_by_itself(&elsewhere, params(&["localhost"]));
    assert!(handshake(&check, &impostor, "localhost").is_err());
    // An authority's certificate is public, and so no proof.
    let authority_as_server = Server { certificate: authority.issuer.der().clone(), key: impostor.key };
    assert!(handshake(&Check::Chain(authority.roots()), &authority_as_server, "localhost").is_err());
}

/// Made by `openssl x509 -req`, which writes X.509 version 1 unless told otherwise. rcgen can't.
fn old_server() -> Server {
    let (certificate, key) = (include_bytes!("tests/version-1.crt"), include_bytes!("tests/version-1.key"));
    Server {
        certificate: CertificateDer::from_pem_slice(certificate).unwrap(),
        key: PrivateKeyDer::from_pem_slice(key).unwrap(),
    }
}

#[test]
fn a_certificate_of_version_1_is_good_for_encryption_only() {
    let (server, version) = (old_server(), &rustls::version::TLS13);
    assert_eq!(handshake_by(version, &Check::Nothing, &server, "localhost"), Ok(()));
    let authority = Authority::new();
    let error = handshake_by(version, &Check::Chain(authority.roots()), &server, "localhost").unwrap_err();
    assert!(error.to_string().contains("X.509 version 1"), "{error}");
}

#[test]
fn a_client_shows_its_certificate() {
    let authority = Authority::new();
    let (server, known) = (authority.server(&["localhost"]), Authority::new());
    let mut roots = RootCertStore::empty();
    roots.add(known.issuer.der().clone()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let listener =
        |clients: &Arc<dyn ClientCertVerifier>| listener(&rustls::version::TLS13, &server, clients.clone());

    let key = KeyPair::generate().unwrap();
    let certificate = params(&["shop"]).signed_by(&key, &known.issuer).unwrap();
    let certificate = known.write("client.crt", &certificate.pem());
    let key = known.write("client.key", &key.serialize_pem());
    let identity = Identity { certificate: &certificate, key: &key };
    let client_of = |identity| client(&Check::Chain(authority.roots()), identity).unwrap();
    assert_eq!(meet(client_of(Some(identity)), listener(&clients), "localhost"), Ok(()));
    assert!(meet(client_of(None), listener(&clients), "localhost").is_err());
}

#[test]
fn keys_are_read_in_every_form() {
    let authority = Authority::new();
    let certificate = authority.write("c.crt", include_str!("tests/version-1.crt"));
    let provider = ring::default_provider();
    for (name, text) in
        [("sec1.key", include_str!("tests/version-1.key")), ("pkcs1.key", include_str!("tests/rsa.key"))]
    {
        let key = authority.write(name, text);
        assert!(client_key(&Identity { certificate: &certificate, key: &key }, &provider).is_ok(), "{name}");
    }
}

#[test]
fn a_wrong_file_is_named() {
    let authority = Authority::new();
    let missing = authority.directory.path().join("missing.pem");
    let empty = authority.write("empty.pem", "nothing\n");
    let broken = authority.write("broken.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let junk = authority.write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for (file, part) in [
        (&missing, "sslrootcert: the certificates in"),
        (&empty, "there is no certificate in"),
        (&broken, "can't be read"),
        (&junk, "none of the 1 root certificates"),
    ] {
        let error = client(&Check::Chain(Roots::File(file.clone())), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains(part), "{error}");
        assert!(error.message().contains(&file.display().to_string()), "{error}");
    }

    let key = KeyPair::generate().unwrap();
    let certificate = params(&["shop"]).signed_by(&key, &authority.issuer).unwrap();
    let certificate = authority.write("client.crt", &certificate.pem());
    let other = authority.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    for (key, part) in [
        (&missing, "sslkey: the private key in"),
        (&certificate, "must be PKCS#8, PKCS#1 or SEC1"),
        (&other, "is not the key of the certificate"),
    ] {
        let error = client(&Check::Nothing, Some(Identity { certificate: &certificate, key })).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.message().contains(part), "{error}");
    }
}
