//! A function of this program as a target: its deliveries are stored and retried as those to a URL.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use tokio::sync::mpsc;
use waypost::{Delivery, FunctionError, NewEvent, Waypost};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let waypost = Waypost::in_memory().setting("retry_schedule", "10ms,10ms").open().await?;
    let (sender, mut received) = mpsc::channel(8);
    let count = move |delivery: Delivery| {
        let sender = sender.clone();
        async move {
            if delivery.attempt == 1 {
                return Err(FunctionError::Retry("not yet".to_owned()));
            }
            sender.send(delivery).await.map_err(|_| FunctionError::Final("nobody listens".to_owned()))
        }
    };
    waypost.subscribe_fn("count", "$.data[?@.kind == 'image']", count).await?;

    let image = NewEvent::new("org.example.stored", "/camera").data(serde_json::json!([{"kind": "image"}]));
    let text = NewEvent::new("org.example.stored", "/editor").data(serde_json::json!([{"kind": "text"}]));
    let ids = waypost.publish_batch([text, image]).await?;

    let delivery = received.recv().await.ok_or("the function is gone")?;
    println!("{} arrived with attempt {}", delivery.event.source(), delivery.attempt);
    assert_eq!((delivery.event_id, delivery.attempt), (ids[1], 2));
    waypost.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(())
}
