use std::io::Write;
use std::time::Duration;

use axum::response::IntoResponse;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

/// 64 MiB of zeros, compressed by Google's brotli.
const BROTLI_BOMB: &str = "cfffff7f002400e2b14072effff9ffff0f8004401c1680eefd3fffffff01900088c302d0bdffe7ffff3f001200715800baf7ff03";
const BROTLI: (&str, &str) = (
    "hello hello hello hello brotli, packed with the real one",
    "1f370000c46d6c5df9dd53e4082421820d3870482cc2681f36c6a6630bd238b1e90352e7d70412c886740f31e6988297",
);
/// With a checksum.
const ZSTD: (&str, &str) = (
    "hello hello hello hello zstd, packed with the real one",
    "28b52ffd04685d0100440268656c6c6f207a7374642c207061636b6564207769746820746865207265616c206f6e650100f14a1117362700",
);

fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bare_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

/// Puts bytes into uncompressed meta-blocks (RFC 7932 §9.2).
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (place, part) in bytes.chunks(1 << 16).enumerate() {
        let bits = (part.len() - 1) << 3 | 1 << 19;
        // One bit for the window precedes the first.
        packed.extend_from_slice(&(bits << usize::from(place == 0)).to_le_bytes()[..3]);
        packed.extend_from_slice(part);
    }
    packed.push(if packed.is_empty() { 6 } else { 3 });
    packed
}

fn codings(names: &[&str]) -> Result<Codings, ApiError> {
    let mut headers = HeaderMap::new();
    for name in names {
        headers.append(header::CONTENT_ENCODING, name.parse().unwrap());
    }
    Codings::of(&headers)
}

fn limit(bytes: usize) -> Limit {
    let room = Arc::new(Room::new(1 << 30));
    Limit { what: "the event", key: "event_bytes_max", bytes, timeout: Duration::from_secs(60), room }
}

async fn undo(names: &[&str], packed: Vec<u8>, limit: &Limit) -> Result<Bytes, Fault> {
    let mut taken = RoomPermit::of(&*limit.room);
    taken.add(packed.len()).unwrap();
    let deadline = Instant::now() + limit.timeout;
    let (bytes, taken) = codings(names).unwrap().undo(packed.into(), taken, limit, deadline).await?;
    assert_eq!(taken.bytes(), bytes.len());
    Ok(bytes)
}

async fn reason(name: &str, packed: Vec<u8>) -> String {
    let error = undo(&[name], packed, &limit(1 << 20)).await.unwrap_err();
    assert!(matches!(&error, Fault::Undecodable { coding, .. } if *coding == name), "{name}: {error:?}");
    format!("{error:?}")
}

#[tokio::test]
async fn every_coding_is_undone() {
    let text: String = (0..40_000).map(|n: u32| format!("{} ", n.wrapping_mul(2_654_435_761))).collect();
    let (text, limit) = (text.as_bytes(), limit(1 << 20));
    for (names, packed) in [
        (&["gzip"][..], gzip(text)),
        (&["X-GZIP"], gzip(text)),
        (&["gzip"], [gzip(&text[..9]), gzip(b""), gzip(&text[9..])].concat()),
        (&["deflate"], zlib(text)),
        (&["deflate"], bare_deflate(text)),
        (&["br"], brotli(text)),
        (&["zstd"], zstd(text)),
        (&["zstd"], [hex("502a4d1803000000616263"), zstd(&text[..9]), zstd(&text[9..])].concat()),
        (&["identity"], text.to_vec()),
        (&["", "identity,"], text.to_vec()),
        (&["gzip, br"], brotli(&gzip(text))),
        (&["zstd,identity", "deflate , gzip"], gzip(&zlib(&zstd(text)))),
    ] {
        assert_eq!(undo(names, packed, &limit).await.unwrap(), text, "{names:?}");
    }
    assert_eq!(undo(&["br"], hex(BROTLI.1), &limit).await.unwrap(), BROTLI.0);
    assert_eq!(undo(&["zstd"], hex(ZSTD.1), &limit).await.unwrap(), ZSTD.0);
    for (name, packed) in
        [("gzip", gzip(b"")), ("deflate", zlib(b"")), ("br", brotli(b"")), ("zstd", zstd(b""))]
    {
        assert_eq!(undo(&[name], Vec::new(), &limit).await.unwrap(), "", "no body at all");
        assert_eq!(undo(&[name], packed, &limit).await.unwrap(), "", "{name}");
    }
}

