//! Native programs: each runs under a supervisor, a process of its own ([`super::supervise`]), which ends the program
//! when the service's end of its socket is closed.

mod listen;
mod quota;
mod supervisors;
mod watch;

use tokio_util::sync::CancellationToken;

use waypost_domain::handler::Exit;

use super::{Call, Fault, ProgramResult, Shortage};
use listen::listen;
pub use supervisors::Supervisors;
use watch::watch;

/// A native program.
#[derive(Clone, Debug)]
pub struct Native {
    /// Starts the program's supervisor, from the `waypost` program at a path.
    pub waypost: Supervisors,
    /// The program and its first arguments. A name with a slash is a path from the service's working directory; any
    /// other is looked up in the program's own `PATH`.
    pub command: Vec<String>,
    /// The environment. That of the call is added and overrides it; `PATH` has a default. Nothing else is added.
    pub environment: Vec<(String, String)>,
}

impl Native {
    /// Runs the program. Its own failures are an exit, not an error.
    ///
    /// Dropping the future ends the program at once, with all that it has started.
    ///
    /// # Errors
    /// When this machine lacks what is needed to start the program, or to store its output.
    pub async fn run(&self, call: &Call) -> Result<ProgramResult, Shortage> {
        let (control, (stdout, stderr)) = match self.waypost.start(self, call).await {
            Ok(started) => started,
            Err(Fault::Failure(reason)) => return Ok(ProgramResult::silent(Exit::Failed(reason))),
            Err(Fault::Shortage(shortage)) => return Err(shortage),
        };
        let (ended, broken) = (CancellationToken::new(), CancellationToken::new());
        let watching = async {
            let exit = watch(control, call, &broken).await;
            ended.cancel();
            exit
        };
        let stdout = listen(stdout.0, stdout.1, &ended, &broken);
        let stderr = listen(stderr.0, stderr.1, &ended, &broken);
        let (exit, stdout, stderr) = tokio::join!(watching, stdout, stderr);
        let exit = match (exit?, stdout.broken.or(stderr.broken)) {
            // The limit comes first: the program itself may have used up what is missing.
            (Exit::Limit(limit), _) => Exit::Limit(limit),
            (_, Some(Fault::Shortage(shortage))) => return Err(shortage),
            (_, Some(Fault::Failure(reason))) => Exit::Failed(reason),
            (exit, None) => exit,
        };
        Ok(ProgramResult { exit, stdout: stdout.said, stderr: stderr.said })
    }
}
