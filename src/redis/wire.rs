//! A connection to Redis of our own, for the pair that is hot: RESP3 is written and read here.
//!
//! In: commands, each with a token of the caller (who waits for it, mostly). Out: [`Event`]s: each
//! token with its answer, in the order of the commands, and what Redis pushes. Commands that
//! subscribe are answered by pushes, one for each channel, or by one error. In a cluster Redis also says
//! unasked, in the words of an answer, that a channel is heard no more, so those that leave sharded
//! channels are sent with one behind them whose answer is like no other. The owner is one task, which sends what it has and then waits in [`Connection::turn`]; that writes all that waits with one
//! write and reads all that has come with one read. It has no task, no lock and no queue.
//!
//! Every command has a deadline, and one timer is set for the oldest. At its deadline a command is
//! answered as unknown and the connection goes on: the answer that may come yet is let fall, so that
//! it is given to no other. Whether a connection that does not answer is given up is decided by its
//! owner. When it ends, what was handed to the socket as a whole is unknown, and all else was not done:
//! Redis executes no part of a command. Nothing is sent twice, and nobody connects again but the owner.
//!
//! | bound | at the bound |
//! |---|---|
//! | [`UNSENT_BYTES_MAX`] wait for the socket, and one command more | a command is refused as not done |
//! | [`UNANSWERED_MAX`] commands wait for their answer | the same |
//! | those of [`extent`], for one answer | the connection ends, with the bound in the error |

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::access::Target;
use super::outcome::{closed, timed_out};
use super::{RedisError, clients};

mod answer;
mod awaits;
pub mod command;
pub mod extent;
mod greeting;
pub mod socket;
#[cfg(test)]
mod tests;

use answer::{Incoming, Message};
use awaits::{Awaits, Leaving, Told};
use command::Arguments;
use socket::Socket;

/// Bytes that may wait for the socket. As many as a publisher's queue may hold.
pub const UNSENT_BYTES_MAX: usize = 64 << 20;
/// Commands that may wait for an answer, those included whose caller waits no longer.
pub const UNANSWERED_MAX: usize = clients::COMMANDS_MAX;
/// A buffer that grew beyond this is given back when it is empty.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// What a turn brought.
#[derive(Debug)]
pub enum Event<T> {
    /// The command with this token was answered, or its time is over.
    Answered(T, Result<Value, RedisError>),
    /// Redis said something that answers no command.
    Pushed(Vec<Value>),
}

/// A command that has no answer yet.
#[derive(Debug)]
struct Flight<T> {
    /// `None`: its time is over, and its answer belongs to nobody.
    token: Option<T>,
    /// How many bytes will have been written on this connection when all of it is.
    ends_at: u64,
    deadline: Instant,
    awaits: Awaits,
}

/// See the module.
#[derive(Debug)]
pub struct Connection<T, S = Socket> {
    stream: S,
    incoming: Incoming,
    /// What is to be written.
    outgoing: BytesMut,
    /// How many bytes the stream has taken.
    written: u64,
    /// It may keep some of them for itself.
    is_unflushed: bool,
    /// How many bytes have come.
    read: u64,
    /// In the order in which they were sent. Those whose time is over are in front.
    flights: VecDeque<Flight<T>>,
    /// How many of them that are.
    overdue_count: usize,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    is_timer_set: bool,
    /// Why it has ended, to be reported after all that came before.
    ended: Option<Error>,
}

impl<T> Connection<T> {
    /// Connects to a server and tells it who this is, under this name. Every command on it gets so
    /// much time.
    ///
    /// # Errors
    /// Why that failed, in the form of fred, as `access` explains and judges it.
    pub async fn open(target: &Target, name: &str, timeout: Duration) -> Result<Self, Error> {
        let stream = Socket::connect(target).await?;
        greeting::greet(stream, target, name, timeout).await
    }
}

impl<T, S: AsyncRead + AsyncWrite + Unpin> Connection<T, S> {
    /// Over a stream on which the protocol is agreed, or will be by the first command.
    #[must_use]
    pub fn over(stream: S, timeout: Duration) -> Self {
        Self {
            stream,
            incoming: Incoming::default(),
            outgoing: BytesMut::new(),
            written: 0,
            is_unflushed: false,
            read: 0,
            flights: VecDeque::new(),
            overdue_count: 0,
            timeout,
            timer: Box::pin(tokio::time::sleep(timeout)),
            is_timer_set: false,
            ended: None,
        }
    }

