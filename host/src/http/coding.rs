//! `Content-Encoding`: decodes compressed bodies before anything else reads them. The limit applies to the decoded
//! bytes, which may be a thousand times as many as were sent.

use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue, header};
use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::body::{Fault, Limit};
use super::error::ApiError;
use super::room::{Room, RoomPermit};

/// The codings that are decoded here, in the form of `Accept-Encoding` (RFC 9110 §12.5.3).
const ACCEPTED: HeaderValue = HeaderValue::from_static("gzip, deflate, br, zstd");
/// The most codings of one body, applied one after the other.
const CODINGS_MAX: usize = 3;
/// How much is decoded between two checks of the clock.
const STEP_BYTES: usize = 64 * 1024;
/// The largest window of zstd in HTTP (RFC 9659 §3).
const ZSTD_WINDOW_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The codings that were applied to a body, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Codings(Vec<Coding>);

impl Codings {
    /// Reads `Content-Encoding`. A body without codings has no such header, or `identity`.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut codings = Vec::new();
        for value in headers.get_all(header::CONTENT_ENCODING) {
            for name in String::from_utf8_lossy(value.as_bytes()).split(',') {
                codings.extend(Coding::named(name.trim())?);
            }
        }
        if codings.len() > CODINGS_MAX {
            let detail = format!(
                "the body has {} content codings, and at most {CODINGS_MAX} are allowed",
                codings.len()
            );
            return Err(unsupported(detail));
        }
        Ok(Self(codings))
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Decodes a body, within its limit.
    pub(super) async fn undo<'a>(
        self,
        packed: Bytes,
        mut taken: RoomPermit<&'a Room>,
        limit: &'a Limit,
        deadline: Instant,
    ) -> Result<(Bytes, RoomPermit<&'a Room>), Fault> {
        let Some(outermost) = self.0.last().copied().filter(|_| !packed.is_empty()) else {
            return Ok((packed, taken));
        };
        let permit = Arc::clone(&limit.room.decoders).acquire_owned().await;
        let (room, most, packed_bytes) = (Arc::clone(&limit.room), limit.bytes, packed.len());
        let decoding = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let (mut bytes, mut taken) = (packed, RoomPermit::of(Arc::clone(&room)));
            for coding in self.0.into_iter().rev() {
                let mut output = Output::new(Arc::clone(&room), most, deadline);
                coding.undo(&bytes, &mut output)?;
                output.bytes.shrink_to_fit();
                (bytes, taken) = (output.bytes.into(), output.taken);
            }
            Ok::<_, Fault>((bytes, taken))
        });
        let (bytes, more) = match decoding.await {
            Ok(decoded) => decoded?,
            Err(error) => {
                tracing::error!(%error, "failed to decode a body");
                return Err(Fault::Undecodable {
                    coding: outermost.name(),
                    reason: "its decoder failed".to_owned(),
                });
            }
        };
        taken.give_back(packed_bytes);
        taken.absorb(more);
        Ok((bytes, taken))
    }
}

