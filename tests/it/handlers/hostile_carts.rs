//! Tars that a cart service must not send: each is refused for its own reason, and writes nothing outside the folder.

use tar::{Builder, EntryType, Header};

use super::cart::{Cart, row, tar_of};
use super::fetching::{Fetch, cart_at};

/// Builds tars member by member, including members that the tar crate would not write.
struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Appends a member with this path, unchecked.
    fn member(mut self, kind: EntryType, path: &[u8], content: &[u8]) -> Self {
        let mut header = header(kind, path, content.len() as u64);
        if kind == EntryType::Symlink || kind == EntryType::Link {
            header.set_link_name("/etc/passwd").unwrap();
            header.set_cksum();
        }
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.member(EntryType::Regular, path.as_bytes(), content)
    }

    /// Appends PAX records for the next member.
    fn records(mut self, records: &[(&str, &str)]) -> Self {
        self.0.append_pax_extensions(records.iter().map(|(key, value)| (*key, value.as_bytes()))).unwrap();
        self
    }

    fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn header(kind: EntryType, path: &[u8], size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_cksum();
    header
}

/// Fetches the files `a` and `b/c`, each with the content `abc`, while the cart sends this tar.
async fn fetch(tar: Vec<u8>) -> Result<Fetch, String> {
    let cart = Cart::start().await.sending(tar);
    let fetch = Fetch::new();
    let rows = [row(1, "a", b"abc"), row(2, "b/c", b"abc")];
    let fetched = fetch.run(&cart_at(&cart), &rows).await;
    assert_eq!(cart.open_carts(), 0, "it is given back in any case");
    fetched.map(|_| fetch)
}

async fn error(tar: Vec<u8>) -> String {
    fetch(tar).await.err().expect("this tar must be refused")
}

fn good() -> Tar {
    Tar::new().file("data/a", b"abc").file("data/b/c", b"abc")
}

#[tokio::test]
async fn members_in_any_order_with_folders_and_records_are_accepted() {
    let tar = Tar::new()
        .member(EntryType::XGlobalHeader, b"pax_global_header", b"17 comment=hello\n")
        .member(EntryType::Directory, b"data/", b"")
        .records(&[("path", "data/b/c"), ("mtime", "1.5"), ("size", "3")])
        .file("data/renamed", b"abc")
        .member(EntryType::Directory, b"data/never/asked/", b"")
        .file("data/a", b"abc");
    let fetched = fetch(tar.end()).await.unwrap();
    assert_eq!((fetched.read("a"), fetched.read("b/c")), (b"abc".to_vec(), b"abc".to_vec()));
    assert!(!fetched.folder.path().join("never").exists());
    let mut padded = good().end();
    padded.resize(1 << 20, 0);
    fetch(padded).await.unwrap();
}

#[tokio::test]
async fn paths_that_lead_elsewhere_are_refused() {
    for (path, text) in [
        ("/data/a", "`/data/a`, which is refused: the path `/data/a` is absolute"),
        ("data/../../a", "`data/../../a`, which is refused: the path `data/../../a` has a `.` or `..` in it"),
        ("../data/a", "`../data/a`, which is refused"),
        ("./data/a", "`./data/a`, which is refused"),
        ("data//a", "`data//a`, which is refused: the path `data//a` has an empty name in it"),
        ("data/a/", "`data/a/`, which is refused"),
        ("data", "`data`, which does not lie below `data/`"),
        ("a", "`a`, which does not lie below `data/`"),
        ("database/a", "`database/a`, which does not lie below `data/`"),
        ("data/d", "`data/d`, which the event does not name"),
    ] {
        let text = format!("the cart's tar has {text}");
        let found = error(good().file(path, b"abc").end()).await;
        assert!(found.starts_with(&text), "{path}: {found}");
    }
    let found = error(Tar::new().member(EntryType::Regular, b"data/\xff", b"").end()).await;
    assert_eq!(found, "the cart's tar has `data/\u{fffd}`, whose path is not UTF-8");
    let found = error(Tar::new().records(&[("path", "/etc/passwd")]).file("data/a", b"abc").end()).await;
    assert!(found.starts_with("the cart's tar has `/etc/passwd`, which is refused"), "{found}");
}

