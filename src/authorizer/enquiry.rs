//! What an authorizer is asked, as the JSON that it gets.
//!
//! In: who asks for what. Out: a [`Enquiry`], its body ready to be signed. Pure. Bound: the body is that of one
//! message (`session.message_bytes_max`, as JSON), of one token's user, and names.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::telemetry::trace::context::TraceContext;
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{App, SessionId, Topic, User};

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Whether a session may be, and who it is.
    Connect,
    /// Whether it may join a topic.
    Subscribe,
    /// Whether it may publish this.
    Publish,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Its app.
    pub app: &'a str,
    /// Its user; `None` where there is none, or none yet.
    pub user: Option<&'a str>,
    /// The session.
    pub session: SessionId,
    /// `auth.token_life_max_s` of the app, for `expires` of an answer.
    pub life_max: Duration,
}

impl<'a> Asker<'a> {
    /// A session of an app.
    #[must_use]
    pub fn new(
        app: &'a App,
        user: Option<&'a User>,
        session: SessionId,
        life_max: Duration,
    ) -> Self {
        Self {
            life_max,
            app: app.as_str(),
            user: user.map(User::as_str),
            session,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Enquiry {
    /// What it is about.
    pub kind: Kind,
    /// Who the session is, which no answer may change.
    pub user: Option<String>,
    /// The topic, which no answer may change.
    pub topic: Option<String>,
    /// How far ahead `expires` of an answer may lie.
    pub life_max: Duration,
    /// What is sent.
    pub body: Bytes,
}

/// The form in which a client sent `data`, which the enquiry has as JSON.
fn form_of(data: &Data) -> &'static str {
    match data {
        Data::Json(_) => "json",
        Data::MsgPack(_) => "msgpack",
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip)]
    life_max: Duration,
    r#type: Kind,
    app: &'a str,
    user: Option<&'a str>,
    session: SessionId,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    refresh: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Data>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_form: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

impl<'a> Body<'a> {
    fn of(kind: Kind, asker: Asker<'a>) -> Self {
        Self {
            life_max: asker.life_max,
            r#type: kind,
            app: asker.app,
            user: asker.user,
            session: asker.session,
            refresh: false,
            topic: None,
            presence: None,
            key: None,
            data: None,
            data_form: None,
            traceparent: None,
        }
    }

    fn enquiry(&self) -> Enquiry {
        let body = serde_json::to_vec(self);
        Enquiry {
            kind: self.r#type,
            user: self.user.map(str::to_owned),
            topic: self.topic.map(str::to_owned),
            life_max: self.life_max,
            // What was checked as `data` can be said as JSON.
            body: body.unwrap_or_default().into(),
        }
    }
}

impl Enquiry {
    /// Whether the session may be; with `is_refresh` whether it may go on with its new token.
    #[must_use]
    pub fn connect(asker: Asker<'_>, is_refresh: bool) -> Self {
        let body = Body {
            refresh: is_refresh,
            ..Body::of(Kind::Connect, asker)
        };
        body.enquiry()
    }

    /// Whether it may join the topic, and be a member.
    #[must_use]
    pub fn subscribe(asker: Asker<'_>, topic: &Topic, presence: bool) -> Self {
        let body = Body {
            topic: Some(topic.name()),
            presence: Some(presence),
            ..Body::of(Kind::Subscribe, asker)
        };
        body.enquiry()
    }

    /// Whether it may publish this on the topic.
    #[must_use]
    pub fn publish(
        asker: Asker<'_>,
        topic: &Topic,
        (data, key): (&Data, Option<&str>),
        trace: Option<TraceContext>,
    ) -> Self {
        let trace = trace.filter(TraceContext::is_sampled);
        let body = Body {
            topic: Some(topic.name()),
            key,
            data: Some(data),
            data_form: Some(form_of(data)),
            traceparent: trace.map(|context| context.to_string()),
            ..Body::of(Kind::Publish, asker)
        };
        body.enquiry()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(enquiry: &Enquiry) -> Value {
        serde_json::from_slice(&enquiry.body).unwrap()
    }

    #[test]
    fn each_enquiry_says_who_asks_for_what() {
        let (app, session) = (App::default_app(), SessionId::random());
        let ada = User::new("ada").unwrap();
        let nobody = Asker::new(&app, None, session, Duration::MAX);
        let asker = Asker::new(&app, Some(&ada), session, Duration::MAX);
        let head = json!({"type": "connect", "app": "default", "user": null, "session": session});
        assert_eq!(said(&Enquiry::connect(nobody, false)), head);
        let refreshed = said(&Enquiry::connect(asker, true));
        assert_eq!(refreshed["refresh"], true);
        assert_eq!(refreshed["user"], "ada");
        let topic = Topic::new(&app, "chat:1").unwrap();
        let joins = said(&Enquiry::subscribe(asker, &topic, true));
        let wanted = json!({
            "type": "subscribe", "app": "default", "user": "ada", "session": session,
            "topic": "chat:1", "presence": true,
        });
        assert_eq!(joins, wanted);
        let data = Data::from_msgpack(b"\xc4\x02\x01\x02").unwrap();
        let published = said(&Enquiry::publish(asker, &topic, (&data, Some("k")), None));
        let wanted = json!({
            "type": "publish", "app": "default", "user": "ada", "session": session,
            "topic": "chat:1", "key": "k", "data": "AQI=", "data_form": "msgpack",
        });
        assert_eq!(published, wanted);
    }

    #[test]
    fn only_a_trace_that_is_recorded_is_told() {
        let app = App::default_app();
        let asker = Asker::new(&app, None, SessionId::random(), Duration::MAX);
        let topic = Topic::new(&app, "t").unwrap();
        let data = Data::from_json(b"1").unwrap();
        let text = |flags: &str| format!("00-{}-{}-{flags}", "1".repeat(32), "2".repeat(16));
        for (flags, told) in [("01", Value::from(text("01"))), ("00", Value::Null)] {
            let trace = TraceContext::parse(&text(flags)).ok();
            let enquiry = Enquiry::publish(asker, &topic, (&data, None), trace);
            assert_eq!(said(&enquiry)["traceparent"], told);
        }
    }
}
