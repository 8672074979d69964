//! Certificates of an authority that is made for one test.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use tempfile::TempDir;

/// A certificate authority. Its files go when it is dropped.
pub struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one.
    ///
    /// # Panics
    /// There is no room for its files.
    #[expect(clippy::new_without_default, reason = "it makes keys and files, which nobody expects of a default")]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("stoq-ca-").tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// The authority's own certificate, as a PEM file.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for a server on the loopback address, under both of its names.
    ///
    /// # Panics
    /// There is no room for its files.
    pub fn server(&self) -> Identity {
        self.server_named(&["127.0.0.1", "localhost"])
    }

    /// A certificate for a server of these names or addresses.
    ///
    /// # Panics
    /// A name is none, or there is no room for its files.
    pub fn server_named(&self, names: &[&str]) -> Identity {
        self.issue(Self::named(names))
    }

    /// A certificate for one of these names or addresses that serves, and shows itself to others of its kind.
    ///
    /// # Panics
    /// As for [`Authority::server_named`].
    pub fn peer_named(&self, names: &[&str]) -> Identity {
        let mut params = Self::named(names);
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        self.issue(params)
    }

    fn named(names: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
    }

    /// A certificate for a client of that common name.
    ///
    /// # Panics
    /// There is no room for its files.
    pub fn client(&self, name: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Identity {
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let name = uuid::Uuid::new_v4();
        let write = |extension: &str, text: String| {
            let path: &Path = self.directory.path();
            let path = path.join(format!("{name}.{extension}"));
            fs::write(&path, text).unwrap();
            path
        };
        Identity { certificate: write("pem", certificate.pem()), key: write("key", key.serialize_pem()) }
    }
}
