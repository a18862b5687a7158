//! Where the API is, as `OpenAI`'s own libraries take it.

use jm_mq_core::OptionsError;
use url::Url;

use crate::options::refused;

const ALLOWED: &str = "http://host:port/v1 or https://host/v1, without user, password, query and fragment";

/// Reads a `base_url`; its path ends with a slash, so that paths can be joined to it.
pub(crate) fn parse(text: &str) -> Result<Url, OptionsError> {
    let refuse = |what: &str| refused("base_url", what, ALLOWED);
    if text.is_empty() {
        return Err(refuse("empty"));
    }
    // The parser's error, or the text itself, could show a password.
    let mut url = Url::parse(text).map_err(|_| refuse("not an address"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(refuse("not an address of HTTP"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("an address with a user or a password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refuse("an address with a query or a fragment"));
    }
    let path = url.path().trim_end_matches('/');
    let path = if path.is_empty() { "/v1/".to_owned() } else { format!("{path}/") };
    url.set_path(&path);
    Ok(url)
}

/// Whether it is the address of a host alone, as proxies have it.
pub(crate) fn is_host(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
    })
}

/// An address as logs and errors may show it: without user, password, query and fragment.
pub(crate) fn shown(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.has_host() => address(&url),
        _ if text.is_empty() => String::new(),
        _ => "(not an address)".into(),
    }
}

/// The same of an address that was read already.
pub(crate) fn address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}{}", url.scheme(), url.path()),
        None => format!("{}://{host}{}", url.scheme(), url.path()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_is_added_where_there_is_no_path() {
        for (text, joined) in [
            ("http://host:8000", "http://host:8000/v1/embeddings"),
            ("http://host:8000/", "http://host:8000/v1/embeddings"),
            ("https://host/v1", "https://host/v1/embeddings"),
            ("https://host/v1/", "https://host/v1/embeddings"),
            ("https://host/openai/v1//", "https://host/openai/v1/embeddings"),
            ("https://host/api", "https://host/api/embeddings"),
        ] {
            assert_eq!(parse(text).unwrap().join("embeddings").unwrap().as_str(), joined);
        }
    }

    #[test]
    fn a_proxys_address_is_a_host_and_nothing_else() {
        for right in ["http://proxy:3128", "https://proxy", "http://[::1]:1/", "http://10.0.0.1:8080"] {
            assert!(is_host(right), "{right}");
        }
        for wrong in
            ["", "proxy:3128", "socks5://p:1", "http://u@p", "http://:s@p", "http://p/a", "http://p?a", "http://p#a"]
        {
            assert!(!is_host(wrong), "{wrong}");
        }
    }

    #[test]
    fn addresses_that_hide_secrets_or_are_none_are_refused_unseen() {
        for text in [
            "",
            "canary",
            "ftp://canary/v1",
            "http://canary@h/v1",
            "http://u:canary@h",
            "http://h/v1?canary",
            "http://h#canary",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.option, "base_url");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        assert_eq!(shown("http://u:p@h:1/v1?q#f"), "http://h:1/v1");
        assert_eq!(shown("u:p@h"), "(not an address)");
    }
}
