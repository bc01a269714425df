//! Bindings that were let go although their access may still be there, because nobody could remove it. When their
//! cluster is back, what they left is removed without the doubts that a sweep has: we know ourselves that they are gone.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::api::id::Id;

/// Most that are remembered. What is not, a sweep finds as it finds all else.
const MOST: usize = 10_000;

/// The UIDs of such bindings, each with its instance until its last token has ended by itself.
#[derive(Debug, Default)]
pub struct Abandoned(Mutex<HashMap<Id, (Id, Timestamp)>>);

impl Abandoned {
    /// Remembers a binding of that instance whose tokens may be alive until then.
    pub fn remember(&self, uid: &str, instance: &str, until: Timestamp, now: Timestamp) {
        let mut all = self.0.lock();
        all.retain(|_, (_, until)| *until > now);
        if all.len() < MOST {
            all.insert(uid.into(), (instance.into(), until));
        }
    }

    /// Whether the binding of that UID is one.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.0.lock().contains_key(&uid.into())
    }

    /// Whether a token of the instance's may be alive.
    #[must_use]
    pub fn any_of(&self, instance: &str, now: Timestamp) -> bool {
        let instance = Id::from(instance);
        self.0.lock().values().any(|(of, until)| *of == instance && *until > now)
    }

    /// Forgets a binding of which nothing is left.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(&uid.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_makes_room() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let abandoned = Abandoned::default();
        for i in 0..=MOST {
            abandoned.remember(&format!("u{i}"), "i", at(10), at(0));
        }
        assert!(abandoned.contains("u0") && !abandoned.contains(&format!("u{MOST}")));
        assert!(
            abandoned.any_of("i", at(9)) && !abandoned.any_of("i", at(10)) && !abandoned.any_of("j", at(9))
        );
        abandoned.remember("later", "i", at(20), at(10));
        assert!(abandoned.contains("later") && !abandoned.contains("u0"));
        abandoned.forget("later");
        assert!(!abandoned.contains("later"));
    }
}
