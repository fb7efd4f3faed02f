//! Reads versions and ranges as npm, PyPI and crates.io write them. What it cannot read is
//! none, never a guess.

use semver::{Op, Version, VersionReq};

/// A version, leniently: missing parts are zero, what follows the third number is dropped.
pub fn version(text: &str) -> Option<Version> {
    let text = text.trim().trim_start_matches(['v', '=']);
    if let Ok(version) = Version::parse(text) {
        return Some(version);
    }
    // Python's epochs count before all else; no advisory has one.
    let release = text.split(['+', '-', ' ', '!']).next()?;
    let mut parts = release.split('.').map(leading_number);
    let major = parts.next()??;
    let mut part = || parts.next().flatten().unwrap_or(0);
    let (minor, patch) = (part(), part());
    Some(Version::new(major, minor, patch))
}

fn leading_number(part: &str) -> Option<u64> {
    let end = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
    part[..end].parse().ok()
}

/// What a project asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This version and no other.
    Exactly(Version),
    /// Any version in the range.
    Range(VersionReq),
}

/// A requirement of `package.json`.
pub fn npm(text: &str) -> Option<Wanted> {
    // `npm:other@^1.2.3` names another package; the caller has taken that name off.
    let last = text.rsplit("||").next()?.trim();
    let bare = last.trim_start_matches(['=', 'v']).trim();
    if let Ok(version) = Version::parse(bare) {
        return Some(Wanted::Exactly(version));
    }
    let mut comparators: Vec<String> = Vec::new();
    for word in last.split_whitespace() {
        match comparators.last_mut() {
            // `>= 1.2.3`
            Some(open) if open.ends_with(['>', '<', '=', '^', '~']) => open.push_str(word),
            _ => comparators.push(word.to_owned()),
        }
    }
    let comparators: Vec<String> = comparators.iter().map(|one| npm_comparator(one)).collect();
    VersionReq::parse(&comparators.join(", ")).ok().map(Wanted::Range)
}

/// One comparator as Cargo writes it. What stands without an operator is an x-range in npm
/// (`1.2` is any `1.2.z`), while Cargo takes it as a caret.
fn npm_comparator(text: &str) -> String {
    let digits = text.find(|letter: char| letter.is_ascii_digit());
    let (operator, number) = text.split_at(digits.unwrap_or(0));
    let parts: Vec<&str> =
        number.split('.').take_while(|part| !matches!(*part, "x" | "X" | "*")).collect();
    match (operator, parts.len()) {
        ("" | "=" | "v", 1 | 2) if digits.is_some() => format!("{}.*", parts.join(".")),
        ("", 0) => "*".to_owned(),
        ("" | "v", _) if digits.is_some() => format!("={number}"),
        _ => format!("{operator}{}", parts.join(".")),
    }
}

/// A requirement of Python, as `>=1.2,<2`.
pub fn python(text: &str) -> Option<Wanted> {
    let mut comparators = Vec::new();
    for clause in text.split(',') {
        let clause = clause.trim();
        let operators = ["===", "==", "~=", "!=", ">=", "<=", ">", "<"];
        let operator = operators.into_iter().find(|operator| clause.starts_with(operator))?;
        let number = clause[operator.len()..].trim();
        match operator {
            "!=" => {}
            "==" | "===" => match number.strip_suffix(".*") {
                Some(series) => comparators.push(format!("{series}.*")),
                None => return version(number).map(Wanted::Exactly),
            },
            "~=" => comparators.push(compatible(number)?),
            _ => comparators.push(format!("{operator}{}", version(number)?)),
        }
    }
    VersionReq::parse(&comparators.join(", ")).ok().map(Wanted::Range)
}

/// `~=1.4.2` is `>=1.4.2, ==1.4.*`, and `~=1.4` is `>=1.4, ==1.*`.
fn compatible(number: &str) -> Option<String> {
    let lowest = version(number)?;
    Some(if number.split('.').count() > 2 {
        format!("~{lowest}")
    } else {
        format!(">={lowest}, <{}.0.0", lowest.major + 1)
    })
}

/// A requirement of `Cargo.toml`.
pub fn cargo(text: &str) -> Option<Wanted> {
    let range = VersionReq::parse(text).ok()?;
    let exact = text.trim().strip_prefix('=').and_then(|number| {
        let number = number.trim();
        Version::parse(number).ok()
    });
    Some(exact.map_or(Wanted::Range(range), Wanted::Exactly))
}

/// The lowest version that a range admits; none when it has no lower bound.
pub fn lowest(range: &VersionReq) -> Option<Version> {
    let bounds = range.comparators.iter().filter_map(|comparator| {
        let minor = comparator.minor.unwrap_or(0);
        let patch = comparator.patch.unwrap_or(0);
        let version = Version::new(comparator.major, minor, patch);
        match comparator.op {
            Op::Less | Op::LessEq => None,
            Op::Greater => Some(Version::new(version.major, version.minor, version.patch + 1)),
            _ => Some(version),
        }
    });
    bounds.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowest_of(wanted: Option<Wanted>) -> String {
        match wanted {
            Some(Wanted::Exactly(version)) => format!("={version}"),
            Some(Wanted::Range(range)) => {
                lowest(&range).map_or("any".to_owned(), |version| version.to_string())
            }
            None => "unknown".to_owned(),
        }
    }

    #[test]
    fn versions_are_read_leniently() {
        let read = |text| version(text).unwrap().to_string();
        assert_eq!(read("1.2.3"), "1.2.3");
        assert_eq!(read("5.4"), "5.4.0");
        assert_eq!(read("2.0.0.post1"), "2.0.0");
        assert_eq!(read("2023.07.22"), "2023.7.22");
        assert_eq!(read("1.0rc1"), "1.0.0");
        assert_eq!(version("latest"), None);
    }

    #[test]
    fn npm_ranges() {
        for (text, expect) in [
            ("4.17.20", "=4.17.20"),
            ("v1.2.3", "=1.2.3"),
            ("^4.17.0", "4.17.0"),
            ("~1.2", "1.2.0"),
            (">=1.2.3 <2", "1.2.3"),
            (">= 1.2.3", "1.2.3"),
            ("1.x", "1.0.0"),
            ("1.2", "1.2.0"),
            ("^1 || ^2.1", "2.1.0"),
            ("*", "any"),
            ("latest", "unknown"),
            ("github:a/b", "unknown"),
            ("1.0 - 2.0", "unknown"),
        ] {
            assert_eq!(lowest_of(npm(text)), expect, "{text}");
        }
    }

    #[test]
    fn python_ranges() {
        for (text, expect) in [
            ("==5.3", "=5.3.0"),
            ("===5.3.1", "=5.3.1"),
            (">=2.0, <3", "2.0.0"),
            ("~=1.4.2", "1.4.2"),
            ("~=1.4", "1.4.0"),
            ("==1.4.*", "1.4.0"),
            ("!=1.5,>1.2", "1.2.1"),
            ("<2", "any"),
            ("oops", "unknown"),
        ] {
            assert_eq!(lowest_of(python(text)), expect, "{text}");
        }
    }

    #[test]
    fn cargo_ranges() {
        assert_eq!(lowest_of(cargo("1.2")), "1.2.0");
        assert_eq!(lowest_of(cargo("=1.2.3")), "=1.2.3");
        assert_eq!(lowest_of(cargo("0.4")), "0.4.0");
        assert_eq!(lowest_of(cargo("git")), "unknown");
    }
}
