//! Bundles to an ingest service: successes, retries and failed jobs.

use super::*;
use crate::handlers::ingest::{OnState, OnUpload};

#[tokio::test]
async fn a_bundle_is_sent_with_its_length_and_watched_until_it_is_ingested() {
    let (run, service) = (Run::new(), Ingest::start().await);
    service.on_state([
        OnState::Working("UPLOADING", 0),
        OnState::Working("ingest files", 100),
        OnState::Working("ingest metadata", 0),
    ]);
    let output = run.small();
    let meter = meter();
    let uploader = uploader(&to(&service)).unwrap();
    let done = uploader.upload(&output, &run.origin, &run.notes(), &meter).await.unwrap();
    assert_eq!(done.place, format!("ingest job 101 at {}", service.url()));
    let progress = meter.progress();
    assert_eq!((progress.phase.name(), progress.files_done, progress.bytes_done), ("uploading", 2, 9));
    assert_eq!((progress.files, progress.bytes), (2, 9));

    let uploads = service.uploads();
    assert_eq!(uploads.len(), 1);
    assert_eq!(uploads[0].headers["content-type"], "application/octet-stream");
    assert_eq!(uploads[0].headers["content-length"], uploads[0].body.len().to_string());
    assert!(!uploads[0].headers.contains_key("transfer-encoding"));
    let bundle = uploads[0].bundle();
    assert_eq!(bundle.members, ["data/a.txt", "data/b/c.csv", "metadata.txt"]);
    assert_eq!(bundle.files["a.txt"], b"hello");
    let tables: Vec<_> = bundle.rows.iter().map(|row| row["destinationTable"].as_str().unwrap()).collect();
    let transaction = ["Transactions.submitter", "Transactions.instrument", "Transactions.project"];
    assert_eq!(tables[..3], transaction);
    assert_eq!(tables[3..], ["TransactionKeyValue", "Files", "Files"]);
    assert_eq!(service.asked(), ["101"; 4]);
}

/// The length is announced before anything is packed: it must be right for names and sizes around the
/// boundaries of the tar's blocks.
#[tokio::test]
async fn the_announced_length_is_right_for_names_and_sizes_of_any_length() {
    let (run, service) = (Run::new(), Ingest::start().await);
    let names: Vec<_> = [94, 95, 96, 200, 255].iter().map(|length| "n".repeat(*length)).collect();
    let deep = format!("{}/{}/ä b\n\"c\\", "d".repeat(200), "é".repeat(120));
    let sizes = [0, 1, 511, 512, 513, 256 * 1024 - 512, 256 * 1024, 1_000_000];
    let bytes: Vec<_> = sizes.iter().map(|size| vec![b'x'; *size]).collect();
    let sized: Vec<_> = sizes.iter().map(|size| format!("size-{size}")).collect();
    run.write("output", names.iter().chain([&deep]).map(|name| (name.as_str(), &b"named"[..])));
    run.write("output", sized.iter().zip(&bytes).map(|(name, bytes)| (name.as_str(), &bytes[..])));
    run.upload(&uploader(&to(&service)).unwrap(), &run.output(0, "output")).await.unwrap();
    let upload = service.uploads().remove(0);
    assert_eq!(upload.headers["content-length"], upload.body.len().to_string());
    let bundle = upload.bundle();
    assert_eq!(bundle.files.len(), names.len() + 1 + sizes.len());
    assert_eq!(bundle.files[&deep], b"named");
    assert_eq!(bundle.files["size-1000000"], bytes[7]);
}

#[tokio::test]
async fn an_empty_output_is_a_bundle_too() {
    let (run, service) = (Run::new(), Ingest::start().await);
    run.write("output", [("kvp.csv", &b"do_processing,False\n"[..])]);
    run.upload(&uploader(&to(&service)).unwrap(), &run.output(0, "output")).await.unwrap();
    let bundle = service.uploads()[0].bundle();
    assert_eq!(bundle.members, ["metadata.txt"]);
    let said = json!({"destinationTable": "TransactionKeyValue", "key": "do_processing", "value": "False"});
    assert_eq!(bundle.rows_of("TransactionKeyValue"), [&said]);
}

