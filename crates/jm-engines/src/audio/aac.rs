//! What a decoder of AAC-LC has to be given so that it decodes the core of HE-AAC too: at half the rate, which for speech
//! is all that is heard.

/// Plain AAC.
const LOW_COMPLEXITY: u32 = 2;
/// AAC with the upper half of its band made up, and with stereo made up as well.
const HIGH_EFFICIENCY: [u32; 2] = [5, 29];
/// Says that a rate of 24 bits follows, and not the number of a common one.
const ANY_RATE: u32 = 15;

/// The track's configuration without what only HE-AAC has; `None` if that is no configuration with a core of AAC-LC.
pub(super) fn core(configuration: &[u8]) -> Option<Box<[u8]>> {
    let mut bits = Bits { bytes: configuration, place: 0 };
    let mut kind = bits.object_type()?;
    let rate = bits.rate()?;
    let channels = bits.take(4)?;
    if HIGH_EFFICIENCY.contains(&kind) {
        bits.rate()?;
        kind = bits.object_type()?;
    }
    // Behind it: the frame's length, of which only one is decoded, and two flags.
    if kind != LOW_COMPLEXITY || bits.take(3)? != 0 {
        return None;
    }
    let (index, explicit) = rate;
    let mut core = u64::from(LOW_COMPLEXITY) << 4 | u64::from(index);
    let mut length = 9;
    if let Some(rate) = explicit {
        core = core << 24 | u64::from(rate);
        length += 24;
    }
    core = core << 7 | u64::from(channels) << 3;
    length += 7;
    // From the left, as they are read.
    Some(Box::from(&(core << (64 - length)).to_be_bytes()[..length / 8]))
}

struct Bits<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u32> {
        (0..count).try_fold(0, |value, _| {
            let byte = self.bytes.get(self.place / 8)?;
            let bit = byte >> (7 - self.place % 8) & 1;
            self.place += 1;
            Some(value << 1 | u32::from(bit))
        })
    }

    fn object_type(&mut self) -> Option<u32> {
        match self.take(5)? {
            31 => Some(32 + self.take(6)?),
            kind => Some(kind),
        }
    }

    /// The number of a common rate, or the rate.
    fn rate(&mut self) -> Option<(u32, Option<u32>)> {
        let index = self.take(4)?;
        Some((index, if index == ANY_RATE { Some(self.take(24)?) } else { None }))
    }
}

#[cfg(test)]
mod tests {
    use super::core;

    #[test]
    fn the_core_of_he_aac_is_configured_as_plain_aac_and_plain_aac_as_it_was() {
        // 44.1 kHz, stereo.
        assert_eq!(core(&[0x12, 0x10]).as_deref(), Some(&[0x12, 0x10][..]));
        // The same as the doubled rate of a core of 22.05 kHz, said before and behind.
        assert_eq!(core(&[0x2b, 0x92, 0x08, 0x00]).as_deref(), Some(&[0x13, 0x90][..]));
        assert_eq!(core(&[0x13, 0x90, 0x56, 0xe5, 0xa0]).as_deref(), Some(&[0x13, 0x90][..]));
        // A rate of its own: 12,345 Hz, mono.
        assert_eq!(core(&[0x17, 0x80, 0x18, 0x1c, 0x88]).as_deref(), Some(&[0x17, 0x80, 0x18, 0x1c, 0x88][..]));
        // Frames of 960, another kind, and none.
        for other in [&[0x12, 0x14][..], &[0x0a, 0x10], &[0xf9, 0x48], &[0x12], &[]] {
            assert_eq!(core(other), None);
        }
    }
}
