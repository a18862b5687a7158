//! A model of one layer that fits into a few kilobytes, in the format of the large one.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers")]

const HIDDEN: usize = 32;
const WIDE: usize = 64;
const POSITIONS: usize = 12;
/// Everything from the first tensor on: the rest of the file.
pub(super) const TENSOR_BYTES: usize = 4 * (POSITIONS * HIDDEN + 12 * HIDDEN + WIDE)
    + (COUNT * HIDDEN + 4 * HIDDEN * HIDDEN + 2 * WIDE * HIDDEN) / 32 * 18;
const COUNT: usize = SPECIAL.len() + PIECES.len();
const SPECIAL: [&str; 4] = ["<s>", "<pad>", "</s>", "<unk>"];
const PIECES: [&str; 14] = ["▁", "▁ab", "a", "b", "p", "s", "g", "e", ":", "q", "u", "r", "y", "▁b"];
const REPLACEMENTS: [(char, &str); 5] =
    [('\u{1}', ""), ('\u{2}', ""), ('\t', " "), ('Ａ', "a"), ('\u{fdfa}', "صلى الله عليه وسلم")];

pub(super) fn piece(id: u32) -> &'static str {
    let id = id as usize;
    SPECIAL.get(id).or_else(|| PIECES.get(id - SPECIAL.len())).unwrap()
}

pub(super) fn file() -> Vec<u8> {
    let mut file = b"E5S1".to_vec();
    let pieces = [&SPECIAL[..], &PIECES[..]].concat();
    let [hidden, wide, positions, count] = [HIDDEN, WIDE, POSITIONS, pieces.len()].map(|size| size as u32);
    numbers(&mut file, &[1, hidden, 1, 2, wide, count, positions, 1]);
    file.extend(1e-5_f32.to_le_bytes());
    numbers(&mut file, &[32, count, 0, 2, 1, 3]);
    file.extend((pieces.concat().len() as u64).to_le_bytes());
    let ends = (0..=pieces.len()).map(|end| pieces[..end].concat().len() as u32);
    numbers(&mut file, &ends.collect::<Vec<_>>());
    for piece in &pieces {
        // Longer ones are better.
        file.extend((piece.len() as f32 - 10.0).to_le_bytes());
    }
    file.extend(pieces.concat().bytes());
    let mut replacements = Vec::new();
    for (from, to) in REPLACEMENTS {
        numbers(&mut replacements, &[u32::from(from)]);
        replacements.push(to.chars().count() as u8);
        numbers(&mut replacements, &to.chars().map(u32::from).collect::<Vec<_>>());
    }
    numbers(&mut file, &[REPLACEMENTS.len() as u32, replacements.len() as u32]);
    file.extend(replacements);
    tensors(&mut file, pieces.len());
    file
}

/// The list, and then what it lists.
fn tensors(file: &mut Vec<u8>, pieces: usize) {
    let square = HIDDEN * HIDDEN;
    let all = [
        ("emb.word", true, pieces * HIDDEN),
        ("emb.pos", false, POSITIONS * HIDDEN),
        ("emb.type", false, HIDDEN),
        ("emb.ln.w", false, HIDDEN),
        ("emb.ln.b", false, HIDDEN),
        ("l0.q.w", true, square),
        ("l0.q.b", false, HIDDEN),
        ("l0.k.w", true, square),
        ("l0.k.b", false, HIDDEN),
        ("l0.v.w", true, square),
        ("l0.v.b", false, HIDDEN),
        ("l0.ao.w", true, square),
        ("l0.ao.b", false, HIDDEN),
        ("l0.aln.w", false, HIDDEN),
        ("l0.aln.b", false, HIDDEN),
        ("l0.fi.w", true, WIDE * HIDDEN),
        ("l0.fi.b", false, WIDE),
        ("l0.fo.w", true, WIDE * HIDDEN),
        ("l0.fo.b", false, HIDDEN),
        ("l0.oln.w", false, HIDDEN),
        ("l0.oln.b", false, HIDDEN),
    ];
    let bytes = |quantized, count| if quantized { count / 32 * 18 } else { count * 4 };
    let list: usize = all.iter().map(|(name, ..)| 2 + name.len() + 1 + 4 + 8 + 8).sum();
    let mut offset = file.len() + 4 + list;
    numbers(file, &[all.len() as u32]);
    let mut data = Vec::new();
    let mut random = 1_u32;
    for (name, quantized, count) in all {
        file.extend((name.len() as u16).to_le_bytes());
        file.extend(name.bytes());
        file.push(u8::from(quantized));
        numbers(file, &[count as u32]);
        file.extend((offset as u64).to_le_bytes());
        file.extend((bytes(quantized, count) as u64).to_le_bytes());
        offset += bytes(quantized, count);
        let mut next = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            random >> 24
        };
        if quantized {
            for _ in 0..count / 32 {
                // A scale of 1/16 as a half, and 32 weights.
                data.extend([0x00, 0x2C]);
                data.extend((0..16).map(|_| next() as u8));
            }
        } else {
            data.extend((0..count).flat_map(|_| (next() as f32 / 256.0 - 0.25).to_le_bytes()));
        }
    }
    file.extend(data);
}

fn numbers(file: &mut Vec<u8>, numbers: &[u32]) {
    file.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}
