//! Notes of the driver behind the records of a state: the engine keeps them, and does not read them.
//!
//! A note is text of any length, in as many records as it needs. A reader that does not know it skips it.

use super::record::kind;
use super::wire::{Writer, next_record};

/// Most bytes of a note in one record, whose length has 16 bits.
const PART: usize = 60_000;
/// The field of a record that has a part of a note.
const TEXT: u8 = 1;

/// Which note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Note {
    /// What operators changed.
    Changes = kind::FIRST_NOTE as isize,
}

/// Appends a note, behind the last record of a state.
pub fn write_note(note: Note, text: &[u8], out: &mut Vec<u8>) {
    for part in text.chunks(PART) {
        let mut record = Writer::new(out, note as u8);
        record.bytes(TEXT, part);
        record.end();
    }
}

/// Looks for a note in the records of a state, which come in pieces.
#[derive(Debug)]
pub struct NoteScan {
    note: Note,
    text: Option<Vec<u8>>,
}

impl NoteScan {
    /// Begins to look for a note.
    pub fn new(note: Note) -> Self {
        NoteScan { note, text: None }
    }

    /// Reads the complete records at the begin of `bytes`; returns how many bytes they have.
    pub fn read(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some((kind, fields)) = next_record(&mut rest) {
            if kind == self.note as u8 {
                let parts = fields.filter(|(tag, _)| *tag == TEXT);
                parts.for_each(|(_, part)| self.text.get_or_insert_default().extend_from_slice(part.0));
            }
        }
        bytes.len() - rest.len()
    }

    /// Returns the note; none if there is none.
    pub fn text(self) -> Option<Vec<u8>> {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The note, from pieces that end anywhere.
    fn found(state: &[u8]) -> Option<Vec<u8>> {
        let (mut scan, mut held) = (NoteScan::new(Note::Changes), Vec::new());
        for piece in state.chunks(777) {
            held.extend(piece);
            let read = scan.read(&held);
            held.drain(..read);
        }
        assert!(held.is_empty());
        scan.text()
    }

    #[test]
    fn a_note_of_any_length_is_read_as_it_was_written() {
        for length in [1, PART, PART + 1, 3 * PART + 7] {
            let text: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut state = Vec::new();
            Writer::new(&mut state, kind::HEAD).end();
            Writer::new(&mut state, kind::END).end();
            assert_eq!(found(&state), None);
            write_note(Note::Changes, &text, &mut state);
            assert_eq!(found(&state), Some(text));
        }
    }
}
