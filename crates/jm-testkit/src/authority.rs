//! Certificates for brokers and clients.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::canary::Canary;
use crate::node::TlsFiles;

/// What stands before a P-256 private key's number in its file (PKCS #8): the version, and a string of 32 bytes.
const BEFORE_NUMBER: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
const NUMBER_BYTES: usize = 32;

/// A certificate authority with what it has signed, as PEM files in a folder of its own: `ca.pem`, and a `.pem` and a
/// `.key` of each name.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority. Its name is in its certificate.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let folder = tempfile::tempdir().context("could not make a folder for certificates")?;
        let authority = Self { folder, issuer };
        authority.write("ca.pem", &authority.issuer.pem())?;
        Ok(authority)
    }

    /// The path of a file, there or not.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Signs a certificate for a host or a client, `<name>.pem` with `<name>.key`. Returns what of the key is secret.
    pub fn sign(&self, name: &str, subject: &str) -> Result<Canary> {
        self.sign_with(name, subject, CertificateParams::new([subject.to_owned()])?)
    }

    /// The same with a certificate that has expired long ago.
    pub fn sign_expired(&self, name: &str, subject: &str) -> Result<Canary> {
        let mut params = CertificateParams::new([subject.to_owned()])?;
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        self.sign_with(name, subject, params)
    }

    fn sign_with(&self, name: &str, subject: &str, mut params: CertificateParams) -> Result<Canary> {
        params.distinguished_name.push(DnType::CommonName, subject);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.write(&format!("{name}.pem"), &certificate.pem())?;
        self.write(&format!("{name}.key"), &key.serialize_pem())?;
        let file = key.serialize_der();
        let before = file.windows(BEFORE_NUMBER.len()).position(|bytes| bytes == BEFORE_NUMBER);
        let number = before.and_then(|start| file.get(start + BEFORE_NUMBER.len()..)?.get(..NUMBER_BYTES));
        let number = number.context("the new key is of another kind than P-256")?;
        Ok(Canary::of_bytes(&format!("the private key in {name}.key"), number))
    }

    /// What a node needs that shows the certificate of this name, and asks its clients for one of this authority.
    pub fn files_of(&self, name: &str) -> TlsFiles {
        TlsFiles {
            ca: self.path("ca.pem"),
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            require_client_certificate: true,
        }
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path(file);
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_a_key_is_found_in_its_file_and_not_in_the_certificate() {
        let authority = Authority::new("an authority").unwrap();
        let secret = authority.sign("client", "jm-mq").unwrap();
        let read = |file: &str| fs::read_to_string(authority.path(file)).unwrap();
        assert_eq!(secret.found_in(&read("client.key")), Some("base64"));
        assert_eq!(secret.found_in(&read("client.pem")), None);
        assert_eq!(secret.found_in(&read("ca.pem")), None);
    }
}
