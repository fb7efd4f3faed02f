//! The bytes of a backup: compressed by zstd; within, a line that says what it is, the schema,
//! rows, and at the end their count and a SHA-256 of everything before. Numbers are little-endian.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use super::{Summary, TABLES, Table, Value};
use crate::Error;

/// What a backup begins with.
const MAGIC: &[u8] = b"orchestrator backup 1\n";
/// How hard to compress.
const LEVEL: i32 = 3;
/// The longest row; a blob is the longest thing that there is.
const ROW_BYTES_MAX: u32 = 128 * 1024 * 1024;

/// A row, and the place of its table.
pub(crate) struct Record {
    pub(crate) table: usize,
    pub(crate) row: Vec<Value>,
}

/// Writes a backup.
pub(crate) struct Writer<'a> {
    to: zstd::Encoder<'a, Box<dyn Write + Send + 'a>>,
    hash: Sha256,
    schema: i64,
    counts: Vec<u64>,
}

fn cannot_write(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full(error.to_string()),
        _ => Error::Unavailable(format!("the backup cannot be written: {error}")),
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(to: impl Write + Send + 'a, schema: i64) -> Result<Self, Error> {
        let to: Box<dyn Write + Send + 'a> = Box::new(to);
        let to = zstd::Encoder::new(to, LEVEL).map_err(|error| cannot_write(&error))?;
        let counts = vec![0; TABLES.len()];
        let mut writer = Self { to, hash: Sha256::new(), schema, counts };
        writer.put(MAGIC)?;
        writer.put(&schema.to_le_bytes())?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.to.write_all(bytes).map_err(|error| cannot_write(&error))
    }

    /// Writes a row of the table at that place.
    pub(crate) fn row(&mut self, table: usize, row: &[Value]) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for value in row {
            encode(value, &mut bytes);
        }
        let size = u32::try_from(bytes.len()).ok().filter(|size| *size <= ROW_BYTES_MAX);
        let size = size.ok_or_else(|| {
            Error::Invalid(format!("a row of {} has {} bytes", TABLES[table].name, bytes.len()))
        })?;
        let place = u8::try_from(table + 1).expect("there are few tables");
        self.put(&[place])?;
        self.put(&size.to_le_bytes())?;
        self.put(&bytes)?;
        self.counts[table] += 1;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Summary, Error> {
        let total: u64 = self.counts.iter().sum();
        self.put(&[0])?;
        self.put(&total.to_le_bytes())?;
        let hash = self.hash.finalize_reset();
        self.to.write_all(&hash).map_err(|error| cannot_write(&error))?;
        let mut to = self.to.finish().map_err(|error| cannot_write(&error))?;
        to.flush().map_err(|error| cannot_write(&error))?;
        Ok(summary(self.schema, &self.counts))
    }
}

fn summary(schema: i64, counts: &[u64]) -> Summary {
    let rows = TABLES.iter().map(|table| table.name).zip(counts.iter().copied()).collect();
    Summary { schema, rows }
}

fn encode(value: &Value, to: &mut Vec<u8>) {
    let mut sized = |tag: u8, bytes: &[u8]| {
        to.push(tag);
        // A row is refused as a whole when it is longer than this can say.
        to.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        to.extend(bytes);
    };
    match value {
        Value::Null => to.push(0),
        Value::Number(number) => {
            to.push(1);
            to.extend(number.to_le_bytes());
        }
        Value::Text(text) => sized(2, text.as_bytes()),
        Value::Bytes(bytes) => sized(3, bytes),
    }
}

/// Reads a backup.
pub(crate) struct Reader<'a> {
    from: zstd::Decoder<'a, io::BufReader<Box<dyn Read + Send + 'a>>>,
    hash: Sha256,
    schema: i64,
    counts: Vec<u64>,
}

fn damaged(what: &str) -> Error {
    Error::Invalid(format!("the backup is damaged: {what}; take another one"))
}

impl<'a> Reader<'a> {
    pub(super) fn new(from: impl Read + Send + 'a) -> Result<Self, Error> {
        let no_backup = || {
            let text = "this file is no backup of an orchestrator, or not the whole of one";
            Error::Invalid(text.to_owned())
        };
        let from: Box<dyn Read + Send + 'a> = Box::new(from);
        let from = zstd::Decoder::new(from).map_err(|_| no_backup())?;
        let counts = vec![0; TABLES.len()];
        let mut reader = Self { from, hash: Sha256::new(), schema: 0, counts };
        let mut magic = [0; MAGIC.len()];
        reader.take(&mut magic).map_err(|_| no_backup())?;
        if magic != *MAGIC {
            return Err(no_backup());
        }
        reader.schema = i64::from_le_bytes(reader.bytes()?);
        Ok(reader)
    }

    pub(super) fn schema(&self) -> i64 {
        self.schema
    }

    pub(super) fn summary(&self) -> Summary {
        summary(self.schema, &self.counts)
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
            _ => damaged(&error.to_string()),
        })?;
        self.hash.update(bytes);
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.take(&mut bytes)?;
        Ok(bytes)
    }

    /// The next row; `None` behind the last, once everything was found to be whole.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, Error> {
        let [place] = self.bytes()?;
        if place == 0 {
            self.end()?;
            return Ok(None);
        }
        let table = usize::from(place) - 1;
        let known = TABLES.get(table).ok_or_else(|| damaged("it names a table not known here"))?;
        let size = u32::from_le_bytes(self.bytes()?);
        if size > ROW_BYTES_MAX {
            return Err(damaged("a row is too long"));
        }
        let mut bytes = vec![0; size as usize];
        self.take(&mut bytes)?;
        let row = decode(known, &bytes)
            .ok_or_else(|| damaged(&format!("a row of {} makes no sense", known.name)))?;
        self.counts[table] += 1;
        Ok(Some(Record { table, row }))
    }

    fn end(&mut self) -> Result<(), Error> {
        let total = u64::from_le_bytes(self.bytes()?);
        let hash = self.hash.finalize_reset();
        let said: [u8; 32] = self.bytes()?;
        if total != self.counts.iter().sum::<u64>() || said[..] != hash[..] {
            return Err(damaged("its checksum is another"));
        }
        Ok(())
    }
}

fn decode(table: &Table, mut bytes: &[u8]) -> Option<Vec<Value>> {
    fn part<'b>(bytes: &mut &'b [u8], size: usize) -> Option<&'b [u8]> {
        let (part, rest) = bytes.split_at_checked(size)?;
        *bytes = rest;
        Some(part)
    }
    fn sized<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
        let size = u32::from_le_bytes(part(bytes, 4)?.try_into().ok()?);
        part(bytes, size as usize)
    }
    let bytes = &mut bytes;
    let mut row = Vec::with_capacity(table.columns.len());
    for _ in table.columns {
        row.push(match part(bytes, 1)? {
            [0] => Value::Null,
            [1] => Value::Number(i64::from_le_bytes(part(bytes, 8)?.try_into().ok()?)),
            [2] => Value::Text(String::from_utf8(sized(bytes)?.to_vec()).ok()?),
            [3] => Value::Bytes(sized(bytes)?.to_vec()),
            _ => return None,
        });
    }
    bytes.is_empty().then_some(row)
}
