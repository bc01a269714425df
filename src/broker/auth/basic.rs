//! User and password (RFC 7617), without the processor being anybody's toy.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;

use super::htpasswd::{HtpasswdError, Users};
use super::remembered::Remembered;
use super::{Denial, Principal, Scheme};
use crate::api::text;
use crate::support::reload::Current;
use crate::support::secret::{ExposeSecret as _, SecretString, Zeroizing};

/// Checks that wait for a processor; more are turned away.
const MAX_WAITING: usize = 64;
/// Longest wait for a processor.
const WAIT: Duration = Duration::from_secs(5);
/// How long after they were last used, and how many, right passwords are remembered.
const PASSED: (Duration, usize) = (Duration::from_mins(5), 1024);
/// How long, and how many, wrong ones are: apart, so that no stranger drives out a right one.
const FAILED: (Duration, usize) = (Duration::from_mins(1), 4096);

/// Longest password, bytes: of a longer one bcrypt reads no more, and others that begin like it would do.
const MAX_PASSWORD: usize = 72;

/// What a user and a password are remembered by: without the key nobody can try passwords on it.
type Tag = [u8; 32];

/// The users of one version of the file, and what was tried against it.
pub struct Directory {
    users: Users,
    key: hmac::Key,
    passed: Remembered<Tag>,
    failed: Remembered<Tag>,
}

impl Directory {
    /// Reads a file.
    ///
    /// # Errors
    /// See [`Users::parse`].
    pub fn parse(content: &[u8]) -> Result<Self, HtpasswdError> {
        Ok(Self {
            users: Users::parse(content)?,
            key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<Tag>()),
            passed: Remembered::new(PASSED),
            failed: Remembered::new(FAILED),
        })
    }

    /// Whether anybody can be let in.
    ///
    /// # Errors
    /// See [`Users::check_some`].
    pub fn check_some(&self) -> Result<(), HtpasswdError> {
        self.users.check_some()
    }

    /// Whether a pair is right, if that was found already.
    fn known(&self, tag: &Tag) -> Option<bool> {
        if self.passed.renew(tag) { Some(true) } else { self.failed.has(tag).then_some(false) }
    }

    /// Finds out whether a pair is right, and remembers it.
    fn verify(&self, tag: Tag, given: &Given) -> bool {
        let right = self.users.verify(&given.user, &given.password);
        if right {
            self.passed.insert(tag);
        } else {
            self.failed.insert(tag);
        }
        right
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
        let bytes = Zeroizing::new(STANDARD.decode(encoded).ok()?);
        let decoded = std::str::from_utf8(&bytes).ok()?;
        // RFC 7617, section 2: neither may have control characters, a user no colon.
        let (user, password) = decoded.split_once(':')?;
        let legal = !user.is_empty()
            && user.len() <= super::MAX_NAME
            && text::is_plain(user)
            && !password.contains(char::is_control);
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
        // At most half of them, so that the others go on serving whoever is known already; the only one
        // is shared.
        let half = std::thread::available_parallelism().map_or(1, |all| all.get() / 2).max(1);
        Self { directory, processors: Arc::new(Semaphore::new(half)), waiting: Semaphore::new(MAX_WAITING) }
    }

    /// Who says so?
    pub(super) async fn check(&self, encoded: &str) -> Result<Principal, Denial> {
        let given = Arc::new(Given::decode(encoded).ok_or(Denial::Malformed(Scheme::Basic))?);
        if given.password.expose_secret().len() > MAX_PASSWORD {
            return Err(Denial::LongPassword);
        }
        let directory = self.directory.get();
        let tag = directory.tag(&given);
        let right = match directory.known(&tag) {
            Some(right) => right,
            None => self.verify(directory, tag, given.clone()).await?,
        };
        if right {
            Ok(Principal { scheme: Scheme::Basic, name: given.user.clone() })
        } else {
            Err(Denial::Password)
        }
    }

    async fn verify(&self, directory: Arc<Directory>, tag: Tag, given: Arc<Given>) -> Result<bool, Denial> {
        let _waiting = self.waiting.try_acquire().map_err(|_| Denial::Busy)?;
        let processor = tokio::time::timeout(WAIT, self.processors.clone().acquire_owned());
        let processor = processor.await.map_err(|_| Denial::Busy)?.map_err(|_| Denial::Busy)?;
        // Somebody with the same pair may have been before us.
        if let Some(right) = directory.known(&tag) {
            return Ok(right);
        }
        let right = tokio::task::spawn_blocking(move || {
            // Held until it is done, even if whoever asked has gone.
            let _processor = processor;
            directory.verify(tag, &given)
        });
        right.await.map_err(|_| Denial::Busy)
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
        let known = ["anna:right", "anna:wrong", "bert:right", "bert:wrong"]
            .map(|pair| directory.known(&directory.tag(&Given::decode(&STANDARD.encode(pair)).unwrap())));
        assert_eq!(known, [Some(true), Some(false), Some(false), None]);
    }

    #[tokio::test]
    async fn odd_headers_are_malformed() {
        let basic = anna();
        let long = format!("{}:x", "a".repeat(300));
        for pair in ["", "anna", ":right", "anna:ri\0ght", "an\nna:right", "an\u{202e}na:right", &long] {
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
    async fn a_password_is_read_whole_or_not_at_all() {
        let longest = "\u{e4}".repeat(MAX_PASSWORD / 2);
        let basic = basic(&format!("anna:{}\n", bcrypt::hash(&longest, 4).unwrap()));
        assert_eq!(check(&basic, &format!("anna:{longest}")).await.as_deref(), Ok("anna"));
        for user in ["anna", "bert"] {
            let longer = format!("{user}:{longest}x");
            assert_eq!(check(&basic, &longer).await, Err(Denial::LongPassword), "begins with the right one");
        }
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

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_bounded_and_who_is_known_does_not_wait() {
        let different = (0..300).map(|number| format!("anna:wrong{number}")).collect::<Vec<_>>();
        for pairs in [different, vec!["anna:wrong".to_owned(); 300]] {
            let basic = anna();
            assert!(check(&basic, "anna:right").await.is_ok());
            let all = u32::try_from(basic.processors.available_permits()).unwrap();
            let busy = basic.processors.clone().acquire_many_owned(all).await.unwrap();
            let wrong = futures::future::join_all(pairs.iter().map(|pair| check(&basic, pair)));
            let known = async {
                // They are polled in order: 64 wait by now, and the others were turned away.
                tokio::task::yield_now().await;
                assert_eq!(basic.waiting.available_permits(), 0);
                assert!(check(&basic, "anna:right").await.is_ok());
                drop(busy);
            };
            let (wrong, ()) = tokio::join!(wrong, known);
            let (waited, turned_away) = wrong.split_at(MAX_WAITING);
            assert!(waited.iter().all(|result| *result == Err(Denial::Password)), "{waited:?}");
            assert!(turned_away.iter().all(|result| *result == Err(Denial::Busy)), "{turned_away:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_too_long_is_turned_away() {
        let basic = anna();
        let all = u32::try_from(basic.processors.available_permits()).unwrap();
        let _busy = basic.processors.acquire_many(all).await.unwrap();
        assert_eq!(check(&basic, "anna:right").await, Err(Denial::Busy));
    }
}
