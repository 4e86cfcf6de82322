//! Medians of interleaved rounds, in this thread's processor time, so that other programs on the machine matter less.

use std::hint::black_box;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long one contestant runs in one round.
const TURN: Duration = Duration::from_millis(3);
const ROUNDS: usize = 60;

/// Something that is timed.
pub(crate) type Contestant<'c> = Box<dyn FnMut() -> usize + 'c>;

/// Returns the median time of one run of each contestant, in microseconds.
pub(crate) fn race(contestants: &mut [Contestant<'_>]) -> Vec<f64> {
    let counts: Vec<u32> = contestants.iter_mut().map(runs_a_turn).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); contestants.len()];
    for _ in 0..ROUNDS {
        for ((contestant, count), times) in contestants.iter_mut().zip(&counts).zip(&mut times) {
            times.push(turn(contestant, *count).as_secs_f64() * 1e6 / f64::from(*count));
        }
    }
    times.into_iter().map(median).collect()
}

fn turn(contestant: &mut Contestant<'_>, count: u32) -> Duration {
    let begin = processor_time();
    for _ in 0..count {
        black_box(contestant());
    }
    processor_time() - begin
}

/// Finds how many runs take about a turn; this is also the warm-up.
fn runs_a_turn(contestant: &mut Contestant<'_>) -> u32 {
    let mut count = 1;
    while count < 1 << 20 && turn(contestant, count) < TURN {
        count *= 2;
    }
    count
}

/// Returns the processor time of this thread.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Returns the median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
