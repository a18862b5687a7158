//! The two ways in which Chinese is written.

/// A way to write Chinese.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    Simplified,
    Traditional,
}

/// Frequent characters that only one of the two has, in pairs of the same meaning: the traditional one first. A note of
/// two sentences has some of them.
const PAIRS: &str = "這这個个們们對对說说國国會会時时後后來来還还讓让學学開开關关點点種种問问題题為为過过發发經经動动現现實实業业電电話话\
                     議议討讨論论決决計计劃划負负責责準准備备檔档記记錄录請请謝谢買买車车見见長长間间東东書书樣样沒没麼么頭头進进從从當当\
                     給给聽听寫写讀读應应該该幾几筆笔訂订單单價价錢钱號号產产與与員员門门網网機机資资處处體体無无兩两將将週周報报試试";

impl Writing {
    /// What the tag of Chinese says: `zh-Hant` and `zh-TW`, or `zh-Hans` and `zh-CN`; `zh` alone says nothing.
    pub(crate) fn of_tag(tag: &str) -> Option<Self> {
        // A script comes before a region: `zh-Hans-HK` is simplified.
        tag.split(['-', '_']).skip(1).find_map(|subtag| match subtag.to_ascii_lowercase().as_str() {
            "hant" | "tw" | "hk" | "mo" => Some(Self::Traditional),
            "hans" | "cn" | "sg" => Some(Self::Simplified),
            _ => None,
        })
    }

    /// How a text is written: traditionally if it has more of those characters.
    pub(crate) fn of_text(text: &str) -> Self {
        let (mut traditional, mut simplified) = (0, 0);
        for letter in text.chars() {
            match PAIRS.chars().position(|other| other == letter).map(|index| index % 2) {
                Some(0) => traditional += 1,
                Some(_) => simplified += 1,
                None => {}
            }
        }
        if traditional > simplified { Self::Traditional } else { Self::Simplified }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_character_is_in_two_pairs() {
        let all: Vec<char> = PAIRS.chars().collect();
        assert!(all.len().is_multiple_of(2) && all.len() > 150);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn a_tag_says_how_chinese_is_written_or_nothing() {
        for (tag, writing) in [
            ("zh", None),
            ("zh-TW", Some(Writing::Traditional)),
            ("zh_HK", Some(Writing::Traditional)),
            ("zh-hant", Some(Writing::Traditional)),
            ("zh-Hans-HK", Some(Writing::Simplified)),
            ("zh-CN", Some(Writing::Simplified)),
            ("zh-x-new", None),
        ] {
            assert_eq!(Writing::of_tag(tag), writing, "{tag}");
        }
    }

    #[test]
    fn a_few_characters_tell_how_a_text_is_written() {
        assert_eq!(Writing::of_text("我們週一開會討論發布計劃。"), Writing::Traditional);
        assert_eq!(Writing::of_text("我们周一开会讨论发布计划。"), Writing::Simplified);
        assert_eq!(Writing::of_text("今天下雨"), Writing::Simplified, "neither");
        assert_eq!(Writing::of_text("他说「這」这个字在国内不常用"), Writing::Simplified, "a quotation");
    }
}
