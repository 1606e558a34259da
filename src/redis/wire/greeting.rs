//! The first words on a connection: which protocol, who this is, which database.
//!
//! In: a stream that is connected. Out: a connection that takes commands, or what Redis said instead.
//! Protocol, user, password and name are one command, and the database is sent with it, so that a
//! connection costs one way there and back. Owns nothing. Bounds: `CONNECT_TIMEOUT` for all of it.

use std::time::Duration;

use fred::error::Error;

use super::socket::Socket;
use super::{Connection, Event};
use crate::redis::access::Target;
use crate::redis::clients::CONNECT_TIMEOUT;
use crate::redis::outcome::timed_out;

/// Says who this is, and waits until that is taken.
///
/// # Errors
/// What Redis said, or why it said nothing, in the form of fred.
pub(super) async fn greet<T>(
    stream: Socket,
    target: &Target,
    name: &str,
    timeout: Duration,
) -> Result<Connection<T>, Error> {
    // Its commands end with the greeting, before their own time is over.
    let mut connection = Connection::over(stream, timeout.max(2 * CONNECT_TIMEOUT));
    let login = target.login()?;
    let greeting = async {
        say(&mut connection, target, login, name)?;
        let mut events = Vec::new();
        while connection.unanswered_count() > 0 {
            connection.turn(&mut events).await?;
            for event in events.drain(..) {
                if let Event::Answered((), Err(error)) = event {
                    return Err(error.into_reported());
                }
            }
        }
        Ok(())
    };
    let greeted = tokio::time::timeout(CONNECT_TIMEOUT, greeting).await;
    greeted.unwrap_or_else(|_| Err(timed_out()))?;
    Ok(connection.settled(timeout))
}

fn say(
    connection: &mut Connection<()>,
    target: &Target,
    login: Option<(String, String)>,
    name: &str,
) -> Result<(), Error> {
    let arguments_count = 4 + if login.is_some() { 3 } else { 0 };
    let hello = connection.send((), arguments_count, |arguments| {
        arguments.bytes(b"HELLO").bytes(b"3");
        if let Some((user, password)) = &login {
            arguments.bytes(b"AUTH").bytes(user.as_bytes());
            arguments.bytes(password.as_bytes());
        }
        arguments.bytes(b"SETNAME").bytes(name.as_bytes());
    });
    hello.map_err(|((), error)| error.into_reported())?;
    let Some(database) = target.database else {
        return Ok(());
    };
    let select = connection.send((), 2, |arguments| {
        arguments.bytes(b"SELECT").number(database.into());
    });
    select.map_err(|((), error)| error.into_reported())
}
