//! Answers and pushes, out of the bytes that have come.
//!
//! In: bytes as they are read from a connection, into one buffer. Out: [`Message`]s, in fred's values,
//! as the rest of the crate reads them; texts are slices of the buffer, not copies. A map is given as a
//! list of its keys and values. The decoder is that of `redis-protocol`, which gets one whole answer a
//! time. Owner of the buffer. Bounds: those of `extent`, and what one read brings beyond; whoever keeps
//! a text keeps the bytes that were read with it, so what is to stay long is copied.

use bytes::{Bytes, BytesMut};
use fred::error::{Error, ErrorKind};
use fred::types::Value;
use redis_protocol::resp3::decode::complete::decode_range;
use redis_protocol::resp3::types::RangeFrame;

use super::extent::Extent;
use crate::redis::outcome::answered;

/// Room for one read. More waits in the kernel.
const READ_BYTES: usize = 64 << 10;
/// A buffer that grew beyond this for a long answer is given back.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// What Redis said.
#[derive(Debug)]
pub(super) enum Message {
    /// The answer to the oldest command that has none, or the error in its place.
    Answer(Result<Value, Error>),
    /// What was not asked for.
    Push(Vec<Value>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: BytesMut,
    extent: Extent,
}

impl Incoming {
    /// Where the next read goes.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = BytesMut::new();
        }
        self.bytes.reserve(READ_BYTES);
        &mut self.bytes
    }

    /// The next message that is there as a whole.
    ///
    /// # Errors
    /// What has come is no answer, or one beyond the bounds. Nothing after it can be read.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Error> {
        let found = self.extent.find(&self.bytes);
        let Some(length) = found.map_err(|fault| broken(fault.to_string()))? else {
            return Ok(None);
        };
        let bytes = self.bytes.split_to(length).freeze();
        let decoded = decode_range(&bytes).map_err(|error| broken(error.details().to_owned()))?;
        match decoded {
            Some((RangeFrame::Push { data, .. }, _)) => Ok(Some(Message::Push(
                list(&bytes, data).map_err(broken_push)?,
            ))),
            Some((frame, whole)) if whole == length => {
                Ok(Some(Message::Answer(value(&bytes, frame))))
            }
            _ => Err(broken("an answer ends where it should not".to_owned())),
        }
    }
}

fn broken(what: String) -> Error {
    Error::new(ErrorKind::Protocol, what)
}

fn broken_push(error: Error) -> Error {
    broken(format!("Redis pushes an error: {}", error.details()))
}

/// A frame as a value. An error within makes an error of the whole.
fn value(bytes: &Bytes, frame: RangeFrame) -> Result<Value, Error> {
    let text = |(start, end): (usize, usize)| bytes.slice(start..end);
    Ok(match frame {
        RangeFrame::BlobString { data, .. }
        | RangeFrame::SimpleString { data, .. }
        | RangeFrame::VerbatimString { data, .. }
        | RangeFrame::BigNumber { data, .. } => Value::Bytes(text(data)),
        RangeFrame::SimpleError { data, .. } | RangeFrame::BlobError { data, .. } => {
            return Err(answered(&String::from_utf8_lossy(&text(data))));
        }
        RangeFrame::Number { data, .. } => Value::Integer(data),
        RangeFrame::Double { data, .. } => Value::Double(data),
        RangeFrame::Boolean { data, .. } => Value::Boolean(data),
        RangeFrame::Null => Value::Null,
        RangeFrame::Array { data, .. } | RangeFrame::Push { data, .. } => {
            Value::Array(list(bytes, data)?)
        }
        RangeFrame::Set { data, .. } => Value::Array(list(bytes, data)?),
        RangeFrame::Map { data, .. } => {
            let pairs = data.into_iter().flat_map(|(key, value)| [key, value]);
            Value::Array(list(bytes, pairs)?)
        }
        RangeFrame::Hello { .. } | RangeFrame::ChunkedString(_) => {
            return Err(broken("Redis answers with a part of an answer".to_owned()));
        }
    })
}

fn list(bytes: &Bytes, frames: impl IntoIterator<Item = RangeFrame>) -> Result<Vec<Value>, Error> {
    frames
        .into_iter()
        .map(|frame| value(bytes, frame))
        .collect()
}
