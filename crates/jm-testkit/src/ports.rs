//! Free ports that stay free while nobody listens on them.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

/// Ports are taken from here, below the range from which Linux takes the source ports of outgoing connections
/// (32768-60999 by default). A port of that range could be taken by any client while a killed node is down, and a
/// client that tries again and again to reach a closed port of that range in the end connects to itself.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// Draws before giving up. Nearly all of the range is free on any machine.
const DRAWS: usize = 1_000;

/// `count` different ports nobody listens on at this moment.
///
/// Somebody else may take one before the caller listens there: the caller tries again with others.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>> {
    // Held until all are found, so that they differ.
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..DRAWS {
        if listeners.len() == count {
            break;
        }
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(RANGE))) {
            listeners.push(listener);
        }
    }
    if listeners.len() < count {
        bail!("found no {count} free ports in {RANGE:?} on 127.0.0.1");
    }
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Whether nobody listens on this port at this moment.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
