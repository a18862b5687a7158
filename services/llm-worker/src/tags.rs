//! The tags and names of languages.

use whatlang::Lang;

/// The language of a primary subtag in small letters: of two letters, or of three.
pub(crate) fn lang(primary: &str) -> Option<Lang> {
    let known = TAGS.iter().find(|(tag, _)| *tag == primary).map(|(_, lang)| *lang);
    known.or_else(|| Lang::from_code(primary))
}

/// A language's tag.
pub(crate) fn tag(lang: Lang) -> &'static str {
    TAGS.iter().find(|(_, known)| *known == lang).map_or(lang.code(), |(tag, _)| *tag)
}

/// A language's English name.
pub(crate) fn name(lang: Lang) -> &'static str {
    match lang {
        // Its two written forms are read by all who speak it.
        Lang::Nob => "Norwegian",
        lang => lang.eng_name(),
    }
}

/// Languages with two-letter tags: all that are known. Of several tags for one, the first is its own.
const TAGS: &[(&str, Lang)] = &[
    ("zh", Lang::Cmn),
    ("en", Lang::Eng),
    ("af", Lang::Afr),
    ("ak", Lang::Aka),
    ("am", Lang::Amh),
    ("ar", Lang::Ara),
    ("az", Lang::Aze),
    ("be", Lang::Bel),
    ("bg", Lang::Bul),
    ("bn", Lang::Ben),
    ("ca", Lang::Cat),
    ("cs", Lang::Ces),
    ("cy", Lang::Cym),
    ("da", Lang::Dan),
    ("de", Lang::Deu),
    ("el", Lang::Ell),
    ("eo", Lang::Epo),
    ("es", Lang::Spa),
    ("et", Lang::Est),
    ("fa", Lang::Pes),
    ("fi", Lang::Fin),
    ("fr", Lang::Fra),
    ("gu", Lang::Guj),
    ("he", Lang::Heb),
    ("hi", Lang::Hin),
    ("hr", Lang::Hrv),
    ("hu", Lang::Hun),
    ("hy", Lang::Hye),
    ("id", Lang::Ind),
    ("it", Lang::Ita),
    ("ja", Lang::Jpn),
    ("jv", Lang::Jav),
    ("ka", Lang::Kat),
    ("km", Lang::Khm),
    ("kn", Lang::Kan),
    ("ko", Lang::Kor),
    ("la", Lang::Lat),
    ("lt", Lang::Lit),
    ("lv", Lang::Lav),
    ("mk", Lang::Mkd),
    ("ml", Lang::Mal),
    ("mr", Lang::Mar),
    ("my", Lang::Mya),
    ("nb", Lang::Nob),
    ("ne", Lang::Nep),
    ("nl", Lang::Nld),
    ("nn", Lang::Nob),
    ("no", Lang::Nob),
    ("or", Lang::Ori),
    ("pa", Lang::Pan),
    ("pl", Lang::Pol),
    ("pt", Lang::Por),
    ("ro", Lang::Ron),
    ("ru", Lang::Rus),
    ("si", Lang::Sin),
    ("sk", Lang::Slk),
    ("sl", Lang::Slv),
    ("sn", Lang::Sna),
    ("sr", Lang::Srp),
    ("sv", Lang::Swe),
    ("ta", Lang::Tam),
    ("te", Lang::Tel),
    ("th", Lang::Tha),
    ("tk", Lang::Tuk),
    ("tl", Lang::Tgl),
    ("tr", Lang::Tur),
    ("uk", Lang::Ukr),
    ("ur", Lang::Urd),
    ("uz", Lang::Uzb),
    ("vi", Lang::Vie),
    ("yi", Lang::Yid),
    ("zu", Lang::Zul),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_language_that_can_be_told_has_a_tag_of_two_letters_that_is_no_others() {
        for &language in Lang::all() {
            let tag = tag(language);
            assert_eq!((tag.len(), lang(tag), lang(language.code())), (2, Some(language), Some(language)), "{tag}");
        }
        for (tag, _) in TAGS {
            assert_eq!(TAGS.iter().filter(|(other, _)| other == tag).count(), 1, "{tag}");
        }
        assert_eq!(["nb", "nn", "no"].map(|tag| lang(tag).map(name)), [Some("Norwegian"); 3]);
        assert_eq!((lang("xx"), lang("ignore"), lang("")), (None, None, None));
    }
}