#[tokio::test]
async fn every_request_carries_the_password() {
    let (run, service) = (Run::new(), Ingest::start().await);
    service.knows_only("me", "se cret");
    let file = run.folder.path().join("password");
    let with = |password: &str| {
        fs::write(&file, password).unwrap();
        let Destination::Ingest { url, status_url, timeout, .. } = to(&service) else { unreachable!() };
        let auth = IngestAuth::Basic { username: "me".to_owned(), password_file: file.clone() };
        uploader(&Destination::Ingest { url, status_url, auth, timeout }).unwrap()
    };
    let error = run.upload(&with("wrong"), &run.small()).await.unwrap_err();
    assert!(error.is_lasting(), "{error}");
    let expected = format!("the ingest service answered 401 Unauthorized at {}: who are you?", service.url());
    assert_eq!(error.to_string(), expected);
    run.upload(&with("se cret\r\n"), &run.small()).await.unwrap();
    assert_eq!((service.uploads().len(), service.asked().len()), (1, 1));
}

#[tokio::test]
async fn secrets_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |auth| Destination::Ingest {
        url: "https://ingest.example/upload".parse().unwrap(),
        status_url: "https://ingest.example/get_state".parse().unwrap(),
        auth,
        timeout: Duration::from_secs(1),
    };
    let missing = folder.path().join("missing");
    let auth = IngestAuth::Basic { username: "me".to_owned(), password_file: missing.clone() };
    let error = uploader(&at(auth)).err().unwrap();
    assert!(error.to_string().contains("password of the ingest service"), "{error}");
    assert!(waypost_runtime::chain::text(&error).contains(missing.to_str().unwrap()), "{error}");

    let pem_file = folder.path().join("client.pem");
    fs::write(&pem_file, "no certificate").unwrap();
    let error = uploader(&at(IngestAuth::Certificate { pem_file: pem_file.clone() })).err().unwrap();
    assert!(error.to_string().contains("client certificate"), "{error}");
    fs::write(&pem_file, include_str!("client.pem")).unwrap();
    assert!(uploader(&at(IngestAuth::Certificate { pem_file })).is_ok());
}

#[tokio::test]
async fn polling_continues_through_temporary_failures() {
    let (run, service) = (Run::new(), Ingest::start().await);
    service.on_state([
        OnState::Answer(500, "oh"),
        OnState::Drop,
        OnState::Answer(503, "busy"),
        OnState::Working("ingest files", 50),
        OnState::Answer(429, "slowly"),
    ]);
    run.upload(&uploader(&to(&service)).unwrap(), &run.small()).await.unwrap();
    assert_eq!((service.attempts(), service.asked().len()), (1, 6));
}

#[tokio::test]
async fn after_a_complete_upload_the_next_attempt_only_polls() {
    let (run, service) = (Run::new(), Ingest::start().await);
    let uploader = uploader(&to(&service)).unwrap();
    let output = run.small();
    service.on_state((0..1000).map(|_| OnState::Working("ingest files", 1)));
    tokio::select! {
        done = run.upload(&uploader, &output) => panic!("{done:?}"),
        () = service.wait_for_questions(2) => {}
    }
    service.on_state_anew([OnState::Working("ingest files", 99)]);
    let done = run.upload(&uploader, &output).await.unwrap();
    assert!(done.place.starts_with("ingest job 101 "), "{}", done.place);
    assert_eq!(service.attempts(), 1);

    // A job of another service does not count.
    let other = Ingest::start().await;
    run.upload(&super::uploader(&to(&other)).unwrap(), &output).await.unwrap();
    assert_eq!((service.attempts(), other.attempts()), (1, 1));
}

#[tokio::test]
async fn a_job_that_failed_or_is_forgotten_is_uploaded_again() {
    let (run, service) = (Run::new(), Ingest::start().await);
    let uploader = uploader(&to(&service)).unwrap();
    let output = run.small();
    service.on_state([OnState::Failed("no room"), OnState::Failed("still none")]);
    let error = run.upload(&uploader, &output).await.unwrap_err();
    assert!(matches!(&error, Error::Failed { job, .. } if job == "101"), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&service.status_url()) && text.ends_with(": in the task `ingest files`: no room"),
        "{text}"
    );
    assert!(!error.is_lasting());

    let done = run.upload(&uploader, &output).await.unwrap();
    assert!(done.place.starts_with("ingest job 102 "), "{}", done.place);
    assert_eq!(service.asked(), ["101", "101", "102"]);

    service.on_state([OnState::Unknown]);
    let done = run.upload(&uploader, &output).await.unwrap();
    assert!(done.place.starts_with("ingest job 103 "), "{}", done.place);
    assert_eq!(service.uploads().len(), 3);
}

