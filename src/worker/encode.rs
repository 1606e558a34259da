//! Events turned into frames for sockets, also those that cannot be expressed.

use bytes::Bytes;

use fanfare_protocol::codec;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::{self, Event};
use fanfare_protocol::form::{PerForm, WireForm};

/// The complete frame of an event. One that cannot be expressed (a bug, or a body that was damaged
/// where it was stored) becomes an `error` with the code `internal`, with the id of the command that
/// it would have answered, so that the receiver learns of it.
pub(crate) fn frame(form: WireForm, event: &Event) -> Bytes {
    frame_or(form, event, || {
        let id = match event {
            Event::Ok(ok) => ok.id,
            _ => None,
        };
        let error = WireError::new(ErrorCode::Internal, "a message could not be encoded");
        event::Error::answer(id, error)
    })
}

/// The same with something else to tell instead, which holds nothing but names and numbers.
pub(crate) fn frame_or(form: WireForm, event: &Event, instead: impl FnOnce() -> Event) -> Bytes {
    codec::encode(form, event).unwrap_or_else(|fault| {
        tracing::error!(event = "event_dropped", %fault, source = ?std::error::Error::source(&fault), "event not encoded");
        codec::encode(form, &instead()).expect("it holds nothing but a code, names and numbers")
    })
}

/// The frames of one event, encoded when a form is first asked for.
pub(super) struct FramesOf<'a> {
    event: &'a Event,
    frames: PerForm<Option<Bytes>>,
}

impl<'a> FramesOf<'a> {
    pub(super) fn new(event: &'a Event) -> Self {
        Self {
            event,
            frames: PerForm::default(),
        }
    }

    pub(super) fn get(&mut self, form: WireForm) -> Bytes {
        self.frames[form]
            .get_or_insert_with(|| frame(form, self.event))
            .clone()
    }
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
    fn an_answer_with_a_body_that_was_damaged_is_told_as_an_internal_error_of_its_command() {
        let topic = Topic::new(&App::default_app(), "a").unwrap();
        for data in [
            Data::Json(Bytes::from_static(b"{\"a\":")),
            Data::MsgPack(Bytes::from_static(b"\x92\x01")),
        ] {
            let damaged = fanfare_protocol::event::Message {
                data,
                ..publication(Bytes::new(), 0).message(&topic, None)
            };
            let event = Event::Ok(fanfare_protocol::event::Ok {
                id: Some(7),
                publications: Some(vec![damaged]),
                ..Default::default()
            });
            // Two bytes of header stand before so short a payload.
            let json = frame(WireForm::websocket(Encoding::Json), &event);
            let msgpack = frame(WireForm::websocket(Encoding::MsgPack), &event);
            let json: Value = serde_json::from_slice(&json[2..]).unwrap();
            let msgpack: Value = rmp_serde::from_slice(&msgpack[2..]).unwrap();
            for told in [json, msgpack] {
                assert_eq!(
                    (&told["type"], &told["code"], &told["id"]),
                    (&json!("error"), &json!("internal"), &json!(7))
                );
            }
        }
    }
}
