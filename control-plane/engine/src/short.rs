//! Short texts put together without taking memory: ids are written for each task that goes out and
//! for each result that is acknowledged. No formatting beyond that.

use uuid::Uuid;

/// How many bytes one holds: room for the longest id there is.
const BYTES: usize = 80;

/// A short text in the making. What does not fit is left out.
#[derive(Clone, Copy, Debug)]
pub struct ShortText {
    bytes: [u8; BYTES],
    length: usize,
}

impl ShortText {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: [0; BYTES], length: 0 }
    }

    /// Adds ASCII text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        debug_assert!(text.is_ascii(), "ids are ASCII");
        if let Some(room) = self.bytes.get_mut(self.length..self.length + text.len()) {
            room.copy_from_slice(text.as_bytes());
            self.length += text.len();
        }
        self
    }

    /// Adds a UUID with hyphens.
    #[must_use]
    pub fn id(self, id: Uuid) -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        self.text(id.hyphenated().encode_lower(&mut text))
    }

    /// Adds a UUID without hyphens.
    #[must_use]
    pub fn plain_id(self, id: Uuid) -> Self {
        let mut text = [0; uuid::fmt::Simple::LENGTH];
        self.text(id.simple().encode_lower(&mut text))
    }

    /// Adds a number in decimal.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.digits(number, 10, 1)
    }

    /// Adds a number in hexadecimal, 16 digits.
    #[must_use]
    pub fn hexadecimal(self, number: u64) -> Self {
        self.digits(number, 16, 16)
    }

    fn digits(self, mut number: u64, base: u64, least: usize) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // As many as the greatest number has.
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        while number > 0 || digits.len() - first < least {
            first -= 1;
            // Below 16, so that it fits.
            digits[first] = DIGITS[(number % base) as usize];
            number /= base;
        }
        match std::str::from_utf8(&digits[first..]) {
            Ok(digits) => self.text(digits),
            Err(_) => self,
        }
    }

    /// The text so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl Default for ShortText {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Display for ShortText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stand_one_behind_another() {
        let id = Uuid::from_u128(0x0123_4567_89ab_7def_8123_4567_89ab_cdef);
        let text = ShortText::new().id(id).text(":").number(0).text(":").number(u64::MAX);
        assert_eq!(text.as_str(), format!("{id}:0:{}", u64::MAX));
        let text = ShortText::new().plain_id(id).text("-").hexadecimal(0xbeef);
        assert_eq!(text.as_str(), format!("{}-{:016x}", id.simple(), 0xbeef));
        assert_eq!(ShortText::new().hexadecimal(u64::MAX).as_str(), "f".repeat(16));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let long = ShortText::new().text(&"x".repeat(BYTES)).text("y");
        assert_eq!(long.as_str(), "x".repeat(BYTES));
    }
}
