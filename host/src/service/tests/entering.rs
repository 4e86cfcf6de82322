//! What each route needs of those who ask.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;
use waypost_domain::{Action, Actor, AuditEntry, Scope, Scopes, SecretHash, Token, TokenId};
use waypost_runtime::clock;

async fn service() -> (TempDir, Service) {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::open(Config { data: folder.path().into(), ..Config::default() }).await.unwrap();
    (folder, service)
}

/// A new route needs a line here.
#[tokio::test]
async fn every_route_says_what_it_needs() {
    let (_folder, service) = service().await;
    let routes = http::needs();
    let lines = routes.iter().map(|(path, method, needs)| match needs {
        None => format!("{method} {path}: nothing\n"),
        Some(scope) => format!("{method} {path}: {scope}\n"),
    });
    insta::assert_snapshot!(lines.collect::<String>());
    service.close().await;
}

async fn token(service: &Service, scopes: &[Scope], expires: Option<jiff::Timestamp>) -> String {
    let text = format!("wp_{}", uuid::Uuid::new_v4());
    let token = Token {
        id: TokenId::from_uuid(uuid::Uuid::new_v4()),
        name: String::new(),
        user: "ann".to_owned(),
        scopes: scopes.iter().copied().collect(),
        hash: SecretHash::of(&text),
        created: clock::now(),
        by: "root".to_owned(),
        expires,
        session_of: None,
    };
    let note = AuditEntry::new(Action::TokenCreate, token.id, &Actor::program("root"), clock::now());
    assert!(service.api.store.put_token(token, note).await.unwrap());
    text
}

/// Sends a request from another machine; returns its status, and whether the gate has refused it.
async fn asked(router: &axum::Router, method: &str, path: &str, token: Option<&str>) -> (StatusCode, bool) {
    let path = path
        .replace("{uuid}", &uuid::Uuid::nil().to_string())
        .replace("{id}", &uuid::Uuid::nil().to_string());
    let path = path.replace("{digest}", "sha256:0").replace("{handler}", "none").replace("{*arguments}", "a");
    let mut request = Request::builder().method(method).uri(&path).body(axum::body::Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 4711))));
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    // A stream has no end.
    if status.is_success() {
        return (status, false);
    }
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    // A subscription that is not the user's is a 403 as well.
    let by_scope = String::from_utf8_lossy(&body).contains("and this needs `");
    (status, status == StatusCode::UNAUTHORIZED || (status == StatusCode::FORBIDDEN && by_scope))
}

#[tokio::test]
async fn no_route_lets_in_who_may_not() {
    let (_folder, service) = service().await;
    let list = http::needs();
    let router = service.router();
    let past = Some(clock::now());
    let mut wrong = vec![token(&service, &Scope::ALL, past).await, "wp_wrong".to_owned(), "wp_".to_owned()];
    let mut good = Vec::new();
    for scope in Scope::ALL {
        good.push((scope, token(&service, &[scope], None).await));
    }
    let revoked = token(&service, &Scope::ALL, None).await;
    let id = service.api.store.tokens().find(&SecretHash::of(&revoked)).unwrap().token.id;
    assert!(service.api.store.remove_token(id, None).await.unwrap());
    wrong.push(revoked);
    for (path, method, needs) in list {
        let Some(needs) = needs else {
            assert!(!asked(&router, method, path, None).await.1, "{method} {path} is for everybody");
            continue;
        };
        assert_eq!(asked(&router, method, path, None).await.0, StatusCode::UNAUTHORIZED, "{method} {path}");
        for token in &wrong {
            let status = asked(&router, method, path, Some(token)).await.0;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path} {token}");
        }
        for (scope, token) in &good {
            let may = [*scope].into_iter().collect::<Scopes>().allow(needs);
            let (status, is_refused) = asked(&router, method, path, Some(token)).await;
            assert_eq!(is_refused, !may, "{method} {path} with {scope}: {status}");
            let slashed = asked(&router, method, &format!("{path}/"), Some(token)).await;
            assert!(may || slashed.1 || slashed.0 == StatusCode::NOT_FOUND, "{method} {path}/ with {scope}");
        }
    }
    service.close().await;
}
