//! Bundles in a folder.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn names(folder: &Path) -> Vec<String> {
    tree(folder).into_keys().collect()
}

#[tokio::test]
async fn without_a_destination_everything_is_accepted_and_nothing_kept() {
    let run = Run::new();
    let done = run.upload(&uploader(&Destination::Nowhere).unwrap(), &run.small()).await.unwrap();
    assert_eq!(
        (done.output.as_str(), done.files, done.bytes, done.place.as_str()),
        ("output", 2, 9, "nowhere")
    );
}

#[tokio::test]
async fn a_bundle_has_the_files_and_their_metadata() {
    let (run, folder) = (Run::new(), tempfile::tempdir().unwrap());
    let uploader = uploader(&Destination::Local(folder.path().join("made/by/it"))).unwrap();
    let done = run.upload(&uploader, &run.small()).await.unwrap();
    let place = folder.path().join("made/by/it").join(RUN);
    assert_eq!((done.files, done.bytes, &*done.place), (2, 9, place.to_str().unwrap()));
    let found = tree(&place);
    assert_eq!(names(&place), ["data/a.txt", "data/b/c.csv", "metadata.txt"]);
    assert_eq!(found["data/b/c.csv"], b"1,2\n");
    let mut rows: Vec<Value> = serde_json::from_slice(&found["metadata.txt"]).unwrap();
    for row in rows.iter_mut().filter(|row| row["destinationTable"] == "Files") {
        for time in ["mtime", "ctime"] {
            let text = row[time].take();
            assert!(text.as_str().unwrap().parse::<jiff::civil::DateTime>().is_ok(), "{text}");
        }
    }
    let sums = ["aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d", "13ab9f4291943d24149ff0a6b80050ce822cf627"];
    let expected = json!([
        {"destinationTable": "Transactions.submitter", "value": 10},
        {"destinationTable": "Transactions.instrument", "value": 54},
        {"destinationTable": "Transactions.project", "value": "1236é"},
        {"destinationTable": "TransactionKeyValue", "key": "key", "value": "value"},
        {"destinationTable": "Files", "name": "a.txt", "subdir": "", "size": 5, "mimetype": "text/plain",
            "mtime": null, "ctime": null, "hashtype": "sha1", "hashsum": sums[0]},
        {"destinationTable": "Files", "name": "c.csv", "subdir": "b", "size": 4, "mimetype": "text/csv",
            "mtime": null, "ctime": null, "hashtype": "sha1", "hashsum": sums[1]},
    ]);
    assert_eq!(Value::from(rows), expected);
    let mode = fs::metadata(&place).unwrap().permissions().mode();
    let usual = fs::metadata(folder.path().join("made")).unwrap().permissions().mode();
    assert_eq!(mode, usual, "whoever reads other folders there, reads this one");
}

#[tokio::test]
async fn a_repeat_replaces_the_earlier_bundle() {
    let (run, folder) = (Run::new(), tempfile::tempdir().unwrap());
    let uploader = uploader(&Destination::Local(folder.path().to_owned())).unwrap();
    run.write("output", [("old.txt", &b"old"[..])]);
    run.upload(&uploader, &run.output(0, "output")).await.unwrap();
    fs::remove_file(run.folder.path().join("output/old.txt")).unwrap();
    run.upload(&uploader, &run.small()).await.unwrap();
    let place = folder.path().join(RUN);
    assert_eq!(names(&place), ["data/a.txt", "data/b/c.csv", "metadata.txt"]);
    assert_eq!(names(folder.path()).len(), 3, "nothing else is left");
}

#[tokio::test]
async fn each_output_has_a_bundle_of_its_own() {
    let (run, folder) = (Run::new(), tempfile::tempdir().unwrap());
    let uploader = uploader(&Destination::Local(folder.path().to_owned())).unwrap();
    run.write("out/more", [("x", &b"x"[..])]);
    run.write("empty", [("kvp.csv", &b""[..])]);
    for output in [run.small(), run.output(1, "out/more"), run.output(2, "empty")] {
        run.upload(&uploader, &output).await.unwrap();
    }
    assert_eq!(names(&folder.path().join(format!("{RUN}-out-more"))), ["data/x", "metadata.txt"]);
    assert_eq!(names(&folder.path().join(format!("{RUN}-empty"))), ["metadata.txt"]);
    assert_eq!(names(folder.path()).len(), 3 + 2 + 1);
}

#[tokio::test]
async fn a_bundle_that_cannot_be_written_does_not_appear_at_all() {
    let (run, folder) = (Run::new(), tempfile::tempdir().unwrap());
    let output = run.small();
    fs::write(run.folder.path().join("output/b/c.csv"), "longer than before").unwrap();
    let uploader = uploader(&Destination::Local(folder.path().to_owned())).unwrap();
    let error = run.upload(&uploader, &output).await.unwrap_err();
    assert!(matches!(&error, Error::Changed { path } if path.ends_with("b/c.csv")), "{error}");
    assert!(!error.is_lasting());
    assert_eq!(names(folder.path()), Vec::<String>::new());

    fs::write(folder.path().join(RUN), "a file of somebody else").unwrap();
    let error = run.upload(&uploader, &run.small()).await.unwrap_err();
    assert!(matches!(&error, Error::Write { path, .. } if path.ends_with(RUN)), "{error}");
    assert_eq!(names(folder.path()), [RUN]);
}
