//! Something between the two processes of a takeover: it passes everything on, and kills or stops one of them at a step.

use crate::world::{World, eventually};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// The kinds of frames, in the order in which they come, and who sends them: whoever takes over is the taker.
pub const STEPS: [(&str, u8); 11] = [
    ("HELLO", 1),
    ("OFFER", 2),
    ("BEGIN of the taker", 3),
    ("BEGIN of the giver", 3),
    ("STATE", 4),
    ("PASS", 5),
    ("READY", 6),
    ("LAST", 7),
    ("COMMIT", 8),
    ("YOURS", 9),
    ("SERVING", 10),
];
/// The steps that the taker sends.
const OF_TAKER: [&str; 5] = ["HELLO", "BEGIN of the taker", "READY", "COMMIT", "SERVING"];

/// What stands between them.
pub struct Between {
    at: PathBuf,
    real: PathBuf,
    /// Tells that the step has come.
    come: Receiver<()>,
}

impl Between {
    /// Stands in the way of a takeover from the gateway of this world. When the frame `step` is about to be passed on, the
    /// process that `victim` names by then gets a signal.
    pub fn stand(
        world: &World,
        step: usize,
        signal: Signal,
        victim: impl Fn() -> u32 + Send + Sync + 'static,
    ) -> Between {
        let at = PathBuf::from(format!("{}.takeover", world.socket().display()));
        let real = at.with_extension("real");
        std::fs::rename(&at, &real).unwrap();
        let listener = UnixListener::bind(&at).unwrap();
        let (tell, come) = channel();
        let to = real.clone();
        thread::spawn(move || {
            let Ok((taker, _)) = listener.accept() else { return };
            let giver = UnixStream::connect(to).unwrap();
            let (name, kind) = STEPS[step];
            let is_of_taker = OF_TAKER.contains(&name);
            let kill = std::sync::Arc::new(move || {
                let pid = Pid::from_raw(victim().try_into().unwrap()).unwrap();
                kill_process(pid, signal).unwrap();
            });
            let ways = [(taker.try_clone().unwrap(), giver.try_clone().unwrap(), true), (giver, taker, false)];
            for (from, to, of_taker) in ways {
                let watched = (of_taker == is_of_taker).then_some(kind);
                let (kill, tell) = (std::sync::Arc::clone(&kill), tell.clone());
                thread::spawn(move || pass(&from, &to, watched, &*kill, &tell));
            }
        });
        Between { at, real, come }
    }

    /// Waits until the takeover has come to its step.
    pub fn await_step(&self) {
        eventually("the step of the takeover", || self.come.try_recv().is_ok());
    }

    /// Puts the gateway's own socket back in its place.
    pub fn leave(self) {
        std::fs::rename(&self.real, &self.at).unwrap();
    }
}

/// Passes frames on until one side ends; before one of the kind that is watched, it kills and tells.
fn pass(from: &UnixStream, mut to: &UnixStream, watched: Option<u8>, kill: &dyn Fn(), tell: &Sender<()>) {
    let mut watched = watched;
    loop {
        let Some((first, along)) = receive(from) else { break };
        let mut rest = [0; 4];
        if (&mut &*from).read_exact(&mut rest).is_err() {
            break;
        }
        let mut body = vec![0; u32::from_be_bytes([first, rest[0], rest[1], rest[2]]) as usize];
        if (&mut &*from).read_exact(&mut body).is_err() {
            break;
        }
        let kind = rest[3];
        if watched == Some(kind) {
            watched = None;
            kill();
            let _ = tell.send(());
        }
        let sent = send(to, first, &along).is_ok() && to.write_all(&rest).is_ok() && to.write_all(&body).is_ok();
        if !sent {
            break;
        }
    }
    // The other side hears that this one has ended.
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn receive(from: &UnixStream) -> Option<(u8, Vec<OwnedFd>)> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut along = RecvAncillaryBuffer::new(&mut room);
    let mut byte = [0];
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut along, RecvFlags::CMSG_CLOEXEC).ok()?;
    let rights = along.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights.collect::<Vec<_>>()),
        _ => None,
    });
    let rights = rights.flatten().collect();
    (received.bytes == 1).then_some((byte[0], rights))
}

fn send(to: &UnixStream, byte: u8, along: &[OwnedFd]) -> rustix::io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut rights = SendAncillaryBuffer::new(&mut room);
    let along: Vec<_> = along.iter().map(AsFd::as_fd).collect();
    if !along.is_empty() {
        assert!(rights.push(SendAncillaryMessage::ScmRights(&along)));
    }
    sendmsg(to, &[IoSlice::new(&[byte])], &mut rights, SendFlags::NOSIGNAL).map(drop)
}
