//! How Chinese is written: Whisper mixes simplified and traditional characters, readers want one of them.

/// Parts of a tag that ask for traditional characters: the script, or where it is in use.
const TRADITIONAL: [&str; 4] = ["hant", "tw", "hk", "mo"];

/// Whether a tag asks for traditional characters. Nothing else does.
pub(super) fn asks_for_traditional(tag: &str) -> bool {
    let mut parts = tag.split(['-', '_']).skip(1).map(str::to_ascii_lowercase).peekable();
    // A script that is named counts, wherever it is in use.
    parts.find(|part| part == "hans" || TRADITIONAL.contains(&part.as_str())).is_some_and(|part| part != "hans")
}

/// The text in simplified characters.
pub(super) fn simplified(text: &str) -> String {
    hanconv::t2s(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traditional_characters_become_simplified_ones_and_the_rest_stays() {
        assert_eq!(simplified("我們開會討論錄音軟體,OK?"), "我们开会讨论录音软体,OK?");
        assert_eq!(simplified("简体字不变"), "简体字不变");
        // One character that stands for two: by the word it is in.
        assert_eq!(simplified("乾坤 乾淨"), "乾坤 干净");
    }

    #[test]
    fn the_tag_decides_which_characters() {
        for tag in ["zh-TW", "zh_hk", "zh-Hant", "zh-Hant-CN", "zh-MO"] {
            assert!(asks_for_traditional(tag), "{tag}");
        }
        for tag in ["zh", "zh-CN", "zh-Hans", "zh-Hans-HK", "en-HK-x", "tw"] {
            assert_eq!(asks_for_traditional(tag), tag.starts_with("en"), "{tag}");
        }
    }
}
