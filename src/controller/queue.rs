//! Whose turn it is: each name that comes at once, and again when its time has come, never twice at the same time.
//!
//! kube's own queue takes every object through a timer that counts in milliseconds. A bind waits for two turns and an
//! unbind for one, so that was a tenth of them: docs/performance.md.

use std::collections::HashMap;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _, pin_mut};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use crate::api::id::Id;

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

/// What a turn is.
pub enum Turn<F> {
    /// Nothing had to be waited for.
    Done(Action),
    /// It takes its time.
    Goes(F),
}

/// How a name stands.
enum Stand {
    /// It has its turn, and may have come again meanwhile.
    Now { again: bool },
    /// At that time.
    Later(Key),
}

/// What a turn begins or ends with.
enum Cause {
    Comes(Id),
    Due(Id),
    Done(Id, Action),
}

/// Gives turns until the names end. `round` begins one, and is `None` for what isn't there; its end says when the next
/// is.
pub async fn run<F: Future<Output = Action>>(
    names: impl Stream<Item = Id>,
    round: impl Fn(&Id) -> Option<Turn<F>>,
) {
    let mut turns = HashMap::<Id, Stand>::new();
    let mut later = DelayQueue::<Id>::new();
    let mut rounds = FuturesUnordered::new();
    pin_mut!(names);
    loop {
        let cause = tokio::select! {
            Some((name, action)) = rounds.next() => Cause::Done(name, action),
            Some(due) = later.next() => Cause::Due(due.into_inner()),
            name = names.next() => match name {
                Some(name) => Cause::Comes(name),
                None => return,
            },
        };
        let name = match cause {
            Cause::Due(name) => name,
            Cause::Comes(name) => match turns.get_mut(&name) {
                Some(Stand::Now { again }) => {
                    *again = true;
                    continue;
                }
                Some(Stand::Later(key)) => {
                    later.remove(key);
                    name
                }
                None => name,
            },
            Cause::Done(name, action) => {
                if !matches!(turns.get(&name), Some(Stand::Now { again: true })) {
                    rest(&mut turns, &mut later, name, action);
                    continue;
                }
                name
            }
        };
        match round(&name) {
            Some(Turn::Goes(work)) => {
                turns.insert(name.clone(), Stand::Now { again: false });
                rounds.push(work.map(move |action| (name, action)));
            }
            Some(Turn::Done(action)) => rest(&mut turns, &mut later, name, action),
            None => rest(&mut turns, &mut later, name, Action::await_change()),
        }
    }
}

fn rest(turns: &mut HashMap<Id, Stand>, later: &mut DelayQueue<Id>, name: Id, Action(after): Action) {
    if let Some(after) = after {
        let key = later.insert(name.clone(), after.min(LONGEST));
        turns.insert(name, Stand::Later(key));
    } else {
        turns.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tokio::sync::{Semaphore, mpsc};
    use tokio::time::Instant;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    /// Names that come, the turns they had so far with their times in seconds, and what lets a turn end.
    struct World {
        names: mpsc::UnboundedSender<Id>,
        had: Arc<Mutex<Vec<(String, u64)>>>,
        ends: Arc<Semaphore>,
    }

    /// `next` says what a turn ends with. A name that begins with "no" isn't there.
    fn world(next: impl Fn(&str) -> Action + Send + Sync + 'static) -> World {
        let (names, come) = mpsc::unbounded_channel();
        let (had, ends) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(Semaphore::new(0)));
        let (turns, ending, next) = (had.clone(), ends.clone(), Arc::new(next));
        let began = Instant::now();
        tokio::spawn(run(UnboundedReceiverStream::new(come), move |name: &Id| {
            let (turns, ending, next, name) = (turns.clone(), ending.clone(), next.clone(), name.to_string());
            if name.starts_with("at once") {
                turns.lock().push((name.clone(), began.elapsed().as_secs()));
                return Some(Turn::Done(next(&name)));
            }
            (!name.starts_with("no")).then_some(Turn::Goes(async move {
                turns.lock().push((name.clone(), began.elapsed().as_secs()));
                ending.acquire().await.unwrap().forget();
                next(&name)
            }))
        }));
        World { names, had, ends }
    }

    impl World {
        async fn comes(&self, name: &str) {
            self.names.send(name.into()).unwrap();
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
    async fn what_is_done_at_once_is_due_as_well() {
        let world = world(|_| Action::requeue(Duration::from_secs(100)));
        world.comes("at once").await;
        world.comes("at once").await;
        assert_eq!(world.had(), [at(0, "at once"), at(0, "at once")]);
        world.passes(99).await;
        assert_eq!(world.had(), []);
        world.passes(1).await;
        assert_eq!(world.had(), [at(100, "at once")]);
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
