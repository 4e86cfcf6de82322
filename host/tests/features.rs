//! What a program says of a feature that it was built without. `.ci/run` has the list of combinations.
#![cfg(not(feature = "pacifica"))]
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test, which is the point")]

use std::path::Path;
use std::time::Duration;

use waypost::config::Config;
use waypost::service::{Error, Service};
use waypost_handlers::{Definition, Destination, IngestAuth, Program, Source};

fn handler(source: Source, destination: Destination) -> Definition {
    let program = Program::Command { command: vec!["/bin/true".to_owned()], environment: Default::default() };
    let handler = Definition::new("count".parse().unwrap(), program);
    Definition { dispatch: true, source, destination, ..handler }
}

/// Returns why a service with this handler does not start.
async fn refusal(data: &Path, handler: Definition) -> String {
    let config = Config { data: data.to_owned(), handlers: vec![handler], ..Config::default() };
    let error = Service::open(config).await.err().unwrap();
    assert!(matches!(error, Error::Handlers(_)), "{error:?}");
    waypost_runtime::chain::text(&error)
}

#[tokio::test]
async fn a_handler_is_refused_by_the_feature_that_it_needs_and_the_data_folder_stays_usable() {
    let folder = tempfile::tempdir().unwrap();
    let url = || "http://127.0.0.1:1/".parse::<reqwest::Url>().unwrap();
    let (timeout, auth) = (Duration::from_secs(1), IngestAuth::None);
    let cart = Source::Cart { url: url(), timeout };
    let ingest = Destination::Ingest { url: url(), status_url: url(), auth, timeout };
    let needs = if cfg!(feature = "handlers") { "`pacifica`" } else { "`handlers`" };
    for handler in [handler(cart, Destination::Nowhere), handler(Source::Nothing, ingest)] {
        let refused = refusal(folder.path(), handler).await;
        assert!(refused.contains(needs), "{refused}");
    }
    if !cfg!(feature = "handlers") {
        let refused = refusal(folder.path(), handler(Source::Nothing, Destination::Nowhere)).await;
        assert!(refused.contains("`count`") && refused.contains(needs), "{refused}");
    }
    let config = Config { data: folder.path().to_owned(), ..Config::default() };
    Service::open(config).await.unwrap().close().await;
}
