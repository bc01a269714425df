//! Credentials that must be found nowhere, and the search for any 16 characters of one.
//!
//! Whatever hands a credential to a test has this process learn it. What each operator logs, which is at `trace` level,
//! sends to a collector and answers, what it was started with, and what each stage has at its end are searched for all
//! of them: a whole run of tests is a search.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::{Mutex, RwLock};

/// How many characters of a credential are already too many.
pub const PIECE: usize = 16;
/// Each credential is known by blocks of this length, one at each [`STEP`]: any piece holds a whole one.
const BLOCK: usize = 12;
const STEP: usize = PIECE - BLOCK + 1;

/// Credentials, and how they are found.
#[derive(Default)]
pub struct Credentials {
    all: Vec<(String, Vec<u8>)>,
    known: HashSet<Vec<u8>>,
    /// Where each block is: in which credentials, many of which begin alike, and at which character.
    blocks: HashMap<[u8; BLOCK], Vec<(usize, usize)>>,
}

impl Credentials {
    /// Adds one that must be found nowhere; what is too short to be searched for is passed over.
    pub fn add(&mut self, what: &str, credential: &str) {
        for word in words(credential.as_bytes()) {
            if !self.known.insert(word.to_vec()) {
                continue;
            }
            for (at, block) in word.windows(BLOCK).enumerate().step_by(STEP) {
                if let Ok(block) = block.try_into() {
                    self.blocks.entry(block).or_default().push((self.all.len(), at));
                }
            }
            self.all.push((what.to_owned(), word.to_vec()));
        }
    }

    /// Adds a private key, without the lines that all keys begin and end with, also as it stands in a kubeconfig.
    pub fn add_key(&mut self, what: &str, pem: &str) {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        self.add(what, &body);
        // Beyond what the first line is encoded to.
        self.add(&format!("{what} in base64"), STANDARD.encode(pem).get(48..).unwrap_or_default());
    }

    /// How many there are.
    #[must_use]
    pub fn number(&self) -> usize {
        self.all.len()
    }

    /// How many pieces are searched for.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.all.iter().map(|(_, word)| word.len() + 1 - PIECE).sum()
    }

    /// What is found in a text of any of them; never which characters.
    #[must_use]
    pub fn found(&self, text: &[u8]) -> BTreeSet<&str> {
        let places =
            words(text).flat_map(|word| word.windows(BLOCK).enumerate().map(move |place| (word, place)));
        let known = places.flat_map(|(word, (at, block))| {
            self.blocks.get(block).into_iter().flatten().map(move |known| (word, at, known))
        });
        let hits = known.filter_map(|(word, at, &(which, of))| {
            let (what, credential) = self.all.get(which)?;
            let ahead = common(word.get(at..)?, credential.get(of..)?);
            let before = common_end(word.get(..at)?, credential.get(..of)?);
            (before + ahead >= PIECE).then_some(what.as_str())
        });
        hits.collect()
    }
}

/// What credentials can be in: everything between other characters than theirs, if it is long enough.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = text.split(|c| !(c.is_ascii_alphanumeric() || b"-_+/=.".contains(c)));
    words.filter(|word| word.len() >= PIECE)
}

fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

fn common_end(one: &[u8], other: &[u8]) -> usize {
    one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count()
}

/// The token in a kubeconfig.
#[must_use]
pub fn token_in(kubeconfig: &str) -> Option<&str> {
    let token = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("token: "));
    token.map(|token| token.trim_matches('"'))
}

/// The private key in a kubeconfig, as PEM.
#[must_use]
pub fn key_in(kubeconfig: &str) -> Option<String> {
    let key = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("client-key-data: "))?;
    String::from_utf8(STANDARD.decode(key.trim_matches('"')).ok()?).ok()
}

/// What this process has learnt, if it searches at all.
static LEARNT: OnceLock<RwLock<Credentials>> = OnceLock::new();
/// How many texts of each kind were searched, and their bytes.
static SEARCHED: Mutex<BTreeMap<String, (usize, usize)>> = Mutex::new(BTreeMap::new());

/// From now on this process learns credentials and searches for them: tests do, measurements don't.
pub fn begin() {
    LEARNT.get_or_init(RwLock::default);
}

/// Whether it does.
#[must_use]
pub fn searching() -> bool {
    LEARNT.get().is_some()
}

/// From now on that is found nowhere, or a test fails.
pub fn learn(what: &str, credential: &str) {
    if let Some(learnt) = LEARNT.get() {
        learnt.write().add(what, credential);
    }
}

