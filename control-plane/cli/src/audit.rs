//! Verifies the audit log by itself, from what the contracts say of hashes: the server is believed
//! in nothing but that it hands over what is stored.

use std::collections::HashMap;

use contracts::v1::payload::Data;
use contracts::v1::{AuditBreak, AuditEntry, VerifyAuditResponse};
use prost_types::Timestamp;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::json;

/// What a hash begins with.
const DOMAIN: &[u8] = b"orchestrator.v1.audit";

/// What a seal says.
#[derive(Deserialize)]
struct Seal {
    heads: Vec<SealedHead>,
}

#[derive(Deserialize)]
struct SealedHead {
    resource: String,
    number: i64,
    hash: String,
}

/// What seals say of an entry.
struct Covered {
    number: i64,
    hash: String,
    seal: i64,
}

/// Goes through chains, those of the seals first.
#[derive(Default)]
pub(crate) struct Auditor {
    response: VerifyAuditResponse,
    sealed: HashMap<String, Vec<Covered>>,
}

/// What was found.
pub(crate) struct Found {
    pub(crate) broken: Option<AuditBreak>,
    response: VerifyAuditResponse,
}

impl Auditor {
    /// The chain of the seals.
    pub(crate) const SEALS: &str = "seal";

    pub(crate) fn is_broken(&self) -> bool {
        self.response.broken.is_some()
    }

    /// Takes in the seals: what they say of `resource`, or of all.
    pub(crate) fn seals(&mut self, entries: &[AuditEntry], resource: Option<&str>) {
        if !self.walk(Self::SEALS, entries) {
            return;
        }
        for entry in entries {
            self.response.seal_count += 1;
            let Ok(seal) = serde_json::from_slice::<Seal>(body(entry)) else {
                return self.broken(Self::SEALS, entry.number, "it is no seal".to_owned());
            };
            for SealedHead { resource: name, number, hash } in seal.heads {
                if resource.is_none_or(|resource| resource == name) {
                    let covered = Covered { number, hash, seal: entry.number };
                    self.sealed.entry(name).or_default().push(covered);
                }
            }
        }
    }

    /// Takes in one chain as a whole.
    pub(crate) fn chain(&mut self, resource: &str, entries: &[AuditEntry]) {
        self.response.chain_count += 1;
        if !self.walk(resource, entries) {
            return;
        }
        self.response.entry_count += i64::try_from(entries.len()).unwrap_or(i64::MAX);
        for Covered { number, hash, seal } in self.sealed.remove(resource).unwrap_or_default() {
            let place = usize::try_from(number - 1).ok();
            match place.and_then(|place| entries.get(place)) {
                Some(entry) if entry.hash == hash => {}
                Some(_) => {
                    return self.broken(resource, number, format!("seal {seal} has another hash"));
                }
                None => {
                    let problem = format!("it is gone; seal {seal} covers it");
                    return self.broken(resource, number, problem);
                }
            }
        }
    }

    /// What was found, once all chains were taken in.
    pub(crate) fn found(mut self) -> Found {
        let mut gone: Vec<_> = std::mem::take(&mut self.sealed).into_iter().collect();
        gone.sort_by(|one, other| one.0.cmp(&other.0));
        if let (false, Some((resource, covered))) = (self.is_broken(), gone.first())
            && let Some(Covered { number, seal, .. }) = covered.first()
        {
            let problem = format!("the whole chain is gone; seal {seal} covers it");
            self.broken(resource, *number, problem);
        }
        Found::of(self.response)
    }

    fn broken(&mut self, resource: &str, number: i64, problem: String) {
        let resource = resource.to_owned();
        self.response.broken.get_or_insert(AuditBreak { resource, number, problem });
    }

    /// Follows the links and computes the hashes; gives whether all is as it was written.
    fn walk(&mut self, resource: &str, entries: &[AuditEntry]) -> bool {
        let mut previous = hex(&[0; 32]);
        for (next, entry) in (1..).zip(entries) {
            let problem = if entry.number != next {
                format!("it is missing; the next one is number {}", entry.number)
            } else if entry.resource != resource {
                "it is another chain's".to_owned()
            } else if entry.previous_hash != previous {
                "it does not follow the entry before it".to_owned()
            } else if hash(entry).as_ref() != Some(&entry.hash) {
                "its hash is not that of what it says".to_owned()
            } else {
                previous.clone_from(&entry.hash);
                continue;
            };
            self.broken(resource, next, problem);
            return false;
        }
        true
    }
}

impl Found {
    pub(crate) fn of(response: VerifyAuditResponse) -> Self {
        Self { broken: response.broken.clone(), response }
    }

