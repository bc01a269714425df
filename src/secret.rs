//! The type of everything that must never be printed: tokens, keys, kubeconfigs.
//!
//! `Debug` of a [`SecretString`] shows nothing of its content, it has no `Display`, it is wiped
//! when dropped, and reading it takes an [`ExposeSecret::expose_secret`] that a review can find.

pub use secrecy::{ExposeSecret, SecretString};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = SecretString::from("eyJhbGciOi".to_owned());
        assert!(!format!("{secret:?} {secret:#?}").contains("eyJ"));
        assert_eq!(secret.expose_secret(), "eyJhbGciOi");
    }
}
