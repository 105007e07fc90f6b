//! The OpenAPI document, generated from the handlers and from the types of `weir-api`.

use crate::leader;
use axum::Extension;
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{
    ComponentsBuilder, Content, HeaderBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Paths, Ref, RefOr,
    Response, ResponseBuilder, Schema,
};
use utoipa::{PartialSchema, ToResponse, ToSchema};
use weir_api::{Error, ErrorBody, ErrorKind, Stored};

/// Bytes of a body, in the document.
pub(crate) enum Binary {}

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        let binary = ObjectBuilder::new().schema_type(Type::String);
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        RefOr::T(Schema::Object(binary.format(Some(format)).build()))
    }
}

impl ToSchema for Binary {}

/// An answer that is an error, in the document.
pub(crate) enum Refusal {}

impl<'r> ToResponse<'r> for Refusal {
    fn response() -> (&'r str, RefOr<Response>) {
        let response = ResponseBuilder::new()
            .description("The reason, and what to do")
            .content("application/json", error());
        ("Error", response.build().into())
    }
}

/// An answer that names the leader, in the document.
enum Elsewhere {}

impl<'r> ToResponse<'r> for Elsewhere {
    fn response() -> (&'r str, RefOr<Response>) {
        let location = HeaderBuilder::new().schema(Some(String::schema())).build();
        let response = ResponseBuilder::new()
            .description("Another node leads: the header `location` says where to ask the same again")
            .header("location", location)
            .content("application/json", error());
        ("Elsewhere", response.build().into())
    }
}

fn error() -> Content {
    Content::new(Some(Ref::from_schema_name(Error::name())))
}

/// Returns a document without paths.
pub(crate) fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Weir")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Records, topics, modules and pipelines of a Weir node."));
    let (refusal, elsewhere) = (Refusal::response(), Elsewhere::response());
    let components = ComponentsBuilder::new()
        .response(refusal.0, refusal.1)
        .response(elsewhere.0, elsewhere.1)
        .schema(Error::name(), Error::schema())
        .schema(ErrorBody::name(), ErrorBody::schema())
        .schema(ErrorKind::name(), ErrorKind::schema())
        .schema(Stored::name(), Stored::schema());
    OpenApiBuilder::new()
        .info(info.build())
        .components(Some(components.build()))
        .build()
}

/// Adds the answers that each operation may give: an error, and the address of the leader.
pub(crate) fn with_common_answers(mut document: OpenApi) -> OpenApi {
    let Paths { paths, .. } = &mut document.paths;
    for (path, item) in paths.iter_mut() {
        for (_, operation) in methods(item) {
            let responses = &mut operation.responses.responses;
            responses.insert("default".to_owned(), response_ref(Refusal::response().0));
            if leader::is_for_leader(path) {
                responses.insert("307".to_owned(), response_ref(Elsewhere::response().0));
            }
        }
    }
    document
}

fn response_ref(name: &str) -> RefOr<Response> {
    RefOr::Ref(Ref::from_response_name(name))
}

/// Returns the operations of a path with their methods.
fn methods(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let methods = [
        ("GET", &mut item.get),
        ("PUT", &mut item.put),
        ("POST", &mut item.post),
        ("DELETE", &mut item.delete),
        ("PATCH", &mut item.patch),
    ];
    let methods = methods.into_iter();
    methods.filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// The document as text, made once.
#[derive(Clone)]
pub(crate) struct Document(Bytes);

impl Document {
    /// Returns the text of a document.
    pub(crate) fn of(document: &OpenApi) -> Self {
        // A document is a tree of strings: nothing in it cannot be written.
        Self(document.to_pretty_json().unwrap_or_default().into())
    }
}

/// Return this document.
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)),
)]
pub(crate) async fn openapi(Extension(Document(text)): Extension<Document>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation with the statuses of its answers.
    const OPERATIONS: &str = "\
DELETE /v1/modules/{module}: 200 307 400 404 default
DELETE /v1/pipelines/{name}: 204 307 404 default
DELETE /v1/topics/{topic}: 204 307 400 404 default
GET /health/live: 200 default
GET /health/ready: 200 503 default
GET /metrics: 200 default
GET /v1/cluster: 200 default
GET /v1/modules: 200 307 default
GET /v1/openapi.json: 200 default
GET /v1/pipelines/{name}/history: 200 307 404 default
GET /v1/pipelines/{name}/state: 200 307 404 default
GET /v1/pipelines/{name}: 200 307 404 default
GET /v1/pipelines: 200 307 default
GET /v1/status: 200 default
GET /v1/topics/{topic}/records: 200 307 404 416 default
GET /v1/topics/{topic}: 200 307 404 default
GET /v1/topics: 200 307 default
PATCH /v1/topics/{topic}: 200 307 400 404 default
POST /v1/canary: 200 307 400 404 default
POST /v1/pipelines/{name}/pause: 200 307 404 default
POST /v1/pipelines/{name}/promote: 200 307 400 404 default
POST /v1/pipelines/{name}/reset: 200 307 404 default
POST /v1/pipelines/{name}/resume: 200 307 404 default
POST /v1/pipelines/{name}/rewind: 200 307 400 404 default
POST /v1/pipelines/{name}/rollback: 200 307 404 default
POST /v1/plan: 200 307 400 default
POST /v1/shadow: 200 307 400 default
POST /v1/topics/{topic}/records: 200 307 400 404 413 503 504 default
POST /v1/topics: 201 307 400 409 default
PUT /v1/modules/{name}/{version}: 201 307 400 default
PUT /v1/pipelines: 200 307 400 default
";

    #[test]
    fn the_document_has_each_operation_with_its_answers() {
        let (_, mut document) = crate::routes();
        let mut found = Vec::new();
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in methods(item) {
                let statuses: Vec<_> = operation.responses.responses.keys().cloned().collect();
                found.push(format!("{method} {path}: {}\n", statuses.join(" ")));
            }
        }
        found.sort();
        assert_eq!(found.concat(), OPERATIONS);
    }

    #[test]
    fn each_reference_leads_somewhere() {
        let (_, document) = crate::routes();
        let text = document.to_json().unwrap();
        let components = document.components.unwrap();
        for reference in text.split("\"#/components/").skip(1) {
            let (kind, name) = reference.split_once('/').unwrap();
            let name = name.split('"').next().unwrap();
            let is_there = match kind {
                "schemas" => components.schemas.contains_key(name),
                "responses" => components.responses.contains_key(name),
                _ => false,
            };
            assert!(is_there, "{kind}/{name}");
        }
    }
}
