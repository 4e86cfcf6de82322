//! Uploads that end early, because of the service, the disk, or Waypost itself.

use super::*;
use crate::handlers::ingest::OnUpload;
use crate::harness::{Gate, wait_until};

/// Waits until no thread works on an upload any more: each of them holds its meter.
async fn nobody_works(meter: &Arc<Meter>) {
    wait_until("the upload's thread has ended", async || (Arc::strong_count(meter) == 1).then_some(())).await;
}

#[tokio::test]
async fn a_broken_connection_leaves_nothing_behind() {
    let (run, service) = (Run::new(), Ingest::start().await);
    let (uploader, output, meter) = (uploader(&to(&service)).unwrap(), run.large(), meter());
    service.on_upload([OnUpload::Drop(1 << 20)]);
    let error = uploader.upload(&output, &run.origin, &run.notes(), &meter).await.unwrap_err();
    let Error::BrokenOff { url, sent, size, .. } = &error else { panic!("{error}") };
    assert!(*url == service.url() && *sent >= 1 << 20 && *size > 64 << 20, "{error}");
    assert!(!error.is_lasting());
    nobody_works(&meter).await;
    run.upload(&uploader, &output).await.unwrap();
    assert_eq!(service.uploads()[0].bundle().files["large.bin"].len(), 64 << 20);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_bundle_ends_the_upload() {
    let (run, service) = (Run::new(), Ingest::start().await);
    service.on_upload([OnUpload::AnswerAtOnce(413, "that is too much")]);
    let (uploader, output, meter) = (uploader(&to(&service)).unwrap(), run.large(), meter());
    let error = uploader.upload(&output, &run.origin, &run.notes(), &meter).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("answered 413") && text.contains("that is too much"), "{text}");
    assert!(error.is_lasting());
    nobody_works(&meter).await;
    assert!(meter.progress().bytes_done < 64 << 20, "it was in the middle");
}

#[tokio::test]
async fn an_unreachable_service_is_named() {
    let run = Run::new();
    let nowhere = crate::harness::Reserved::new();
    let uploader = uploader(&Destination::Ingest {
        url: nowhere.url("/upload").parse().unwrap(),
        status_url: nowhere.url("/get_state").parse().unwrap(),
        auth: IngestAuth::None,
        timeout: Duration::from_secs(1),
    });
    let error = run.upload(&uploader.unwrap(), &run.small()).await.unwrap_err();
    assert!(!error.is_lasting());
    assert_eq!(error.to_string(), format!("the ingest service did not answer at {}", nowhere.url("/upload")));
    assert!(
        waypost_runtime::chain::text(&error).contains("refused"),
        "{}",
        waypost_runtime::chain::text(&error)
    );
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_fails_the_upload() {
    for change in ["shorter", "longer", "other"] {
        let (run, service, gate) = (Run::new(), Ingest::start().await, Gate::closed());
        let (uploader, output, meter) = (uploader(&to(&service)).unwrap(), run.large(), meter());
        service.on_upload([OnUpload::Stall(gate.clone())]);
        let notes = run.notes();
        let changing = async {
            service.wait_for_attempts(1).await;
            let place = &output.files[0].place;
            let file = fs::OpenOptions::new().append(true).open(place).unwrap();
            match change {
                "shorter" => file.set_len(32 << 20).unwrap(),
                "longer" => file.set_len((64 << 20) + 1).unwrap(),
                _ => file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap(),
            }
            gate.open();
        };
        let (done, ()) = tokio::join!(uploader.upload(&output, &run.origin, &notes, &meter), changing);
        let error = done.unwrap_err();
        assert!(
            matches!(&error, Error::Changed { path } if *path == output.files[0].place),
            "{change}: {error}"
        );
        assert_eq!(service.uploads().len(), 0, "{change}");
        assert!(!run.notes().join("job.json").exists(), "{change}");
    }
}

#[tokio::test]
async fn an_upload_that_is_dropped_ends() {
    let (run, service) = (Run::new(), Ingest::start().await);
    let (uploader, output, meter) = (uploader(&to(&service)).unwrap(), run.large(), meter());
    let (gate, notes) = (Gate::closed(), run.notes());
    service.on_upload([OnUpload::Stall(gate.clone())]);
    tokio::select! {
        done = uploader.upload(&output, &run.origin, &notes, &meter) => panic!("{done:?}"),
        () = service.wait_for_attempts(1) => {}
    }
    nobody_works(&meter).await;
    assert!(meter.progress().bytes_done < 64 << 20, "it was in the middle");
    gate.open();
    assert_eq!(service.uploads().len(), 0);
}

#[tokio::test]
async fn a_copy_that_is_dropped_ends_and_stays_invisible() {
    let (run, folder) = (Run::new(), tempfile::tempdir().unwrap());
    let uploader = uploader(&Destination::Local(folder.path().to_owned())).unwrap();
    let (output, meter, notes) = (run.large(), meter(), run.notes());
    tokio::select! {
        biased;
        done = uploader.upload(&output, &run.origin, &notes, &meter) => panic!("{done:?}"),
        () = std::future::ready(()) => {}
    }
    nobody_works(&meter).await;
    assert_eq!(tree(folder.path()).len(), 0);
    run.upload(&uploader, &output).await.unwrap();
    assert_eq!(tree(folder.path()).len(), 2);
}
