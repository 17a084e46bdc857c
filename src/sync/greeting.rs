//! A connection on which nobody has proved himself yet: several may be under way, so that none keeps the peer waiting.
//!
//! It must not know roles, nor what is said after the proof.

use super::link::{Link, LinkError};
use super::node::Node;
use super::wire::Kind;

/// Such a connection. It keeps at most 512 bytes of what it has read.
#[derive(Debug)]
pub struct Greeting(pub(super) Box<Link>);

impl Greeting {
    /// Appends to `out` what there is to send.
    pub fn poll_output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.0.ready);
    }
}

impl Node {
    /// Reads bytes of a connection until its other end has proved that he is the peer; returns whether he has. What is left of
    /// `bytes` comes behind that, and is for [`Node::handle_input`] after [`Node::meet`].
    ///
    /// # Errors
    /// If he is not: the connection is to be closed.
    pub fn hear(&self, Greeting(link): &mut Greeting, bytes: &mut &[u8]) -> Result<bool, LinkError> {
        while !link.proved
            && let Some((header, body)) = link.read(bytes)?
        {
            let kind = Kind::of(header.kind).ok_or(LinkError::NotYet)?;
            link.greeting(kind, &body, &self.settings)?;
        }
        Ok(link.proved)
    }
}
