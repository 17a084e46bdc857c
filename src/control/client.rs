//! The client side of the control protocol: blocking, over a Unix socket.
//!
//! It must not know how anything is printed.

use super::protocol::{Answer, Done, PROTOCOL, Request};
use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait for a gateway. It answers between packets, and even under a flood it is far faster.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest accepted line of an answer, in bytes: an explanation has about 250 for each server of a pool.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// An error between the client and the gateway; its text says what to do.
#[derive(Debug)]
pub enum ClientError {
    /// The socket cannot be connected to.
    Connect {
        /// The path of the socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The gateway uses another version of the protocol, or the listener is no gateway.
    Version {
        /// The protocol version that it reported, if any.
        protocol: Option<u64>,
        /// The program version that it reported, if any.
        version: Option<String>,
    },
    /// The connection failed.
    Lost(io::Error),
    /// An answer cannot be parsed.
    Garbled(String),
    /// The gateway refused the request, for this reason.
    Refused(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = "use `--socket PATH` for another `control-socket` in the configuration of the gateway";
        match self {
            ClientError::Connect { path, source } => {
                let path = path.display();
                match source.kind() {
                    ErrorKind::NotFound => {
                        write!(f, "no gateway listens at {path}: is `equipoise run` running? If so, {other}")
                    }
                    ErrorKind::ConnectionRefused => write!(
                        f,
                        "{path} is left over from a gateway that no longer runs: start one with `equipoise run`, which replaces \
                         it, or {other}"
                    ),
                    ErrorKind::PermissionDenied => write!(
                        f,
                        "permission denied for {path}: run this command as the user that runs the gateway, usually root (sudo)"
                    ),
                    _ => write!(f, "cannot connect to {path}: {source}; {other}"),
                }
            }
            ClientError::Version { protocol: Some(protocol), version } => write!(
                f,
                "the gateway (version {}) uses protocol {protocol}, but this command uses protocol {PROTOCOL}: \
                 use the eqctl that came with the gateway",
                version.as_deref().unwrap_or("unknown")
            ),
            ClientError::Version { protocol: None, .. } => {
                write!(f, "the listener is not an equipoise gateway; {other}")
            }
            ClientError::Lost(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => write!(
                f,
                "no answer from the gateway for {} s: it hangs or is stopped; see its log",
                PATIENCE.as_secs()
            ),
            ClientError::Lost(error) if error.kind() == ErrorKind::UnexpectedEof => {
                write!(
                    f,
                    "the gateway closed the connection before the end of its answer: it has stopped, another process has \
                     taken its place, or it accepts no more clients"
                )
            }
            ClientError::Lost(error) => write!(f, "connection to the gateway lost: {error}"),
            ClientError::Garbled(what) => {
                write!(f, "cannot parse the answer of the gateway ({what}): use the eqctl that came with the gateway")
            }
            ClientError::Refused(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for ClientError {}

/// A connection to a gateway whose protocol has been checked.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    /// Whether lines of an abandoned answer may still arrive.
    unfinished: bool,
}

impl Client {
    /// Connects to the gateway at `path` and checks its protocol version.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { path: path.to_owned(), source };
        Client::over(UnixStream::connect(path).map_err(failed)?)
    }

    /// Uses an existing connection, after checking that a gateway of this protocol version is at its other end.
    pub fn over(stream: UnixStream) -> Result<Self, ClientError> {
        stream.set_read_timeout(Some(PATIENCE)).map_err(ClientError::Lost)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(ClientError::Lost)?;
        let mut client = Client { stream: BufReader::with_capacity(64 * 1024, stream), unfinished: false };
        client.check_protocol()?;
        Ok(client)
    }

    /// Requests the status and reads only the fields that every version has.
    fn check_protocol(&mut self) -> Result<(), ClientError> {
        let stranger = || ClientError::Version { protocol: None, version: None };
        let sent = self.send(&Request::Status);
        // A gateway with too many clients sends an error and closes, perhaps before it reads the request.
        let line = self.line().map_err(|error| sent.err().unwrap_or(error))?;
        let answer: serde_json::Value = serde_json::from_slice(&line).map_err(|_| stranger())?;
        if let Some(message) = answer["error"]["message"].as_str() {
            return Err(ClientError::Refused(message.into()));
        }
        let status = &answer["status"];
        let protocol = status["protocol"].as_u64();
        if protocol != Some(u64::from(PROTOCOL)) {
            return Err(ClientError::Version { protocol, version: status["version"].as_str().map(Into::into) });
        }
        self.unfinished = true;
        Answers { client: self, over: false }.try_for_each(|answer| answer.map(drop))
    }

    /// Sends a request and returns the answers as they arrive: row by row, [`Answer::Done`] last.
    pub fn request(&mut self, request: &Request) -> Result<Answers<'_>, ClientError> {
        if self.unfinished {
            // Skip the rest of an abandoned answer.
            Answers { client: &mut *self, over: false }.try_for_each(|answer| answer.map(drop))?;
        }
        self.send(request)?;
        self.unfinished = true;
        Ok(Answers { client: self, over: false })
    }

    /// Sends a request and collects its rows.
    pub fn rows(&mut self, request: &Request) -> Result<(Vec<Answer>, Done), ClientError> {
        let mut rows = Vec::new();
        for answer in self.request(request)? {
            match answer? {
                Answer::Done(done) => return Ok((rows, done)),
                row => rows.push(row),
            }
        }
        Err(ClientError::Garbled("it has no end".into()))
    }

    fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|error| ClientError::Garbled(error.to_string()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(ClientError::Lost)
    }

    fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut line = Vec::new();
        (&mut self.stream).take(MAX_LINE).read_until(b'\n', &mut line).map_err(ClientError::Lost)?;
        match line.last() {
            Some(b'\n') => Ok(line),
            Some(_) if line.len() as u64 == MAX_LINE => Err(ClientError::Garbled("a line over 16 MiB".into())),
            _ => Err(ClientError::Lost(ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// The answers to one request, as they arrive.
#[derive(Debug)]
pub struct Answers<'a> {
    client: &'a mut Client,
    over: bool,
}

impl Iterator for Answers<'_> {
    type Item = Result<Answer, ClientError>;

    /// Returns the next row; [`Answer::Done`] is the last one, and a refusal is an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let answer = self
            .client
            .line()
            .and_then(|line| serde_json::from_slice(&line).map_err(|error| ClientError::Garbled(error.to_string())));
        let answer = match answer {
            Ok(Answer::Error(failure)) => Err(ClientError::Refused(failure.message)),
            other => other,
        };
        if matches!(answer, Ok(Answer::Done(_)) | Err(_)) {
            self.over = true;
            self.client.unfinished = false;
        }
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::config::changes::Who;
    use crate::control::{About, Floor, Ledger, Outside, Progress, Session};
    use crate::engine::{Engine, FlowQuery};
    use crate::ids::FlowId;
    use crate::time::Instant;
    use std::sync::Arc;

    /// A gateway without a device: moves bytes between a socket and a session until the client disconnects.
    fn serve(mut stream: UnixStream) {
        let settings = Settings::default();
        let mut engine = Engine::new(&settings);
        let mut session = Session::new(Arc::new(About::new(&settings, Instant::ZERO, 77)), Who::default());
        let mut ledger = Ledger::new(None, settings);
        let (mut input, mut out) = ([0; 4096], Vec::new());
        loop {
            let (engine, ledger, outside) = (&mut engine, &mut ledger, &Outside::default());
            match session.poll_output(&mut Floor { engine, ledger, now: Instant::ZERO, outside, pair: None }, &mut out)
            {
                Progress::More | Progress::Wait => {}
                Progress::Close => return drop(stream.write_all(&out)),
                Progress::Idle => {
                    if stream.write_all(&out).is_err() {
                        return;
                    }
                    out.clear();
                    match stream.read(&mut input) {
                        Ok(0) | Err(_) => session.finish(),
                        Ok(n) => session.feed(&input[..n]),
                    }
                }
            }
        }
    }

    #[test]
    fn a_client_and_a_session_understand_each_other() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let gateway = std::thread::spawn(|| serve(theirs));
        let mut client = Client::over(ours).unwrap();

        let (rows, done) = client.rows(&Request::Status).unwrap();
        assert!(matches!(&rows[..], [Answer::Status(status)] if status.pid == 77), "{rows:?}");
        assert_eq!(done, Done { rows: 1, more: false });

        let flows = Request::Flows { query: FlowQuery::default(), filter: None, sort: None, limit: None };
        assert_eq!(client.rows(&flows).unwrap(), (vec![], Done::default()));

        let kill = Request::Kill { flow: FlowId { index: 9, generation: 1 } };
        let refused = client.rows(&kill).unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(message) if message.contains("no flow 9.1")), "{refused}");

        drop(client.request(&Request::Counters).unwrap().next());
        let (rows, _) = client.rows(&Request::Counters).unwrap();
        assert!(matches!(&rows[..], [Answer::Counters(_)]), "an abandoned answer is skipped: {rows:?}");

        drop(client);
        gateway.join().unwrap();
    }

    /// Returns the error of a client that receives `answer`.
    fn complaint(answer: &'static [u8]) -> String {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let other = std::thread::spawn(move || {
            let mut request = [0; 100];
            let _ = theirs.read(&mut request).unwrap();
            theirs.write_all(answer).unwrap();
        });
        let error = Client::over(ours).unwrap_err();
        other.join().unwrap();
        error.to_string()
    }

