//! Free text that people read in a terminal, a log or an Event: only what shows and stands where it is written.

/// Format characters, and separators of lines and paragraphs (Unicode's categories Cf, Zl and Zp): they can't be
/// seen, and some turn the text around them about.
const UNSEEN: [(char, char); 20] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// The same for the API server, as a rule of the Common Expression Language.
pub(super) const RULE: &str = r"!self.matches(r'[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]')";

/// Whether a character is a control character, can't be seen, or changes the direction of text.
#[must_use]
pub fn is_unseen(c: char) -> bool {
    c.is_control() || UNSEEN.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Whether all of a text is what it looks like.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    !text.contains(is_unseen)
}

/// What may be shown of somebody else's text: no more than `most` characters, and none that can't be seen.
#[must_use]
pub fn shown(text: &str, most: usize) -> String {
    text.chars().filter(|c| !is_unseen(*c)).take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_told_from_what_is() {
        assert_eq!(shown("a\u{1b}[2J\nb\u{202e}c", 5), "a[2Jb");
        for plain in ["", "a@b", "Jos\u{e9} \u{1f600}", "e\u{301}", "\u{5d0}\u{627}", "\u{a0}x"] {
            assert!(is_plain(plain), "{plain:?}");
        }
        for c in
            ['\0', '\n', '\t', '\u{1b}', '\u{7f}', '\u{85}', '\u{9b}', '\u{200e}', '\u{200f}', '\u{2028}']
        {
            assert!(is_unseen(c), "{c:?}");
        }
        for c in
            ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain(['\u{61c}', '\u{feff}', '\u{ad}'])
        {
            assert!(!is_plain(&format!("a{c}b")), "{c:?}");
        }
    }
}
