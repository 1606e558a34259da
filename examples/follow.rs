//! Follows a topic through the death of nodes: `follow TOPIC URL...` prints one message a line.

use fanfare_client::{Client, Item, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let topic = arguments.next().ok_or("give a TOPIC and URLs")?;
    let options = Options {
        urls: arguments.collect(),
        ..Options::default()
    };
    let client = Client::connect(options).await?;
    let mut messages = client.subscribe(&*topic).await?;
    eprintln!("following {topic}");
    while let Some(item) = messages.next().await {
        match item {
            Item::Message(message) => println!("{}", message.data.read::<serde_json::Value>()?),
            other => eprintln!("{other:?}"),
        }
    }
    Ok(())
}