/// The real service answers with a traceback whose last line, the reason, was cut off. Bundles that policy or the metadata
/// check refused were uploaded again and again, as a whole.
#[tokio::test]
async fn a_failed_job_shows_its_last_line_and_is_final_if_the_bundle_was_rejected() {
    let (run, service) = (Run::new(), Ingest::start().await);
    let uploader = uploader(&to(&service)).unwrap();
    let output = run.small();
    let frames =
        "  File \"/usr/lib/python3.8/site-packages/requests/api.py\", line 61, in request\n".repeat(200);
    let traceback = format!("Traceback (most recent call last):\n{frames}ConnectionError: archive is away\n");
    for (task, reason, is_lasting) in [
        ("ingest files", traceback.as_str(), false),
        ("ingest metadata", "{'status': 'error'}", false),
        ("Policy Validation", "500 (Traceback: user 10 is not on project 1236)", true),
        ("load metadata", "'destinationTable'", true),
    ] {
        service.on_state_anew([OnState::FailedAt(task, reason.to_owned())]);
        // The job of the previous attempt does not count.
        fs::remove_dir_all(run.notes()).ok();
        let error = run.upload(&uploader, &output).await.unwrap_err();
        assert_eq!(error.is_lasting(), is_lasting, "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("in the task `{task}`: ")), "{text}");
        assert!(text.ends_with(reason.lines().last().unwrap()) && text.len() < 1500, "{text}");
    }
}

/// Ingest strips a leading `data` from a row's `subdir`, so the files of a folder with this name were not found.
#[tokio::test]
async fn the_rows_of_an_output_folder_named_data_are_readable_for_ingest() {
    let (run, service) = (Run::new(), Ingest::start().await);
    run.write("output", [("data/deep/a", &b"1"[..]), ("data/b", b"2"), ("other/data/c", b"3"), ("d", b"4")]);
    run.upload(&uploader(&to(&service)).unwrap(), &run.output(0, "output")).await.unwrap();
    let bundle = service.uploads()[0].bundle();
    // As in `get_clipped` of Pacifica's ingest.
    let clipped = |path: &str| path.strip_prefix("data/").unwrap_or(path).to_owned();
    let mut found: Vec<_> = bundle
        .rows_of("Files")
        .iter()
        .map(|row| clipped(&format!("{}/{}", row["subdir"].as_str().unwrap(), row["name"].as_str().unwrap())))
        .collect();
    found.sort();
    assert_eq!(found, ["/d", "data/b", "data/deep/a", "other/data/c"]);
    let local = Destination::Local(run.folder.path().join("local"));
    run.upload(&uploader(&local).unwrap(), &run.output(0, "output")).await.unwrap();
    let metadata =
        tree(&run.folder.path().join("local")).into_iter().find(|(path, _)| path.ends_with("metadata.txt"));
    let rows: Vec<Value> = serde_json::from_slice(&metadata.unwrap().1).unwrap();
    assert_eq!(rows, bundle.rows, "a local bundle says the same");
}

#[tokio::test]
async fn a_job_that_takes_too_long_names_the_limit_and_its_last_state() {
    let (run, service) = (Run::new(), Ingest::start().await);
    let Destination::Ingest { url, status_url, auth, .. } = to(&service) else { unreachable!() };
    let timeout = Duration::from_millis(300);
    let uploader = uploader(&Destination::Ingest { url, status_url, auth, timeout }).unwrap();
    service.on_state((0..100).map(|_| OnState::Working("ingest files", 1)));
    let error = run.upload(&uploader, &run.small()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("not done within 300 ms (`timeout` of the handler's `upload`)"), "{text}");
    assert!(text.contains("ingest files") && !error.is_lasting(), "{text}");

    service.on_state_anew((0..100).map(|_| OnState::Answer(502, "no gateway")));
    let error = run.upload(&uploader, &run.small()).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(waypost_runtime::chain::text(&error).contains("502 Bad Gateway"), "{error}");
    assert_eq!(service.attempts(), 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_parsed_is_shown() {
    let (run, service) = (Run::new(), Ingest::start().await);
    let uploader = uploader(&to(&service)).unwrap();
    for (status, text, part) in [
        (200, "<html>\n welcome", "is not a job: `{\"job_id\": …}`: <html> welcome"),
        (200, "{\"job_id\": null}", "is not a job"),
        (302, "elsewhere", "answered 302 Found"),
        (500, "oh", "answered 500 Internal Server Error"),
    ] {
        service.on_upload([OnUpload::Answer(status, text)]);
        let error = run.upload(&uploader, &run.small()).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.is_lasting(), status == 302, "{error}");
    }
    service.on_state([OnState::Answer(200, "{}")]);
    let error = run.upload(&uploader, &run.small()).await.unwrap_err();
    assert!(matches!(&error, Error::Answer { expected, .. } if expected.contains("state")), "{error}");
    run.upload(&uploader, &run.small()).await.unwrap();
    assert_eq!((service.attempts(), service.uploads().len()), (5, 1));
}
