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
    /// The servers that came from outside.
    Servers = kind::LAST_NOTE as isize,
}

/// Appends a note, behind the last record of a state.
pub fn write_note(note: Note, text: &[u8], out: &mut Vec<u8>) {
    for part in text.chunks(PART) {
        let mut record = Writer::new(out, note as u8);
        record.bytes(TEXT, part);
        record.end();
    }
}

/// Returns a note in the records of a state; none if there is none.
pub fn read_note(note: Note, mut records: &[u8]) -> Option<Vec<u8>> {
    let mut text: Option<Vec<u8>> = None;
    while let Some((kind, fields)) = next_record(&mut records) {
        if kind == note as u8 {
            let parts = fields.filter(|(tag, _)| *tag == TEXT);
            parts.for_each(|(_, part)| text.get_or_insert_default().extend_from_slice(part.0));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_any_length_is_read_as_it_was_written() {
        for length in [1, PART, PART + 1, 3 * PART + 7] {
            let text: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let mut state = Vec::new();
            Writer::new(&mut state, kind::HEAD).end();
            Writer::new(&mut state, kind::END).end();
            assert_eq!(read_note(Note::Changes, &state), None);
            write_note(Note::Changes, &text, &mut state);
            assert_eq!(read_note(Note::Changes, &state), Some(text));
        }
    }
}
