//! Tries to open sockets itself.

waypost_guest_programs::filter!(answer);

use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

fn answer() -> String {
    let connected = TcpStream::connect(("127.0.0.1", 1)).map_err(|error| error.kind());
    let listening = TcpListener::bind(("127.0.0.1", 0)).map_err(|error| error.kind());
    let bound = UdpSocket::bind(("127.0.0.1", 0)).map_err(|error| error.kind());
    let resolved = ("localhost", 1).to_socket_addrs().is_ok();
    format!("{:?}, {:?}, {:?}, {resolved}", connected.err(), listening.err(), bound.err())
}
