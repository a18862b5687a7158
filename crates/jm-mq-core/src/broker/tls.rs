//! The TLS client configuration: system or own authorities, perhaps a certificate of ours. Verification is always on.

use std::{path::Path, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, InvalidMessage, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{file, options::TlsOptions};
use crate::error::OptionsError;

/// What the files held when they were read.
#[derive(PartialEq, Eq)]
pub(super) struct TlsFiles {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl TlsFiles {
    pub(super) fn read(options: &TlsOptions) -> Result<Self, OptionsError> {
        let read = |option, path: &Option<_>, allowed| {
            let bytes = |path: &std::path::PathBuf| {
                file::bytes(path, MAX_FILE_BYTES).map_err(|reason| unusable(option, path, &reason, allowed))
            };
            path.as_ref().map(bytes).transpose()
        };
        Ok(Self {
            ca: read("tls.ca_file", &options.ca_file, CERTIFICATES)?,
            cert: read("tls.cert_file", &options.cert_file, CERTIFICATES)?,
            key: read("tls.key_file", &options.key_file, KEY)?,
        })
    }
}

const CERTIFICATES: &str = "a PEM file with at least one certificate";
const KEY: &str = "a PEM file with one private key";
/// A bundle of all public authorities has a quarter of it.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A configuration of what `files`, which `options` name, hold.
pub(super) fn client_config(options: &TlsOptions, files: &TlsFiles) -> Result<ClientConfig, OptionsError> {
    let roots = match (&options.ca_file, &files.ca) {
        (Some(path), Some(pem)) => own_authorities(path, pem)?,
        _ => system_authorities()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| OptionsError::new("tls", error, "protocol versions that the TLS library supports"))?
        .with_root_certificates(roots);
    match (options.cert_file.as_ref().zip(files.cert.as_ref()), options.key_file.as_ref().zip(files.key.as_ref())) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some((cert, cert_pem)), Some((key, key_pem))) => {
            let key_der =
                PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| unusable("tls.key_file", key, &error, KEY))?;
            builder
                .with_client_auth_cert(certificates("tls.cert_file", cert, cert_pem)?, key_der)
                .map_err(|error| unusable("tls.cert_file", cert, &error, "a certificate that belongs to tls.key_file"))
        }
        (Some(_), None) => Err(OptionsError::new("tls.key_file", "missing", "the key of tls.cert_file")),
        (None, Some(_)) => Err(OptionsError::new("tls.cert_file", "missing", "the certificate of tls.key_file")),
    }
}

/// What a failed handshake means for the operator, or an alert after it: with TLS 1.3 the broker looks at our
/// certificate when the handshake is over for us.
pub(super) fn verdict(error: &rustls::Error, shows_certificate: bool) -> String {
    use AlertDescription as Alert;
    let advice = match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            return "the server at this port does not speak TLS; RabbitMQ's TLS port is usually 5671, and without \
                    rabbitmq.tls the connection is plain"
                .into();
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "set tls.ca_file to the authority that signed the broker's certificate"
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }) => {
            "set tls.server_name to a name in the broker's certificate, or `host` to it"
        }
        rustls::Error::InvalidCertificate(_) => "replace the broker's certificate",
        rustls::Error::AlertReceived(
            Alert::CertificateRequired | Alert::HandshakeFailure | Alert::BadCertificate | Alert::NoCertificate,
        ) if !shows_certificate => "the broker asks for a client certificate: set tls.cert_file and tls.key_file",
        rustls::Error::AlertReceived(Alert::CertificateExpired) => {
            "the client certificate in tls.cert_file has expired: replace it"
        }
        rustls::Error::AlertReceived(Alert::CertificateRevoked) => {
            "the client certificate in tls.cert_file has been revoked: replace it"
        }
        rustls::Error::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied,
        ) => {
            "the broker does not accept the client certificate in tls.cert_file: its authority has to be in the \
             broker's ssl_options.cacertfile"
        }
        _ => return error.to_string(),
    };
    format!("{error}; {advice}")
}

fn own_authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, OptionsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.ca_file", path, pem)? {
        roots.add(certificate).map_err(|error| unusable("tls.ca_file", path, &error, "CA certificates in PEM"))?;
    }
    Ok(roots)
}

fn system_authorities() -> Result<RootCertStore, OptionsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(OptionsError::new(
            "tls.ca_file",
            format!("unset, and this system has no certificate authorities ({})", reasons.join("; ")),
            "a PEM file, or the package ca-certificates",
        ));
    }
    Ok(roots)
}

fn certificates(option: &'static str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, OptionsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(option, path, &error, CERTIFICATES))?;
    if certificates.is_empty() {
        return Err(unusable(option, path, &"no certificate in it", CERTIFICATES));
    }
    Ok(certificates)
}

pub(super) fn unusable(
    option: &'static str,
    path: &Path,
    reason: &dyn std::fmt::Display,
    allowed: &'static str,
) -> OptionsError {
    if is_path(path) {
        return OptionsError::new(option, format_args!("`{}`: {reason}", path.display()), allowed);
    }
    OptionsError::new(option, format_args!("no path (not shown: it may be the key itself): {reason}"), allowed)
}

/// The shortest private key (Ed25519) as text; what is shorter is none.
const KEY_CHARS: usize = 64;

/// Whether it can be shown: what stands in the place of a path may be the file's own text, a private key.
fn is_path(path: &Path) -> bool {
    path.is_absolute() || path.as_os_str().len() < KEY_CHARS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(options: &TlsOptions) -> String {
        let error = match TlsFiles::read(options) {
            Ok(files) => client_config(options, &files).unwrap_err(),
            Err(error) => error,
        };
        error.to_string()
    }

    #[test]
    fn files_that_cannot_be_used_are_errors_that_name_option_and_file() {
        let missing = TlsOptions { ca_file: Some("/nowhere/ca.pem".into()), ..TlsOptions::default() };
        assert!(rejected(&missing).starts_with("option `tls.ca_file` is `/nowhere/ca.pem`: "));

        let empty = tempfile::NamedTempFile::new().unwrap();
        let no_certificate = TlsOptions { ca_file: Some(empty.path().into()), ..TlsOptions::default() };
        assert!(rejected(&no_certificate).contains("no certificate in it"));

        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let line = key.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        for text in [&key, &line] {
            for options in [
                TlsOptions { ca_file: Some(text.into()), ..TlsOptions::default() },
                TlsOptions { key_file: Some(text.into()), cert_file: Some(text.into()), ..TlsOptions::default() },
            ] {
                let told = rejected(&options);
                assert!(told.contains("no path (not shown") && !told.contains(&line[10..20]), "{told}");
            }
        }

        let half = TlsOptions { cert_file: Some(empty.path().into()), ..TlsOptions::default() };
        assert_eq!(rejected(&half), "option `tls.key_file` is missing; allowed: the key of tls.cert_file");
    }
}
