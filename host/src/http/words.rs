//! The words of REST for values of the domain: one match each, so that a new value breaks the build.

use waypost_api::v1;
use waypost_domain::{self as domain, event, plugin, recovery, sending};
use waypost_engine::delivery::{GateHold, HeldBy, TargetPhase, TargetState};

macro_rules! words {
    ($($name:ident: $from:ty => $to:ident { $($value:ident),+ };)+) => {$(
        pub(super) fn $name(value: $from) -> v1::$to {
            match value {
                $(<$from>::$value => v1::$to::$value,)+
            }
        }
    )+};
}

words! {
    filter_dialect: domain::FilterDialect => FilterDialect { Auto, Rfc9535, Jsonpath2 };
    dialect: waypost_matching::Dialect => FilterDialect { Rfc9535, Jsonpath2 };
    event_format: event::EventFormat => EventFormat { Original, V1_0 };
    content_mode: event::ContentMode => ContentMode { Structured, Binary };
    content_type: event::StructuredType => ContentType { CloudEvents, Json };
    handshake: sending::Handshake => Handshake { Skip, Try, Require };
    client_auth: sending::ClientAuth => ClientAuth { Basic, Post };
    on_dead: domain::OnDead => OnDead { Continue, Stop };
    on_error: plugin::OnError => OnError { Retry, Skip, Deliver, DeadLetter };
    log_level: plugin::LogLevel => LogLevel { Trace, Debug, Info, Warn, Error };
    scope: domain::Scope => Scope { Receive, Read, Subscribe, Admin };
    breaker_state: TargetPhase => BreakerState { Failing, Open, Probing, Opening };
    phase: waypost_handlers::Phase => Phase { Fetching, Running, Uploading };
}

pub(super) fn delivery_state(state: &domain::State) -> v1::DeliveryState {
    match state {
        domain::State::Pending => v1::DeliveryState::Pending,
        domain::State::Delivering => v1::DeliveryState::Delivering,
        domain::State::Retrying { .. } | domain::State::Held { .. } => v1::DeliveryState::Retrying,
        domain::State::Delivered { .. } => v1::DeliveryState::Delivered,
        domain::State::Denied { .. } => v1::DeliveryState::Denied,
        domain::State::Skipped { .. } => v1::DeliveryState::Skipped,
        domain::State::Dead { .. } => v1::DeliveryState::Dead,
    }
}

pub(super) fn ordering(order: &domain::Order) -> v1::Ordering {
    match &order.by {
        domain::OrderBy::Fifo => v1::Ordering::All(v1::Fifo::Fifo),
        domain::OrderBy::Key(key) => v1::Ordering::Key(v1::OrderingKey { key: key.clone() }),
    }
}

pub(super) fn recovery_state(state: &recovery::State) -> v1::RecoveryState {
    match state {
        recovery::State::Running => v1::RecoveryState::Running,
        recovery::State::Done { .. } => v1::RecoveryState::Done,
        recovery::State::Failed { .. } => v1::RecoveryState::Failed,
        recovery::State::Cancelled { .. } => v1::RecoveryState::Cancelled,
    }
}

pub(super) fn gate_hold(hold: GateHold) -> v1::Hold {
    let GateHold { by, since, until } = hold;
    let by = match by {
        HeldBy::Breaker => "breaker",
        HeldBy::Target => "target",
        HeldBy::RateLimit => "rate_limit",
        HeldBy::Order => "order",
    };
    v1::Hold { by: by.to_owned(), since: since.into(), until: until.map(v1::Time) }
}

pub(super) fn target_breaker(target: TargetState) -> v1::TargetBreaker {
    let TargetState { phase, failures, reason, since, next_probe } = target;
    let (since, next_probe) = (since.map(v1::Time), next_probe.map(v1::Time));
    v1::TargetBreaker { state: breaker_state(phase), failures, since, reason, next_probe }
}

/// Returns a duration in whole milliseconds.
pub(super) fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
