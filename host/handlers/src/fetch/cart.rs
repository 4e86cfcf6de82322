//! Pacifica's cart service: orders a cart, polls it until its files are there, downloads it and deletes it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use reqwest::{RequestBuilder, Response, Url};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::copy::Copier;
use super::member::Folders;
use super::plan::Plan;
use super::stream::Incoming;
use super::unpack::unpack;
use super::{CartError, Error, FetchLimits};
use crate::excerpt::excerpt;
use crate::meter::Meter;
use crate::work;
use waypost_domain as domain;
use waypost_domain::parts::File;
use waypost_net::{self as net, Version, without_credentials};

/// The longest that the service may send nothing, before or during a response.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The first pause between two polls of the cart. It doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The pause of Pacifica's own client.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How many polls in a row may get no answer: the service may be restarting.
const UNREACHED_MAX: u32 = 5;
/// The longest that deleting a cart may delay a run.
const DISCARD_MAX: Duration = Duration::from_secs(5);
/// How many pieces of the body may wait for the disk. Each is what one read of the socket got, at most 400 KiB.
const PIECES_MAX: usize = 8;
/// The most characters of an answer that an error shows.
const MESSAGE_MAX: usize = 1024;
/// The most bytes of an answer's body that are read for an error.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// A cart service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    http: reqwest::Client,
    url: Url,
    timeout: Duration,
}

impl Service {
    pub(super) fn new(url: &Url, timeout: Duration, connect_timeout: Duration) -> Result<Self, CartError> {
        if url.cannot_be_a_base() || !url.has_host() {
            return Err(CartError::Url(without_credentials(url)));
        }
        // A cart takes a handful of requests. Without idle connections, none of them meets one that the service is
        // about to close.
        let http = net::service(Version::Any, None, |client| {
            client.connect_timeout(connect_timeout).read_timeout(SILENCE_MAX).pool_max_idle_per_host(0)
        });
        let http = http.map_err(CartError::Client)?;
        Ok(Self { http, url: url.clone(), timeout })
    }

    /// Fetches files. The cart is deleted after success and failure. If the future is dropped, the cart is not deleted;
    /// the service removes old carts by itself.
    pub(super) async fn fetch(
        &self,
        files: &[File],
        plan: Plan,
        download: &Path,
        limits: FetchLimits,
        meter: &Arc<Meter>,
    ) -> Result<u64, Error> {
        let order = order(files)?;
        let cart = self.new_cart();
        let request = self.http.post(cart.clone()).json(&order);
        self.ask("POST", &cart, request, StatusCode::CREATED).await?;
        let fetched = match self.ready(&cart).await {
            Ok(()) => self.download(&cart, plan, download, limits, meter).await,
            Err(error) => Err(error.into()),
        };
        self.discard(cart).await;
        fetched
    }

    fn new_cart(&self) -> Url {
        let mut cart = self.url.clone();
        if let Ok(mut path) = cart.path_segments_mut() {
            path.pop_if_empty().push(&Uuid::new_v4().to_string());
        }
        cart
    }

