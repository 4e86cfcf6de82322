//! `/openapi.json`: the description of these routes (OpenAPI 3.1), made from the handlers and the types of their bodies.
//!
//! What all routes have in common is added here: errors, parts of paths, and who may ask.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use axum::response::Response;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as OpenApiDocument;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, Ref, RefOr, Required, ResponseBuilder, SecurityRequirement,
};
use waypost_api::v1;

use super::gate::Needs;
use super::static_body::StaticBody;
use super::{
    audit, database, deliveries, dispatch, docs, dry_run, eventmatch, events, health, jobs, jwks, me, module,
    plugins, receive, recover, routes, scriptlog, sessions, tail, tasks, tokens,
};

/// The description before [`document`] completes it.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Waypost",
        description = "Routes CloudEvents to those who subscribe to them. Times are UTC with six digits of the second. \
            Errors have one form, that of `Problem`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "Events", description = "Sending events, and what became of them"),
        (name = "Subscriptions", description = "Who gets which events"),
        (name = "Plugins", description = "WebAssembly modules of subscriptions"),
        (name = "Access", description = "Who is asking: tokens, sessions, the audit"),
        (name = "Service", description = "The state of the service"),
        (name = "Pacifica", description = "Routes that clients of Pacifica's services know"),
    ),
    paths(
        receive::receive,
        receive::handshake,
        events::list,
        tail::events,
        events::read,
        events::retry,
        events::purge,
        events::purge_one,
        eventmatch::list,
        eventmatch::create,
        eventmatch::read,
        eventmatch::update,
        eventmatch::remove,
        dry_run::test,
        eventmatch::rotate_secret,
        eventmatch::probe,
        deliveries::list,
        tail::deliveries,
        recover::begin,
        recover::read,
        recover::cancel,
        jobs::begin_redeliver,
        jobs::read_redeliver,
        jobs::cancel_redeliver,
        jobs::begin_discard,
        jobs::read_discard,
        jobs::cancel_discard,
        module::read,
        module::update,
        module::remove,
        plugins::list,
        plugins::upload,
        plugins::read,
        me::read,
        tokens::list,
        tokens::create,
        tokens::revoke,
        sessions::list,
        sessions::begin,
        sessions::end_own,
        sessions::end,
        audit::list,
        database::compact,
        jwks::read,
        health::healthz,
        health::readyz,
        read,
        docs::index,
        docs::page,
        tasks::status,
        tasks::read,
        tasks::list,
        scriptlog::list,
        scriptlog::read,
        dispatch::dispatch,
        dispatch::dispatch_with,
    ),
    components(schemas(
        v1::Problem,
        v1::DeliveryState,
        v1::FilterDialect,
        v1::SubscriptionOrder,
        v1::SubscriptionState,
        v1::EventGap,
        v1::DeliveryGap,
        v1::FilterFailure,
        v1::StreamEnd
    ))
)]
struct Description;

/// The parts of paths: their names, formats and meanings.
const PARTS: [(&str, Option<KnownFormat>, &str); 6] = [
    ("uuid", Some(KnownFormat::Uuid), "The UUID of a subscription."),
    ("id", Some(KnownFormat::Uuid), "Its UUID."),
    ("digest", None, "The digest of a module: `sha256:` and 64 hexadecimal digits."),
    ("handler", None, "The name of a handler."),
    ("arguments", None, "Arguments of the handler, each with a `/` before it."),
    ("page", None, "The name of a page."),
];

/// Headers of answers: their names and meanings, and which operations have them.
const HEADERS: [(&str, &str, &[&str]); 2] = [
    (
        "Link",
        "The next page, as `<URL>; rel=\"next\"` (RFC 8288); left out at the end.",
        &[
            "list_tasks",
            "list_scriptlogs",
            "list_subscriptions",
            "list_modules",
            "list_tokens",
            "list_sessions",
        ],
    ),
    (
        "ETag",
        "The version, for `If-Match` and `If-None-Match`.",
        &["create_subscription", "read_subscription", "update_subscription", "rotate_secret"],
    ),
];

const BEARER: &str = "token";
const COOKIE: &str = "session";

/// Describes the routes, once: nothing of it depends on the configuration.
pub(super) fn document() -> &'static OpenApiDocument {
    static DOCUMENT: LazyLock<OpenApiDocument> = LazyLock::new(|| describe(&routes().list()));
    &DOCUMENT
}

