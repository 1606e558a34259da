//! How the types that serde writes by hand look in the OpenAPI document.

use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::data::Data;
use crate::ids::{Position, SessionId, Topic};

/// Text with a description, and a pattern where one says it all.
fn text(description: &str, pattern: Option<&str>) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::String))
        .description(Some(description))
        .pattern(pattern)
        .into()
}

impl PartialSchema for Position {
    fn schema() -> RefOr<Schema> {
        text(
            "Where a publication stands in its topic: opaque, ordered, the same on every node.",
            Some(r"^(0|[1-9]\d*)-(0|[1-9]\d*)$"),
        )
    }
}

impl ToSchema for Position {}

impl PartialSchema for SessionId {
    fn schema() -> RefOr<Schema> {
        text("A session.", Some("^[0-9a-f]{32}$"))
    }
}

impl ToSchema for SessionId {}

impl PartialSchema for Topic {
    fn schema() -> RefOr<Schema> {
        text(
            "A topic: 1 to 200 bytes of `A-Z a-z 0-9 _ - . : / = , ~ #`; an inbox is `@USER`, \
             everyone is `@`.",
            None,
        )
    }
}

impl ToSchema for Topic {}

impl PartialSchema for Data {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::AnyValue)
            .description(Some("What was published: any value."))
            .into()
    }
}

impl ToSchema for Data {}
