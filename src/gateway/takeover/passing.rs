//! Descriptors that go over a Unix socket along with bytes (SCM_RIGHTS, unix(7)).

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The most descriptors in a message: listeners, a pipe, the queues of the device, and the keys of replies.
pub(in crate::gateway) const MOST: usize = 16;

/// Sends bytes, all of them, with descriptors. The socket must have room for them.
pub(in crate::gateway) fn send(to: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut along = SendAncillaryBuffer::new(&mut room);
    if descriptors.len() > MOST || !along.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, "too many descriptors"));
    }
    let sent = sendmsg(to, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
}

/// Receives up to `most` bytes, and the descriptors that come along.
pub(in crate::gateway) fn receive(from: impl AsFd, most: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut along = RecvAncillaryBuffer::new(&mut room);
    let mut bytes = vec![0; most];
    let received = loop {
        match recvmsg(&from, &mut [IoSliceMut::new(&mut bytes)], &mut along, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    bytes.truncate(received.bytes);
    let mut descriptors = Vec::new();
    for message in along.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_with_the_bytes_that_they_were_sent_with() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let (mut kept, passed) = UnixStream::pair().unwrap();
        send(&one, b"here", &[passed.as_fd(), one.as_fd()]).unwrap();
        (&one).write_all(b" and more").unwrap();
        drop(passed);
        let (bytes, mut descriptors) = receive(&other, 4).unwrap();
        assert_eq!((&bytes[..], descriptors.len()), (&b"here"[..], 2));
        kept.write_all(b"through").unwrap();
        let mut text = [0; 7];
        UnixStream::from(descriptors.remove(0)).read_exact(&mut text).unwrap();
        assert_eq!(&text, b"through");
        let mut rest = [0; 9];
        other.read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b" and more");
    }
}
