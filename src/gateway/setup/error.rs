//! Why the kernel could not be set up, and how to fix it.

use crate::gateway::netlink::NetlinkError;
use std::fmt;

/// Why something could not be set up, and how to fix it.
#[derive(Debug)]
pub struct SetupError {
    what: String,
    fix: Option<String>,
}

impl SetupError {
    pub(in crate::gateway) fn new(what: impl fmt::Display, fix: impl Into<Option<String>>) -> Self {
        SetupError { what: what.to_string(), fix: fix.into() }
    }

    /// Returns what failed, without the remedy.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns the remedy, if there is a known one.
    pub fn fix(&self) -> Option<&str> {
        self.fix.as_deref()
    }
}

/// The failure, then the remedy.
impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SetupError {}

impl From<NetlinkError> for SetupError {
    fn from(e: NetlinkError) -> Self {
        let fix = (e.errno() == libc::EPERM).then(|| "this needs the capability CAP_NET_ADMIN".to_owned());
        SetupError::new(e, fix)
    }
}