/// A megabyte may become gigabytes, so the output is counted while it is decoded.
#[tokio::test]
async fn a_bomb_ends_at_the_limit() {
    // A block that ends on a byte boundary and refers to nothing before it can be repeated.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&vec![0; 1 << 20]).unwrap();
    encoder.flush().unwrap();
    let (head, piece) = encoder.get_ref().split_at(10);
    let gzip_bomb = [head, &piece.repeat(1000)].concat();
    assert!(gzip_bomb.len() < 2 << 20, "{}", gzip_bomb.len());
    let deflate_bomb = gzip_bomb[10..].to_vec();
    // Blocks of one repeated byte (RFC 8878 §3.1.1.2.2): 4 bytes for 128 KiB.
    let zstd_bomb = [&hex("28b52ffd0050")[..], &hex("02001000").repeat(8192)].concat();
    for (name, bomb) in
        [("gzip", gzip_bomb), ("deflate", deflate_bomb), ("br", hex(BROTLI_BOMB)), ("zstd", zstd_bomb)]
    {
        // If decoded bytes beyond the limit were counted later, they would not fit into this memory.
        let limit = Limit { room: Arc::new(Room::new(4 << 20)), ..limit(1 << 20) };
        let error = undo(&[name], bomb.clone(), &limit).await.unwrap_err();
        assert!(matches!(error, Fault::TooLarge), "{name}: {error:?}");
        let limit = Limit { room: Arc::new(Room::new(1 << 30)), ..limit };
        let late = Limit { timeout: Duration::ZERO, bytes: 1 << 30, ..limit.clone() };
        let error = undo(&[name], bomb, &late).await.unwrap_err();
        assert!(matches!(error, Fault::TooSlow), "{name}: {error:?}");
        let mut all = RoomPermit::of(&*limit.room);
        all.add((1 << 30) / 4 * 3).unwrap();
    }
}

/// Empty members were all read before the next check of the clock: a module's body has room for 1.6 million.
#[tokio::test]
async fn empty_members_take_their_time_as_well() {
    let packed = [&gzip(b"").repeat(1000)[..], b"what is no member"].concat();
    assert!(reason("gzip", packed.clone()).await.contains("header"));
    let late = Limit { timeout: Duration::ZERO, ..limit(1 << 20) };
    let error = undo(&["gzip"], packed, &late).await.unwrap_err();
    assert!(matches!(error, Fault::TooSlow), "{error:?}");
}

#[tokio::test]
async fn decoded_bytes_take_room_as_well() {
    let limit = Limit { room: Arc::new(Room::new(1 << 20)), ..limit(2 << 20) };
    let error = undo(&["gzip"], gzip(&vec![0; 1 << 20]), &limit).await.unwrap_err();
    assert!(matches!(error, Fault::Full(_)), "{error:?}");
    RoomPermit::of(&*limit.room).add(700_000).unwrap();
}

#[tokio::test]
async fn broken_streams_are_named() {
    let text = b"some text, some text, some text".repeat(10);
    for (name, packed) in [
        ("gzip", gzip(&text)),
        ("deflate", zlib(&text)),
        ("deflate", bare_deflate(&text)),
        ("br", hex(BROTLI.1)),
        ("zstd", hex(ZSTD.1)),
    ] {
        for cut in [1, 2, packed.len() / 2, packed.len() - 1] {
            reason(name, packed[..cut].to_vec()).await;
        }
        reason(name, [&packed[..], b"x"].concat()).await;
        reason(name, text.clone()).await;
    }
    let mut gzipped = gzip(&text);
    let sum = gzipped.len() - 8;
    gzipped[sum] ^= 1;
    assert!(reason("gzip", gzipped).await.contains("checksum"));
    let mut sum = hex(ZSTD.1);
    *sum.last_mut().unwrap() ^= 1;
    assert!(reason("zstd", sum).await.contains("checksum"));
    // A window of 16 MiB.
    assert!(reason("zstd", hex("28b52ffd0070")).await.contains("indow"));
}

proptest! {
    /// Decoders have to cope with arbitrary bytes.
    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(
        text in prop::collection::vec(any::<u8>(), 0..600),
        place in any::<prop::sample::Index>(),
        change in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let packed = [gzip(&text), zlib(&text), brotli(&text), zstd(&text), hex(BROTLI.1), hex(ZSTD.1), text];
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
            for mut packed in packed.iter().filter(|packed| !packed.is_empty()).cloned() {
                let place = place.index(packed.len());
                packed[place] ^= change;
                if cut {
                    packed.truncate(place);
                }
                let limit = limit(1 << 16);
                let deadline = Instant::now() + limit.timeout;
                let mut output = Output::new(limit.room, limit.bytes, deadline);
                let undone = coding.undo(&packed, &mut output);
                prop_assert!(!matches!(undone, Err(Fault::TooSlow | Fault::Full(_) | Fault::BrokeOff)));
                prop_assert!(output.bytes.len() <= 1 << 16);
            }
        }
    }
}

#[test]
fn an_unknown_coding_is_415_with_the_known_ones() {
    for names in
        [&["compress"][..], &["gzip, aws-chunked"], &["gzip;q=1"], &["gzip,gzip,gzip", "gzip"], &["*"]]
    {
        let response = codings(names).unwrap_err().into_response();
        assert_eq!(response.status(), 415, "{names:?}");
        assert_eq!(response.headers()[header::ACCEPT_ENCODING], "gzip, deflate, br, zstd");
    }
}
