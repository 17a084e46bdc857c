//! What can be wrong with a capture, where, and what to do about it.

use std::fmt;
use std::io;

/// Why a capture cannot be read further.
#[derive(Debug)]
pub enum CaptureError {
    /// It is not a capture.
    NotACapture {
        /// Its first bytes, printable.
        begins: String,
    },
    /// It is empty.
    Empty,
    /// It ends inside a packet or header.
    CutOff {
        /// Whole packets before the end.
        packets: u64,
        /// Offset at which the truncated packet or header begins, in bytes of the uncompressed capture.
        offset: u64,
    },
    /// It contains something invalid.
    Damaged {
        /// Whole packets before it.
        packets: u64,
        /// Its offset, in bytes of the uncompressed capture.
        offset: u64,
        /// What is invalid.
        what: String,
    },
    /// It cannot be read.
    Io(io::Error),
}

impl CaptureError {
    /// Returns whether the packets before the damage can still be used, if that was asked for.
    pub fn is_partial(&self) -> bool {
        matches!(self, CaptureError::CutOff { .. } | CaptureError::Damaged { .. })
    }
}

impl fmt::Display for CaptureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let again = "record or copy it again, or replay the intact part with --partial";
        match self {
            CaptureError::NotACapture { begins } => write!(
                f,
                "not a pcap or pcapng file (gzipped or not): it begins with {begins}; record one with \
                 tcpdump -w, or convert it with editcap"
            ),
            CaptureError::Empty => f.write_str("the file is empty: it has no capture header"),
            CaptureError::CutOff { packets, offset } => {
                write!(
                    f,
                    "the capture is truncated: it ends inside what begins at byte {offset}, after {packets} whole packets; {again}"
                )
            }
            CaptureError::Damaged { packets, offset, what } => {
                write!(f, "the capture is damaged at byte {offset}, after {packets} whole packets: {what}; {again}")
            }
            CaptureError::Io(error) => write!(f, "cannot read the capture: {error}"),
        }
    }
}

impl std::error::Error for CaptureError {}
