//! Names of what may have changed, each once however often it did, until somebody looks.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{Stream, StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ledger::Ledger;
use crate::api::id::Id;

/// What may have changed. It never holds more names than there are.
#[derive(Default)]
pub struct Touched {
    names: Mutex<HashSet<Id>>,
    wake: Notify,
}

impl Touched {
    /// Takes note of one; never waits.
    pub fn tell(&self, name: impl Into<Id>) {
        self.names.lock().insert(name.into());
        self.wake.notify_one();
    }

    /// Does something to the ledger, and takes note of those who waited for a place and would be told something else by
    /// now.
    pub fn wake<T>(&self, ledger: &Mutex<Ledger>, act: impl FnOnce(&mut Ledger) -> T) -> T {
        let (done, woken) = {
            let mut ledger = ledger.lock();
            (act(&mut ledger), ledger.take_woken())
        };
        // Who waits for a place asks the ledger alone, which knows it already.
        for name in woken {
            self.tell(name);
        }
        done
    }

    /// Hands over all so far.
    pub fn take(&self) -> HashSet<Id> {
        std::mem::take(&mut *self.names.lock())
    }

    /// Waits until there are some, perhaps taken by now.
    pub async fn told(&self) {
        self.wake.notified().await;
    }

    /// All, as they come.
    pub fn stream(self: Arc<Self>) -> impl Stream<Item = Id> {
        let batches = stream::unfold(self, async |touched| {
            loop {
                let names = touched.take();
                if !names.is_empty() {
                    return Some((stream::iter(names), touched));
                }
                touched.told().await;
            }
        });
        batches.flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_comes_once_and_again_when_it_is_told_again() {
        let touched = Arc::<Touched>::default();
        for name in ["a", "b", "a"] {
            touched.tell(name);
        }
        let mut stream = Box::pin(touched.clone().stream());
        let mut two = [stream.next().await.unwrap(), stream.next().await.unwrap()];
        two.sort();
        assert_eq!(two.map(|name| name.to_string()), ["a", "b"]);
        touched.tell("a");
        assert_eq!(stream.next().await, Some("a".into()));
        assert!(futures::poll!(stream.next()).is_pending());
    }
}
