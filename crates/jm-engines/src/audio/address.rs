//! Which addresses anybody may be sent to, and which belong to us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is one of the public internet.
///
/// Everything else could be ours: this machine, its network, the cloud's metadata service. Addresses of IPv6 that stand
/// for one of IPv4 are as public as that one.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)       // this host, private, loopback, multicast, reserved, broadcast
            | (100, 64..=127, _)             // carriers' own
            | (169, 254, _)                  // link-local, and clouds' metadata
            | (172, 16..=31, _)
            | (192, 168, _)                  // private
            | (192, 0, 0 | 2)                // protocols, documentation
            | (192, 88, 99)                  // relays to IPv6
            | (198, 18..=19, _)              // benchmarks
            | (198, 51, 100)
            | (203, 0, 113) // documentation
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    if let Some(address) = inner_v4(segments) {
        return is_public_v4(address);
    }
    // Nothing else has been given out: unique local, link-local, multicast and NAT64 by networks' own prefixes lie
    // outside, as does what may come to be used one day.
    let given_out = (0x2000..=0x3fff).contains(&segments[0]);
    let refused = match (segments[0], segments[1]) {
        // Protocols' own, Teredo among them; documentation.
        (0x2001, second) => second <= 0x1ff || second == 0xdb8,
        // 6to4 is withdrawn, and stands for any address of IPv4.
        (0x2002, _) => true,
        (0x3fff, second) => second <= 0xfff,
        _ => false,
    };
    given_out && !refused
}

/// The address of IPv4 that one of IPv6 stands for.
fn inner_v4(segments: [u16; 8]) -> Option<Ipv4Addr> {
    // Compatible (with `::` and `::1` among them), mapped, translated, NAT64's well-known prefix.
    let ([0, 0, 0, 0, 0, 0 | 0xffff, high, low]
    | [0, 0, 0, 0, 0xffff, 0, high, low]
    | [0x64, 0xff9b, 0, 0, 0, 0, high, low]) = segments
    else {
        return None;
    };
    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_ours_are_told_from_public_ones() {
        const PRIVATE: &str = "0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 \
            127.255.255.255 169.254.0.0 169.254.169.254 172.16.0.0 172.31.255.255 192.0.0.1 192.0.0.255 192.0.2.1 \
            192.88.99.1 192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.255 224.0.0.1 \
            239.255.255.255 240.0.0.0 255.255.255.255 \
            :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 ::192.168.0.1 ::ffff:0:10.0.0.1 \
            64:ff9b::10.0.0.1 64:ff9b::7f00:1 64:ff9b:1::808:808 2002:7f00:1:: 2002:c0a8:1:: 2002:a9fe:a9fe::1 2002:808:808::1 2001::1 \
            2001:0:ffff::1 2001:db8::1 2001:db8:ffff::1 fc00::1 fdff:ffff::1 fe80::1 febf::1 fec0::1 feff::1 ff00::1 \
            ff02::1 100::1 100::ffff:ffff:ffff:ffff 3fff::1 fbff::1 101::1 100:0:0:1::1 1fff:ffff::1 4000::1 5f00::1 8000::1";
        const PUBLIC: &str = "1.0.0.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 \
            128.0.0.1 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.1 192.0.3.1 192.88.98.1 192.167.0.1 \
            192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.1 198.51.101.1 203.0.112.1 203.0.114.1 223.255.255.255 \
            ::ffff:8.8.8.8 ::8.8.8.8 64:ff9b::8.8.8.8 2606:4700::1111 2001:4860:4860::8888 2400::1 \
            2001:200::1 2000::1 3ffe::1";
        for address in PRIVATE.split_whitespace() {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in PUBLIC.split_whitespace() {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }
}