    /// Puts a command of so many arguments, its name among them, after all that were sent before.
    /// The next turn writes it.
    ///
    /// # Errors
    /// The token, and why nothing was done: see the bounds in the head of this file.
    pub fn send(
        &mut self,
        token: T,
        arguments_count: usize,
        fill: impl FnOnce(&mut Arguments<'_>),
    ) -> Result<(), (T, RedisError)> {
        self.put(token, Awaits::Answer, arguments_count, fill)
    }

    /// As [`Self::send`], a command of this name and these channels, of which Redis tells one by one
    /// that they are subscribed, or no more: `word` is what it calls that.
    ///
    /// # Errors
    /// As there.
    pub fn send_channels(
        &mut self,
        token: T,
        name: &str,
        word: &'static [u8],
        channels: &[String],
    ) -> Result<(), (T, RedisError)> {
        let awaits = Awaits::Pushes(word, channels.iter().cloned().collect());
        self.put(token, awaits, 1 + channels.len(), |arguments| {
            arguments.bytes(name.as_bytes());
            for channel in channels {
                arguments.bytes(channel.as_bytes());
            }
        })
    }

    /// Leaves these sharded channels, with a command for each because their slots differ. The answer
    /// is for all of them, and is the first error where there was one.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn leave_sharded(&mut self, token: T, channels: &[String]) -> Result<(), (T, RedisError)> {
        let [first, others @ ..] = channels else {
            return Err((token, unsendable()));
        };
        let last = others.last().unwrap_or(first).clone();
        let awaits = Awaits::Leaving(Leaving::new(channels, &last));
        let leave = |name: &'static str, channel: &String| {
            let channel = channel.clone();
            move |arguments: &mut Arguments<'_>| {
                arguments.bytes(name.as_bytes()).bytes(channel.as_bytes());
            }
        };
        // Its bytes are those of the first command: behind them something may be said.
        self.put(token, awaits, 2, leave("SUNSUBSCRIBE", first))?;
        let mut append = |name, channel| {
            let is_whole = command::append(&mut self.outgoing, 2, leave(name, channel));
            debug_assert!(is_whole, "it has another number of arguments than it says");
        };
        for channel in others {
            append("SUNSUBSCRIBE", channel);
        }
        append("UNSUBSCRIBE", &last);
        Ok(())
    }

    fn put(
        &mut self,
        token: T,
        awaits: Awaits,
        arguments_count: usize,
        fill: impl FnOnce(&mut Arguments<'_>),
    ) -> Result<(), (T, RedisError)> {
        let refused = |kind, why| RedisError::NotDone(Error::new(kind, why));
        if let Some(error) = &self.ended {
            return Err((token, RedisError::NotDone(error.clone())));
        }
        if self.outgoing.len() > UNSENT_BYTES_MAX || self.flights.len() >= UNANSWERED_MAX {
            let why = "too much waits for this connection";
            return Err((token, refused(ErrorKind::Backpressure, why)));
        }
        if !command::append(&mut self.outgoing, arguments_count, fill) {
            return Err((token, unsendable()));
        }
        self.flights.push_back(Flight {
            token: Some(token),
            ends_at: self.written + self.outgoing.len() as u64,
            deadline: Instant::now() + self.timeout,
            awaits,
        });
        Ok(())
    }

    /// How many bytes have come, whatever they were.
    #[must_use]
    pub fn read_count(&self) -> u64 {
        self.read
    }

    /// How many commands have no answer yet.
    #[must_use]
    pub fn unanswered_count(&self) -> usize {
        self.flights.len()
    }

    /// Writes what waits, and waits for what comes; appends to `events`, which is empty.
    ///
    /// # Errors
    /// The connection has ended. What has no answer is asked of [`Self::into_unanswered`].
    /// Cancel safety: safe, nothing is lost with a dropped call.
    pub async fn turn(&mut self, events: &mut Vec<Event<T>>) -> Result<(), Error> {
        poll_fn(|context| self.poll_turn(context, events)).await
    }

    /// Each command that has no answer, in order, with what that says of it.
    pub fn into_unanswered(self, error: Error) -> impl Iterator<Item = (T, RedisError)> {
        let written = self.written;
        let flights = self.flights.into_iter();
        flights.filter_map(move |flight| {
            let error = error.clone();
            let said = match flight.ends_at <= written {
                true => RedisError::Unknown(error),
                false => RedisError::NotDone(error),
            };
            flight.token.map(|token| (token, said))
        })
    }

    /// The same connection with tokens of another kind and this time for each command, when all is
    /// answered.
    fn settled<U>(self, timeout: Duration) -> Connection<U, S> {
        debug_assert!(self.flights.is_empty(), "somebody waits for an answer");
        Connection {
            flights: VecDeque::new(),
            stream: self.stream,
            incoming: self.incoming,
            outgoing: self.outgoing,
            written: self.written,
            is_unflushed: self.is_unflushed,
            read: self.read,
            overdue_count: 0,
            timeout,
            timer: self.timer,
            is_timer_set: self.is_timer_set,
            ended: self.ended,
        }
    }

    fn poll_turn(
        &mut self,
        context: &mut Context<'_>,
        events: &mut Vec<Event<T>>,
    ) -> Poll<Result<(), Error>> {
        if self.ended.is_none() {
            let written = self.poll_write(context);
            // Before a connection ends for what could not be written: Redis may have said why.
            let read = self.poll_read(context, events);
            self.ended = match (written, read) {
                (_, Poll::Ready(Err(error))) => Some(error),
                (Err(error), Poll::Pending) => Some(error),
                _ => None,
            };
            self.expire(context, events);
        }
        match &self.ended {
            _ if !events.is_empty() => Poll::Ready(Ok(())),
            Some(error) => Poll::Ready(Err(error.clone())),
            None => Poll::Pending,
        }
    }

    /// Hands to the stream what waits, as far as it takes it.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        while !self.outgoing.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let Poll::Ready(count) = stream.poll_write(context, &self.outgoing) else {
                break;
            };
            let count = count?;
            if count == 0 {
                return Err(closed());
            }
            self.outgoing.advance(count);
            self.written += count as u64;
            self.is_unflushed = true;
        }
        if self.outgoing.is_empty() && self.outgoing.capacity() > KEPT_BYTES_MAX {
            self.outgoing = BytesMut::new();
        }
        if self.is_unflushed {
            let flushed = Pin::new(&mut self.stream).poll_flush(context)?;
            self.is_unflushed = flushed.is_pending();
        }
        Ok(())
    }

    /// Reads until something was said, or nothing more is there.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        events: &mut Vec<Event<T>>,
    ) -> Poll<Result<(), Error>> {
        while events.is_empty() {
            let count = ready!(read(&mut self.stream, context, self.incoming.room()))?;
            if count == 0 {
                return Poll::Ready(Err(closed()));
            }
            self.read += count as u64;
            while let Some(message) = self.incoming.next()? {
                self.take(message, events)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, message: Message, events: &mut Vec<Event<T>>) -> Result<(), Error> {
        let oldest = self.flights.front_mut();
        let mut oldest = oldest.filter(|flight| flight.ends_at <= self.written);
        let awaits = oldest.as_mut().map(|flight| &mut flight.awaits);
        let answer = match (message, awaits) {
            (Message::Push(values), awaits) => match awaits.map(|awaits| awaits.told(&values)) {
                Some(Told::All(answer)) => answer,
                Some(Told::Part) => return Ok(()),
                Some(Told::Other) | None => {
                    events.push(Event::Pushed(values));
                    return Ok(());
                }
            },
            (Message::Answer(Err(error)), Some(Awaits::Leaving(leaving))) => {
                match leaving.refused(error) {
                    Some(error) => Err(error),
                    None => return Ok(()),
                }
            }
            (Message::Answer(Ok(_)), Some(Awaits::Pushes(..) | Awaits::Leaving(_))) => {
                let why = "Redis answers what it tells by pushes";
                return Err(Error::new(ErrorKind::Protocol, why));
            }
            (Message::Answer(answer), _) => answer,
        };
        let is_asked = oldest.is_some();
        let asked = is_asked.then(|| self.flights.pop_front()).flatten();
        let Some(flight) = asked else {
            // Where the server has no room for this connection it says so unasked.
            return Err(answer.err().unwrap_or_else(|| {
                let why = "Redis answers what it was not asked";
                Error::new(ErrorKind::Protocol, why)
            }));
        };
        match flight.token {
            Some(token) => {
                events.push(Event::Answered(
                    token,
                    answer.map_err(RedisError::of_answer),
                ));
            }
            None => self.overdue_count -= 1,
        }
        Ok(())
    }

    /// Answers those whose time is over.
    fn expire(&mut self, context: &mut Context<'_>, events: &mut Vec<Event<T>>) {
        while let Some(oldest) = self.flights.get(self.overdue_count) {
            if !self.is_timer_set {
                self.timer.as_mut().reset(oldest.deadline);
                self.is_timer_set = true;
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return;
            }
            // It was set for one that may be answered by now.
            self.is_timer_set = false;
            let now = Instant::now();
            while let Some(flight) = self.flights.get_mut(self.overdue_count)
                && flight.deadline <= now
            {
                if let Some(token) = flight.token.take() {
                    let outcome = Err(RedisError::of(timed_out()));
                    events.push(Event::Answered(token, outcome));
                }
                self.overdue_count += 1;
            }
        }
    }
}

fn unsendable() -> RedisError {
    let why = "a command has another number of arguments than it says";
    RedisError::Failed(Error::new(ErrorKind::InvalidArgument, why))
}

/// One read, after what is in the buffer.
fn read(
    stream: &mut (impl AsyncRead + Unpin),
    context: &mut Context<'_>,
    buffer: &mut BytesMut,
) -> Poll<std::io::Result<usize>> {
    pin!(stream.read_buf(buffer)).poll(context)
}
