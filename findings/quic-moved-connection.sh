#!/bin/bash
# quinn-proto 0.11.19 and aioquic 1.7.2: a QUIC connection whose datagrams reach another server is met with silence.
#
# Expected: a server that gets datagrams of a connection it does not know answers with a stateless reset (RFC 9000,
#   10.3), and the client gives up at once; with quinn it takes the same `reset_key` on all servers for that.
# Instead: quinn's default connection IDs carry a keyed hash, and an endpoint drops what it did not issue itself before
#   it thinks of resets. With the same reset key on both servers still nothing is sent, and the client waits for its
#   30 s of idle time-out; only with the same HashedConnectionIdGenerator key as well is it reset at the first datagram.
#   With the same key of connection IDs alone resets are sent, and the client cannot believe them. aioquic sends no
#   stateless reset at all: the client waits for 60 s.
# Why it matters for a balancer: moving a UDP flow to another server when its own goes down, right for DNS, leaves a
#   QUIC client in the dark for as long as its idle time-out. Say so where UDP fail-over is described, and name both keys.
#
# Seen: quinn with its defaults and with a shared reset key: 0 answers, timed out after 30000 ms; with both keys shared:
#   1 answer, reset after 10 ms; connection ID key alone: answers, timed out; aioquic: 0 answers, idle time-out
#
# Needs: Rust (cargo 1.85 or later), a C compiler, and the Debian packages python3 and python3-venv; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    pip aioquic==1.7.2
    crate 'quinn-proto = { version = "=0.11.19", default-features = false, features = ["rustls-ring"] }' \
        'rustls = { version = "=0.23.46", default-features = false, features = ["ring", "std"] }' \
        'rcgen = { version = "=0.13.2", default-features = false, features = ["ring", "pem"] }' \
        'bytes = "=1.12.2"' 'ring = "=0.17.14"' <<'R'
use bytes::BytesMut;
use quinn_proto::*;
use std::{net::SocketAddr, sync::Arc, time::{Duration, Instant}};

fn settings(reset_key: u8, id_key: Option<u64>) -> Arc<EndpointConfig> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[reset_key; 64]);
    let mut settings = EndpointConfig::new(Arc::new(key));
    if let Some(key) = id_key {
        settings.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    }
    Arc::new(settings)
}

/// Connects to the first server, sends everything to the second from 3 s on, and tells how the client learns of it.
fn moved(name: &str, first: Arc<EndpointConfig>, second: Arc<EndpointConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["lb.test".into()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.key_pair.serialize_der().into());
    let server = Arc::new(ServerConfig::with_single_cert(vec![certificate.clone()], key).unwrap());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let (mut first, mut second) =
        (Endpoint::new(first, Some(server.clone()), true, None), Endpoint::new(second, Some(server), true, None));
    let mut client = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
    let client_at: SocketAddr = "198.51.100.7:1000".parse().unwrap();
    let service: SocketAddr = "192.0.2.80:443".parse().unwrap();
    let mut now = Instant::now();
    let begin = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
    let (handle, mut connection) = client.connect(now, begin, service, "lb.test").unwrap();
    let mut accepted: Option<(ConnectionHandle, Connection)> = None;
    let (mut connected, mut answers) = (false, 0);
    for step in 0..6000 {
        now += Duration::from_millis(10);
        let has_moved = step >= 300;
        if step == 300 {
            let stream = connection.streams().open(Dir::Uni).unwrap();
            connection.send_stream(stream).write(&[7; 800]).unwrap();
        }
        connection.handle_timeout(now);
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = client.handle_event(handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => connected = true,
                Event::ConnectionLost { reason } => {
                    let waited = (step - 300) * 10;
                    println!("{name}: connected {connected}, answers {answers}, {reason} after {waited} ms");
                    return;
                }
                _ => {}
            }
        }
        let mut back = Vec::new();
        let mut buffer = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
            let datagram = BytesMut::from(&buffer[..transmit.size]);
            buffer.clear();
            let mut answer = Vec::new();
            let at = if has_moved { &mut second } else { &mut first };
            match at.handle(now, client_at, None, None, datagram, &mut answer) {
                Some(DatagramEvent::NewConnection(incoming)) => {
                    accepted = Some(at.accept(incoming, now, &mut answer, None).unwrap());
                }
                Some(DatagramEvent::ConnectionEvent(_, event)) => accepted.as_mut().unwrap().1.handle_event(event),
                Some(DatagramEvent::Response(transmit)) => back.push(answer[..transmit.size].to_vec()),
                None => {}
            }
        }
        if has_moved {
            answers += back.len();
        } else if let Some((handle, connection)) = &mut accepted {
            connection.handle_timeout(now);
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = first.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            while connection.poll().is_some() {}
            let mut buffer = Vec::new();
            while let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
                back.push(buffer[..transmit.size].to_vec());
                buffer.clear();
            }
        }
        for datagram in back {
            let event = client.handle(now, service, None, None, BytesMut::from(&datagram[..]), &mut Vec::new());
            if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
                connection.handle_event(event);
            }
        }
    }
    println!("{name}: connected {connected}, answers {answers}, nothing in 57 s");
}

