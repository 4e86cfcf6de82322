//! A closure that runs on the data files of events, and whose results are stored.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::fs;
use std::time::Duration;

use waypost::{Destination, Handlers, NewEvent, Source, Waypost};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let (data, results) = (folder.path().join("data"), folder.path().join("results"));
    fs::create_dir_all(data.join("raw"))?;
    fs::create_dir(&results)?;
    fs::write(data.join("raw/a.txt"), "three words here")?;

    let handlers = Handlers::new()
        .on("count", "$.data[?@.destinationTable == 'Files']", |run| async move {
            let words = fs::read_to_string(run.download().join("raw/a.txt"))?.split_whitespace().count();
            fs::write(run.output().join("count.csv"), format!("words,{words}\n"))?;
            Ok(())
        })?
        .source(Source::Local(data))
        .destination(Destination::Local(results.clone()));
    let waypost = Waypost::builder(folder.path().join("events")).handlers(handlers).open().await?;
    let file = serde_json::json!([{"destinationTable": "Files", "_id": 1, "name": "a.txt", "subdir": "raw"}]);
    let id = waypost.publish(NewEvent::new("org.example.uploaded", "/instrument").data(file)).await?;

    loop {
        let story = waypost.event(id).await?.ok_or("the event is gone")?;
        match story.deliveries() {
            [run] if run.state().name() == "delivered" => break,
            [run] if run.state().name() == "dead" => return Err(format!("{:?}", run.history()).into()),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    // Each run's bundle is a folder of its own; `.waypost` beside them is for bundles under way.
    for bundle in fs::read_dir(&results)? {
        if let Ok(count) = fs::read_to_string(bundle?.path().join("data/count.csv")) {
            print!("{count}");
        }
    }
    waypost.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
