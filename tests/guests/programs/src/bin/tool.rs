//! Does what its arguments say: shows what it was given, or ends in one of the ways in which a program can end.

use std::io::{Read, Write};
use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, OutgoingRequest, Scheme};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[1..] {
        [] => {}
        ["show", ..] => show(),
        ["exit", code] => std::process::exit(code.parse().unwrap()),
        ["exit-with-code", code] => wasip2::cli::exit::exit_with_code(code.parse().unwrap()),
        ["panic"] => panic!("oh no"),
        ["abort"] => std::process::abort(),
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        ["sleep"] => std::thread::sleep(Duration::from_secs(3600)),
        ["recurse"] => println!("{}", recurse(1)),
        ["memory"] => memory(),
        ["try-memory"] => println!("{}", Vec::<u8>::new().try_reserve_exact(1 << 30).is_err()),
        ["say", mebibytes] => say(mebibytes.parse().unwrap()),
        ["sockets"] => sockets(),
        ["fetch", authority, times] => (0..times.parse().unwrap()).for_each(|_| fetch(authority)),
        _ => panic!("what is {arguments:?}?"),
    }
}

fn show() {
    println!("arguments: {:?}", std::env::args().collect::<Vec<_>>());
    println!("environment: {:?}", std::env::vars().collect::<Vec<_>>());
    let mut stdin = String::new();
    std::io::stdin().read_to_string(&mut stdin).unwrap();
    println!("stdin: {stdin}");
    println!("event: {}", std::fs::read_to_string("event.json").unwrap());
    for folder in [".", "download", "results/deep"] {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        println!("{folder}: {names:?}");
    }
    println!("data: {}", std::fs::read_to_string("download/sub/data.txt").unwrap());
    std::fs::create_dir_all("output/a/b").unwrap();
    std::fs::write("output/a/b/made.txt", "made").unwrap();
    std::fs::write("results/deep/made.txt", "made too").unwrap();
    assert!(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap() > Duration::from_secs(1_700_000_000));
    assert_ne!(wasip2::random::random::get_random_u64(), wasip2::random::random::get_random_u64());
    eprintln!("done");
}

fn recurse(depth: u64) -> u64 {
    if std::hint::black_box(depth) == 0 { 0 } else { recurse(depth + 1) + depth }
}

fn memory() {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
        std::hint::black_box(&all);
    }
}

fn say(mebibytes: usize) {
    let line = "x".repeat(1 << 20);
    let mut stdout = std::io::stdout().lock();
    for _ in 0..mebibytes {
        stdout.write_all(line.as_bytes()).unwrap();
    }
}

fn sockets() {
    let connected = std::net::TcpStream::connect(("127.0.0.1", 1)).map_err(|error| error.kind()).err();
    let bound = std::net::UdpSocket::bind(("127.0.0.1", 0)).map_err(|error| error.kind()).err();
    println!("{connected:?} {bound:?}");
}

/// Prints the status and the number of bytes received, or the error.
fn fetch(authority: &str) {
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some("/")).unwrap();
    let coming = outgoing_handler::handle(request, None).unwrap();
    coming.subscribe().block();
    let response = match coming.get().unwrap().unwrap() {
        Ok(response) => response,
        Err(error) => return println!("{error:?}"),
    };
    let body = response.consume().unwrap();
    let stream = body.stream().unwrap();
    let mut bytes = 0;
    while let Ok(read) = stream.blocking_read(64 * 1024) {
        bytes += read.len();
    }
    println!("{}, {bytes} bytes", response.status());
}
