//! Who may see which event, decided by the program.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use tokio::sync::mpsc;
use waypost::{Decision, Delivery, Event, NewEvent, Waypost};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let policy = |user: String, event: Event| async move {
        match event.source().strip_prefix("/home/") {
            Some(owner) if owner != user => Decision::Deny(format!("that is {owner}'s")),
            _ => Decision::Allow,
        }
    };
    let waypost = Waypost::in_memory().policy(policy).open().await?;
    let (sender, mut received) = mpsc::channel(8);
    for user in ["ann", "bob"] {
        let sender = sender.clone();
        let receive = move |delivery: Delivery| {
            let sender = sender.clone();
            async move {
                // The receiver is gone when the program ends.
                sender.send((user, delivery.event.source().to_owned())).await.ok();
                Ok(())
            }
        };
        waypost.as_user(user).subscribe_fn("inbox", "$", receive).await?;
    }
    waypost.publish(NewEvent::new("org.example.saved", "/home/ann")).await?;
    waypost.publish(NewEvent::new("org.example.saved", "/public")).await?;

    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(received.recv().await.ok_or("the functions are gone")?);
    }
    seen.sort();
    println!("{seen:?}");
    let all = [("ann", "/home/ann"), ("ann", "/public"), ("bob", "/public")];
    assert_eq!(seen, all.map(|(user, source)| (user, source.to_owned())));
    waypost.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(())
}
