//! Follow-up events: an output's files are copied to a folder, and an event that names them triggers the next handler.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::folder::Folder;
use super::notes::Note;
use super::{Accept, Error, Origin, rows};
use crate::meter::Meter;
use crate::output::Output;
use crate::work;
use waypost_domain::event::Canonical;
use waypost_domain::{Event, EventId};
use waypost_runtime::clock;

/// The extension attribute that counts the follow-up events before one.
pub const CHAIN_ATTRIBUTE: &str = "waypostchain";
/// The most follow-up events in a row.
pub const CHAIN_MAX: u32 = 16;

/// The note with the id of the event that was accepted.
const ACCEPTED: &str = "accepted.json";

/// A follow-up event as it is sent.
#[derive(Serialize)]
struct FollowUp<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    #[serde(rename = "type")]
    ty: &'a str,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    waypostchain: u32,
    data: Vec<rows::Row<'a>>,
}

/// Makes follow-up events.
pub(super) struct Events {
    pub(super) folder: PathBuf,
    pub(super) ty: String,
    pub(super) accept: Accept,
}

impl Events {
    /// Copies an output into the folder, has its event accepted, and names that event.
    pub(super) async fn upload(
        self: &Arc<Self>,
        output: &Arc<Output>,
        origin: &Arc<Origin>,
        notes: &Path,
        meter: &Arc<Meter>,
    ) -> Result<String, Error> {
        let note = Note::new(notes, ACCEPTED);
        let sender = origin.sender.clone();
        let (events, output, origin, meter) =
            (Arc::clone(self), Arc::clone(output), Arc::clone(origin), Arc::clone(meter));
        let noted = note.clone();
        let made = work::run(move |stop| {
            if let Some(id) = noted.read::<EventId>()? {
                return Ok(Err(id));
            }
            let chain = next_in_chain(&origin.event)?;
            let name = output.label(origin.run);
            let mut folder = Folder::begin(&events.folder, &name)?;
            let sums = folder.copy(&output, "", stop, &meter)?;
            folder.finish(stop)?;
            events.event(&output, &origin, chain, &sums).map(Ok)
        });
        let id = match made.await? {
            Ok(event) => {
                let accepted = (self.accept)(event, sender).await;
                let id = accepted.map_err(Error::NotAccepted)?;
                work::run(move |_| note.write(&id)).await?;
                id
            }
            Err(id) => id,
        };
        Ok(format!("event {id}"))
    }

    /// Makes the event. A repeat has the same id and source, so that it is a duplicate of the same event (CloudEvents
    /// 1.0.2, 3.1).
    fn event(&self, output: &Output, origin: &Origin, chain: u32, sums: &[String]) -> Result<Event, Error> {
        let id = output.label(origin.run);
        let event = FollowUp {
            specversion: "1.0",
            id: &id,
            source: format!("/handlers/{}", origin.handler),
            ty: &self.ty,
            subject: origin.event.id(),
            time: clock::text(clock::now()),
            datacontenttype: "application/json",
            waypostchain: chain,
            data: rows::event_data(output, origin, &id, sums),
        };
        let json = serde_json::to_string(&event).expect("an event has string keys and no maps");
        Event::from_json(json).map_err(Error::Event)
    }
}

/// Returns the place in the chain of an event that follows this one.
fn next_in_chain(event: &Event) -> Result<u32, Error> {
    let extensions = Canonical::from(event).extensions;
    let chain = extensions.iter().find(|(name, _)| name == CHAIN_ATTRIBUTE);
    // Any other value of the attribute starts a new chain.
    let chain = chain.and_then(|(_, value)| value.parse().ok()).unwrap_or(0_u32).saturating_add(1);
    if chain > CHAIN_MAX { Err(Error::Chain { chain }) } else { Ok(chain) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(chain: serde_json::Value) -> Event {
        let event =
            json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", CHAIN_ATTRIBUTE: chain});
        Event::from_json(event.to_string()).unwrap()
    }

    #[test]
    fn a_chain_of_events_ends() {
        assert_eq!(next_in_chain(&event(json!(null))).unwrap(), 1);
        assert_eq!(next_in_chain(&event(json!(1))).unwrap(), 2);
        assert_eq!(next_in_chain(&event(json!("15"))).unwrap(), 16);
        assert_eq!(next_in_chain(&event(json!("many"))).unwrap(), 1);
        for beyond in [json!(16), json!(17), json!("4294967295")] {
            let error = next_in_chain(&event(beyond)).unwrap_err();
            assert!(error.is_lasting());
            assert!(error.to_string().contains("16 is the most (`waypostchain`)"), "{error}");
        }
    }
}
