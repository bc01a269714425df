//! Values in few bytes, for what is kept of each of very many: JSON without what all say alike, with UUIDs as the 16
//! bytes that they are.

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// Stands before the bytes of a UUID. UTF-8 has no such byte.
const MARK: u8 = 0xff;

/// Packs a value. `alike` is JSON that most values have much in common with.
#[must_use]
pub fn pack(value: &impl Serialize, alike: &[u8]) -> Option<Box<[u8]>> {
    let short = shorten(&serde_json::to_vec(value).ok()?);
    Some(lz4_flex::block::compress_prepend_size_with_dict(&short, alike).into_boxed_slice())
}

/// What was packed with the same `alike`; `None` for anything else.
#[must_use]
pub fn unpack<T: DeserializeOwned>(packed: &[u8], alike: &[u8]) -> Option<T> {
    let short = lz4_flex::block::decompress_size_prepended_with_dict(packed, alike).ok()?;
    serde_json::from_slice(&lengthen(&short)?).ok()
}

/// A UUID in the form that Kubernetes writes, and no other: it must come back as it was.
#[must_use]
pub fn uuid(text: &[u8]) -> Option<Uuid> {
    let looks_like_one = text.len() == Hyphenated::LENGTH && text.get(8) == Some(&b'-');
    let uuid = looks_like_one.then(|| Uuid::try_parse_ascii(text).ok()).flatten()?;
    (uuid.hyphenated().encode_lower(&mut [0; Hyphenated::LENGTH]).as_bytes() == text).then_some(uuid)
}

fn shorten(text: &[u8]) -> Vec<u8> {
    let mut short = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        let found =
            rest.split_at_checked(Hyphenated::LENGTH).and_then(|(it, behind)| Some((uuid(it)?, behind)));
        if let Some((uuid, behind)) = found {
            short.push(MARK);
            short.extend(uuid.as_bytes());
            rest = behind;
        } else {
            short.push(*first);
            rest = others;
        }
    }
    short
}

fn lengthen(short: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(short.len() * 2);
    let mut rest = short;
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first == MARK {
            let (uuid, behind) = others.split_first_chunk()?;
            let mut written = [0; Hyphenated::LENGTH];
            text.extend(Uuid::from_bytes(*uuid).hyphenated().encode_lower(&mut written).as_bytes());
            rest = behind;
        } else {
            text.push(*first);
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOME: &str = "6f1d9c0e-8a35-4b7c-9d2e-1f0a5b6c7d8e";

    #[test]
    fn uuids_take_the_bytes_that_they_are() {
        let text = format!("a{SOME}{SOME}-b");
        assert_eq!(shorten(text.as_bytes()).len(), text.len() - 2 * (36 - 17));
        for other in [SOME.to_uppercase(), SOME.replace('-', ""), SOME.replace('8', "g")] {
            assert_eq!(shorten(other.as_bytes()), other.as_bytes(), "it would not come back as it was");
        }
    }

    #[test]
    fn what_was_not_packed_is_none() {
        for other in [&b""[..], b"\x01\0\0\0\x10\xff", b"\xff\xff\xff\x7f", b"\x01\0\0\0\x10{"] {
            assert_eq!(unpack::<String>(other, b""), None);
        }
    }

    proptest! {
        #[test]
        fn all_comes_back_as_it_was(
            texts in proptest::collection::vec(
                prop_oneof![".*", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[0-9A-Fa-f-]{34,38}"],
                0..6,
            ),
            joined in any::<bool>(),
            alike in ".*",
        ) {
            let texts = if joined { vec![texts.concat()] } else { texts };
            let packed = pack(&texts, alike.as_bytes()).unwrap();
            prop_assert_eq!(unpack::<Vec<String>>(&packed, alike.as_bytes()), Some(texts));
        }
    }
}