    /// Sends a request and expects an answer with this status.
    async fn ask(
        &self,
        method: &'static str,
        url: &Url,
        request: RequestBuilder,
        expected: StatusCode,
    ) -> Result<Response, CartError> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                return Err(CartError::NoAnswer {
                    method,
                    url: without_credentials(url),
                    source: error.without_url(),
                });
            }
        };
        match response.status() {
            status if status == expected => Ok(response),
            status => Err(CartError::Refused {
                method,
                url: without_credentials(url),
                status,
                message: message(response).await,
            }),
        }
    }

    /// Waits until a cart's files are there.
    async fn ready(&self, cart: &Url) -> Result<(), CartError> {
        let mut state = "never asked".to_owned();
        let ready = tokio::time::timeout(self.timeout, self.watch(cart, &mut state)).await;
        ready.unwrap_or(Err(CartError::NotReady { timeout: self.timeout, state }))
    }

    /// Polls a cart's state until it is ready or fails. `state` holds the last one, also when this future is dropped.
    async fn watch(&self, cart: &Url, state: &mut String) -> Result<(), CartError> {
        let (mut pause, mut unreached) = (PAUSE_FIRST, 0);
        loop {
            match self.ask("HEAD", cart, self.http.head(cart.clone()), StatusCode::NO_CONTENT).await {
                Ok(response) => {
                    unreached = 0;
                    *state = header(&response, "x-pacifica-status");
                    match state.as_str() {
                        "ready" => return Ok(()),
                        "error" => {
                            let (status, message) = (response.status(), message(response).await);
                            return Err(CartError::Refused {
                                method: "HEAD",
                                url: without_credentials(cart),
                                status,
                                message,
                            });
                        }
                        _ => {}
                    }
                }
                Err(CartError::NoAnswer { source, .. }) if unreached < UNREACHED_MAX => {
                    unreached += 1;
                    *state = format!("not to be asked: {}", waypost_runtime::chain::text(&source));
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn download(
        &self,
        cart: &Url,
        plan: Plan,
        download: &Path,
        limits: FetchLimits,
        meter: &Arc<Meter>,
    ) -> Result<u64, Error> {
        let mut url = cart.clone();
        url.query_pairs_mut().append_pair("filename", "data");
        let response = self.ask("GET", &url, self.http.get(url.clone()), StatusCode::OK).await?;
        let folders = Folders::of(cart.path_segments().and_then(|mut names| names.next_back()));
        let (download, meter) = (download.to_owned(), Arc::clone(meter));
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let unpacking = work::run(move |stop| {
            let mut copier = Copier::new(download, limits, meter, stop);
            unpack(&Incoming::new(receiver), &folders, &plan.wanted, &mut copier).map(|()| copier.bytes())
        });
        forward(response, sender).await;
        unpacking.await
    }

    /// Deletes a cart, so that the service need not keep it. If that fails, the service removes it by its age.
    async fn discard(&self, cart: Url) {
        match self.http.delete(cart).timeout(DISCARD_MAX).send().await.map(|response| response.status()) {
            Ok(status) if status.is_success() => {}
            Ok(status) => tracing::debug!(%status, "a cart was not deleted"),
            Err(error) => {
                let error = error.without_url();
                tracing::debug!(error = waypost_runtime::chain::text(&error), "a cart was not deleted");
            }
        }
    }
}

/// Forwards a body as it is received, until it ends or the receiver is dropped.
async fn forward(mut response: Response, sender: mpsc::Sender<super::stream::Piece>) {
    loop {
        let piece = response.chunk().await.map_err(reqwest::Error::without_url).transpose();
        let Some(piece) = piece else { return };
        let is_last = piece.is_err();
        if sender.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

/// Returns the body to POST: the files by their ids.
fn order(files: &[File]) -> Result<Value, CartError> {
    let file = |file: &File| {
        let unknown = |field| CartError::Unknown { path: file.path.clone(), field };
        if !matches!(file.id, Value::Number(_) | Value::String(_)) {
            return Err(unknown("id (`_id`)"));
        }
        let hash = file.hash.as_ref().ok_or_else(|| unknown("hash sum (`hashtype` and `hashsum`)"))?;
        let path = file.path.as_str();
        Ok(json!({"id": file.id, "hashsum": hash.sum, "hashtype": hash.kind, "path": path}))
    };
    let files = files.iter().map(file).collect::<Result<Vec<_>, _>>()?;
    Ok(json!({"fileids": files}))
}

/// Returns the explanation in an answer: the protocol's header, or CherryPy's error in the body.
async fn message(response: Response) -> String {
    let mut message = header(&response, "x-pacifica-message");
    if message.is_empty() {
        let mut body = Vec::new();
        let response = reqwest::Body::from(response);
        let _missing = net::beginning(response, MESSAGE_BYTES_MAX, &mut body, std::future::pending()).await;
        let json: Option<Value> = domain::json::read(&body).ok();
        message = match json.as_ref().and_then(|json| json["message"].as_str()) {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&body).into_owned(),
        };
    }
    match excerpt(&message, MESSAGE_MAX) {
        text if text.is_empty() => "it does not say why".to_owned(),
        text => text,
    }
}

fn header(response: &Response, name: &str) -> String {
    let value = response.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    excerpt(&value.unwrap_or_default(), MESSAGE_MAX)
}
