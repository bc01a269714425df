//! Whose turn it is: each name that comes at once, and again when its time has come, never twice at the same time.
//!
//! kube's own queue takes every object through a timer that counts in milliseconds. A bind waits for two turns and an
//! unbind for one, so that was a tenth of them: docs/performance.md.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _, pin_mut};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

/// Longest time until a name is looked at again; the timer takes none of years.
const LONGEST: Duration = Duration::from_hours(24);

/// When a name has its next turn, if nothing happens to it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action(Option<Duration>);

impl Action {
    /// After that time.
    #[must_use]
    pub const fn requeue(after: Duration) -> Self {
        Self(Some(after))
    }

    /// Never.
    #[must_use]
    pub const fn await_change() -> Self {
        Self(None)
    }
}

enum Turn {
    /// It has it, and may have come again meanwhile.
    Now { again: bool },
    /// At that time.
    Later(Key),
}

/// What a turn begins or ends with.
enum Cause {
    Comes(Arc<str>),
    Due(Arc<str>),
    Done(Arc<str>, Action),
}

/// Gives turns until the names end. `round` is `None` for what isn't there; its end says when the next turn is.
pub async fn run<F: Future<Output = Action>>(
    names: impl Stream<Item = String>,
    round: impl Fn(&str) -> Option<F>,
) {
    let mut turns = HashMap::<Arc<str>, Turn>::new();
    let mut later = DelayQueue::<Arc<str>>::new();
    let mut rounds = FuturesUnordered::new();
    pin_mut!(names);
    loop {
        let cause = tokio::select! {
            Some((name, action)) = rounds.next() => Cause::Done(name, action),
            Some(due) = later.next() => Cause::Due(due.into_inner()),
            name = names.next() => match name {
                Some(name) => Cause::Comes(name.into()),
                None => return,
            },
        };
        let name = match cause {
            Cause::Due(name) => name,
            Cause::Comes(name) => match turns.get_mut(&name) {
                Some(Turn::Now { again }) => {
                    *again = true;
                    continue;
                }
                Some(Turn::Later(key)) => {
                    later.remove(key);
                    name
                }
                None => name,
            },
            Cause::Done(name, Action(after)) => match (turns.get(&name), after) {
                (Some(Turn::Now { again: true }), _) => name,
                (_, Some(after)) => {
                    let key = later.insert(name.clone(), after.min(LONGEST));
                    turns.insert(name, Turn::Later(key));
                    continue;
                }
                (_, None) => {
                    turns.remove(&name);
                    continue;
                }
            },
        };
        if let Some(work) = round(&name) {
            turns.insert(name.clone(), Turn::Now { again: false });
            rounds.push(work.map(move |action| (name, action)));
        } else {
            turns.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::sync::{Semaphore, mpsc};
    use tokio::time::Instant;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    /// Names that come, the turns they had so far with their times in seconds, and what lets a turn end.
    struct World {
        names: mpsc::UnboundedSender<String>,
        had: Arc<Mutex<Vec<(String, u64)>>>,
        ends: Arc<Semaphore>,
    }

    /// `next` says what a turn ends with. A name that begins with "no" isn't there.
    fn world(next: impl Fn(&str) -> Action + Send + Sync + 'static) -> World {
        let (names, come) = mpsc::unbounded_channel();
        let (had, ends) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(Semaphore::new(0)));
        let (turns, ending, next) = (had.clone(), ends.clone(), Arc::new(next));
        let began = Instant::now();
        tokio::spawn(run(UnboundedReceiverStream::new(come), move |name: &str| {
            let (turns, ending, next, name) = (turns.clone(), ending.clone(), next.clone(), name.to_owned());
            (!name.starts_with("no")).then_some(async move {
                turns.lock().push((name.clone(), began.elapsed().as_secs()));
                ending.acquire().await.unwrap().forget();
                next(&name)
            })
        }));
        World { names, had, ends }
    }

    impl World {
        async fn comes(&self, name: &str) {
            self.names.send(name.to_owned()).unwrap();
            self.passes(0).await;
        }

        /// Time passes only when nothing else happens.
        async fn passes(&self, seconds: u64) {
            tokio::time::sleep(Duration::from_secs(seconds) + Duration::from_millis(10)).await;
        }

        async fn ends(&self) {
            self.ends.add_permits(1);
            self.passes(0).await;
        }

        fn had(&self) -> Vec<(String, u64)> {
            std::mem::take(&mut self.had.lock())
        }
    }

    fn at(seconds: u64, name: &str) -> (String, u64) {
        (name.to_owned(), seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_its_turn_has_one_more_after_it() {
        let world = world(|_| Action::await_change());
        for name in ["a", "a", "no", "b", "a"] {
            world.comes(name).await;
        }
        assert_eq!(
            world.had(),
            [at(0, "a"), at(0, "b")],
            "never twice at the same time, and others beside it"
        );
        world.ends().await;
        world.ends().await;
        assert_eq!(world.had(), [at(0, "a")], "once, however often it came");
        world.ends().await;
        world.passes(1000).await;
        assert_eq!(world.had(), []);
        world.comes("a").await;
        assert_eq!(world.had(), [at(1000, "a")]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_come_is_not_due_any_more() {
        let world =
            world(|name| Action::requeue(Duration::from_secs(if name == "far" { 1 << 40 } else { 100 })));
        world.comes("a").await;
        world.ends().await;
        assert_eq!(world.had(), [at(0, "a")]);
        world.passes(50).await;
        world.comes("a").await;
        world.ends().await;
        assert_eq!(world.had(), [at(50, "a")]);
        world.passes(99).await;
        assert_eq!(world.had(), [], "it has had the turn that was due at 100");
        world.passes(2).await;
        assert_eq!(world.had(), [at(150, "a")]);
        world.comes("far").await;
        world.ends().await;
        world.ends().await;
        assert_eq!(world.had(), [at(151, "far")]);
    }
}
