//! Weights that are read, and files that are not what they say.

use super::*;

fn string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len() + 1).unwrap();
    [&length.to_le_bytes()[..], text.as_bytes(), &[0]].concat()
}

fn variable(name: &str, shape: &[u32], kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.push(u8::try_from(shape.len()).unwrap());
    bytes.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
    bytes.push(kind);
    bytes.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
    bytes.extend(data);
    bytes
}

fn model(variables: &[Vec<u8>]) -> Vec<u8> {
    let count = u32::try_from(variables.len()).unwrap();
    let mut bytes = [&6_u32.to_le_bytes()[..], &string("WhisperSpec"), &3_u32.to_le_bytes()].concat();
    bytes.extend(count.to_le_bytes());
    bytes.extend(variables.concat());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([string("decoder/projection/weight"), string("decoder/embeddings/weight")].concat());
    bytes
}

fn read(bytes: &[u8]) -> Result<Weights, FormatError> {
    Weights::read(bytes, bytes.len() as u64)
}

fn refused(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

fn right() -> Vec<u8> {
    // 1.0 and -2.0 in 16 bits, 0.5 in 32.
    let halves = [0x00, 0x3c, 0x00, 0xc0];
    model(&[
        variable("halves", &[2, 1], FLOAT16, &halves),
        variable("single", &[1], FLOAT32, &0.5_f32.to_le_bytes()),
        variable("heads", &[], INT16, &8_i16.to_le_bytes()),
        variable("layer", &[], INT16, &(-1_i16).to_le_bytes()),
    ])
}

#[test]
fn numbers_of_16_and_32_bits_become_f32() {
    let mut weights = read(&right()).unwrap();
    assert_eq!(weights.take("halves", &[2, 0]).unwrap().to_vec2::<f32>().unwrap(), [[1.0], [-2.0]]);
    assert_eq!(weights.take("single", &[1]).unwrap().to_vec1::<f32>().unwrap(), [0.5]);
    assert_eq!((weights.setting("heads").unwrap(), weights.setting("layer").unwrap()), (8, -1));
}

#[test]
fn what_is_not_there_or_has_another_shape_is_named() {
    let error = read(&right()).unwrap().take("halves", &[1, 2]).unwrap_err().to_string();
    assert_eq!(error, "`halves` is [2, 1], where [1, 2] is needed");
    let error = read(&right()).unwrap().take("wholes", &[1]).unwrap_err().to_string();
    assert_eq!(error, "`wholes` is missing");
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused_and_so_is_a_longer_one() {
    let right = right();
    for length in 0..right.len() {
        let error = refused(&right[..length]);
        assert!(error.starts_with("it is cut off in `"), "{length}: {error}");
    }
    assert_eq!(refused(&[&right[..], &[0; 3]].concat()), "3 bytes follow where it should end");
}

#[test]
fn lengths_that_lie_take_no_memory() {
    let mut bytes = model(&[variable("huge", &[u32::MAX, u32::MAX, u32::MAX, u32::MAX], FLOAT32, &[0; 4])]);
    assert_eq!(refused(&bytes), "`huge` has 4 bytes, which its shape and type do not");
    let few = model(&[variable("w", &[3], FLOAT32, &[0; 8])]);
    assert_eq!(refused(&few), "`w` has 8 bytes, which its shape and type do not");
    bytes = model(&[variable("huge", &[0x3fff_ffff], FLOAT32, &[])]);
    let place = bytes.len() - string("decoder/projection/weight").len() * 2 - 8;
    bytes[place..place + 4].copy_from_slice(&0xffff_fffc_u32.to_le_bytes());
    assert_eq!(refused(&bytes), "it is cut off in `huge`");
    let mut bytes = model(&[]);
    bytes[22..26].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(refused(&bytes), "4294967295 variables; no Whisper has more than 10000");
}

#[test]
fn other_models_versions_and_types_are_refused_with_the_remedy() {
    let mut other = right();
    other[0] = 5;
    assert!(refused(&other).starts_with("it is version 5 of the format; 6 is needed"));
    let mut other = right();
    other[6] = b'B';
    assert_eq!(refused(&other), "it describes `BhisperSpec`, not `WhisperSpec`");
    let quantised = model(&[variable("w", &[2], INT8, &[1, 2])]);
    assert!(refused(&quantised).starts_with("`w` is int8; float16 or float32 is needed: convert"));
    let brain = model(&[variable("w", &[], BFLOAT16, &[1, 2])]);
    assert!(refused(&brain).starts_with("`w` is bfloat16;"));
    assert!(refused(&model(&[variable("w", &[1], 9, &[1])])).contains("unknown type 9"));
    assert!(refused(&model(&[variable("w", &[1; 5], FLOAT32, &[0; 4])])).contains("of 5 dimensions"));
    let infinite = model(&[variable("w", &[1], FLOAT32, &f32::NAN.to_le_bytes())]);
    assert_eq!(refused(&infinite), "`w` has numbers that are none");
    let once = variable("w", &[1], FLOAT32, &[0; 4]);
    assert_eq!(refused(&model(&[once.clone(), once])), "`w` is in it twice");
}
