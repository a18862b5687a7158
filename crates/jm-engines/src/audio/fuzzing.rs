//! What must hold of recordings and of their addresses.

#![allow(clippy::missing_panics_doc, reason = "a broken promise is a panic, of every function here")]

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::FutureExt as _;
use nix::sys::resource::{UsageWho, getrusage};
use reqwest::dns::Resolve as _;
use tokio::runtime::Runtime;
use url::{Host, Url};

use super::{
    address::is_public,
    decode::decode,
    memory_file::MemoryFile,
    resolver::{AllowedHosts, Lookup, PublicOnly},
    sandbox::Decoder,
    source::{Source, is_bucket},
    web::Web,
};
use crate::{EngineError, ErrorClass};

/// No recording of these tests is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Any bytes as a recording: sound of no more than was allowed, or a permanent error.
pub fn recording(bytes: &[u8]) {
    let (Ok(runtime), Ok(decoder)) = (&*RUNTIME, Decoder::this_program()) else { panic!("nothing can be started") };
    let decoded = runtime.block_on(async { decoder.decode(file(bytes)?, LONGEST).await });
    match &decoded {
        Ok(audio) => {
            assert!(!audio.samples().is_empty(), "a recording without a sample");
            assert!(audio.duration() <= LONGEST, "{:?}", audio.duration());
        }
        Err(error) => assert_eq!(error.class(), ErrorClass::Permanent, "{error}"),
    }
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).map(|usage| usage.max_rss());
    assert!(used.is_ok_and(|kilobytes| kilobytes < MOST_KILOBYTES), "{used:?} kB");
    // Once more in this process, where the fuzzer sees what was reached, unless it would take too much here.
    let harmless = decoded.as_ref().map_or_else(|error| !error.to_string().contains("made to do harm"), |_| true);
    if let (true, Ok(file)) = (harmless, file(bytes)) {
        let mut samples = 0;
        let again = decode(file, LONGEST, &mut |more| {
            samples += more.len();
            Ok(())
        });
        assert_eq!(again.is_ok(), decoded.is_ok());
        assert!(decoded.is_err_and(|_| true) || samples > 0);
    }
}

fn file(bytes: &[u8]) -> Result<File, EngineError> {
    let mut file = MemoryFile::new(None, usize::MAX)?;
    file.append(bytes)?;
    file.sealed()
}

static RUNTIME: LazyLock<io::Result<Runtime>> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build());

/// What a child may take in all: its own memory, and what the program itself takes with the fuzzer's instruments.
const MOST_KILOBYTES: i64 = 400 * 1024;

/// Nobody is allowed to be private here.
static GUARD: LazyLock<Option<Web>> = LazyLock::new(|| {
    let lookup: Lookup = Arc::new(|_| Box::pin(async { Err(io::Error::other("nothing is looked up here")) }));
    Web::new(AllowedHosts::default(), lookup, 1).ok()
});

/// Any text as the address of a recording, and as that to which a public server sends us. What is let through is
/// `https`, without user and password, to a name or to an address that the standard library too takes for no private
/// one; a bucket by its own rule; or a path without a way up. Shown, it is a line without a query.
pub fn address(text: &str) {
    if let Ok(source) = Source::parse(text) {
        let shown = source.to_string();
        assert!(!shown.chars().any(char::is_control) && !shown.contains('?'), "{shown:?}");
        match source {
            Source::Web(url) => checked(&url),
            Source::S3 { bucket, key, .. } => {
                assert!(is_bucket(&bucket) && (1..=1024).contains(&key.len()), "{bucket} {key}");
            }
            Source::File { path, .. } => assert!(path.is_absolute(), "{}", path.display()),
        }
    }
    let from = Url::parse("https://public.example/a/b.wav").and_then(|from| from.join(text));
    if let Ok(url) = from {
        checked(&url);
    }
}

fn checked(url: &Url) {
    let Some(guard) = GUARD.as_ref() else { return };
    if guard.check(url).is_err() {
        return;
    }
    assert_eq!(url.scheme(), "https", "{url}");
    assert!(url.username().is_empty() && url.password().is_none(), "{url}");
    match url.host() {
        Some(Host::Domain(name)) => assert!(!name.is_empty() && name.parse::<IpAddr>().is_err(), "{url}"),
        Some(Host::Ipv4(address)) => assert!(harmless(address.into()), "{url}"),
        Some(Host::Ipv6(address)) => assert!(harmless(address.into()), "{url}"),
        None => panic!("no host: {url}"),
    }
}

