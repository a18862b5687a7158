//! Why the broker does not let us in, and what to do about it.

use super::options::{Auth, BrokerOptions};
use crate::error::ConnectError;

impl ConnectError {
    /// `reason` in the broker's words.
    pub(super) fn refused(options: &BrokerOptions, reason: String) -> Self {
        let user = match options.auth {
            Auth::Password => format!("user `{}`", options.name),
            Auth::External => "the client certificate".into(),
        };
        let remedy = remedy(options.auth, &reason);
        Self::Refused { user, vhost: options.vhost.clone(), reason, remedy }
    }
}

/// By the beginning or the end of the reason: between them stand names, which may be anything.
fn remedy(auth: Auth, reason: &str) -> &'static str {
    match auth {
        _ if reason.ends_with("is reached") => {
            "raise the limit (rabbitmqctl set_user_limits, set_vhost_limits; connection_max), or close connections"
        }
        _ if reason.starts_with("NOT_ALLOWED - vhost") => {
            "create the virtual host (rabbitmqctl add_vhost), or correct rabbitmq.vhost"
        }
        _ if reason.starts_with("NOT_ALLOWED - access to vhost") => {
            "grant the user permissions in the virtual host (rabbitmqctl set_permissions)"
        }
        Auth::External if reason.starts_with("it does not offer") => {
            "enable the plugin rabbitmq_auth_mechanism_ssl, and add EXTERNAL to the broker's auth_mechanisms"
        }
        Auth::Password if reason.starts_with("it does not offer") => {
            "add PLAIN to the broker's auth_mechanisms, or set rabbitmq.auth to external and show a certificate"
        }
        Auth::External => {
            "add a user that is named like the certificate (rabbitmqctl add_user; the broker's ssl_cert_login_from says how)"
        }
        Auth::Password => "check the name and the password",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_fits_the_brokers_words() {
        for (auth, reason, words) in [
            (
                Auth::Password,
                "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.",
                "check the name and the password",
            ),
            (
                Auth::External,
                "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL.",
                "named like the certificate",
            ),
            (Auth::Password, "NOT_ALLOWED - vhost no-such not found", "add_vhost"),
            (Auth::Password, "NOT_ALLOWED - access to vhost '/' refused for user 'jm'", "set_permissions"),
            (
                Auth::Password,
                "NOT_ALLOWED - access to vhost '/' refused for user 'jm': connection limit (1) is reached",
                "raise the limit",
            ),
            (Auth::External, "it does not offer EXTERNAL, but PLAIN, AMQPLAIN", "rabbitmq_auth_mechanism_ssl"),
            (Auth::Password, "it does not offer PLAIN, but EXTERNAL", "add PLAIN"),
        ] {
            let options = BrokerOptions { auth, ..BrokerOptions::default() };
            let text = ConnectError::refused(&options, reason.into()).to_string();
            assert!(text.contains(words) && text.contains(reason), "{text}");
        }
    }
}
