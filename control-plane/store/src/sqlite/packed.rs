//! Many rows in one bound value: records of fixed width in one blob, everything of variable length
//! in another (the heap), cut by `substr` over a counter. One statement then writes any number of
//! rows, which is several times as fast as a statement for each.

use engine::ContentHash;
use uuid::Uuid;

/// Digits of a number in a record, with its sign.
const INTEGER_BYTES: usize = 20;
/// Digits of an offset into the heap, and of a length.
const OFFSET_BYTES: usize = 10;
/// What a record holds in place of nothing: no digit and no sign.
const NOTHING: u8 = b'n';

/// What a column is, in the record and for the database.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// 16 bytes.
    Id,
    /// 16 bytes, all zero for none.
    OptionalId,
    /// 32 bytes.
    Hash,
    Integer,
    OptionalInteger,
    Text,
    Bytes,
    OptionalBytes,
    OptionalText,
}

impl Kind {
    const fn width(self) -> usize {
        match self {
            Self::Id | Self::OptionalId => 16,
            Self::Hash => 32,
            Self::Integer | Self::OptionalInteger => INTEGER_BYTES,
            Self::Text | Self::Bytes | Self::OptionalBytes | Self::OptionalText => 2 * OFFSET_BYTES,
        }
    }

    /// The expression for the column that begins `start` bytes into the record `n.i` of `records`.
    fn expression(self, records: &str, width: usize, start: usize) -> String {
        let cut = |offset: usize, length: usize| {
            format!("substr({records}, n.i * {width} + {}, {length})", start + offset + 1)
        };
        let integer = |offset, length| format!("CAST({} AS INTEGER)", cut(offset, length));
        let bytes = format!(
            "substr({HEAP}, {} + 1, {})",
            integer(0, OFFSET_BYTES),
            integer(OFFSET_BYTES, OFFSET_BYTES)
        );
        let optional =
            |value: String| format!("CASE WHEN {} = x'6e' THEN NULL ELSE {value} END", cut(0, 1));
        match self {
            Self::Id | Self::Hash => cut(0, self.width()),
            Self::OptionalId => format!("nullif({}, zeroblob(16))", cut(0, 16)),
            Self::Integer => integer(0, INTEGER_BYTES),
            Self::OptionalInteger => optional(integer(0, INTEGER_BYTES)),
            Self::Text => format!("CAST({bytes} AS TEXT)"),
            Self::Bytes => bytes,
            Self::OptionalBytes => optional(bytes),
            Self::OptionalText => optional(format!("CAST({bytes} AS TEXT)")),
        }
    }
}

/// The parameter that the heap is bound to.
const HEAP: &str = "$1";

/// Columns of a record, and the parameter that the records are bound to.
pub(super) struct Layout {
    pub(super) parameter: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
}

impl Layout {
    fn width(&self) -> usize {
        self.columns.iter().map(|(_, kind)| kind.width()).sum()
    }

    /// A counter over the records: `n.i` from 0. There must be one at least.
    pub(super) fn counter(&self) -> String {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n \
             WHERE i + 1 < length({}) / {}) ",
            self.parameter,
            self.width()
        )
    }

    /// The names of the columns.
    pub(super) fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// The values of the columns, under their names.
    pub(super) fn values(&self) -> String {
        let mut start = 0;
        let mut values = Vec::with_capacity(self.columns.len());
        for (name, kind) in self.columns {
            let value = kind.expression(self.parameter, self.width(), start);
            values.push(format!("{value} AS {name}"));
            start += kind.width();
        }
        values.join(", ")
    }
}

/// The records of one layout, column after column in its order.
#[derive(Default)]
pub(super) struct Records(Vec<u8>);

/// What the records of all layouts point into.
#[derive(Default)]
pub(super) struct Heap(Vec<u8>);

impl Heap {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl Records {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_bytes(self, layout: &Layout) -> Vec<u8> {
        debug_assert_eq!(self.0.len() % layout.width(), 0, "records are of the layout's width");
        self.0
    }

    pub(super) fn id(&mut self, id: Uuid) -> &mut Self {
        self.0.extend_from_slice(id.as_bytes());
        self
    }

    pub(super) fn optional_id(&mut self, id: Option<Uuid>) -> &mut Self {
        self.id(id.unwrap_or(Uuid::nil()))
    }

    pub(super) fn hash(&mut self, hash: ContentHash) -> &mut Self {
        self.0.extend_from_slice(&hash.0);
        self
    }

    pub(super) fn integer(&mut self, value: i64) -> &mut Self {
        let start = self.0.len();
        self.digits(value.unsigned_abs(), INTEGER_BYTES);
        if value < 0 {
            self.0[start] = b'-';
        }
        self
    }

    pub(super) fn optional_integer(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(value) => self.integer(value),
            None => self.nothing(INTEGER_BYTES),
        }
    }

    pub(super) fn bytes(&mut self, heap: &mut Heap, bytes: &[u8]) -> &mut Self {
        self.digits(heap.0.len() as u64, OFFSET_BYTES);
        self.digits(bytes.len() as u64, OFFSET_BYTES);
        heap.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn optional_bytes(&mut self, heap: &mut Heap, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => self.bytes(heap, bytes),
            None => self.nothing(2 * OFFSET_BYTES),
        }
    }

    pub(super) fn text(&mut self, heap: &mut Heap, text: &str) -> &mut Self {
        self.bytes(heap, text.as_bytes())
    }

    fn nothing(&mut self, width: usize) -> &mut Self {
        self.0.resize(self.0.len() + width, NOTHING);
        self
    }

    /// `value` in `width` digits; 20 hold each 64-bit number with room for the sign of those that
    /// have one.
    fn digits(&mut self, mut value: u64, width: usize) {
        let end = self.0.len() + width;
        self.0.resize(end, b'0');
        for digit in self.0[end - width..].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
        debug_assert_eq!(value, 0, "the bounds of a batch keep numbers within their width");
    }
}
