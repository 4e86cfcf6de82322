//! Fills its output, in the way and to the size that its arguments say. A failure ends it with exit code 1.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};

use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags, filesystem_error_code};
use wasip2::io::streams::StreamError;

/// The size of each of many files.
const PIECE: usize = 1000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (way, number) = (arguments[1].as_str(), arguments[2].parse::<usize>().unwrap());
    let done = match way {
        "write" => write(number),
        "append" => append(number),
        "direct" => direct(number),
        "stream" => stream(number),
        "sparse" => File::create("output/f").and_then(|file| file.set_len(number as u64)),
        "far" => far(number),
        "files" => each(number, |n| fs::write(format!("output/{n}"), "")),
        "pieces" => each(number, |n| fs::write(format!("output/{n}"), [0; PIECE])),
        "folders" => each(number, |n| fs::create_dir(format!("output/{n}"))),
        "symlinks" => each(number, |n| symlink(&format!("output/{n}"))),
        "links" => links(number),
        "grow-links" => grow_links(number),
        "again" => each(number, |_| fs::write("output/f", [0; PIECE])),
        "cut" => each(number, cut),
        "replace" => each(number, |_| {
            fs::write("output/new", [0; PIECE])?;
            fs::rename("output/new", "output/f")
        }),
        "temporary" => each(number, |_| {
            fs::write("output/f", [0; PIECE])?;
            fs::remove_file("output/f")
        }),
        "twice" => write(number).and_then(|()| fs::remove_file("output/f")).and_then(|()| write(number)),
        "hoard" => hoard(number),
        "deep" => deep(number),
        "cope" => {
            println!("{}", if write(number).is_ok() { "there is room" } else { "it is full" });
            Ok(())
        }
        way => panic!("what is {way}?"),
    };
    if let Err(error) = done {
        eprintln!("{error:?}");
        std::process::exit(1);
    }
}

/// Calls `once` this many times, and prints how often it succeeded.
fn each(times: usize, mut once: impl FnMut(usize) -> io::Result<()>) -> io::Result<()> {
    for n in 0..times {
        if let Err(error) = once(n) {
            println!("{n}");
            return Err(error);
        }
    }
    println!("{times}");
    Ok(())
}

fn write(bytes: usize) -> io::Result<()> {
    put(&mut File::create("output/f")?, bytes)
}

fn append(bytes: usize) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).create(true).open("output/f")?;
    put(&mut file, bytes / 2)?;
    drop(file);
    put(&mut OpenOptions::new().append(true).open("output/f")?, bytes - bytes / 2)
}

fn put(file: &mut File, bytes: usize) -> io::Result<()> {
    for begin in (0..bytes).step_by(PIECE) {
        file.write_all(&[0; PIECE][..PIECE.min(bytes - begin)])?;
    }
    Ok(())
}

fn far(place: usize) -> io::Result<()> {
    let mut file = File::create("output/f")?;
    file.seek(SeekFrom::Start(place as u64 - 1))?;
    file.write_all(b"x")
}

fn cut(_: usize) -> io::Result<()> {
    let file = File::create("output/f")?;
    file.set_len(2 * PIECE as u64)?;
    file.set_len(1)
}

fn output() -> Descriptor {
    get_directories().into_iter().find(|(_, name)| name == "output").unwrap().0
}

fn open(folder: &Descriptor, path: &str) -> io::Result<Descriptor> {
    let flags = DescriptorFlags::WRITE | DescriptorFlags::READ;
    folder.open_at(PathFlags::empty(), path, OpenFlags::CREATE, flags).map_err(io::Error::other)
}

/// Writes without a stream.
fn direct(bytes: usize) -> io::Result<()> {
    let file = open(&output(), "f")?;
    for begin in (0..bytes).step_by(PIECE) {
        file.write(&[0; PIECE][..PIECE.min(bytes - begin)], begin as u64).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Writes without Rust's library, which maps each error of a stream to EIO.
fn stream(bytes: usize) -> io::Result<()> {
    let file = open(&output(), "f")?;
    let stream = file.write_via_stream(0).map_err(io::Error::other)?;
    let failed = |error: StreamError| {
        let StreamError::LastOperationFailed(error) = error else { return io::Error::other("closed") };
        filesystem_error_code(&error).map_or_else(|| io::Error::other("unknown"), io::Error::other)
    };
    for begin in (0..bytes).step_by(PIECE) {
        stream.blocking_write_and_flush(&[0; PIECE][..PIECE.min(bytes - begin)]).map_err(failed)?;
    }
    Ok(())
}

fn symlink(path: &str) -> io::Result<()> {
    output().symlink_at("x", path.strip_prefix("output/").unwrap()).map_err(io::Error::other)
}

fn links(number: usize) -> io::Result<()> {
    fs::write("output/f", [0; PIECE])?;
    each(number, |n| fs::hard_link("output/f", format!("output/{n}")))
}

/// Grows a file that has ten names.
fn grow_links(number: usize) -> io::Result<()> {
    fs::write("output/f", "")?;
    for n in 0..9 {
        fs::hard_link("output/f", format!("output/{n}"))?;
    }
    let mut file = OpenOptions::new().append(true).open("output/f")?;
    each(number, |_| file.write_all(&[0; PIECE]))
}

/// Keeps deleted files open: they are invisible, and fill the disk.
fn hoard(number: usize) -> io::Result<()> {
    let mut kept = Vec::new();
    each(number, |_| {
        let mut file = File::create("output/f")?;
        fs::remove_file("output/f")?;
        file.write_all(&[0; PIECE])?;
        kept.push(file);
        Ok(())
    })
}

/// Hides pieces so deep that their paths exceed the longest path.
fn deep(number: usize) -> io::Result<()> {
    let name = "d".repeat(200);
    let mut folder = output();
    for _ in 0..30 {
        folder.create_directory_at(&name).map_err(io::Error::other)?;
        let flags = DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY;
        let inner = folder.open_at(PathFlags::empty(), &name, OpenFlags::DIRECTORY, flags);
        folder = inner.map_err(io::Error::other)?;
    }
    each(number, |n| {
        fs::write("output/f", "")?;
        // A measurement after this sees less than there is.
        fs::remove_file("output/f")?;
        open(&folder, &n.to_string())?.write(&[0; PIECE], 0).map_err(io::Error::other)?;
        Ok(())
    })
}
