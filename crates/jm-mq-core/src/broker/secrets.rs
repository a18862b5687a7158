//! What may change while we run: the password and the files of TLS, read again before each connect.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::{
    auth::AuthProvider,
    types::{LongString, ShortString},
};
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};

use super::{
    Broker, file,
    options::{Auth, BrokerOptions, TlsOptions},
    tls::{self, TlsFiles},
};
use crate::error::OptionsError;

/// A password is a line.
const MAX_PASSWORD_FILE_BYTES: u64 = 64 * 1024;

/// The secrets as they were when they could be read last.
pub(super) struct Secrets(Mutex<Current>);

struct Current {
    password: SecretString,
    tls: Option<Tls>,
    /// The last failure to read them, which is logged once.
    failure: Option<OptionsError>,
}

struct Tls {
    /// `None`: to be read anew.
    files: Option<TlsFiles>,
    config: Arc<ClientConfig>,
}

impl Secrets {
    pub(super) fn read(options: &BrokerOptions) -> Result<Self, OptionsError> {
        let tls = options.tls.as_ref().map(Tls::read).transpose()?;
        Ok(Self(Mutex::new(Current { password: password(options)?, tls, failure: None })))
    }

    /// Reads the files again. What cannot be read, perhaps since it is being replaced, stays as it was.
    pub(super) fn refresh(&self, options: &BrokerOptions) {
        // Before the lock: a file system may hang.
        let read = password(options).and_then(|password| {
            let files = options.tls.as_ref().map(TlsFiles::read).transpose()?;
            Ok((password, files))
        });
        let mut current = self.current();
        let failure = read.and_then(|(password, files)| current.replace(options, password, files)).err();
        if let Some(error) = failure.as_ref().filter(|&error| current.failure.as_ref() != Some(error)) {
            tracing::warn!(error = error.to_string(), "a secret cannot be read again; using the one read before");
        }
        current.failure = failure;
    }

    /// The broker's certificate was refused: perhaps the system's authorities have changed.
    pub(super) fn forget_authorities(&self) {
        if let Some(tls) = &mut self.current().tls {
            tls.files = None;
        }
    }

    pub(super) fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.current().tls.as_ref().map(|tls| Arc::clone(&tls.config))
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // What it guards is never left half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    fn replace(
        &mut self,
        options: &BrokerOptions,
        password: SecretString,
        files: Option<TlsFiles>,
    ) -> Result<(), OptionsError> {
        self.password = password;
        if let (Some(options), Some(tls), Some(files)) = (&options.tls, &mut self.tls, files)
            && tls.files.as_ref() != Some(&files)
        {
            *tls = Tls::new(options, files)?;
        }
        Ok(())
    }
}

impl Tls {
    fn read(options: &TlsOptions) -> Result<Self, OptionsError> {
        Self::new(options, TlsFiles::read(options)?)
    }

    fn new(options: &TlsOptions, files: TlsFiles) -> Result<Self, OptionsError> {
        Ok(Self { config: Arc::new(tls::client_config(options, &files)?), files: Some(files) })
    }
}

fn password(options: &BrokerOptions) -> Result<SecretString, OptionsError> {
    let Some(path) = &options.password_file else { return Ok(options.password.clone()) };
    let allowed = "a file with the password, in UTF-8";
    // What stands in its place may be the password itself. It is shown only where it leads into a folder that is there.
    let folder = path.parent().filter(|folder| folder.parent().is_some() && folder.is_dir());
    let unusable = |reason: &str| match folder {
        Some(_) => OptionsError::new("password_file", format_args!("`{}`: {reason}", path.display()), allowed),
        None => {
            OptionsError::new("password_file", format_args!("not the path of a file (not shown): {reason}"), allowed)
        }
    };
    let bytes = file::bytes(path, MAX_PASSWORD_FILE_BYTES).map_err(|reason| unusable(&reason))?;
    let text = String::from_utf8(bytes).map_err(|_| unusable("not UTF-8"))?;
    // Editors and `echo` add it.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).into())
}

/// Shows the current secrets to the broker.
pub(super) struct Login(pub(super) Broker);

impl AuthProvider for Login {
    fn mechanism(&self) -> ShortString {
        self.0.options().auth.mechanism().into()
    }

    fn auth_starter(&self) -> Result<LongString, String> {
        let options = self.0.options();
        Ok(match options.auth {
            Auth::External => LongString::default(),
            Auth::Password => {
                let current = self.0.secrets().current();
                format!("\0{}\0{}", options.name, current.password.expose_secret()).into()
            }
        })
    }
}

impl Auth {
    /// Its name in SASL.
    pub(super) fn mechanism(self) -> &'static str {
        match self {
            Self::Password => "PLAIN",
            Self::External => "EXTERNAL",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn password_of(secrets: &Secrets) -> String {
        secrets.current().password.expose_secret().to_owned()
    }

    #[test]
    fn a_replaced_password_is_read_and_one_that_cannot_be_read_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let options = BrokerOptions { password_file: Some(path.clone()), ..BrokerOptions::default() };
        let error = Secrets::read(&options).err().unwrap().to_string();
        assert!(error.starts_with(&format!("option `password_file` is `{}`: No such file", path.display())), "{error}");
        let canary = BrokerOptions { password_file: Some("canary".into()), ..BrokerOptions::default() };
        let error = Secrets::read(&canary).err().unwrap().to_string();
        assert!(error.contains("not shown") && !error.contains("canary"), "{error}");
        fs::write(&path, "first\r\n").unwrap();
        let secrets = Secrets::read(&options).unwrap();
        assert_eq!(password_of(&secrets), "first");
        fs::write(&path, "second p@ss\n\n").unwrap();
        secrets.refresh(&options);
        assert_eq!(password_of(&secrets), "second p@ss\n");
        fs::remove_file(&path).unwrap();
        secrets.refresh(&options);
        assert_eq!(password_of(&secrets), "second p@ss\n");
        assert!(secrets.current().failure.is_some());
        fs::write(&path, "third").unwrap();
        secrets.refresh(&options);
        assert_eq!((password_of(&secrets), &secrets.current().failure), ("third".to_owned(), &None));
    }

    #[test]
    fn the_configuration_of_tls_is_built_anew_when_a_file_has_changed_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let authority = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
        };
        fs::write(&path, authority()).unwrap();
        let tls = TlsOptions { ca_file: Some(path.clone()), ..TlsOptions::default() };
        let options = BrokerOptions { tls: Some(tls), ..BrokerOptions::default() };
        let secrets = Secrets::read(&options).unwrap();
        let first = secrets.tls().unwrap();
        secrets.refresh(&options);
        assert!(Arc::ptr_eq(&first, &secrets.tls().unwrap()));
        fs::write(&path, "half a certificate").unwrap();
        secrets.refresh(&options);
        assert!(Arc::ptr_eq(&first, &secrets.tls().unwrap()));
        fs::write(&path, authority()).unwrap();
        secrets.refresh(&options);
        assert!(!Arc::ptr_eq(&first, &secrets.tls().unwrap()));
    }
}
