//! How the events of one transition share rows of the journal. A row costs the database much more
//! than the bytes in it, so events that happened together stand together: a transition is one row
//! as a rule. What goes in comes out, event for event and byte for byte.
//!
//! A packed row has the kind [`PACKED`], the sequence number of its last event, and as its body
//! a line that names for each event its kind, its schema and the length of its body, as in
//! `6:1:72 3:1:34`, and then the bodies, each on a line of its own. Knows no SQL.

use std::borrow::Cow;
use std::sync::Arc;

use engine::{ContentHash, ShortText};

use crate::limits::{JOURNAL_BODY_BYTES_MAX, PACKED_BYTES_MAX};
use crate::{JournalRow, Micros};

/// The kind of a row that holds several events; no event has it.
pub(crate) const PACKED: i16 = 0;
/// The form described above.
const SCHEMA: i16 = 1;

/// A row of the journal as it is stored.
pub(crate) struct Stored<'a> {
    /// The sequence number of its last event.
    pub(crate) seq: i64,
    pub(crate) at: Micros,
    pub(crate) kind: i16,
    pub(crate) schema: i16,
    body: Cow<'a, [u8]>,
    /// The hash of a body that is too long for a row.
    pub(crate) blob: Option<ContentHash>,
}

impl Stored<'_> {
    /// The body, if it stays in the row.
    pub(crate) fn inline_body(&self) -> Option<&[u8]> {
        self.blob.is_none().then_some(&*self.body)
    }
}

impl<'a> Stored<'a> {
    /// The body that becomes a blob, if it does.
    pub(crate) fn blob_body(&self) -> Option<(ContentHash, &'a [u8])> {
        match (self.blob, &self.body) {
            (Some(hash), Cow::Borrowed(body)) => Some((hash, body)),
            _ => None,
        }
    }

    fn alone(row: &'a JournalRow) -> Self {
        let long = row.body.len() > JOURNAL_BODY_BYTES_MAX;
        Self {
            seq: row.seq,
            at: row.at,
            kind: row.kind,
            schema: row.schema,
            body: Cow::Borrowed(&row.body),
            blob: long.then(|| ContentHash::of(&row.body)),
        }
    }

    fn together(rows: &'a [JournalRow]) -> Option<Self> {
        let (first, last) = (rows.first()?, rows.last()?);
        if rows.len() == 1 {
            return Some(Self::alone(first));
        }
        let bytes: usize = rows.iter().map(|row| row.body.len() + LINE_BYTES).sum();
        let mut body = Vec::with_capacity(bytes);
        for (place, row) in rows.iter().enumerate() {
            let end = if place + 1 == rows.len() { "\n" } else { " " };
            push_number(&mut body, row.kind);
            body.push(b':');
            push_number(&mut body, row.schema);
            body.push(b':');
            let length = ShortText::new().number(row.body.len() as u64);
            body.extend_from_slice(length.text(end).as_str().as_bytes());
        }
        for row in rows {
            body.extend_from_slice(&row.body);
            body.push(b'\n');
        }
        let (seq, at) = (last.seq, first.at);
        Some(Self { seq, at, kind: PACKED, schema: SCHEMA, body: Cow::Owned(body), blob: None })
    }
}

/// Kinds and schemas are small and positive as a rule; any other is written as well.
fn push_number(body: &mut Vec<u8>, number: i16) {
    match u8::try_from(number) {
        Ok(digit @ 0..=9) => body.push(b'0' + digit),
        Ok(number) => {
            let text = ShortText::new().number(number.into());
            body.extend_from_slice(text.as_str().as_bytes());
        }
        Err(_) => body.extend_from_slice(number.to_string().as_bytes()),
    }
}

/// What an event takes beside its body: three numbers, as a rule short ones.
const LINE_BYTES: usize = 12;

/// The rows for the events of one transition.
pub(crate) fn pack(events: &[JournalRow]) -> Vec<Stored<'_>> {
    let mut rows = Vec::with_capacity(1);
    let mut rest = events;
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let together = rest.iter().take_while(|event| {
            bytes += event.body.len() + LINE_BYTES;
            event.at == first.at && bytes <= PACKED_BYTES_MAX
        });
        // One that is too long to share a row stands alone.
        let (row, others) = rest.split_at(together.count().max(1));
        rows.extend(Stored::together(row));
        rest = others;
    }
    rows
}

