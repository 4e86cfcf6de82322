//! An answer that is the same for everybody, stored plain and compressed: who asks for it often costs little.

use std::io::Write as _;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The answer.
pub(super) struct StaticBody {
    plain: Bytes,
    packed: Bytes,
    content_type: &'static str,
}

impl StaticBody {
    pub(super) fn new(text: String, content_type: &'static str) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text.as_bytes()).expect("a vector takes what is written");
        let packed = encoder.finish().expect("a vector takes what is written").into();
        Self { plain: text.into(), packed, content_type }
    }

    /// Answers a request, compressed if it takes that.
    pub(super) fn answer(&self, request: &HeaderMap) -> Response {
        let is_packed = takes_gzip(request);
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

/// Tells whether a request takes gzip (RFC 9110 §12.5.3).
fn takes_gzip(request: &HeaderMap) -> bool {
    let values = request.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| {
        let (coding, quality) = part.split_once(";q=").unwrap_or((part, "1"));
        coding.trim() == "gzip" && quality.trim().parse::<f32>().is_ok_and(|quality| quality > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_compressed_for_those_who_take_it() {
        let body = StaticBody::new("a".repeat(1_000), "text/plain");
        for (accepted, is_packed) in
            [("gzip", true), ("br, gzip;q=0.5", true), ("gzip;q=0", false), ("br", false), ("", false)]
        {
            let request =
                HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(accepted))]);
            let answer = body.answer(&request);
            assert_eq!(answer.headers().contains_key(header::CONTENT_ENCODING), is_packed, "{accepted}");
        }
    }
}
