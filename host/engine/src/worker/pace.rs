//! How many attempts a worker makes at once: its width. A success adds one, a failure halves it, and an answer that took
//! much longer than this target's answers take takes one away: a target that gets slow gets fewer at once, before it
//! fails.

use std::time::Duration;

use super::Window;

/// An answer is slow only if it takes this long, and so many times as long as the quickest of late.
const SLOW_MIN: Duration = Duration::from_millis(100);
const SLOW_FACTOR: u32 = 2;
/// By which part the quickest answer is forgotten with each one: half of it after some 45.
const FORGOTTEN: u32 = 64;

/// The width of one worker.
pub(super) struct Pace {
    window: Window,
    width: usize,
    /// How long the quickest answers of late took.
    quickest: Option<Duration>,
}

impl Pace {
    pub(super) fn new(window: Window) -> Self {
        Self { window, width: window.min, quickest: None }
    }

    /// Returns the width.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn window(&self) -> Window {
        self.window
    }

    /// Keeps the width within another window.
    pub(super) fn within(&mut self, window: Window) {
        self.window = window;
        self.width = self.width.clamp(window.min, window.max);
    }

    /// Notes the end of an attempt, and how long the recipient took to answer, if it was asked.
    pub(super) fn note(&mut self, is_good: bool, answered_in: Option<Duration>) {
        // How long a failure took says nothing: a refused connection is the quickest of all.
        let is_slow = is_good && answered_in.is_some_and(|took| self.is_slow(took));
        let width = match is_good {
            true if is_slow => self.width.saturating_sub(1),
            true => self.width + 1,
            false => self.width / 2,
        };
        self.width = width.clamp(self.window.min, self.window.max);
    }

    fn is_slow(&mut self, took: Duration) -> bool {
        let known = self.quickest.unwrap_or(took);
        self.quickest = Some(took.min(known.saturating_add(known / FORGOTTEN)));
        took > SLOW_MIN && took > SLOW_FACTOR * known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { min: 1, max: 8 };

    fn note(pace: &mut Pace, is_good: bool, millis: u64) -> usize {
        pace.note(is_good, Some(Duration::from_millis(millis)));
        pace.width()
    }

    #[test]
    fn successes_widen_it_up_to_the_window_and_a_failure_halves_it() {
        let mut pace = Pace::new(WINDOW);
        assert_eq!([2, 2, 2].map(|millis| note(&mut pace, true, millis)), [2, 3, 4]);
        assert_eq!(note(&mut pace, false, 2), 2);
        assert_eq!(note(&mut pace, false, 2), 1);
        assert_eq!(note(&mut pace, false, 2), 1);
        assert_eq!((0..20).map(|_| note(&mut pace, true, 2)).max(), Some(8));
        pace.within(Window { min: 1, max: 3 });
        assert_eq!(pace.width(), 3);
    }

    #[test]
    fn answers_that_get_slow_narrow_it_and_a_target_that_always_is_does_not() {
        let mut pace = Pace::new(WINDOW);
        for _ in 0..10 {
            note(&mut pace, true, 40);
        }
        assert_eq!([99, 200, 300, 400].map(|millis| note(&mut pace, true, millis)), [8, 7, 6, 5]);
        let mut slow = Pace::new(WINDOW);
        note(&mut slow, false, 1);
        assert_eq!([500, 900, 600].map(|millis| note(&mut slow, true, millis)), [2, 3, 4]);
        // What is the rule after a while is not slow any more.
        let widths: Vec<_> = (0..200).map(|_| note(&mut pace, true, 400)).collect();
        assert_eq!((widths.iter().min(), widths.last()), (Some(&1), Some(&8)));
    }
}
