//! Certificates for a server with TLS, made for it and thrown away with it.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

use super::keeper::Nest;

/// The certificates of [`super::own_postgres_with_tls`] and [`super::own_redis_with_tls`], in files that go with the server.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// Where they all are.
    pub(super) folder: PathBuf,
    /// The authority that signed the server's certificate and the client's: `root.crt` to a client.
    pub authority: PathBuf,
    /// An authority that signed neither.
    pub other_authority: PathBuf,
    /// A client's certificate, for the role `with_certificate`.
    pub client: PathBuf,
    /// The client's key, in a file that only its owner can read.
    pub client_key: PathBuf,
    /// A client's certificate for the same role, signed by the other authority.
    pub other_client: PathBuf,
    /// Its key.
    pub other_client_key: PathBuf,
}

pub(super) fn make_certificates(nest: &Nest) -> Certificates {
    let folder = nest.directory.join("certificates");
    fs::create_dir(&folder).unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
    nest.account.give(&folder);
    let (authority, issuer) = make_authority(&folder, "ca");
    let (other_authority, other_issuer) = make_authority(&folder, "other_ca");

    let (_, server_key) = Request::server("localhost").sign(&folder, "server", &issuer);
    nest.account.give(&server_key);
    let (client, client_key) = Request::client("with_certificate").sign(&folder, "client", &issuer);
    let (other_client, other_client_key) =
        Request::client("with_certificate").sign(&folder, "other_client", &other_issuer);
    Certificates { folder, authority, other_authority, client, client_key, other_client, other_client_key }
}

fn make_authority(folder: &Path, name: &str) -> (PathBuf, Issuer<'static, KeyPair>) {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = named(name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key can be made");
    let certificate = parameters.self_signed(&key).expect("an authority signs itself");
    let path = folder.join(format!("{name}.crt"));
    write(&path, &certificate.pem(), 0o644);
    (path, Issuer::new(parameters, key))
}

/// What a certificate is to say.
struct Request {
    parameters: CertificateParams,
}

impl Request {
    fn server(host: &str) -> Self {
        let parameters = CertificateParams::new([host.to_owned()]).expect("a host's name is a name");
        // A cluster's nodes are each other's clients, too.
        Self { parameters }
            .of(host, &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn client(role: &str) -> Self {
        Self { parameters: CertificateParams::default() }.of(role, &[ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn of(mut self, name: &str, usages: &[ExtendedKeyUsagePurpose]) -> Self {
        self.parameters.distinguished_name = named(name);
        self.parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        self.parameters.extended_key_usages = usages.to_vec();
        self.parameters.use_authority_key_identifier_extension = true;
        self
    }

    /// Writes the certificate and its key, and gives where.
    fn sign(self, folder: &Path, name: &str, issuer: &Issuer<'static, KeyPair>) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = self.parameters.signed_by(&key, issuer).expect("an authority signs");
        let paths = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        write(&paths.0, &certificate.pem(), 0o644);
        write(&paths.1, &key.serialize_pem(), 0o600);
        paths
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// PostgreSQL and its clients refuse a key that others could read.
fn write(path: &Path, text: &str, mode: u32) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}
