//! The kernel server's programs: over TCP each connection gets one byte, over UDP each datagram comes back.

use super::{DNS, WEB, Workers};
use equipoise::gateway::netns::Namespace;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const NAP: Duration = Duration::from_millis(20);
const LISTENER: Token = Token(0);

/// Starts both programs.
pub fn start(server: &Namespace, workers: &mut Workers) {
    // `[::]` takes IPv4 too.
    let any = |port: u16| SocketAddr::new([0_u16; 8].into(), port);
    let listener = server.run(|| TcpListener::bind(any(WEB[1]))).unwrap().unwrap();
    let socket = server.run(|| UdpSocket::bind(any(DNS[1]))).unwrap().unwrap();
    socket.set_read_timeout(Some(NAP)).unwrap();
    workers.start("lab-web", move |stop| web(listener, stop));
    workers.start("lab-dns", move |stop| {
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..len], from);
            }
        }
    });
}

fn web(mut listener: TcpListener, stop: &AtomicBool) {
    let mut poll = Poll::new().unwrap();
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
    let (mut events, mut next) = (Events::with_capacity(256), 1);
    let mut open: HashMap<Token, TcpStream> = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        match poll.poll(&mut events, Some(NAP)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other.unwrap(),
        }
        for event in &events {
            if event.token() != LISTENER {
                let ended = |stream: &mut TcpStream| match stream.read(&mut [0; 16]) {
                    Ok(len) => len == 0,
                    Err(error) => error.kind() != ErrorKind::WouldBlock,
                };
                // Closed when the client closes, so that it is never reset.
                if open.get_mut(&event.token()).is_some_and(ended) {
                    open.remove(&event.token());
                }
                continue;
            }
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write(b"!");
                poll.registry().register(&mut stream, Token(next), Interest::READABLE).unwrap();
                open.insert(Token(next), stream);
                next += 1;
            }
        }
    }
}