    #[test]
    fn another_protocol_version_and_another_program_are_distinguished() {
        let newer = complaint(b"{\"status\":{\"protocol\":9,\"version\":\"7.0.0\",\"more\":[]}}\n");
        assert_eq!(
            newer,
            "the gateway (version 7.0.0) uses protocol 9, but this command uses protocol 6: \
             use the eqctl that came with the gateway"
        );
        for stranger in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"{\"hello\":1}\n", b"[]\n"] {
            assert!(complaint(stranger).starts_with("the listener is not an equipoise gateway"));
        }
        assert!(complaint(b"{\"status\":").contains("closed the connection"));
    }

    #[test]
    fn the_error_of_a_gateway_that_closes_at_once_is_reported() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"{\"error\":{\"message\":\"16 connections are open already\"}}\n").unwrap();
        drop(theirs);
        assert_eq!(Client::over(ours).unwrap_err().to_string(), "16 connections are open already");
    }

    #[test]
    fn a_socket_that_cannot_be_used_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(Client::connect(&path).unwrap_err().to_string().contains("is `equipoise run` running?"));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(Client::connect(&path).unwrap_err().to_string().contains("left over from a gateway"));
        let denied = ClientError::Connect { path, source: ErrorKind::PermissionDenied.into() };
        assert!(denied.to_string().contains("usually root"));
    }
}
