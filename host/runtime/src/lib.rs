//! What the stages of Waypost stand on, and what knows nothing of events: time and dice that tests can set, stages whose
//! end is seen, turns among users, durable files, processes, and how errors and foreign texts are shown.

pub mod chain;
pub mod clock;
pub mod dice;
pub mod durable;
pub mod fair_semaphore;
pub mod foreign;
pub mod process;
pub mod random;
pub mod shortage;
pub mod stage;
