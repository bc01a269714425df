//! What the playground says while it works: results on stdout, progress on stderr.

use std::cell::Cell;
use std::io::{self, Write};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep_until};

/// How long a step is silent before its first line of progress; the next comes when twice as much
/// time is over, and so on: a build of minutes, which reports by itself, isn't drowned.
const FIRST_PROGRESS: Duration = Duration::from_secs(3);
/// Columns of a line from behind its mark to the end of its time.
const WIDTH: usize = 102;

/// Reports one step after the other.
#[derive(Default)]
pub struct Steps {
    counted: Cell<Option<(usize, usize)>>,
}

impl Steps {
    /// Does `work`; says that it goes on when it takes long, and how long it took in the end.
    /// `doing` completes the sentence "still …", `done` says what there is now.
    ///
    /// # Errors
    /// That of `work`, in the context of `doing`.
    pub async fn step<T>(
        &self,
        doing: &str,
        work: impl Future<Output = Result<T>>,
        done: impl FnOnce(&T) -> String,
    ) -> Result<T> {
        let started = Instant::now();
        let mut work = pin!(work);
        let mut next = FIRST_PROGRESS;
        self.counted.set(None);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                () = sleep_until(started + next) => {
                    self.progress(doing, started.elapsed());
                    next *= 2;
                }
            }
        };
        match &result {
            Ok(value) => Self::line("✔", &done(value), started.elapsed()),
            Err(_) => Self::line("✘", doing, started.elapsed()),
        }
        result.with_context(|| format!("{doing} failed"))
    }

    /// Tells how far the present step is; shown with its next line of progress.
    pub fn count(&self, done: usize, all: usize) {
        self.counted.set(Some((done, all)));
    }

    /// More about the step before.
    pub fn detail(text: &str) {
        say(&format!("  {text}"));
    }

    fn progress(&self, doing: &str, elapsed: Duration) {
        let counted = self.counted.get().map(|(done, all)| format!(", {done} of {all}")).unwrap_or_default();
        let _ = writeln!(io::stderr(), "  … still {doing}{counted} ({})", seconds(elapsed));
    }

    fn line(mark: &str, text: &str, took: Duration) {
        let took = seconds(took);
        let gap = WIDTH.saturating_sub(text.chars().count() + took.chars().count()).max(2);
        say(&format!("{mark} {text}{:gap$}{took}", ""));
    }
}

/// Writes a line to stdout; a reader that went away is no reason to stop cleaning up.
pub fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// A time as people read it.
#[must_use]
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
