//! How common refusals look in the OpenAPI document.
//!
//! The sets of responses that many operations have in common. A test holds that every response
//! named here is really given.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::http::error::ErrorAnswer;
use crate::http::media;

/// What every call that needs a key may be answered with.
pub(super) struct Refused;

/// What a call without a body is answered with when its path or query is wrong.
pub(super) struct BadRequest;

/// What a call with a body is answered with when the body is wrong.
pub(super) struct BodyRefused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[
            ("401", "The API key is missing, wrong or expired."),
            (
                "403",
                "The client has not the scope, may not name this topic, or is of another app.",
            ),
            ("404", "There is none of this name, or no such app."),
            (
                "429",
                "Too many wrong keys from this address, or too many large bodies at the same time. \
                 Repeat after `Retry-After` seconds.",
            ),
            ("500", "A fault of this node."),
            (
                "503",
                "Not possible at present, or the outcome is unknown (the message says which). \
                 Repeat after `Retry-After` seconds.",
            ),
        ])
    }
}

impl IntoResponses for BadRequest {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[("400", "The path or the query is wrong.")])
    }
}

impl IntoResponses for BodyRefused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[
            ("400", "The body is wrong, or one of its names."),
            ("413", "The body, `data` or a key is too long."),
            ("415", "The content type is not spoken."),
        ])
    }
}

fn errors(statuses: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let response = |(status, description): &(&str, &str)| {
        let schema = Ref::from_schema_name(ErrorAnswer::name());
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response = ResponseBuilder::new()
            .description(*description)
            .content(media::JSON, content)
            .build();
        ((*status).to_owned(), response.into())
    };
    statuses.iter().map(response).collect()
}
