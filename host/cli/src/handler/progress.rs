//! Shows the progress of a run on the terminal.

use std::sync::Arc;
use std::time::Duration;

use waypost_handlers::{Meter, Phase, Progress};

use crate::print;

/// How often the progress is polled.
const INTERVAL: Duration = Duration::from_millis(500);

/// Prints a line whenever the progress has changed, until the future is dropped.
pub(super) async fn report(meter: Arc<Meter>) -> std::convert::Infallible {
    let mut interval = tokio::time::interval(INTERVAL);
    let mut last = meter.progress();
    loop {
        interval.tick().await;
        let now = meter.progress();
        if last != now {
            print::notice(&line(&now));
            last = now;
        }
    }
}

fn line(progress: &Progress) -> String {
    let Progress { phase, files_done, files, bytes_done, bytes, .. } = progress;
    match phase {
        Phase::Running => phase.name().to_owned(),
        Phase::Fetching | Phase::Uploading => {
            format!("{} {files_done} of {files} files, {bytes_done} of {bytes} bytes", phase.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use waypost_runtime::clock;

    use super::*;

    #[test]
    fn a_line_has_what_the_phase_counts() {
        let meter = Meter::new(clock::now());
        meter.enter(Phase::Fetching, clock::now(), 3, 100);
        meter.file_done();
        meter.add_bytes(40);
        assert_eq!(line(&meter.progress()), "fetching 1 of 3 files, 40 of 100 bytes");
        meter.enter(Phase::Running, clock::now(), 0, 0);
        assert_eq!(line(&meter.progress()), "running");
    }
}
