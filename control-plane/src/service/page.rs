//! Pages of lists: how many, and where to go on. A token is opaque to clients and good only for
//! the method and the filter that it was made for.

use contracts::v1::Reason;
use engine::ContentHash;

use super::status::Refusal;
use crate::limits;

/// The longest token that is looked at.
const TOKEN_CHARS_MAX: usize = 16 * 1024;
const CHECKSUM_BYTES: usize = 8;

/// How many rows a page has.
///
/// # Errors
/// When the number is negative.
pub fn size(asked: i32) -> Result<usize, Refusal> {
    match usize::try_from(asked) {
        Ok(0) => Ok(limits::PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(limits::PAGE_SIZE_MAX)),
        Err(_) => Err(Refusal::field("page_size", format!("must not be negative, found {asked}"))),
    }
}

/// The token of a place in the list `scope` (the method, and what else chooses the rows).
#[must_use]
pub fn token(scope: &str, place: &[&str]) -> String {
    let place = serde_json::to_vec(place).unwrap_or_default();
    let sum = checksum(scope, &place);
    sum.iter().chain(&place).map(|byte| format!("{byte:02x}")).collect()
}

/// The place that a token stands for; `None` for the empty token of a first page.
///
/// # Errors
/// When the token is not one of this list.
pub fn place<const N: usize>(scope: &str, token: &str) -> Result<Option<[String; N]>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let wrong = || {
        let message = "the page token is not one that this list gave with the same filter and \
                       order; begin again without a token";
        Refusal::new(Reason::InvalidPageToken, message).violation("page_token", message)
    };
    let bytes = unhex(token).ok_or_else(wrong)?;
    let (sum, place) = bytes.split_at_checked(CHECKSUM_BYTES).ok_or_else(wrong)?;
    if sum != checksum(scope, place) {
        return Err(wrong());
    }
    let place: Vec<String> = serde_json::from_slice(place).map_err(|_| wrong())?;
    place.try_into().map(Some).map_err(|_| wrong())
}

/// A part of a place, read.
///
/// # Errors
/// When it is not what it should be.
pub fn part<T: std::str::FromStr>(text: &str) -> Result<T, Refusal> {
    let message = "the page token is damaged; begin again without a token";
    text.parse().map_err(|_| Refusal::new(Reason::InvalidPageToken, message))
}

/// The terms of a filter, `field=value` joined by ` AND `.
///
/// # Errors
/// When a term is not of that form.
pub fn terms(text: &str) -> Result<Vec<(&str, &str)>, Refusal> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let term = |term: &'_ str| -> Refusal {
        let term = super::status::cut(term, 100);
        wrong_filter(format!("`{term}` is not a term like `field=value`"))
    };
    let read = text.split(" AND ").map(|found| match found.split_once('=') {
        Some((field, value)) => Ok((field.trim(), value.trim().trim_matches('"'))),
        None => Err(term(found)),
    });
    read.collect()
}

/// A filter names a field that the list does not have.
#[must_use]
pub fn no_field(field: &str, known: &str) -> Refusal {
    let field = super::status::cut(field, 100);
    wrong_filter(format!("there is no field `{field}`; there are {known}"))
}

/// A filter is not one of the list's.
#[must_use]
pub fn wrong_filter(wrong: String) -> Refusal {
    let message = format!("filter: {wrong}");
    Refusal::new(Reason::InvalidFilter, message).violation("filter", wrong)
}

fn checksum(scope: &str, place: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let text = [scope.as_bytes(), b"\0", place].concat();
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&ContentHash::of(&text).0[..CHECKSUM_BYTES]);
    sum
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() > TOKEN_CHARS_MAX || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_its_place_back() {
        let token = token("ListRuns status=2", &["17", "ab\"c"]);
        let place = place::<2>("ListRuns status=2", &token).unwrap().unwrap();
        assert_eq!(place, ["17", "ab\"c"]);
        assert!(super::place::<2>("ListRuns", "").unwrap().is_none());
    }

    #[test]
    fn a_wrong_token_is_refused() {
        let good = token("ListRuns", &["17"]);
        let mut damaged = good.clone();
        damaged.replace_range(0..1, if good.starts_with('0') { "1" } else { "0" });
        let cut = &good[..good.len() - 2];
        for wrong in ["x", "zz", "00", "+1", "é", cut, &damaged] {
            let refusal = place::<1>("ListRuns", wrong).unwrap_err();
            assert_eq!(refusal.reason(), Reason::InvalidPageToken, "{wrong}");
        }
        assert!(place::<1>("ListWorkflows", &good).is_err(), "another list");
        assert!(place::<2>("ListRuns", &good).is_err(), "another shape");
    }

    #[test]
    fn sizes_are_cut_and_negative_ones_refused() {
        assert_eq!(size(0).unwrap(), 100);
        assert_eq!(size(7).unwrap(), 7);
        assert_eq!(size(5_000).unwrap(), 1_000);
        assert!(size(-1).is_err());
    }
}
