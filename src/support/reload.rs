//! Values read from files, and read again when the files change.
//!
//! Kubernetes swaps a symlink when a mounted Secret changes, and other tools replace or rewrite
//! files: what all of them have in common is new content, so content is what is compared.

use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::RwLock;

/// How often files are read.
const INTERVAL: Duration = Duration::from_secs(1);
/// Largest file, bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Why files that a flag named can't be used. Holds nothing of their content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("{flag} {path} can't be read")]
    Unreadable {
        /// The flag.
        flag: &'static str,
        /// What it says.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no such file.
    #[error("{flag} {path} is larger than 1 MiB, so it is something else")]
    TooLarge {
        /// The flag.
        flag: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// Its content is wrong.
    #[error("{flag} {path} can't be used: {why}")]
    Unusable {
        /// The flag.
        flag: &'static str,
        /// What it says.
        path: PathBuf,
        /// What is wrong, in our own words.
        why: String,
    },
}

/// The latest good version of what some files say.
pub struct Current<T>(RwLock<Arc<T>>);

impl<T> Current<T> {
    /// One that never changes.
    pub fn fixed(value: T) -> Arc<Self> {
        Arc::new(Self(RwLock::new(Arc::new(value))))
    }

    /// Puts another in its place.
    pub fn replace(&self, value: T) {
        *self.0.write() = Arc::new(value);
    }

    /// The value now.
    pub fn get(&self) -> Arc<T> {
        self.0.read().clone()
    }
}

/// Files that are read together, each with the flag that named it.
pub type Files = Vec<(&'static str, PathBuf)>;

/// Reads files, and goes on reading them for as long as the value is held. What can't be used later
/// is said in the log, and the last good version stays.
///
/// # Errors
/// [`FileError`] when they can't be used now.
pub fn load<T, E>(
    files: Files,
    parse: impl Fn(&[Vec<u8>]) -> Result<T, E> + Send + 'static,
) -> Result<Arc<Current<T>>, FileError>
where
    T: Send + Sync + 'static,
    E: Display + 'static,
{
    load_some(files, parse, |_| Ok(()))
}

/// The same with files that must not be empty of what they are for, as `check` says, now. Later it
/// counts if they are: whoever is no longer in them is no longer let in.
///
/// # Errors
/// [`FileError`] when they can't be used now.
pub fn load_some<T, E>(
    files: Files,
    parse: impl Fn(&[Vec<u8>]) -> Result<T, E> + Send + 'static,
    check: impl Fn(&T) -> Result<(), E> + Send + 'static,
) -> Result<Arc<Current<T>>, FileError>
where
    T: Send + Sync + 'static,
    E: Display + 'static,
{
    let unusable = |files: &Files, why: E| {
        let (flag, path) = files.first().cloned().unwrap_or_default();
        FileError::Unusable { flag, path, why: why.to_string() }
    };
    let contents = read(&files)?;
    let value = parse(&contents).map_err(|why| unusable(&files, why))?;
    check(&value).map_err(|why| unusable(&files, why))?;
    let current = Current::fixed(value);
    let parse =
        move |files: &Files, contents: &[Vec<u8>]| parse(contents).map_err(|why| unusable(files, why));
    let is_some = move |value: &T| check(value).is_ok();
    tokio::spawn(keep(Arc::downgrade(&current), files, digest(&contents), parse, is_some));
    Ok(current)
}

async fn keep<T: Send + Sync + 'static>(
    current: Weak<Current<T>>,
    files: Files,
    mut known: Digest,
    parse: impl Fn(&Files, &[Vec<u8>]) -> Result<T, FileError> + Send + 'static,
    is_some: impl Fn(&T) -> bool + Send + 'static,
) {
    let names = files.iter().map(|(flag, _)| *flag).collect::<Vec<_>>().join(" and ");
    let mut complaint: Option<Complaint> = None;
    let mut before = known;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(current) = current.upgrade() else { return };
        let paths = files.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || read(&paths)).await else { continue };
        // Files that can't be read are a content, too: that of none.
        let seen = digest(read.as_deref().unwrap_or_default());
        let twice = std::mem::replace(&mut before, seen) == seen;
        if seen == known {
            complaint = None;
            continue;
        }
        match read.and_then(|contents| parse(&files, &contents)) {
            // Whoever rewrites a file in its place empties it first.
            Ok(value) if !is_some(&value) && !twice => {}
            Ok(value) => {
                if !is_some(&value) {
                    tracing::warn!(
                        files = names,
                        "files have changed, and nobody is let in by them any more"
                    );
                }
                current.replace(value);
                known = seen;
                complaint = None;
                tracing::info!(files = names, "files have changed and are in use");
            }
            Err(error) => {
                let complaint = complaint.get_or_insert_default();
                if complaint.due(seen) {
                    tracing::warn!(%error, "files have changed and can't be used; what they said before stays");
                }
            }
        }
    }
}