/// Addresses that a name has, 16 bytes each: it is refused as a whole, or all of them are harmless and those that are
/// dialled.
pub fn resolved(bytes: &[u8]) {
    let addresses: Vec<IpAddr> = bytes
        .chunks_exact(16)
        .filter_map(|chunk| <[u8; 16]>::try_from(chunk).ok())
        // One in two is of IPv4, and one in four an IPv4 address in one of IPv6.
        .map(|octets| match octets {
            [kind, _, _, _, a, b, c, d, ..] if kind % 2 == 0 => Ipv4Addr::new(a, b, c, d).into(),
            [kind, _, _, _, a, b, c, d, ..] if kind % 4 == 1 => Ipv4Addr::new(a, b, c, d).to_ipv6_mapped().into(),
            octets => Ipv6Addr::from(octets).into(),
        })
        .collect();
    for &address in &addresses {
        assert!(!is_public(address) || harmless(address), "{address}");
    }
    let given = addresses.clone();
    let lookup: Lookup = Arc::new(move |_| {
        let given = given.clone();
        Box::pin(async move { Ok(given) })
    });
    let guard = PublicOnly { allowed: Arc::default(), lookup };
    let Ok(name) = "name.example".parse() else { return };
    let Some(Ok(dialled)) = guard.resolve(name).now_or_never() else { return };
    let dialled: Vec<IpAddr> = dialled.map(|address| address.ip()).collect();
    assert_eq!(dialled, addresses);
    assert!(dialled.iter().all(|&address| harmless(address)), "{dialled:?}");
}

/// What the standard library says of an address, told apart from our own table on purpose.
fn harmless(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_documentation()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.octets()[0] == 0)
        }
        IpAddr::V6(v6) => {
            let segments = v6.segments();
            let two = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
            let inner = match segments {
                [0x2002, high, low, ..] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(two(high, low)),
                _ => v6.to_ipv4(),
            };
            let ours = v6.is_loopback() || v6.is_unspecified() || v6.is_multicast() || v6.is_unique_local();
            !ours && !v6.is_unicast_link_local() && inner.is_none_or(|inner| harmless(inner.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    const HOSTS: [&str; 20] = [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[64:ff9b::10.0.0.1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "①②⑦.0.0.1",
        "%31%32%37.0.0.1",
        "10.0.0.1",
        "[fe80::1%25eth0]",
        "[::]",
        "0",
        "localhost",
        "example.com",
        "8.8.8.8",
        "[2606:4700::1111]",
        "example.com@10.0.0.1",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_text_is_an_address_that_leads_inside(text in "\\PC{0,40}|(https?|s3|file):[/\\\\]{1,3}\\PC{0,40}") {
            address(&text);
        }

        #[test]
        fn no_spelling_of_an_address_leads_inside(
            scheme in select(vec!["https", "HTTPS", "http", "s3", "file", "ftp", ""]),
            slashes in select(vec!["://", ":", ":/", ":\\\\", "//", ":///"]),
            user in select(vec!["", "", "", "u@", "u:p@", "@"]),
            host in select(&HOSTS[..]),
            rest in select(vec!["", "/", ":443/a", ":0/", "/../..", "\\x", "?q=a@b", "#f", "/%2e%2e/\r\n"]),
        ) {
            address(&format!("{scheme}{slashes}{user}{host}{rest}"));
        }

        #[test]
        fn no_number_is_an_address_that_leads_inside(bits in any::<u32>(), hexadecimal in any::<bool>()) {
            let host = if hexadecimal { format!("{bits:#x}") } else { bits.to_string() };
            address(&format!("https://{host}/"));
            address(&format!("https://[::ffff:{:x}:{:x}]/", bits >> 16, bits & 0xffff));
        }

        #[test]
        fn a_name_is_dialled_only_where_all_of_its_addresses_are_public(bytes in vec(any::<u8>(), 0..64)) {
            resolved(&bytes);
        }
    }
}