/// The events in a row, in order.
///
/// # Errors
/// With what is wrong with the row.
pub(crate) fn unpack(row: JournalRow, events: &mut Vec<JournalRow>) -> Result<(), String> {
    if row.kind != PACKED {
        events.push(row);
        return Ok(());
    }
    let wrong = || format!("event {} cannot be unpacked", row.seq);
    if row.schema != SCHEMA {
        return Err(wrong());
    }
    let end = row.body.iter().position(|byte| *byte == b'\n').ok_or_else(wrong)?;
    let head = std::str::from_utf8(&row.body[..end]).map_err(|_| wrong())?;
    let mut bodies = &row.body[end + 1..];
    let count = i64::try_from(head.split(' ').count()).map_err(|_| wrong())?;
    for (seq, entry) in (row.seq - count + 1..).zip(head.split(' ')) {
        let (kind, schema, length) = numbers(entry).ok_or_else(wrong)?;
        if bodies.len() <= length {
            return Err(wrong());
        }
        let body: Arc<[u8]> = bodies[..length].into();
        bodies = &bodies[length + 1..];
        events.push(JournalRow { seq, at: row.at, kind, schema, body });
    }
    Ok(())
}

/// Kind, schema and length.
fn numbers(entry: &str) -> Option<(i16, i16, usize)> {
    let mut numbers = entry.split(':');
    let (kind, schema, length) = (numbers.next()?, numbers.next()?, numbers.next()?);
    Some((kind.parse().ok()?, schema.parse().ok()?, length.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64, at: Micros, body: &[u8]) -> JournalRow {
        let kind = i16::try_from(seq).unwrap();
        JournalRow { seq, at, kind, schema: 2, body: body.into() }
    }

    fn back(rows: &[Stored<'_>]) -> Vec<JournalRow> {
        let mut events = Vec::new();
        for row in rows {
            let body = Arc::from(&*row.body);
            let Stored { seq, at, kind, schema, .. } = *row;
            unpack(JournalRow { seq, at, kind, schema, body }, &mut events).unwrap();
        }
        events
    }

    #[test]
    fn what_happened_together_stands_together_and_comes_back() {
        let events =
            [event(3, 7, b"{}"), event(4, 7, b""), event(5, 7, b"a\nb 1:2"), event(6, 8, b"\n")];
        let rows = pack(&events);
        let shapes: Vec<_> = rows.iter().map(|row| (row.seq, row.kind)).collect();
        assert_eq!(shapes, [(5, PACKED), (6, 6)]);
        assert_eq!(&*rows[0].body, b"3:2:2 4:2:0 5:2:7\n{}\n\na\nb 1:2\n");
        assert_eq!(back(&rows), events);
    }

    #[test]
    fn long_bodies_stand_alone() {
        let long = vec![b'x'; JOURNAL_BODY_BYTES_MAX + 1];
        let half = vec![b'y'; PACKED_BYTES_MAX / 2];
        let events =
            [event(1, 1, b"a"), event(2, 1, &long), event(3, 1, &half), event(4, 1, &half)];
        let rows = pack(&events);
        assert!(rows.iter().all(|row| row.kind != PACKED));
        assert_eq!(rows[1].blob, Some(ContentHash::of(&long)));
        assert_eq!(rows[1].inline_body(), None);
        assert_eq!(rows[1].blob_body().unwrap().1, long);
        assert_eq!(back(&rows), events);
    }

    #[test]
    fn many_small_ones_fill_rows() {
        let events: Vec<JournalRow> = (1..=300).map(|seq| event(seq, 1, b"0123456789")).collect();
        let rows = pack(&events);
        assert!(rows.len() > 1 && rows.len() < 10);
        assert!(rows.iter().all(|row| row.body.len() <= PACKED_BYTES_MAX));
        assert_eq!(back(&rows), events);
    }

    #[test]
    fn a_damaged_row_is_told() {
        let rows = [&b"1:1:5 2:1:1\nab\nc\n"[..], b"1:1:1 2:1\na\nb\n", b"no line", b"1:1:1\n"];
        for body in rows {
            let row = JournalRow { seq: 2, at: 1, kind: PACKED, schema: 1, body: body.into() };
            assert!(unpack(row, &mut Vec::new()).is_err(), "{body:?}");
        }
    }
}
