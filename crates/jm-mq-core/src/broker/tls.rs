//! The TLS client configuration: system or own authorities, perhaps a certificate of ours. Verification is always on.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::options::TlsOptions;
use crate::error::OptionsError;

/// Reads the files that `options` name.
pub(super) fn client_config(options: &TlsOptions) -> Result<ClientConfig, OptionsError> {
    let roots = match &options.ca_file {
        Some(path) => own_authorities(path)?,
        None => system_authorities()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| OptionsError::new("tls", error, "protocol versions that the TLS library supports"))?
        .with_root_certificates(roots);
    match (&options.cert_file, &options.key_file) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let key_der = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| unusable("tls.key_file", key, &error, "a PEM file with one private key"))?;
            builder
                .with_client_auth_cert(certificates("tls.cert_file", cert)?, key_der)
                .map_err(|error| unusable("tls.cert_file", cert, &error, "a certificate that belongs to tls.key_file"))
        }
        (Some(_), None) => Err(OptionsError::new("tls.key_file", "missing", "the key of tls.cert_file")),
        (None, Some(_)) => Err(OptionsError::new("tls.cert_file", "missing", "the certificate of tls.key_file")),
    }
}

fn own_authorities(path: &Path) -> Result<RootCertStore, OptionsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("tls.ca_file", path)? {
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

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, OptionsError> {
    let allowed = "a PEM file with at least one certificate";
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(option, path, &error, allowed))?;
    if certificates.is_empty() {
        return Err(unusable(option, path, &"no certificate in it", allowed));
    }
    Ok(certificates)
}

fn unusable(option: &'static str, path: &Path, reason: &dyn std::fmt::Display, allowed: &'static str) -> OptionsError {
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
        client_config(options).unwrap_err().to_string()
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
