//! Events turned into frames for sockets, also those that cannot be expressed.

use bytes::Bytes;

use fanfare_protocol::codec;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::{self, Event};
use fanfare_protocol::form::WireForm;

/// The complete frame of an event. One that cannot be expressed (a bug, or a body that was damaged
/// where it was stored) becomes an `error` with the code `internal`, so that the receiver learns of
/// it.
pub(crate) fn frame(form: WireForm, event: &Event) -> Bytes {
    codec::encode(form, event).unwrap_or_else(|fault| {
        tracing::error!(event = "event_dropped", %fault, source = ?std::error::Error::source(&fault), "event not encoded");
        let error = WireError::new(ErrorCode::Internal, "a message could not be encoded");
        codec::encode(form, &event::Error::answer(None, error))
            .expect("an error event holds nothing but a code, text and numbers")
    })
}

#[cfg(test)]
mod tests {
    use fanfare_protocol::data::Data;
    use fanfare_protocol::form::Encoding;
    use fanfare_protocol::ids::{App, Topic};
    use serde_json::{Value, json};

    use super::*;
    use crate::broker::model::publication;

    #[test]
    fn a_body_that_was_damaged_where_it_was_stored_is_told_as_an_internal_error() {
        let topic = Topic::new(&App::default_app(), "a").unwrap();
        for data in [
            Data::Json(Bytes::from_static(b"{\"a\":")),
            Data::MsgPack(Bytes::from_static(b"\x92\x01")),
        ] {
            let damaged = fanfare_protocol::event::Message {
                data,
                ..publication(Bytes::new(), 0).message(&topic, None)
            };
            let event = Event::Message(damaged);
            // Two bytes of header stand before so short a payload.
            let json = frame(WireForm::websocket(Encoding::Json), &event);
            let msgpack = frame(WireForm::websocket(Encoding::MsgPack), &event);
            let json: Value = serde_json::from_slice(&json[2..]).unwrap();
            let msgpack: Value = rmp_serde::from_slice(&msgpack[2..]).unwrap();
            for told in [json, msgpack] {
                assert_eq!(
                    (&told["type"], &told["code"]),
                    (&json!("error"), &json!("internal"))
                );
            }
        }
    }
}
