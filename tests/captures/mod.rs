//! The captures of `fixtures/captures/` as listed in their README.md, the built command, and frames as plain bytes.

use equipoise::capture::{Frame, Reader};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Where the captures are.
pub fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/captures")
}

/// A capture, by the README's table.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: String,
    pub bytes: u64,
    pub frames: u64,
    /// Not one of those that a replay is compared with.
    pub flows: Option<u64>,
    pub partial: u64,
}

impl Row {
    pub fn path(&self) -> PathBuf {
        dir().join(&self.name)
    }

    /// Returns its name without the part that states the format.
    pub fn stem(&self) -> &str {
        self.name.split('.').next().unwrap()
    }
}

/// Returns every row of the table.
pub fn rows() -> Vec<Row> {
    let readme = fs::read_to_string(dir().join("README.md")).unwrap();
    let table = readme.split("<!-- table -->").nth(1).unwrap().split("<!-- end of table -->").next().unwrap();
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let number = |i: usize| cells[i].parse().unwrap_or_else(|e| panic!("{e}: {line}"));
        Row {
            name: cells[1].to_owned(),
            bytes: number(2),
            frames: number(4),
            flows: (cells[5] != "-").then(|| number(5)),
            partial: number(6),
        }
    };
    table.lines().filter(|line| line.starts_with('|')).skip(2).map(row).collect()
}

/// Returns those that are replayed.
pub fn inputs() -> Vec<Row> {
    let inputs: Vec<_> = rows().into_iter().filter(|row| row.flows.is_some()).collect();
    assert!(inputs.len() >= 10, "{inputs:?}");
    inputs
}

/// Returns each input with the capture that its replay is compared with, of the kind `NAME.kind.pcap`.
pub fn compared(kind: &str) -> Vec<(Row, Row)> {
    let rows = rows();
    let of = |input: Row| {
        let name = format!("{}.{kind}.pcap", input.stem());
        let other = rows.iter().find(|row| row.name.trim_end_matches(".gz") == name)?.clone();
        Some((input, other))
    };
    let pairs: Vec<_> = inputs().into_iter().filter_map(of).collect();
    assert_eq!(pairs.len(), rows.iter().filter(|row| row.name.contains(&format!(".{kind}."))).count());
    assert!(!pairs.is_empty());
    pairs
}

/// Runs `equipoise replay` to completion.
pub fn replay(input: &Path, output: Option<&Path>, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_equipoise"));
    command.arg("replay").arg("--config").arg(dir().join("gateway.toml")).arg(input).args(options);
    if let Some(output) = output {
        command.arg("-w").arg(output);
    }
    command.env_remove("RUST_LOG").stdin(Stdio::null()).output().unwrap()
}

/// Returns the frames of a capture, as far as it can be read.
pub fn frames(capture: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    if let Ok(mut reader) = Reader::new(capture) {
        while let Ok(Some(frame)) = reader.next_frame() {
            frames.push(frame);
        }
    }
    frames
}

/// Returns the IP packet in a frame, without padding; `None` if there is none.
pub fn ip(frame: &Frame) -> Option<&[u8]> {
    let packet = &frame.data[frame.link.ip_offset(&frame.data).ok()?..];
    let len = match packet.first()? >> 4 {
        4 => usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?])),
        6 => 40 + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?])),
        _ => packet.len(),
    };
    Some(packet.get(..len).unwrap_or(packet))
}

/// One direction of a flow, parsed without any library: addresses, protocol, ports (echo: type and identifier).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    ports: [u8; 4],
}

impl Flow {
    /// Returns the flow of a whole IP packet without extension headers; `None` if it is not TCP, UDP or echo.
    pub fn of(packet: &[u8]) -> Option<Flow> {
        let mut flow = Flow { source: [0; 16], destination: [0; 16], protocol: 0, ports: [0; 4] };
        let at = if packet[0] >> 4 == 4 {
            flow.source[..4].copy_from_slice(&packet[12..16]);
            flow.destination[..4].copy_from_slice(&packet[16..20]);
            flow.protocol = packet[9];
            usize::from(packet[0] & 15) * 4
        } else {
            flow.source.copy_from_slice(&packet[8..24]);
            flow.destination.copy_from_slice(&packet[24..40]);
            flow.protocol = packet[6];
            40
        };
        let transport = &packet[at..];
        match (flow.protocol, transport[0]) {
            (6 | 17, _) => flow.ports.copy_from_slice(&transport[..4]),
            (1, 0 | 8) | (58, 128 | 129) => {
                flow.ports = [transport[0], 0, transport[4], transport[5]];
            }
            _ => return None,
        }
        Some(flow)
    }
}
