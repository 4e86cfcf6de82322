//! In which order the deliveries of a subscription are made.

/// An order that a subscription asks for. The order is that of acceptance, by event id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which deliveries wait for each other.
    pub by: OrderBy,
    /// What becomes of those behind a dead letter.
    pub on_dead: OnDead,
}

/// Which deliveries wait for each other: those of one **lane**.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderBy {
    /// All: there is one lane.
    Fifo,
    /// Those with the same value of a key, which this JSONPath finds in the event.
    Key(String),
}

/// What becomes of the deliveries behind a dead letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDead {
    /// They go on.
    #[default]
    Continue,
    /// They wait until it is sent again, or discarded.
    Stop,
}
