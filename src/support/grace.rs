//! Trouble that counts only when it has lasted: a moment of it shall take no pod out of service.

use std::time::{Duration, Instant};

/// How long trouble is passed over where all was well before. Three looks of a readiness probe with Kubernetes' defaults.
pub const GRACE: Duration = Duration::from_secs(30);

/// Trouble of one kind of question, if there is any.
#[derive(Debug)]
pub struct Lasting<T> {
    was_well: bool,
    trouble: Option<(Instant, T)>,
}

impl<T> Default for Lasting<T> {
    fn default() -> Self {
        Self { was_well: false, trouble: None }
    }
}

impl<T: Clone + PartialEq> Lasting<T> {
    /// Takes in how a question went; true when it is news.
    pub fn note(&mut self, went: Result<(), T>, now: Instant) -> bool {
        match (went, &mut self.trouble) {
            (Ok(()), trouble) => {
                self.was_well = true;
                trouble.take().is_some()
            }
            (Err(new), Some((_, old))) => std::mem::replace(old, new.clone()) != new,
            (Err(new), none) => {
                *none = Some((now, new));
                true
            }
        }
    }

    /// Whether any question went in whatever way. Before that, nobody knows.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.was_well || self.trouble.is_some()
    }

    /// The latest trouble, however short.
    #[must_use]
    pub fn latest(&self) -> Option<T> {
        self.trouble.as_ref().map(|(_, trouble)| trouble.clone())
    }

    /// The trouble that counts: at once where nothing was well yet, else after [`GRACE`].
    #[must_use]
    pub fn counts(&self, now: Instant) -> Option<T> {
        let (since, trouble) = self.trouble.as_ref()?;
        (!self.was_well || now.duration_since(*since) >= GRACE).then(|| trouble.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_counts_at_once_at_the_start_and_later_only_when_it_lasts() {
        let start = Instant::now();
        let mut lasting = Lasting::default();
        assert_eq!((lasting.counts(start), lasting.is_asked()), (None, false));
        assert!(lasting.note(Err("a"), start));
        assert!(lasting.is_asked());
        assert_eq!(lasting.counts(start), Some("a"));
        assert!(lasting.note(Ok(()), start));
        assert!(!lasting.note(Ok(()), start) && lasting.is_asked());
        assert_eq!((lasting.counts(start), lasting.latest()), (None, None));

        assert!(lasting.note(Err("b"), start));
        assert_eq!((lasting.counts(start), lasting.latest()), (None, Some("b")));
        let later = start + GRACE / 2;
        assert!(!lasting.note(Err("b"), later));
        assert_eq!(lasting.counts(later), None);
        assert!(lasting.note(Err("c"), start + GRACE), "another trouble is news");
        assert_eq!(lasting.counts(start + GRACE), Some("c"), "and doesn't begin anew");
        assert!(lasting.note(Ok(()), start + GRACE));
        assert_eq!(lasting.counts(start + GRACE * 9), None);
    }
}
