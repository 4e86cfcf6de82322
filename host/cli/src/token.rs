//! `waypost token`: creates, lists and revokes tokens, on a running server or in the data folder of a stopped one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use reqwest::{Method, Url};
use serde_json::{Map, Value};

use crate::client::{Client, DEFAULT_SERVER, Identity};
use crate::print;
use waypost::config::{CA_FILE_VARIABLE, Config, Sources};
use waypost::identity::secret;
use waypost::service;
use waypost_api::v1;
use waypost_domain::access::token_text;
use waypost_domain::{Action, Actor, AuditEntry, Scope, SecretHash, TokenId};
use waypost_runtime::clock;
use waypost_store::Store;

/// Create, list and revoke tokens, with which programs and people authenticate
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Create a token, and print it; it is not shown again
///
/// By default a token may send events, see what its user sees, and change what its user owns. --scope limits it to some
/// of these; --admin allows everything.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost token create --user ann --name laptop --expires 90d
  waypost token create --user detector --scope receive
  waypost token create --user root --admin --data /var/lib/waypost    before the first start
  TOKEN=$(waypost token create --user ann); curl -H \"Authorization: Bearer $TOKEN\" localhost:8070/me")]
pub(super) struct Create {
    /// The user that the token acts for
    #[arg(long, value_name = "USER")]
    user: String,
    /// A name to recognize the token by
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// What it may be used for: receive, read or subscribe; may be given several times [default: all three]
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<v1::Scope>,
    /// Allow everything, for all users
    #[arg(long)]
    admin: bool,
    /// When it expires: after a while (`90d`), or at a time [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// List tokens: yours, or all users' if you are an admin
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Revoke a token, and end the sessions that were started with it
#[derive(Debug, clap::Args)]
pub(super) struct Revoke {
    /// The token's id, as `waypost token list` shows it
    id: TokenId,
    #[command(flatten)]
    place: Place,
}

/// Where the tokens are.
#[derive(Debug, clap::Args)]
struct Place {
    /// The data folder of a stopped server, instead of --server
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    data: Option<PathBuf>,
    /// The Waypost to ask
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    server: Url,
    /// Authenticate with the token in this file [env: WAYPOST_TOKEN holds the token itself]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust only the certificate authorities in this PEM file, instead of the system's
    #[arg(long, value_name = "FILE", env = CA_FILE_VARIABLE)]
    ca_file: Option<PathBuf>,
}

impl Place {
    fn client(self) -> anyhow::Result<Client> {
        Client::new(self.server, &Identity::by_token(self.token_file, self.ca_file), "--server")
    }
}

fn scope(name: &str) -> Result<v1::Scope, String> {
    match Scope::of(name) {
        Some(Scope::Receive) => Ok(v1::Scope::Receive),
        Some(Scope::Read) => Ok(v1::Scope::Read),
        Some(Scope::Subscribe) => Ok(v1::Scope::Subscribe),
        Some(Scope::Admin) => Ok(v1::Scope::Admin),
        None => Err(format!("the scopes are {}", Scope::ALL.map(Scope::name).join(", "))),
    }
}

fn words(scopes: &[v1::Scope], separator: &str) -> String {
    scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(separator)
}

pub(super) async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(create) => make(create).await,
        Command::List(list) => show(list).await,
        Command::Revoke(revoke) => remove(revoke).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

async fn make(Create { user, name, mut scopes, admin, expires, place }: Create) -> anyhow::Result<()> {
    scopes.extend(admin.then_some(v1::Scope::Admin));
    let scopes = (!scopes.is_empty()).then_some(scopes);
    let body = v1::NewToken { user, name, scopes, expires };
    let v1::Token { id, user, scopes, expires, token, .. } = match place.data {
        Some(data) => create_in(data, &body).await?,
        None => {
            let client = place.client()?;
            let request = client.request(Method::POST, &["tokens"]);
            let request = request.header("content-type", "application/json");
            client.json(request.body(serde_json::to_string(&body)?)).await?
        }
    };
    print::line(token.context("the server created the token, but did not return it")?)?;
    let end = expires.map_or_else(|| "never ends".to_owned(), |expires| format!("ends {expires}"));
    let scopes = words(&scopes, ", ");
    print::notice(&format!("token {id} of {user}: {scopes}; {end}. It is not shown again."));
    Ok(())
}

async fn show(List { json, place }: List) -> anyhow::Result<()> {
    let tokens: Vec<v1::Token> = match place.data {
        Some(data) => {
            let store = open(data).await?;
            let tokens = store.tokens().all().into_iter().filter(|known| known.token.session_of.is_none());
            let shown = tokens.map(|known| waypost::http::show_token(&known.token, known.used())).collect();
            store.close().await;
            shown
        }
        None => {
            let client = place.client()?;
            client.json(client.request(Method::GET, &["tokens"])).await?
        }
    };
    if json {
        return print::json(&tokens);
    }
    for v1::Token { id, name, user, scopes, expires, last_used, .. } in tokens {
        let used = last_used.map_or_else(|| "never used".to_owned(), |used| format!("used {used}"));
        let end = expires.map(|expires| format!("  ends {expires}")).unwrap_or_default();
        print::line(format_args!("{id}  {user}  {}  {used}{end}  {name}", words(&scopes, ",")))?;
    }
    Ok(())
}

async fn remove(Revoke { id, place }: Revoke) -> anyhow::Result<()> {
    match place.data {
        Some(data) => {
            let store = open(data).await?;
            let note = AuditEntry::new(Action::TokenRevoke, id, &Actor::program(""), clock::now());
            let removed = store.remove_token(id, Some(note)).await;
            store.close().await;
            anyhow::ensure!(removed?, "there is no token {id}");
        }
        None => {
            let client = place.client()?;
            client.text(client.request(Method::DELETE, &["tokens", &id.to_string()])).await?;
        }
    }
    print::line(format_args!("revoked {id}"))?;
    Ok(())
}

/// Creates a token in a data folder.
async fn create_in(data: PathBuf, body: &v1::NewToken) -> anyhow::Result<v1::Token> {
    let body: Map<String, Value> = serde_json::from_value(serde_json::to_value(body)?)?;
    let (now, secret) = (clock::now(), secret());
    let mut token = waypost::http::wanted_token(body, now).map_err(anyhow::Error::msg)?;
    let text = token_text(&secret);
    token.hash = SecretHash::of(&text);
    let store = open(data).await?;
    let note = AuditEntry::new(Action::TokenCreate, token.id, &Actor::program(""), now).of(&token.user);
    let note = note.with("name", token.name.as_str()).with("scopes", token.scopes.to_string());
    let kept = store.put_token(token.clone(), note).await;
    store.close().await;
    kept.context("failed to store the token")?;
    Ok(v1::Token { token: Some(text), ..waypost::http::show_token(&token, None) })
}

/// Opens the store as `waypost serve` would with the same folder.
async fn open(data: PathBuf) -> anyhow::Result<std::sync::Arc<Store>> {
    let mut sources = Sources::from_environment(std::env::vars_os())?;
    sources.flags = BTreeMap::from([("data".to_owned(), data.to_string_lossy().into_owned())]);
    Ok(service::open_store(&Config::load(sources)?).await?)
}