#[tokio::test]
async fn members_that_are_not_files_are_refused() {
    for (kind, text) in [
        (EntryType::Symlink, "a symbolic link"),
        (EntryType::Link, "a hard link"),
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a named pipe"),
        (EntryType::new(b'V'), "a member of an unknown kind"),
    ] {
        let found = error(Tar::new().member(kind, b"data/a", b"").end()).await;
        assert_eq!(found, format!("the cart's tar has {text}, `data/a`: only files and folders are taken"));
    }
}

#[tokio::test]
async fn files_with_holes_are_refused() {
    let mut holes = header(EntryType::GNUSparse, b"data/a", 3);
    let gnu = holes.as_gnu_mut().unwrap();
    gnu.sparse[0].offset[..12].copy_from_slice(b"00000000000\0");
    gnu.sparse[0].numbytes[..12].copy_from_slice(b"00000000003\0");
    gnu.set_real_size(3);
    holes.set_cksum();
    let mut old = Builder::new(Vec::new());
    old.append(&holes, &b"abc"[..]).unwrap();
    let new = Tar::new().records(&[("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "3")]);
    for tar in [old.into_inner().unwrap(), new.file("data/a", b"abc").end()] {
        let found = error(tar).await;
        assert_eq!(found, "the cart's tar has a file with holes, `data/a`: only files and folders are taken");
    }
}

#[tokio::test]
async fn each_file_must_come_exactly_once_and_as_the_event_says() {
    let twice = error(good().file("data/a", b"abc").end()).await;
    assert_eq!(twice, "the cart's tar has `data/a` twice");
    assert_eq!(error(tar_of([("a", &b"abc"[..])])).await, "the cart's tar has no `b/c`");
    assert_eq!(error(tar_of([])).await, "the cart's tar has no `a` (and 1 more of the event's files)");
    let larger = error(Tar::new().file("data/a", b"abcd").end()).await;
    assert_eq!(larger, "`a` has 4 bytes, and the event says 3");
    let by_record = error(Tar::new().records(&[("size", "900")]).file("data/a", b"abc").end()).await;
    assert_eq!(by_record, "`a` has 900 bytes, and the event says 3");
    let other = error(Tar::new().file("data/a", b"xyz").end()).await;
    assert!(
        other.starts_with("`a` has the sha1 sum ") && other.contains("the event says a9993e36"),
        "{other}"
    );
}

#[tokio::test]
async fn names_of_absurd_size_are_not_read_into_memory() {
    let long = |kind| {
        let mut tar = header(kind, b"././@LongLink", 8 << 30).as_bytes().to_vec();
        tar.resize(4 << 20, b'x');
        tar
    };
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let found = error(long(kind)).await;
        assert_eq!(
            found,
            "the cart's tar has more than 262144 bytes at its beginning that are not in a file"
        );
    }
    // Each is small, but their total is refused.
    let mut many = Tar::new().file("data/a", b"abc");
    for _ in 0..3000 {
        many = many.member(EntryType::Directory, b"data/x/", b"");
    }
    let found = error(many.end()).await;
    assert!(found.contains("after `data/x/` that are not in a file"), "{found}");
    let found =
        error(Tar::new().file("data/a", b"abc").member(EntryType::Directory, b"data/", &[1; 400_000]).end())
            .await;
    assert_eq!(found, "the cart's tar has more than 262144 bytes after `data/` that are not in a file");
    let mut tar = Tar::new();
    let name = format!("data/{}", "n".repeat(5000));
    let mut header = header(EntryType::Regular, b"", 3);
    tar.0.append_data(&mut header, &name, &b"abc"[..]).unwrap();
    let found = error(tar.end()).await;
    assert!(found.len() < 500 && found.ends_with("more than the 4096 that are allowed"), "{found}");
}

#[tokio::test]
async fn damaged_tars_are_refused() {
    for bytes in [0, 100, 512, 600, 1024, 2048] {
        let mut tar = good().end();
        tar.truncate(bytes);
        let found = error(tar).await;
        assert!(found.contains("before its end mark"), "{bytes}: {found}");
    }
    let mut tar = good().end();
    tar.extend(good().end());
    assert_eq!(error(tar).await, "the cart's tar goes on after its end mark");
    let mut tar = good().end();
    tar[1024] ^= 1;
    let found = error(tar).await;
    assert!(found.starts_with("the cart's tar cannot be read after `data/a`: "), "{found}");
    let found = error(b"<html>".repeat(500)).await;
    assert!(found.starts_with("the cart's tar cannot be read at its beginning: "), "{found}");
}
