//! Log lines that would be many and say the same.

use std::time::{Duration, Instant};

/// Lets the first of many equal log lines through, and then one a minute.
#[derive(Debug, Default)]
pub struct Sparingly(Option<Instant>);

impl Sparingly {
    /// Whether this one is let through.
    pub fn due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= Duration::from_mins(1));
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_line_of_a_minute_is_held_back() {
        let mut sparingly = Sparingly::default();
        assert!(sparingly.due());
        assert!(!sparingly.due());
    }
}
