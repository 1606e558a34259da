//! Calls of the HTTP API in the name of an app.
//!
//! In: a call. Out: its answer, `None` when nobody answers in time.

use std::net::SocketAddr;

use hyper::Request;
use hyper::http::request::Builder;
use serde_json::Value;

use super::app::App;
use fanfare_testkit::http::{self, Answer};

/// `GET`.
pub(crate) async fn get(app: App, to: SocketAddr, path: &str) -> Option<Answer> {
    let request = request(app, "GET", path).body(Vec::new().into());
    http::send(to, request.expect("a valid request")).await
}

/// `POST` of a JSON body.
pub(crate) async fn post(app: App, to: SocketAddr, path: &str, body: &Value) -> Option<Answer> {
    let request = request(app, "POST", path).header("content-type", "application/json");
    let request = request.body(body.to_string().into());
    http::send(to, request.expect("a valid request")).await
}

/// `PUT` of an app with these settings, or `DELETE` of it.
pub(crate) async fn set_app(to: SocketAddr, app: App, settings: Option<&Value>) -> Option<Answer> {
    let path = format!("/v1/apps/{}", app.word());
    let method = if settings.is_some() { "PUT" } else { "DELETE" };
    let request = request(App::Default, method, &path).header("content-type", "application/json");
    let body = settings.map(Value::to_string).unwrap_or_default();
    let request = request.body(body.into());
    http::send(to, request.expect("a valid request")).await
}

fn request(app: App, method: &str, path: &str) -> Builder {
    let request = Request::builder().method(method).uri(path);
    request.header("fanfare-app", app.word())
}
