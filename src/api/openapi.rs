//! The OpenAPI 3.1 document, made from the handlers that the router calls.
//!
//! In: the routes with their annotations. Out: the document, built once, at `/openapi.json`. The
//! same text stands in `docs/openapi.json`; a test holds them equal.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use utoipa::Modify;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr};

use crate::http::error::ErrorAnswer;
use crate::http::media::{JSON, MSGPACK};

/// The parts of the document that stand at no handler.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Fanfare HTTP API",
        description = "Publish, and see what is live. Served on its own listener, not the public \
                       one. Every body is JSON or MessagePack: requests say which by \
                       `Content-Type` (settings of an app are JSON only), answers follow `Accept`, else the request. Every error \
                       has the body `{\"error\": {\"code\", \"message\"}}`; an unknown path is \
                       404, a wrong method 405, a body that does not arrive in time 408. Unknown \
                       fields and parameters are refused."
    ),
    servers((url = "http://127.0.0.1:8081", description = "The default of `api.listen`.")),
    components(schemas(ErrorAnswer)),
    security(("api_key" = [])),
    modifiers(&Security)
)]
pub(super) struct Frame;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A key of `api.keys`, or one of a client of `[[api.clients]]`, which has a part of the \
                 scopes `publish`, `read`, `users`, `queue` and `admin`.",
            ))
            .build();
        components.add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

/// The text that is served, JSON with line breaks.
static TEXT: LazyLock<Bytes> = LazyLock::new(|| {
    let text = document()
        .to_pretty_json()
        .expect("the document has text keys and finite numbers");
    Bytes::from(text + "\n")
});

/// The document of every route.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = super::documented_routes().into_openapi();
    speak_msgpack(&mut document);
    document
}

/// The text of the document, as it is served and as it stands in `docs/openapi.json`.
#[must_use]
pub fn text() -> Bytes {
    TEXT.clone()
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "health", operation_id = "openapi", security(()),
    responses((status = 200, description = "The OpenAPI 3.1 document.", body = Value))
)]
pub(super) async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, JSON)], text()).into_response()
}

/// Says of every JSON body below `/v1/` that it may be MessagePack as well.
fn speak_msgpack(document: &mut OpenApi) {
    let paths = document.paths.paths.iter_mut();
    let items = paths.filter(|(path, _)| path.starts_with("/v1/"));
    let operations = items.flat_map(|(_, item)| {
        let others = [&mut item.get, &mut item.post, &mut item.delete];
        let others = others.map(|operation| (operation, true));
        // Settings of an app are JSON only.
        others.into_iter().chain([(&mut item.put, false)])
    });
    for (operation, takes_both) in operations {
        let Some(operation) = operation else {
            continue;
        };
        if takes_both
            && let Some(RefOr::T(body)) = &mut operation.request_body
            && let Some(content) = body.content.get(JSON).cloned()
        {
            body.content.insert(MSGPACK.to_owned(), content);
        }
        for response in operation.responses.responses.values_mut() {
            if let RefOr::T(response) = response
                && let Some(content) = response.content.get(JSON).cloned()
            {
                response.content.insert(MSGPACK.to_owned(), content);
            }
        }
    }
}
