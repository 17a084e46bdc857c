//! Writes pcapng with nanoseconds: one interface per link type, every packet outbound.

use super::link::Link;
use std::io::{self, Write};

/// Writes a capture.
pub struct Writer<W> {
    out: W,
    links: Vec<Link>,
}

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

impl<W: Write> Writer<W> {
    /// Starts a capture.
    pub fn new(mut out: W) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(0x1a2b_3c4du32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, 4, b"equipoise");
        end_of_options(&mut body);
        block(&mut out, SECTION, &body)?;
        Ok(Writer { out, links: Vec::new() })
    }

    /// Writes a frame: its time in nanoseconds since 1970, its link header, its IP packet.
    pub fn frame(&mut self, at: u64, link: Link, header: &[u8], packet: &[u8]) -> io::Result<()> {
        let interface = match self.links.iter().position(|l| *l == link) {
            Some(place) => place,
            None => {
                self.interface(link)?;
                self.links.push(link);
                self.links.len() - 1
            }
        };
        let len = (header.len() + packet.len()) as u32;
        let mut body = Vec::with_capacity(len as usize + 40);
        for word in [interface as u32, (at >> 32) as u32, at as u32, len, len] {
            body.extend(word.to_le_bytes());
        }
        body.extend(header);
        body.extend(packet);
        pad(&mut body);
        // epb_flags: outbound.
        option(&mut body, 2, &2u32.to_le_bytes());
        end_of_options(&mut body);
        block(&mut self.out, PACKET, &body)
    }

    /// Ends the capture and returns the writer beneath.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn interface(&mut self, link: Link) -> io::Result<()> {
        let mut body = Vec::new();
        body.extend((link.number() as u16).to_le_bytes());
        body.extend([0; 2]);
        body.extend(0u32.to_le_bytes());
        // if_tsresol: 10^-9 s.
        option(&mut body, 9, &[9]);
        end_of_options(&mut body);
        block(&mut self.out, INTERFACE, &body)
    }
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = (body.len() as u32 + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len)?;
    out.write_all(body)?;
    out.write_all(&len)
}
