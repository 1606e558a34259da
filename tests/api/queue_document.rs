//! The bodies of the durable queue against the document: what is sent is what is described.
//!
//! In: bodies and answers of the API. Out: whether the schemas of the document admit them. Of JSON Schema
//! as much is read as those schemas use.

use fanfare::api::openapi;
use serde_json::{Value, json};

use crate::fixture::Node;

fn document() -> Value {
    serde_json::from_slice(&openapi::text()).unwrap()
}

/// Whether the schema admits the value.
fn admits(document: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(path) = schema["$ref"].as_str() {
        let name = path.strip_prefix("#/components/schemas/").unwrap();
        let schema = &document["components"]["schemas"][name];
        assert!(schema.is_object(), "{name} is not in the document");
        return admits(document, schema, value);
    }
    if let Some(some) = schema["oneOf"].as_array() {
        let count = some.iter().filter(|one| admits(document, one, value));
        return count.count() == 1;
    }
    if let Some(all) = schema["allOf"].as_array() {
        return all.iter().all(|one| admits(document, one, value));
    }
    let is_of_kind = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some(other) => panic!("the type {other}"),
        None => true,
    };
    let required = schema["required"].as_array().into_iter().flatten();
    let mut properties = schema["properties"].as_object().into_iter().flatten();
    is_of_kind
        && required
            .into_iter()
            .all(|name| value.get(name.as_str().unwrap()).is_some())
        && properties
            .all(|(name, schema)| value.get(name).is_none_or(|v| admits(document, schema, v)))
        && match (&schema["items"], value.as_array()) {
            (items @ Value::Object(_), Some(all)) => all.iter().all(|v| admits(document, items, v)),
            _ => true,
        }
}

/// The schema of the body of a call.
fn body_of<'a>(document: &'a Value, path: &str, method: &str) -> &'a Value {
    &document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
}

/// The schema of an answer of a call.
fn answer_of<'a>(document: &'a Value, path: &str, method: &str, status: &str) -> &'a Value {
    let answer = &document["paths"][path][method]["responses"][status];
    &answer["content"]["application/json"]["schema"]
}

#[tokio::test]
async fn the_bodies_that_are_taken_are_those_of_the_document() {
    let (node, document) = (Node::start(), document());
    let schema = body_of(&document, "/v1/queue", "post");
    assert!(schema.is_object(), "{document}");
    let one = json!({"topic": "orders:7", "data": {"state": "paid"}, "priority": "high"});
    let answers = answer_of(&document, "/v1/queue", "post", "202");
    for body in [
        one.clone(),
        json!([one]),
        json!([one, {"users": ["a", "b"], "data": 1}]),
    ] {
        let answer = node.post("/v1/queue", &body).await;
        assert_eq!(answer.status, 202, "{body}");
        assert!(admits(&document, schema, &body), "{body}: {schema}");
        assert!(
            admits(&document, answers, &answer.value()),
            "{}",
            answer.value()
        );
    }
    for body in [
        json!({"One": one}),
        json!({"Many": [one]}),
        json!(7),
        json!([{}]),
    ] {
        assert_eq!(node.post("/v1/queue", &body).await.status, 400, "{body}");
        assert!(!admits(&document, schema, &body), "{body}");
    }
}

#[tokio::test]
async fn what_is_told_of_dead_letters_is_as_the_document_says() {
    let (node, document) = (Node::start(), document());
    let all = json!({"all": true});
    assert!(admits(
        &document,
        body_of(&document, "/v1/queue/dead/redrive", "post"),
        &all
    ));
    let ids = json!({"ids": ["3:17-0"]});
    for body in [all, ids] {
        let answer = node.post("/v1/queue/dead/redrive", &body).await.value();
        let schema = answer_of(&document, "/v1/queue/dead/redrive", "post", "200");
        assert!(admits(&document, schema, &answer), "{answer}: {schema}");
    }
    for path in ["/v1/queue/dead", "/v1/queue"] {
        let answer = node.get(path).await.value();
        let schema = answer_of(&document, path, "get", "200");
        assert!(admits(&document, schema, &answer), "{answer}: {schema}");
    }
}