    pub(crate) fn json(&self) -> String {
        json::message("VerifyAuditResponse", &self.response)
    }

    pub(crate) fn text(&self) -> String {
        let VerifyAuditResponse { chain_count, entry_count, seal_count, .. } = &self.response;
        let seen = format!("{entry_count} entries in {chain_count} chains, {seal_count} seals");
        match &self.broken {
            None => format!("the audit log is whole: {seen}"),
            Some(AuditBreak { resource, number, problem }) => format!(
                "the audit log is BROKEN at entry {number} of {resource}: {problem} ({seen} were \
                 looked at)"
            ),
        }
    }
}

fn body(entry: &AuditEntry) -> &[u8] {
    match entry.body.as_ref().and_then(|body| body.data.as_ref()) {
        Some(Data::Json(json)) => json.as_bytes(),
        Some(Data::Bytes(bytes)) => bytes,
        _ => b"",
    }
}

fn micros(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1000)
}

/// The hash of what an entry says; none where its own previous hash is none.
fn hash(entry: &AuditEntry) -> Option<String> {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    add(DOMAIN);
    add(entry.resource.as_bytes());
    add(&entry.number.to_be_bytes());
    add(&micros(&entry.time.unwrap_or_default()).to_be_bytes());
    add(entry.actor.as_bytes());
    add(entry.action.as_bytes());
    add(body(entry));
    add(&unhex(&entry.previous_hash)?);
    Some(hex(&digest.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use contracts::v1::Payload;

    use super::*;

    fn chain(resource: &str, words: &[&str]) -> Vec<AuditEntry> {
        let mut previous = hex(&[0; 32]);
        let entry = |(number, word): (i64, &&str)| {
            let data = Some(Data::Json(format!("{{\"word\":\"{word}\"}}")));
            let mut entry = AuditEntry {
                resource: resource.to_owned(),
                number,
                time: Some(Timestamp { seconds: 7, nanos: 5000 }),
                actor: "ann".to_owned(),
                action: "x.do".to_owned(),
                body: Some(Payload { data, media_type: String::new() }),
                previous_hash: previous.clone(),
                hash: String::new(),
            };
            entry.hash = hash(&entry).unwrap();
            previous.clone_from(&entry.hash);
            entry
        };
        (1..).zip(words).map(entry).collect()
    }

    fn seal(of: &AuditEntry) -> Vec<AuditEntry> {
        let mut seal = chain(Auditor::SEALS, &["x"]).remove(0);
        let heads = serde_json::json!({"heads": [
            {"resource": of.resource, "number": of.number, "hash": of.hash}
        ]});
        seal.body =
            Some(Payload { data: Some(Data::Json(heads.to_string())), media_type: String::new() });
        seal.hash = hash(&seal).unwrap();
        vec![seal]
    }

    fn verify(seals: &[AuditEntry], chains: &[Vec<AuditEntry>]) -> Option<(String, i64)> {
        let mut auditor = Auditor::default();
        auditor.seals(seals, None);
        chains.iter().for_each(|chain| auditor.chain(&chain[0].resource.clone(), chain));
        auditor.found().broken.map(|broken| (broken.resource, broken.number))
    }

    #[test]
    fn a_whole_log_is_found_whole_and_every_change_is_found() {
        let good = chain("run/a", &["one", "two", "three"]);
        let seals = seal(&good[2]);
        assert_eq!(verify(&seals, std::slice::from_ref(&good)), None);
        let mut changed = good.clone();
        changed[1].actor = "mallory".to_owned();
        assert_eq!(verify(&seals, &[changed]), Some(("run/a".to_owned(), 2)));
        let mut moved = good.clone();
        moved[0].time = Some(Timestamp { seconds: 7, nanos: 6000 });
        assert_eq!(verify(&seals, &[moved]), Some(("run/a".to_owned(), 1)));
        let mut missing = good.clone();
        missing.remove(1);
        assert_eq!(verify(&seals, &[missing]), Some(("run/a".to_owned(), 2)));
        let cut = good[..2].to_vec();
        assert_eq!(verify(&[], std::slice::from_ref(&cut)), None, "without a seal it is unseen");
        assert_eq!(verify(&seals, &[cut]), Some(("run/a".to_owned(), 3)));
        let anew = chain("run/a", &["one", "two", "another"]);
        assert_eq!(verify(&seals, &[anew]), Some(("run/a".to_owned(), 3)));
        assert_eq!(verify(&seals, &[]), Some(("run/a".to_owned(), 3)), "all of it is gone");
        let mut forged = seals.clone();
        forged[0].body = None;
        assert_eq!(verify(&forged, &[good]), Some(("seal".to_owned(), 1)));
    }
}