/// The same for the token or the key in a kubeconfig.
pub fn learn_kubeconfig(what: &str, kubeconfig: &str) {
    let Some(learnt) = LEARNT.get() else { return };
    if let Some(token) = token_in(kubeconfig) {
        learnt.write().add(what, token);
    }
    if let Some(pem) = key_in(kubeconfig) {
        learnt.write().add_key(what, &pem);
    }
}

/// How many texts of each kind were searched so far, and their bytes.
#[must_use]
pub fn searched() -> BTreeMap<String, (usize, usize)> {
    SEARCHED.lock().clone()
}

/// Searches what an operator has said for all that this process has learnt, and tells how far the whole search is.
///
/// # Panics
/// When any piece of a credential is in it: the test that made it say so fails. Its name is told, not the piece.
pub fn search(kind: &str, text: &str) {
    search_all(kind, &[text]);
}

/// The same for some texts of a kind.
///
/// # Panics
/// As [`search`].
pub fn search_all<T: AsRef<[u8]>>(kind: &str, texts: &[T]) {
    judge(kind, &look(kind, texts));
}

/// The same for a kind of which there are so many texts that nothing is told of one.
///
/// # Panics
/// As [`search`].
pub fn search_silently(kind: &str, text: &str) {
    let found = look(kind, &[text]);
    assert!(found.is_empty() || std::thread::panicking(), "in {kind}: {found:?}");
}

/// What is found in texts of a kind, which are counted.
pub(crate) fn look<T: AsRef<[u8]>>(kind: &str, texts: &[T]) -> BTreeSet<String> {
    let Some(learnt) = LEARNT.get() else { return BTreeSet::new() };
    let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
    let mut searched = SEARCHED.lock();
    let count = searched.entry(kind.to_owned()).or_default();
    *count = (count.0 + texts.len(), count.1 + bytes);
    drop(searched);
    let learnt = learnt.read();
    texts.iter().flat_map(|text| learnt.found(text.as_ref())).map(str::to_owned).collect()
}

/// Has a test fail by what was found.
pub(crate) fn judge(kind: &str, found: &BTreeSet<String>) {
    let Some(number) = LEARNT.get().map(|learnt| learnt.read().number()) else { return };
    let (kinds, texts, bytes) =
        searched().values().fold((0, 0, 0), |sum, more| (sum.0 + 1, sum.1 + more.0, sum.2 + more.1));
    println!(
        "{kind}: searched for {number} credentials, found {found:?}; so far {texts} texts of {kinds} kinds, {bytes} bytes"
    );
    // While a test fails already, it is not hidden by this.
    assert!(found.is_empty() || std::thread::panicking(), "in {kind}: {found:?}");
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::process::Command;
    use std::sync::Arc;

    use super::*;
    use crate::{ManagedProcess, WorkDir};

    /// No two pieces of it are the same.
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhLWNhbmFyeSJ9.c2lnbmVkLWJ5LWEtY2FuYXJ5";

    #[test]
    fn any_piece_is_found_and_nothing_shorter() {
        let mut credentials = Credentials::default();
        credentials.add("a token", TOKEN);
        credentials.add("too short", "a-password");
        assert_eq!((credentials.number(), credentials.pieces()), (1, TOKEN.len() + 1 - PIECE));
        // Others begin like it, and part from it at any place.
        for at in PIECE..TOKEN.len() {
            credentials.add("another", &format!("{}_____", &TOKEN[..at]));
        }
        for at in 0..=TOKEN.len() - PIECE {
            let piece = &TOKEN[at..at + PIECE];
            for text in [piece.to_owned(), format!("see {piece}!"), format!("{{\"msg\":\"x.{piece}=y\"}}")] {
                assert!(credentials.found(text.as_bytes()).contains("a token"), "at {at}");
            }
            assert!(credentials.found(&piece.as_bytes()[1..]).is_empty(), "at {at}");
        }
        assert!(credentials.found(b"a-password, and 0123456789abcdefghij").is_empty());
    }

    #[test]
    fn what_a_process_writes_is_searched_when_it_has_ended() {
        begin();
        let kubeconfig = format!("users:\n- user:\n    token: \"{TOKEN}x-of-a-process\"\n");
        learn_kubeconfig("a token", &kubeconfig);
        for (word, leaks) in [(format!("{TOKEN}x-of"), true), ("nothing-of-that-kind".to_owned(), false)] {
            let mut command = Command::new("echo");
            command.arg(word);
            let dir = Arc::new(WorkDir::new("canary-echo").unwrap());
            let process = ManagedProcess::spawn("echo", &command, &dir).unwrap().at_its_end(search);
            let ended = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            ended.block_on(process.wait(crate::stage::SOON)).unwrap();
            assert_eq!(catch_unwind(AssertUnwindSafe(|| drop(process))).is_err(), leaks);
        }
    }
}
