//! The record of an announcement, as JSON.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use uuid::Uuid;

use super::form::{Form as _, record};
use super::job::KindRecord;
use super::{Error, body, json};
use waypost_domain::Answer;
use waypost_domain::operator::{Announcement, Cause, DeadLetter, Replayed};

record! {
    /// An announcement.
    struct AnnouncementRecord<'a> of Announcement {
        at: Timestamp,
        about: Uuid,
        cause: CauseRecord<'a>,
    }
}

record! {
    /// What happened.
    enum CauseRecord<'a> of Cause {
        Disabled { reason: Option<Cow<'a, str>> },
        Enabled,
        Dead(DeadLetterRecord<'a>),
        RunFailed { handler: Option<Cow<'a, str>>, letter: DeadLetterRecord<'a> },
        Expired { count: u64, reason: Cow<'a, str> },
        Replayed(ReplayedRecord<'a>),
    }
}

record! {
    /// A delivery that was given up.
    struct DeadLetterRecord<'a> of DeadLetter {
        event: Uuid,
        attempts: u32,
        reason: Cow<'a, str>,
        answer: Option<AnswerRecord<'a>>,
        was_allowed: bool,
    }
}

record! {
    /// What a target answered.
    struct AnswerRecord<'a> of Answer {
        status: u16,
        body: Cow<'a, str>,
    }
}

record! {
    /// A replay or a job that is over.
    struct ReplayedRecord<'a> of Replayed {
        job: Option<KindRecord>,
        state: Cow<'a, str>,
        reason: Option<Cow<'a, str>>,
        looked_at: u64,
        changed: u64,
        by: Cow<'a, str>,
    }
}

/// Writes an announcement.
pub(crate) fn encode_announcement(announcement: &Announcement) -> Vec<u8> {
    json(&AnnouncementRecord::of(announcement))
}

/// Reads an announcement.
pub(crate) fn decode_announcement(record: &[u8]) -> Result<Announcement, Error> {
    serde_json::from_slice::<AnnouncementRecord<'_>>(body(record)?)?.read(&Bytes::new())
}
