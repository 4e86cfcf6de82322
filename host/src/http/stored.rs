//! An answer that is the same for everybody, stored plain and compressed: who asks for it often costs little.

use std::io::Write as _;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The answer.
pub(super) struct Stored {
    plain: Bytes,
    packed: Bytes,
    content_type: &'static str,
}

impl Stored {
    pub(super) fn new(text: String, content_type: &'static str) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text.as_bytes()).expect("a vector takes what is written");
        let packed = encoder.finish().expect("a vector takes what is written").into();
        Self { plain: text.into(), packed, content_type }
    }

    /// Answers a request, compressed if it takes that. Quality values are ignored.
    pub(super) fn answer(&self, request: &HeaderMap) -> Response {
        let accepted = request.get_all(header::ACCEPT_ENCODING).iter();
        let is_packed = accepted.filter_map(|value| value.to_str().ok()).any(|value| value.contains("gzip"));
        let body = if is_packed { &self.packed } else { &self.plain };
        let mut response = body.clone().into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if is_packed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}