/// Says each bad content once, and only when it is seen twice: between two files of a pair, or in
/// the middle of a file, a change isn't over.
#[derive(Default)]
struct Complaint {
    seen: Option<Digest>,
    said: bool,
}

impl Complaint {
    fn due(&mut self, seen: Digest) -> bool {
        if self.seen != Some(seen) {
            *self = Self { seen: Some(seen), said: false };
            return false;
        }
        !std::mem::replace(&mut self.said, true)
    }
}

type Digest = [u8; 32];

fn digest(contents: &[Vec<u8>]) -> Digest {
    let mut context = Context::new(&SHA256);
    for content in contents {
        context.update(&content.len().to_le_bytes());
        context.update(content);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn read(files: &Files) -> Result<Vec<Vec<u8>>, FileError> {
    files.iter().map(|(flag, path)| read_file(flag, path)).collect()
}

/// Reads one file that a flag named.
///
/// # Errors
/// [`FileError`] when it can't be read or is too large.
pub fn read_file(flag: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |source| FileError::Unreadable { flag, path: path.to_owned(), source };
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE {
        return Err(FileError::TooLarge { flag, path: path.to_owned() });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_content_is_said_once_and_not_at_first_sight() {
        let mut complaint = Complaint::default();
        assert!(!complaint.due([1; 32]));
        assert!(complaint.due([1; 32]));
        assert!(!complaint.due([1; 32]));
        assert!(!complaint.due([2; 32]));
        assert!(complaint.due([2; 32]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_emptied_file_counts_when_it_is_seen_twice_and_a_missing_one_does_not() {
        let path = std::env::temp_dir().join(format!("emptied-{:016x}", rand::random::<u64>()));
        let start = || {
            let parse = |file: &[Vec<u8>]| String::from_utf8(file.concat()).map_err(|_| "text");
            let check = |text: &String| if text.is_empty() { Err("empty") } else { Ok(()) };
            load_some(vec![("--file", path.clone())], parse, check)
        };
        std::fs::write(&path, "").unwrap();
        assert!(start().err().unwrap().to_string().ends_with("can't be used: empty"));
        std::fs::write(&path, "some").unwrap();
        let current = start().unwrap();
        std::fs::write(&path, "").unwrap();
        tokio::time::sleep(INTERVAL.mul_f64(1.5)).await;
        assert_eq!(*current.get(), "some", "it may be in the middle of a change");
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(*current.get(), "");
        std::fs::write(&path, "others").unwrap();
        tokio::time::sleep(INTERVAL).await;
        assert_eq!(*current.get(), "others");
        std::fs::remove_file(&path).unwrap();
        tokio::time::sleep(INTERVAL * 3).await;
        assert_eq!(*current.get(), "others");
    }

    #[test]
    fn where_one_file_ends_matters() {
        let of = |parts: &[&str]| digest(&parts.iter().map(|p| p.as_bytes().to_vec()).collect::<Vec<_>>());
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
    }

    #[test]
    fn an_error_names_flag_and_file() {
        let error = read_file("--htpasswd-file", Path::new("/nowhere")).unwrap_err();
        assert_eq!(error.to_string(), "--htpasswd-file /nowhere can't be read");
    }
}
