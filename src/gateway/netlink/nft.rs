//! Notifications of nf_tables: tables that come and go, and chains by which packets that leave are translated.

use super::NetlinkError;
use super::frame::frames;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The multicast group of nf_tables (`NFNLGRP_NFTABLES`).
const GROUP: u32 = 7;
/// Datagrams read in one go.
const MOST: usize = 64;
/// The subsystem of nf_tables in the type of a message (`NFNL_SUBSYS_NFTABLES`).
const SUBSYSTEM: u16 = 10 << 8;
/// The header of a message in front of its attributes (`struct nfgenmsg`), in bytes.
const HEADER: usize = 4;

/// What has come or gone (linux/netfilter/nf_tables.h).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableNews {
    /// A table came.
    Table(String),
    /// A table is gone.
    NoTable(String),
    /// A chain came to this table that translates what leaves.
    SourceNat(String),
}

/// A non-blocking socket with the notifications of a network namespace.
#[derive(Debug)]
pub struct Tables {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Tables {
    /// Subscribes to changes in the network namespace of the calling thread.
    pub fn open() -> Result<Tables, NetlinkError> {
        let subscribe = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(GROUP)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let socket = subscribe().map_err(|e| NetlinkError::new("subscribing to changes of nf_tables", e))?;
        Ok(Tables { socket, buffer: vec![0; 64 * 1024] })
    }

    /// Hands pending notifications to `tell`, a bounded number; `None` if some were lost. Returns whether more may be
    /// pending.
    pub fn take(&mut self, mut tell: impl FnMut(Option<TableNews>)) -> io::Result<bool> {
        for _ in 0..MOST {
            match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => {
                    let all = frames(&self.buffer[..length]);
                    all.filter_map(|frame| read(frame.kind(), frame.body())).for_each(|news| tell(Some(news)));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => tell(None),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

impl AsRawFd for Tables {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn read(kind: u16, body: &[u8]) -> Option<TableNews> {
    const NEW_TABLE: u16 = SUBSYSTEM;
    const DELETE_TABLE: u16 = SUBSYSTEM | 2;
    const NEW_CHAIN: u16 = SUBSYSTEM | 3;
    /// `NFTA_TABLE_NAME` and `NFTA_CHAIN_TABLE`.
    const TABLE: u16 = 1;
    /// `NFTA_CHAIN_HOOK`, and in it `NFTA_HOOK_HOOKNUM`.
    const HOOK: (u16, u16) = (4, 1);
    /// `NFTA_CHAIN_TYPE`.
    const TYPE: u16 = 7;
    /// `NF_INET_POST_ROUTING`.
    const POSTROUTING: [u8; 4] = 4u32.to_be_bytes();
    let all = body.get(HEADER..)?;
    let table = text(attribute(all, TABLE)?);
    match kind {
        NEW_TABLE => Some(TableNews::Table(table)),
        DELETE_TABLE => Some(TableNews::NoTable(table)),
        NEW_CHAIN => {
            let translates = attribute(all, TYPE).is_some_and(|of| text(of) == "nat");
            let hook = attribute(all, HOOK.0).and_then(|hook| attribute(hook, HOOK.1));
            (translates && hook == Some(&POSTROUTING)).then_some(TableNews::SourceNat(table))
        }
        _ => None,
    }
}

/// Returns the value of the first attribute of a type.
pub(super) fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    /// Without the flags for nested ones and byte order (`NLA_TYPE_MASK`).
    const TYPE_MASK: u16 = 0x3fff;
    loop {
        let number = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let (length, found) = (usize::from(number(0)?), number(2)? & TYPE_MASK);
        let value = bytes.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::testing::namespace;
    use std::process::Command;

    #[test]
    fn tables_and_chains_that_translate_what_leaves_are_news_and_others_are_not() {
        let Some(ns) = namespace("eq-nft1") else { return };
        ns.run(|| {
            let mut tables = Tables::open().unwrap();
            let mut heard = |commands: &str| {
                assert!(Command::new("nft").arg(commands).status().unwrap().success(), "{commands}");
                let mut all = Vec::new();
                while tables.take(|news| all.extend(news)).unwrap() {}
                all
            };
            let table = || TableNews::Table("t".into());
            let chain = || TableNews::SourceNat("t".into());
            assert_eq!(heard("add table inet t"), [table()]);
            assert_eq!(heard("add chain inet t in { type nat hook prerouting priority -100; }"), []);
            assert_eq!(heard("add chain inet t f { type filter hook postrouting priority 0; }"), []);
            assert_eq!(heard("add chain inet t out { type nat hook postrouting priority 100; }"), [chain()]);
            assert_eq!(heard("add rule inet t out masquerade"), []);
            assert!(heard("delete table inet t").contains(&TableNews::NoTable("t".into())));
            assert_eq!(
                heard("table ip t { chain out { type nat hook postrouting priority 100; }; }"),
                [table(), chain()]
            );
        })
        .unwrap();
    }

    #[test]
    fn what_is_cut_off_is_no_news() {
        let mut body = vec![0; HEADER];
        body.extend([6, 0, 1, 0, b't', 0, 0, 0]);
        assert_eq!(read(SUBSYSTEM, &body), Some(TableNews::Table("t".into())));
        (0..HEADER + 6).for_each(|length| assert_eq!(read(SUBSYSTEM, &body[..length]), None, "{length}"));
        // A length of zero, which does not lead on.
        assert_eq!(read(SUBSYSTEM, &[0; 32]), None);
    }
}
