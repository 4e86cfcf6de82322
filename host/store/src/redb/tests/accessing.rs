//! Tokens and sessions are good until they are removed, also after a restart; the audit has what was done, and nothing else.

use super::super::access::SESSIONS_MAX;
use super::*;
use crate::{AuditQuery, CountLimits};
use waypost_domain::{Action, Actor, AuditEntry, Scopes, SecretHash, Token, TokenId};

fn token_id(id: u128) -> TokenId {
    TokenId::from_uuid(Uuid::from_u128(id))
}

fn token(id: u128, session_of: Option<u128>) -> Token {
    Token {
        id: token_id(id),
        name: format!("number {id}"),
        user: "ann".to_owned(),
        scopes: Scopes::USER,
        hash: SecretHash::of(&id.to_string()),
        created: after(i64::try_from(id).unwrap()),
        by: "root".to_owned(),
        expires: None,
        session_of: session_of.map(token_id),
    }
}

fn note(action: Action, id: &str, at: i64) -> AuditEntry {
    let by = Actor::program("root");
    AuditEntry { at: after(at), by, action, id: id.to_owned(), user: None, detail: Default::default() }
}

async fn put(store: &Store, token: Token) -> bool {
    let note = note(Action::TokenCreate, &token.name, 1);
    store.put_token(token, note).await.unwrap()
}

fn known(store: &Store) -> Vec<TokenId> {
    store.tokens().all().iter().map(|known| known.token.id).collect()
}

async fn audit(store: &Store, query: AuditQuery) -> Vec<String> {
    let (entries, _) = store.audit(query).await.unwrap();
    entries.iter().map(|entry| format!("{} {}", entry.action.name(), entry.id)).collect()
}

fn all() -> AuditQuery {
    AuditQuery { limit: usize::MAX, ..AuditQuery::default() }
}

#[tokio::test]
async fn a_token_is_good_until_it_is_removed_and_its_sessions_with_it() {
    let (folder, store) = fresh();
    assert!(put(&store, token(1, None)).await && put(&store, token(2, None)).await);
    assert!(put(&store, token(3, Some(1))).await);
    assert!(!put(&store, token(4, Some(9))).await, "its token is gone");
    assert_eq!(known(&store), [1, 2, 3].map(token_id));
    let uses = vec![(token_id(1), after(50)), (token_id(9), after(60))];
    store.tokens_used(uses).await.unwrap();
    store.tokens_used(vec![(token_id(1), after(40))]).await.unwrap();
    drop(store.probe().await);
    let (_copy, store) = {
        close(store).await;
        crashed(folder.path())
    };
    assert_eq!(known(&store), [1, 2, 3].map(token_id));
    assert_eq!(store.tokens().find(&SecretHash::of("1")).unwrap().used(), Some(after(50)));
    assert_eq!(store.tokens().find(&SecretHash::of("2")).unwrap().used(), None);
    assert!(store.remove_token(token_id(1), Some(note(Action::TokenRevoke, "1", 2))).await.unwrap());
    assert!(!store.remove_token(token_id(1), Some(note(Action::TokenRevoke, "1 again", 2))).await.unwrap());
    assert_eq!(known(&store), [token_id(2)], "the session ends with its token");
    let actions =
        ["token.revoke 1", "token.create number 3", "token.create number 2", "token.create number 1"];
    assert_eq!(audit(&store, all()).await, actions, "what was refused is not in it");
    close(store).await;
}

#[tokio::test]
async fn a_user_has_so_many_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let counts = CountLimits { tokens: 2, ..CountLimits::default() };
    let store = open_with(folder.path(), Options { counts, ..Options::default() });
    assert!(put(&store, token(1, None)).await && put(&store, token(2, None)).await);
    assert!(put(&store, token(3, Some(1))).await, "a session is none");
    let note = note(Action::TokenCreate, "4", 1);
    let refused = store.put_token(token(4, None), note.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("`ann` has 2 tokens") && refused.contains("user_tokens_max"), "{refused}");
    let bobs = Token { user: "bob".to_owned(), ..token(5, None) };
    assert!(put(&store, bobs).await);
    store.remove_token(token_id(1), None).await.unwrap();
    assert!(put(&store, token(4, None)).await, "a revoked one makes room");
    close(store).await;
}

#[tokio::test]
async fn the_oldest_session_makes_room() {
    let (_folder, store) = fresh();
    put(&store, token(1, None)).await;
    put(&store, token(2, None)).await;
    put(&store, token(3, Some(2))).await;
    let last = 10 + SESSIONS_MAX as u128;
    for id in 10..=last {
        assert!(put(&store, token(id, Some(1))).await);
    }
    let mut expected = vec![1, 2, 3];
    expected.extend(11..=last);
    assert_eq!(known(&store), expected.into_iter().map(token_id).collect::<Vec<_>>());
    close(store).await;
}

#[tokio::test]
async fn the_audit_is_listed_in_pages_and_removed_by_age() {
    let (_folder, store) = fresh();
    for number in 0..10 {
        let action = if number % 2 == 0 { Action::EventPurge } else { Action::EventRedeliver };
        store.note(note(action, &number.to_string(), number)).await.unwrap();
    }
    let query = AuditQuery { limit: 2, action: Some(Action::EventPurge), ..AuditQuery::default() };
    let (first, next) = store.audit(query.clone()).await.unwrap();
    assert_eq!(first.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>(), ["8", "6"]);
    let query = AuditQuery { before: next, limit: 9, ..query };
    assert_eq!(audit(&store, query).await, ["event.purge 4", "event.purge 2", "event.purge 0"]);
    let within = AuditQuery { since: Some(after(3)), until: Some(after(5)), ..all() };
    assert_eq!(audit(&store, within).await, ["event.purge 4", "event.redeliver 3"]);
    let by = |user: &str| AuditQuery { user: Some(user.to_owned()), ..all() };
    assert_eq!(audit(&store, by("root")).await.len(), 10);
    assert!(audit(&store, by("ann")).await.is_empty());
    let of = AuditQuery { id: Some("7".to_owned()), ..all() };
    assert_eq!(audit(&store, of).await, ["event.redeliver 7"]);
    assert!(!store.purge_audit(after(8)).await.unwrap());
    assert_eq!(audit(&store, all()).await, ["event.redeliver 9", "event.purge 8"]);
    close(store).await;
}

/// A change that came too late is not done, and not in the audit.
#[tokio::test]
async fn what_is_not_done_is_not_in_the_audit() {
    let (_folder, store) = fresh();
    let target = "http://localhost/".parse().unwrap();
    let new = Subscription::new("ann".into(), "all".into(), "$".into(), target, after(0));
    let put = async |replaces, name: &str| {
        let note = Some(note(Action::SubscriptionChange, name, 1));
        store.put_subscription(new.clone(), replaces, None, Quota::Holds, note).await.unwrap()
    };
    let Put::Done(first) = put(None, "first").await else { panic!("it is new") };
    assert!(matches!(put(Some(first), "second").await, Put::Done(_)));
    assert!(matches!(put(Some(first), "late").await, Put::Changed(_)));
    assert_eq!(audit(&store, all()).await, ["subscription.change second", "subscription.change first"]);
    close(store).await;
}