impl Coding {
    fn named(name: &str) -> Result<Option<Self>, ApiError> {
        match name.to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            "br" => Ok(Some(Self::Brotli)),
            "zstd" => Ok(Some(Self::Zstd)),
            _ => Err(unsupported(format!(
                "the content coding `{name}` is not supported: send gzip, deflate, br, zstd, or no coding"
            ))),
        }
    }

    fn undo(self, packed: &[u8], output: &mut Output) -> Result<(), Fault> {
        let undone = match self {
            Self::Gzip => gzip(packed, output),
            Self::Deflate => deflate(packed, output),
            Self::Brotli => brotli(packed, output),
            Self::Zstd => zstd(packed, output),
        };
        undone.map_err(|stop| match stop {
            Stop::Fault(fault) => fault,
            Stop::Broken(reason) => Fault::Undecodable { coding: self.name(), reason },
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

fn unsupported(detail: String) -> ApiError {
    ApiError::unsupported(detail).with(header::ACCEPT_ENCODING, ACCEPTED)
}

/// The decoded bytes, within their limits.
struct Output {
    bytes: Vec<u8>,
    taken: RoomPermit<Arc<Room>>,
    most: usize,
    deadline: Instant,
}

/// Why decoding stops.
enum Stop {
    /// A limit is reached.
    Fault(Fault),
    /// The bytes are not valid in this coding.
    Broken(String),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

fn broken(reason: impl ToString) -> Stop {
    Stop::Broken(reason.to_string())
}

/// Ends a stream. It must be the end of the body, so no bytes may be `left`.
fn end(left: usize) -> Result<(), Stop> {
    match left {
        0 => Ok(()),
        _ => Err(broken(format!("{left} bytes follow its end"))),
    }
}

fn too_short() -> Stop {
    broken("it ends too early")
}

impl Output {
    fn new(room: Arc<Room>, most: usize, deadline: Instant) -> Self {
        Self { bytes: Vec::new(), taken: RoomPermit::of(room), most, deadline }
    }

    /// Appends decoded bytes. A step that yields none must call it too, so that its time counts.
    fn push(&mut self, part: &[u8]) -> Result<(), Fault> {
        if Instant::now() > self.deadline {
            return Err(Fault::TooSlow);
        }
        if part.len() > self.most - self.bytes.len() {
            return Err(Fault::TooLarge);
        }
        self.taken.add(part.len())?;
        self.bytes.extend_from_slice(part);
        Ok(())
    }
}

/// RFC 1952: members, one after the other.
fn gzip(packed: &[u8], output: &mut Output) -> Result<(), Stop> {
    let (mut decoder, mut step) = (GzDecoder::new(packed), vec![0; STEP_BYTES]);
    loop {
        let made = decoder.read(&mut step).map_err(broken)?;
        // Called at the end of each member too: a body may have a million empty members.
        output.push(&step[..made])?;
        if made == 0 {
            let rest = *decoder.get_ref();
            if rest.is_empty() {
                return Ok(());
            }
            decoder.reset(rest);
        }
    }
}

/// RFC 1950, or bare RFC 1951, which some clients send as `deflate`.
fn deflate(packed: &[u8], output: &mut Output) -> Result<(), Stop> {
    let has_header = matches!(packed, [method, flags, ..] if method & 0xf == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0);
    let (mut decoder, mut step) = (Decompress::new(has_header), vec![0; STEP_BYTES]);
    let mut rest = packed;
    loop {
        let (read, made) = (decoder.total_in(), decoder.total_out());
        let status = decoder.decompress(rest, &mut step, FlushDecompress::None).map_err(broken)?;
        let [read, made] = [decoder.total_in() - read, decoder.total_out() - made]
            .map(|count| usize::try_from(count).expect("no more than the buffers have"));
        rest = &rest[read..];
        output.push(&step[..made])?;
        match status {
            Status::StreamEnd => return end(rest.len()),
            Status::Ok | Status::BufError if read == 0 && made == 0 => return Err(too_short()),
            Status::Ok | Status::BufError => {}
        }
    }
}

/// RFC 7932.
fn brotli(packed: &[u8], output: &mut Output) -> Result<(), Stop> {
    let allocator = StandardAlloc::default;
    let mut state = BrotliState::new_strict(allocator(), allocator(), allocator());
    let (mut step, mut read, mut total) = (vec![0; STEP_BYTES], 0, 0);
    loop {
        // Input is passed in pieces, because much of it may go in before anything comes out.
        let (begin, end_of_piece) = (read, packed.len().min(read + STEP_BYTES));
        let (mut available, mut space, mut made) = (end_of_piece - read, step.len(), 0);
        let result = BrotliDecompressStream(
            &mut available,
            &mut read,
            &packed[..end_of_piece],
            &mut space,
            &mut made,
            &mut step,
            &mut total,
            &mut state,
        );
        output.push(&step[..made])?;
        match result {
            BrotliResult::ResultSuccess => return end(packed.len() - read),
            BrotliResult::ResultFailure => return Err(broken("its bytes are not a brotli stream")),
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput if read == begin && made == 0 => {
                return Err(too_short());
            }
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
        }
    }
}

/// RFC 8878: frames, one after the other.
fn zstd(packed: &[u8], output: &mut Output) -> Result<(), Stop> {
    let (mut decoder, mut step) = (FrameDecoder::new(), vec![0; STEP_BYTES]);
    decoder.set_max_window_size(ZSTD_WINDOW_BYTES);
    let mut rest = packed;
    while !rest.is_empty() {
        match decoder.reset(&mut rest) {
            Ok(()) => {}
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                rest = rest.get(length..).ok_or_else(too_short)?;
                output.push(&[])?;
                continue;
            }
            Err(error) => return Err(broken(error)),
        }
        loop {
            decoder.decode_blocks(&mut rest, BlockDecodingStrategy::UptoBlocks(1)).map_err(broken)?;
            output.push(&[])?;
            while decoder.can_collect() > 0 {
                let made = decoder.read(&mut step).map_err(broken)?;
                output.push(&step[..made])?;
            }
            if decoder.is_finished() {
                break;
            }
        }
        if let Some(sum) = decoder.get_checksum_from_data()
            && decoder.get_calculated_checksum() != Some(sum)
        {
            return Err(broken("its checksum is wrong"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
