use std::collections::HashSet;

use super::*;

const GOOD: &str = r#"
[[model]]
name = "small"
engine = "chat"
about = "For tests"
licence = "MIT"
provenance = "nobody"
default = true

[[model.file]]
name = "weights.bin"
size = 5
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
parts = [{ package = "carrier", path = "carrier/weights.bin" }]

[[package]]
name = "carrier"
version = "1.0"
size = 500
"#;

/// The error that the catalogue has with `wrong` instead of `right`.
fn refused(right: &str, wrong: &str) -> String {
    assert!(GOOD.contains(right), "{right}");
    Catalogue::parse(&GOOD.replacen(right, wrong, 1)).expect_err(wrong).to_string()
}

#[test]
fn the_built_in_catalogue_has_one_default_for_each_role_and_no_file_twice() {
    let catalogue = Catalogue::built_in();
    for role in [Role::Chat, Role::Transcription, Role::Diarization, Role::Embedding, Role::Recording] {
        let defaults = catalogue.models().iter().filter(|model| model.role == role && model.default);
        assert_eq!(defaults.count(), 1, "{role}");
        assert!(catalogue.default_of(role).is_some());
    }
    let files: Vec<_> = catalogue.models().iter().flat_map(|model| &model.files).collect();
    let digests: HashSet<_> = files.iter().map(|file| &file.sha256).collect();
    assert_eq!(digests.len(), files.len());
}

#[test]
fn every_built_in_file_has_a_checksum_a_licence_a_provenance_and_a_plain_name() {
    for model in Catalogue::built_in().models() {
        for file in &model.files {
            assert_eq!(file.sha256.len(), 64);
            assert!(file.sha256.bytes().all(|digit| digit.is_ascii_hexdigit()));
            assert!(!file.licence.is_empty() && !file.provenance.is_empty());
            assert!(!file.name.contains(['/', '\\']) && !file.name.starts_with('.'));
        }
        assert!(!model.name.contains(['/', '\\']) && !model.name.starts_with('.'));
    }
}

#[test]
fn a_file_has_its_own_licence_or_its_models() {
    let catalogue = Catalogue::parse(GOOD).unwrap();
    assert_eq!(catalogue.models()[0].files[0].licence, "MIT");
    let own = GOOD.replacen("parts =", "licence = \"Apache-2.0\"\nparts =", 1);
    let catalogue = Catalogue::parse(&own).unwrap();
    assert_eq!(catalogue.models()[0].files[0].licence, "Apache-2.0");
    assert_eq!(catalogue.models()[0].licence, "Apache-2.0");
    let speakers = Catalogue::built_in().default_of(Role::Diarization).unwrap();
    assert_eq!(speakers.licence, "MIT, Apache-2.0");
    assert_eq!(refused("licence = \"MIT\"\n", ""), "the catalogue is not right: small/weights.bin has no licence");
}

#[test]
fn no_name_leads_out_of_the_cache_or_into_pips_options() {
    for name in ["../weights.bin", "/etc/passwd", ".hidden", "a/b", ""] {
        let error = refused("name = \"weights.bin\"", &format!("name = {name:?}"));
        assert!(error.contains(&format!("file {name:?}: only letters")), "{error}");
    }
    assert!(refused("name = \"small\"", "name = \"..\"").contains("model \"..\""));
    assert!(refused("version = \"1.0\"", "version = \"1.0 --pre\"").contains("version"));
    let option = GOOD.replace("\"carrier\"", "\"--index-url\"");
    assert!(Catalogue::parse(&option).unwrap_err().to_string().contains("package \"--index-url\""));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    assert!(refused("0123456789abcdef\"", "\"").contains("small/weights.bin: sha256 is not 64"));
    assert!(refused("0123456789abcdef\"", "0123456789ABCDEF\"").contains("sha256 is not 64"));
    assert!(refused("size = 5\n", "size = 0\n").contains("small/weights.bin: a size of 0 bytes"));
    assert!(refused("package = \"carrier\"", "package = \"other\"").contains("package other, which is not there"));
    assert!(refused("default = true", "defualt = true").contains("defualt"));
    let (model, package) = GOOD.split_at(GOOD.find("[[package]]").unwrap());
    let again = |text: &str| Catalogue::parse(text).unwrap_err().to_string();
    assert!(again(&format!("{model}{model}{package}")).contains("model small is there twice"));
    let other = model.replace("\"small\"", "\"other\"");
    assert!(again(&format!("{model}{other}{package}")).contains("model other is a second default for chat"));
    assert!(again(&format!("{model}{package}{package}")).contains("package carrier is there twice"));
}