fn main() {
    moved("defaults", settings(1, None), settings(2, None));
    moved("same reset key", settings(1, None), settings(1, None));
    moved("same reset key and ID key", settings(1, Some(9)), settings(1, Some(9)));
    moved("same ID key alone", settings(1, Some(9)), settings(2, Some(9)));
}
R
}

check() {
    crate_output | tee quinn
    cat >aioquic-moved.py <<'P'
import asyncio, datetime, ssl

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lb.test")])
start = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
certificate = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
               .serial_number(1).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=9))
               .sign(key, hashes.SHA256()))

class Wire:
    """A transport that keeps what is sent."""
    def __init__(self):
        self.sent = []
    def sendto(self, data, address):
        self.sent.append(data)
    def close(self):
        pass

def server():
    settings = QuicConfiguration(is_client=False, alpn_protocols=["x"])
    settings.certificate, settings.private_key = certificate, key
    made = QuicServer(configuration=settings, create_protocol=QuicConnectionProtocol)
    made.connection_made(Wire())
    return made

async def main():
    at, other = server(), server()
    client = QuicConnection(configuration=QuicConfiguration(
        is_client=True, alpn_protocols=["x"], verify_mode=ssl.CERT_NONE, server_name="lb.test"))
    now, answers, connected = 1000.0, 0, False
    client.connect(("192.0.2.80", 443), now=now)
    for step in range(20000):
        now += 0.01
        if step == 300:
            at = other
            client.send_stream_data(0, b"x" * 800)
        timer = client.get_timer()
        if timer is not None and timer <= now:
            client.handle_timer(now)
        for data, _ in client.datagrams_to_send(now=now):
            at.datagram_received(data, ("198.51.100.7", 1000))
        await asyncio.sleep(0)
        for data in at._transport.sent:
            answers += step >= 300
            client.receive_datagram(data, ("192.0.2.80", 443), now=now)
        at._transport.sent.clear()
        while event := client.next_event():
            connected |= isinstance(event, HandshakeCompleted)
            if isinstance(event, ConnectionTerminated):
                print(f"aioquic: connected {connected}, answers {answers}, {event.reason_phrase}"
                      f" after {(step - 300) // 100} s")
                return

asyncio.run(main())
P
    python aioquic-moved.py | tee aioquic
    same 'defaults' 'defaults: connected true, answers 0, timed out after 30000 ms' "$(sed -n 1p quinn)"
    same 'reset key' 'same reset key: connected true, answers 0, timed out after 30000 ms' "$(sed -n 2p quinn)"
    same 'both' 'same reset key and ID key: connected true, answers 1, reset by peer after 10 ms' "$(sed -n 3p quinn)"
    same 'ID key alone: answers, and the client waits all the same' yes \
        "$(sed -n '4 { / answers [1-9]/ { / timed out after 30000 ms/ s/.*/yes/p } }' quinn)"
    same 'aioquic answers nothing' 'aioquic: connected True, answers 0, Idle timeout' "$(sed 's/ after .*//' aioquic)"
}

finding
