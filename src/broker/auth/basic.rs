//! User and password (RFC 7617), without the processor being anybody's toy.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use moka::future::Cache;
use tokio::sync::Semaphore;

use super::htpasswd::{HtpasswdError, Users};
use super::{Denial, Principal, Scheme};
use crate::reload::Current;
use crate::secret::{ExposeSecret as _, SecretString};

/// Checks that wait for a processor; more are turned away.
const MAX_WAITING: usize = 64;
/// Longest wait for a processor.
const WAIT: Duration = Duration::from_secs(5);
/// How long, and how many, right passwords are remembered.
const PASSED: (Duration, u64) = (Duration::from_mins(5), 1024);
/// How long, and how many, wrong ones are: apart, so that no stranger drives out a right one.
const FAILED: (Duration, u64) = (Duration::from_mins(1), 4096);

/// What a user and a password are remembered by: without the key nobody can try passwords on it.
type Tag = [u8; 32];

/// The users of one version of the file, and what was tried against it.
pub struct Directory {
    users: Users,
    key: hmac::Key,
    passed: Cache<Tag, ()>,
    failed: Cache<Tag, ()>,
}

impl Directory {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`Users::parse`].
    pub fn parse(content: &[u8]) -> Result<Self, HtpasswdError> {
        let cache = |(time, most)| Cache::builder().time_to_live(time).max_capacity(most).build();
        Ok(Self {
            users: Users::parse(content)?,
            key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<Tag>()),
            passed: cache(PASSED),
            failed: cache(FAILED),
        })
    }

    fn tag(&self, given: &Given) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&given.user.len().to_le_bytes());
        context.update(given.user.as_bytes());
        context.update(given.password.expose_secret().as_bytes());
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

/// What a header says.
struct Given {
    user: String,
    password: SecretString,
}

impl Given {
    /// Reads what stands behind `Basic`.
    fn decode(encoded: &str) -> Option<Self> {
        let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        // RFC 7617, section 2: neither may have control characters, a user no colon.
        let (user, password) = text.split_once(':')?;
        let legal = !user.is_empty() && user.len() <= super::MAX_NAME && !text.contains(char::is_control);
        legal.then(|| Self { user: user.to_owned(), password: password.to_owned().into() })
    }
}

/// Authenticates by user and password.
pub struct Basic {
    directory: Arc<Current<Directory>>,
    processors: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Basic {
    /// With the users of a file.
    #[must_use]
    pub fn new(directory: Arc<Current<Directory>>) -> Self {
        // At most half of them, so that the others go on serving whoever is known already.
        let half = std::thread::available_parallelism().map_or(1, |all| all.get() / 2).max(1);
        Self { directory, processors: Arc::new(Semaphore::new(half)), waiting: Semaphore::new(MAX_WAITING) }
    }

    /// Who says so?
    pub(super) async fn check(&self, encoded: &str) -> Result<Principal, Denial> {
        let given = Arc::new(Given::decode(encoded).ok_or(Denial::Malformed(Scheme::Basic))?);
        let directory = self.directory.get();
        let tag = directory.tag(&given);
        if directory.failed.contains_key(&tag) {
            return Err(Denial::Password);
        }
        // The same pair many times at once is checked once.
        let check = self.verify(directory.clone(), given.clone());
        match directory.passed.try_get_with(tag, check).await {
            Ok(()) => Ok(Principal { scheme: Scheme::Basic, name: given.user.clone() }),
            Err(denial) => {
                let denial = Denial::clone(&denial);
                if denial == Denial::Password {
                    directory.failed.insert(tag, ()).await;
                }
                Err(denial)
            }
        }
    }

    async fn verify(&self, directory: Arc<Directory>, given: Arc<Given>) -> Result<(), Denial> {
        let _waiting = self.waiting.try_acquire().map_err(|_| Denial::Busy)?;
        let processor = tokio::time::timeout(WAIT, self.processors.clone().acquire_owned());
        let processor = processor.await.map_err(|_| Denial::Busy)?.map_err(|_| Denial::Busy)?;
        let right = tokio::task::spawn_blocking(move || {
            // Held until it is done, even if whoever asked has gone.
            let _processor = processor;
            directory.users.verify(&given.user, &given.password)
        });
        if right.await.unwrap_or(false) { Ok(()) } else { Err(Denial::Password) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(file: &str) -> Basic {
        Basic::new(Current::fixed(Directory::parse(file.as_bytes()).unwrap()))
    }

    fn anna() -> Basic {
        basic(&format!("anna:{}\n", bcrypt::hash("right", 4).unwrap()))
    }

    async fn check(basic: &Basic, pair: &str) -> Result<String, Denial> {
        basic.check(&STANDARD.encode(pair)).await.map(|principal| principal.name)
    }

    #[tokio::test]
    async fn only_the_right_pair_passes_at_first_and_again() {
        let basic = anna();
        for _ in 0..2 {
            assert_eq!(check(&basic, "anna:right").await.as_deref(), Ok("anna"));
            assert_eq!(check(&basic, "anna:wrong").await, Err(Denial::Password));
            assert_eq!(check(&basic, "bert:right").await, Err(Denial::Password));
        }
        let directory = basic.directory.get();
        directory.passed.run_pending_tasks().await;
        directory.failed.run_pending_tasks().await;
        assert_eq!((directory.passed.entry_count(), directory.failed.entry_count()), (1, 2));
    }

    #[tokio::test]
    async fn odd_headers_are_malformed() {
        let basic = anna();
        for pair in ["", "anna", ":right", "anna:ri\0ght", "an\nna:right", &format!("{}:x", "a".repeat(300))]
        {
            assert_eq!(check(&basic, pair).await, Err(Denial::Malformed(Scheme::Basic)), "{pair:?}");
        }
        for encoded in ["", "%%%", "YW5uYTpyaWdodA", "/w==", " "] {
            assert!(basic.check(encoded).await.is_err(), "{encoded}");
        }
    }

    #[tokio::test]
    async fn a_password_may_have_colons() {
        let basic = basic(&format!("anna:{}\n", bcrypt::hash("a:b:", 4).unwrap()));
        assert!(check(&basic, "anna:a:b:").await.is_ok());
    }

    #[tokio::test]
    async fn a_new_file_forgets_what_passed() {
        let basic = anna();
        assert!(check(&basic, "anna:right").await.is_ok());
        let other = Directory::parse(format!("anna:{}\n", bcrypt::hash("new", 4).unwrap()).as_bytes());
        basic.directory.replace(other.unwrap());
        assert_eq!(check(&basic, "anna:right").await, Err(Denial::Password));
        assert!(check(&basic, "anna:new").await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_is_bounded_and_who_is_known_does_not_wait() {
        let basic = anna();
        assert!(check(&basic, "anna:right").await.is_ok());
        let all = u32::try_from(basic.processors.available_permits()).unwrap();
        let _busy = basic.processors.acquire_many(all).await.unwrap();
        let pairs: Vec<_> = (0..200).map(|number| format!("anna:wrong{number}")).collect();
        let wrong = futures::future::join_all(pairs.iter().map(|pair| check(&basic, pair)));
        let turned_away = async {
            // They are polled in order: 64 wait by now, and the others were turned away.
            tokio::task::yield_now().await;
            assert_eq!(basic.waiting.available_permits(), 0);
            assert!(check(&basic, "anna:right").await.is_ok());
        };
        tokio::time::pause();
        let (wrong, ()) = tokio::join!(wrong, turned_away);
        assert!(wrong.iter().all(|result| *result == Err(Denial::Busy)), "{wrong:?}");
    }
}
