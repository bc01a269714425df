//! The type of everything that must never be printed: tokens, keys, kubeconfigs.
//!
//! `Debug` of a [`SecretString`] shows nothing of its content, it has no `Display`, it is wiped
//! when dropped, and reading it takes an [`ExposeSecret::expose_secret`] that a review can find.
//!
//! What a library's type holds on the way is wiped where it is ours alone ([`Zeroize`]): answers with tokens,
//! logins, the data of Secrets. What a library copies into buffers of its own is not.

pub use secrecy::zeroize::{Zeroize, Zeroizing};
pub use secrecy::{ExposeSecret, SecretString};

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Fields with such names hold what nobody may print, so they are of a type that can't be.
    const NAMES: [&str; 7] =
        ["token", "password", "kubeconfig", "key", "client_key_data", "credentials", "bearer"];
    const BARE: [&str; 6] =
        ["String", "Option<String>", "Vec<u8>", "ByteString", "Box<str>", "Option<ByteString>"];

    fn is_bare(line: &str) -> bool {
        let line = line.trim().trim_start_matches("pub ").trim_start_matches("pub(super) ");
        let field = line.strip_suffix(',').and_then(|field| field.split_once(": "));
        field.is_some_and(|(name, of)| NAMES.contains(&name) && BARE.contains(&of))
    }

    #[test]
    fn no_type_has_a_secret_that_its_debug_would_show() {
        let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut files = 0;
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                files += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                let bare: Vec<_> = text.lines().filter(|line| is_bare(line)).collect();
                assert!(bare.is_empty(), "{}: {bare:?}", path.display());
            }
        }
        assert!(files > 50, "{files}");
        assert!(
            is_bare("    pub token: String,") && is_bare("key: Vec<u8>,") && !is_bare("token: SecretString,")
        );
    }

    #[test]
    fn debug_shows_nothing() {
        let secret = SecretString::from("eyJhbGciOi".to_owned());
        assert!(!format!("{secret:?} {secret:#?}").contains("eyJ"));
        assert_eq!(secret.expose_secret(), "eyJhbGciOi");
    }
}
