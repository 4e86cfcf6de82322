//! Sends what a plugin made of one event: one request for each output, until the target has them all.

use std::time::Instant;

use http::StatusCode;

use super::answer::exchange;
use super::credentials::Credentials;
use super::outcome::Response;
use super::request;
use super::targets::Targets;
use crate::worker::Assignment;
use waypost_domain::DeliveryId;
use waypost_domain::plugin::Output;
use waypost_runtime::clock;

/// Sends the outputs that the target does not have yet, in order, within the time of one attempt; marks in `sent`
/// those that it took. Returns the answer that counts, and to which output: the last one when all were taken; `None`
/// when the attempt has to give way.
pub(super) async fn send_outputs(
    targets: &Targets,
    assignment: &Assignment<'_, Targets>,
    outputs: &[Output],
    sent: &mut u64,
) -> Option<(usize, Response)> {
    let Assignment { subject: subscription, pending, slot, .. } = *assignment;
    let timeout = subscription.timeout.unwrap_or(targets.limits.attempt_timeout);
    let (begun, id) = (Instant::now(), DeliveryId::of(pending.event.id, subscription.id));
    let mut counts: Option<(usize, Response)> = None;
    for (place, output) in outputs.iter().enumerate() {
        // An output that was sent is not sent again; a list has at most as many outputs as there are bits.
        let bit = 1u64 << place;
        if *sent & bit != 0 {
            continue;
        }
        let left = timeout.saturating_sub(begun.elapsed());
        let response = if left.is_zero() {
            let all = timeout.as_millis();
            Response::Unsent(format!("the attempt's time of {all} ms was over before it was sent"))
        } else {
            let id = id.output(place);
            let make =
                |with: &Credentials| request::of_output(output, id, subscription, &targets.guard, with);
            exchange(targets, subscription, make, left, slot).await?
        };
        if is_taken(&response) {
            *sent |= bit;
            targets.last_success.note(subscription.id, clock::now());
        }
        // If there is no descriptor for this output, there is none for the next either; and where deliveries have an order,
        // so have outputs.
        let is_over = matches!(weight(&response), Weight::Gone | Weight::Unsent)
            || subscription.order.is_some() && !is_taken(&response);
        if counts.as_ref().is_none_or(|(_, known)| weight(&response) > weight(known)) {
            counts = Some((place, response));
        }
        if is_over {
            break;
        }
    }
    let nothing = || (0, Response::Unsent("the plugin has made nothing to send".to_owned()));
    Some(counts.unwrap_or_else(nothing))
}

/// Which of several answers decides about the delivery: the heaviest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Taken,
    /// The same request would fail again.
    Refused,
    /// It may succeed later.
    Failed,
    /// It was not sent because this machine lacks something: the attempt does not count.
    Unsent,
    /// The target wants no more requests.
    Gone,
}

fn weight(response: &Response) -> Weight {
    let answer = match response {
        Response::Answered { answer, .. } => answer,
        Response::Unsendable(unsendable) if unsendable.is_of_output() => return Weight::Refused,
        // The other outputs would end in the same way.
        Response::Unsendable(_) | Response::Refused(_) => return Weight::Gone,
        Response::Failed(_) | Response::Unsent(_) => return Weight::Failed,
        Response::Shortage(_) => return Weight::Unsent,
    };
    match StatusCode::from_u16(answer.status) {
        Ok(status) if status.is_success() => Weight::Taken,
        Ok(StatusCode::UNSUPPORTED_MEDIA_TYPE) => Weight::Refused,
        Ok(StatusCode::GONE) => Weight::Gone,
        _ => Weight::Failed,
    }
}

fn is_taken(response: &Response) -> bool {
    weight(response) == Weight::Taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use waypost_domain::Answer;

    #[test]
    fn what_may_succeed_later_outweighs_what_never_will_and_gone_outweighs_all() {
        let of = |status| {
            let answer = Answer { status, body: String::new() };
            weight(&Response::Answered { answer, location: None, retry_after: None })
        };
        assert!(of(204) < of(415) && of(415) < of(503) && of(503) < of(410));
        assert!(of(503) == weight(&Response::Failed("refused".to_owned())));
        let unsent = weight(&Response::Shortage("no descriptors".to_owned()));
        assert!(of(503) < unsent && unsent < of(410));
    }
}