/// Describes these routes: each method of each path, with what it needs.
fn describe(routes: &[(&'static str, &'static str, Needs)]) -> OpenApiDocument {
    let mut described = Description::openapi();
    described.info.version = env!("CARGO_PKG_VERSION").to_owned();
    let components = described.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("wp_…");
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    let cookie = ApiKeyValue::with_description("waypost", "The cookie that `POST /sessions` sets.");
    components.add_security_scheme(COOKIE, SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let problem = ResponseBuilder::new().description("An error").content("application/json", problem).build();
    for (path, item) in &mut described.paths.paths {
        for (method, operation) in [
            ("GET", &mut item.get),
            ("PUT", &mut item.put),
            ("POST", &mut item.post),
            ("DELETE", &mut item.delete),
            ("OPTIONS", &mut item.options),
        ] {
            let Some(operation) = operation else { continue };
            // Both methods of a handler's route have one function.
            if path.starts_with("/dispatch") && method == "POST" {
                operation.operation_id = operation.operation_id.take().map(|id| format!("{id}_by_post"));
            }
            if let Some(RefOr::T(body)) = &mut operation.request_body {
                body.required.get_or_insert(Required::True);
            }
            let id = operation.operation_id.as_deref().unwrap_or_default();
            for (name, meaning, with_it) in HEADERS {
                let answer = operation.responses.responses.get_mut("200").filter(|_| with_it.contains(&id));
                if let Some(RefOr::T(answer)) = answer {
                    let header = HeaderBuilder::new()
                        .description(Some(meaning))
                        .schema(Some(ObjectBuilder::new().schema_type(Type::String)));
                    answer.headers.insert(name.to_owned(), header.build().into());
                }
            }
            operation.responses.responses.insert("default".to_owned(), RefOr::T(problem.clone()));
            let parts = PARTS.iter().filter(|(name, _, _)| path.contains(&format!("{{{name}}}")));
            let parts = parts.map(|(name, format, meaning)| {
                let schema = ObjectBuilder::new().schema_type(Type::String);
                let schema = schema.format(format.clone().map(SchemaFormat::KnownFormat));
                let part = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Path);
                part.required(Required::True).description(Some(*meaning)).schema(Some(schema)).build()
            });
            operation.parameters.get_or_insert_default().splice(0..0, parts.map(RefOr::T));
            let needs = routes.iter().find(|route| described_path(route.0) == *path && route.1 == method);
            operation.security = Some(needs.map_or_else(Vec::new, |(_, _, needs)| security(*needs)));
        }
    }
    described
}

/// Returns the ways to identify oneself: with a token, with a session, or with what the service is configured for, which
/// OpenAPI cannot express.
fn security(needs: Needs) -> Vec<SecurityRequirement> {
    match needs {
        Needs::Nothing => Vec::new(),
        Needs::Scope(scope) => vec![
            SecurityRequirement::new(BEARER, [scope.name()]),
            SecurityRequirement::new(COOKIE, [scope.name()]),
            SecurityRequirement::default(),
        ],
    }
}

/// Returns the path of a route as OpenAPI has it, which knows no part that goes on to the end.
fn described_path(route: &str) -> String {
    route.replace("{*", "{")
}

/// Describes this API (OpenAPI 3.1)
#[utoipa::path(get, path = "/openapi.json", operation_id = "read_description",
    tag = "Service",
    responses((status = 200, description = "The description", body = Object)))]
pub(super) async fn read(headers: HeaderMap) -> Response {
    static DOCUMENT: LazyLock<StaticBody> = LazyLock::new(|| {
        StaticBody::new(document().to_json().expect("a description can be written"), "application/json")
    });
    DOCUMENT.answer(&headers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_route_is_described_and_no_other() {
        let routes = routes().list().into_iter();
        let routes: BTreeSet<_> =
            routes.map(|(path, method, _)| (described_path(path), method.to_lowercase())).collect();
        let document = serde_json::to_value(document()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let described: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone()))
            })
            .collect();
        assert_eq!(described, routes);
        let methods = paths.values().flat_map(|methods| methods.as_object().unwrap().values());
        let names: Vec<_> = methods.map(|method| method["operationId"].as_str().unwrap()).collect();
        assert_eq!(
            names.iter().collect::<BTreeSet<_>>().len(),
            names.len(),
            "each has a name of its own: {names:?}"
        );
    }
}
