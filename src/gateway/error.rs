//! Why a gateway failed to start or stopped.

use super::preflight::Problem;
use super::private_socket::SocketError;
use super::setup::SetupError;
use super::tun::OpenError;
use crate::flow::TableTooBig;
use std::fmt;
use std::io;

/// Why a gateway failed to start or stopped; the text says how to fix it.
#[derive(Debug)]
pub enum GatewayError {
    /// The system is not ready; every problem is listed.
    Preflight(Vec<Problem>),
    /// The device could not be opened.
    Open(OpenError),
    /// Addresses, routes or rules could not be installed or removed.
    Setup(SetupError),
    /// The control socket could not be opened.
    Control(SocketError),
    /// The running gateway carries on: why it could not be taken over.
    Takeover(String),
    /// The gateway cannot be one of a pair: why.
    Pair(String),
    /// There is not enough memory for the flow table.
    Table(TableTooBig),
    /// A system call failed.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl GatewayError {
    pub(super) fn io(doing: &'static str) -> impl Fn(io::Error) -> GatewayError {
        move |source| GatewayError::Io { doing, source }
    }
}

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GatewayError::Preflight(problems) => {
                write!(f, "this system is not ready:")?;
                problems.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
            GatewayError::Open(error) => error.fmt(f),
            GatewayError::Setup(error) => error.fmt(f),
            GatewayError::Control(error) => error.fmt(f),
            GatewayError::Takeover(why) | GatewayError::Pair(why) => f.write_str(why),
            GatewayError::Table(error) => error.fmt(f),
            GatewayError::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
        }
    }
}

impl std::error::Error for GatewayError {}

impl From<OpenError> for GatewayError {
    fn from(error: OpenError) -> Self {
        GatewayError::Open(error)
    }
}

impl From<SetupError> for GatewayError {
    fn from(error: SetupError) -> Self {
        GatewayError::Setup(error)
    }
}

impl From<SocketError> for GatewayError {
    fn from(error: SocketError) -> Self {
        GatewayError::Control(error)
    }
}

impl From<TableTooBig> for GatewayError {
    fn from(error: TableTooBig) -> Self {
        GatewayError::Table(error)
    }
}
