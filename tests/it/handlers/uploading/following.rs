//! Follow-up events.

use std::sync::Mutex;

use waypost_domain::event::{Canonical, Payload};
use waypost_domain::parts::FilePath;
use waypost_handlers::upload::{CHAIN_ATTRIBUTE, CHAIN_MAX};

use super::*;

/// Accepts or refuses events, and records them.
#[derive(Clone, Default)]
struct Log {
    given: Arc<Mutex<Vec<Event>>>,
    refusals: Arc<Mutex<Vec<&'static str>>>,
}

impl Log {
    fn uploader(&self, folder: &Path) -> Uploader {
        let log = self.clone();
        let accept: Accept = Arc::new(move |event, _sender| {
            log.given.lock().unwrap().push(event);
            let answer = match log.refusals.lock().unwrap().pop() {
                Some(reason) => Err(Refusal::Other(reason.to_owned())),
                None => Ok(EventId::MAX),
            };
            Box::pin(async { answer })
        });
        let to = Destination::Events { folder: folder.to_owned(), ty: "org.example.hashed".to_owned() };
        Uploader::new(&to, Duration::from_secs(5), accept).unwrap()
    }

    fn given(&self) -> Vec<Event> {
        self.given.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn an_output_becomes_an_event_that_the_next_handler_understands() {
    let (run, folder, log) = (Run::new(), tempfile::tempdir().unwrap(), Log::default());
    let done = run.upload(&log.uploader(folder.path()), &run.small()).await.unwrap();
    assert_eq!(done.place, format!("event {}", EventId::MAX));
    let event = log.given().remove(0);
    assert_eq!((event.id(), event.source(), event.ty()), (RUN, "/handlers/hash.it", "org.example.hashed"));
    let said = Canonical::from(&event);
    assert_eq!(said.subject.as_deref(), Some("C234"));
    assert_eq!(said.content_type.as_deref(), Some("application/json"));
    assert_eq!(said.extensions, [(CHAIN_ATTRIBUTE.to_owned(), "1".to_owned())]);
    let Some(Payload::Json(data)) = &said.data else { panic!("{said:?}") };
    let rows: Vec<Value> = serde_json::from_str(data).unwrap();
    let folders: Vec<_> = rows.iter().filter_map(|row| row["subdir"].as_str()).collect();
    assert_eq!(folders, [format!("{RUN}/"), format!("{RUN}/b/")]);

    let parts = Parts::of(&event).unwrap();
    assert_eq!(parts.transaction, run.origin.transaction);
    let key_values: Vec<_> = parts.key_values.iter().map(|row| (&*row.key, row.text())).collect();
    assert_eq!(key_values, [("key", "value".into())]);
    assert_eq!(parts.files.len(), 2);
    for (file, (id, sum)) in parts.files.iter().zip([
        (1, "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"),
        (2, "13ab9f4291943d24149ff0a6b80050ce822cf627"),
    ]) {
        assert_eq!(file.id, json!(id));
        assert_eq!(fs::metadata(file.path.below(folder.path())).unwrap().len(), file.size.unwrap());
        let hash = file.hash.as_ref().unwrap();
        assert_eq!((hash.kind.as_str(), hash.sum.as_str()), ("sha1", sum));
    }
    assert_eq!(parts.files[1].path, FilePath::parse(&format!("{RUN}/b/c.csv")).unwrap());
    assert_eq!(parts.files[1].mimetype.as_deref(), Some("text/csv"));
    assert_eq!(tree(folder.path()).len(), 2, "the key-values are in the event alone");
}

#[tokio::test]
async fn a_repeat_is_the_same_event_and_an_accepted_one_is_not_sent_again() {
    let (run, folder, log) = (Run::new(), tempfile::tempdir().unwrap(), Log::default());
    let uploader = log.uploader(folder.path());
    log.refusals.lock().unwrap().push("the disk is full");
    let error = run.upload(&uploader, &run.small()).await.unwrap_err();
    let text = waypost_runtime::chain::text(&error);
    assert_eq!(text, "the follow-up event was not accepted: the disk is full");
    assert!(!error.is_lasting());
    for _ in 0..2 {
        let done = run.upload(&uploader, &run.small()).await.unwrap();
        assert_eq!(done.place, format!("event {}", EventId::MAX));
    }
    let given = log.given();
    assert_eq!(given.len(), 2);
    assert_eq!((given[0].id(), given[0].source()), (given[1].id(), given[1].source()));
}

#[tokio::test]
async fn each_output_has_an_event_of_its_own() {
    let (run, folder, log) = (Run::new(), tempfile::tempdir().unwrap(), Log::default());
    let uploader = log.uploader(folder.path());
    run.write("out/more", [("x", &b"x"[..])]);
    run.upload(&uploader, &run.small()).await.unwrap();
    let notes = run.folder.path().join("notes of the second");
    uploader.upload(&run.output(1, "out/more"), &run.origin, &notes, &meter()).await.unwrap();
    let ids: Vec<_> = log.given().iter().map(|event| event.id().to_owned()).collect();
    assert_eq!(ids, [RUN.to_owned(), format!("{RUN}-out-more")]);
    let second = Parts::of(&log.given()[1]).unwrap();
    assert!(second.files[0].path.below(folder.path()).is_file());
}

#[tokio::test]
async fn a_handler_that_triggers_itself_ends() {
    let (folder, log) = (tempfile::tempdir().unwrap(), Log::default());
    let uploader = log.uploader(folder.path());
    let mut run = Run::new();
    for n in 1..=CHAIN_MAX {
        run.upload(&uploader, &run.small()).await.unwrap();
        let event = log.given().pop().unwrap();
        assert_eq!(Canonical::from(&event).extensions, [(CHAIN_ATTRIBUTE.to_owned(), n.to_string())]);
        run = Run::of(&serde_json::from_slice(&event.json()).unwrap());
    }
    fs::remove_dir_all(folder.path().join(RUN)).unwrap();
    let error = run.upload(&uploader, &run.small()).await.unwrap_err();
    assert!(matches!(error, Error::Chain { chain: 17 }) && error.is_lasting(), "{error}");
    assert_eq!(log.given().len(), CHAIN_MAX as usize);
    assert_eq!(tree(folder.path()).len(), 0, "nothing is left of it");
}
