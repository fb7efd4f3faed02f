//! In which order: stages of issues that can be mended side by side.

use std::collections::BTreeMap;

/// One thing to be put in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Item<'a> {
    /// Its id.
    pub id: &'a str,
    /// What must come before; ids that are not there are ignored.
    pub depends_on: &'a [String],
    /// The higher, the sooner within its stage.
    pub priority: f64,
}

/// Stages: each item stands behind all that it depends on, as early as it can; within a stage by
/// priority, then id. With `parallel_max` no stage is larger than that. There must be no circle.
pub fn stages(items: &[Item<'_>], parallel_max: Option<usize>) -> Vec<Vec<String>> {
    let index: BTreeMap<&str, usize> =
        items.iter().enumerate().map(|(at, item)| (item.id, at)).collect();
    let mut waits = vec![0_usize; items.len()];
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); items.len()];
    for (at, item) in items.iter().enumerate() {
        for need in item.depends_on.iter().filter_map(|id| index.get(id.as_str())) {
            waits[at] += 1;
            after[*need].push(at);
        }
    }
    let size_max = parallel_max.unwrap_or(usize::MAX).max(1);
    let sort = |ready: &mut Vec<usize>| {
        ready.sort_by(|left, right| {
            let (left, right) = (&items[*left], &items[*right]);
            right.priority.total_cmp(&left.priority).then_with(|| left.id.cmp(right.id))
        });
    };
    let mut ready: Vec<usize> = (0..items.len()).filter(|at| waits[*at] == 0).collect();
    let mut stages = Vec::new();
    while !ready.is_empty() {
        sort(&mut ready);
        let rest = ready.split_off(ready.len().min(size_max));
        let stage = std::mem::replace(&mut ready, rest);
        for at in &stage {
            for next in &after[*at] {
                waits[*next] -= 1;
                if waits[*next] == 0 {
                    ready.push(*next);
                }
            }
        }
        stages.push(stage.into_iter().map(|at| items[at].id.to_owned()).collect());
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(items: &[(&str, &[&str], f64)], parallel_max: Option<usize>, want: &[&[&str]]) {
        let needs: Vec<Vec<String>> = items
            .iter()
            .map(|(_, needs, _)| needs.iter().map(|id| (*id).to_owned()).collect())
            .collect();
        let items: Vec<Item<'_>> = items
            .iter()
            .zip(&needs)
            .map(|((id, _, priority), depends_on)| Item { id, depends_on, priority: *priority })
            .collect();
        assert_eq!(stages(&items, parallel_max), want);
    }

    #[test]
    fn what_depends_stands_behind_and_the_urgent_first() {
        let items: &[(&str, &[&str], f64)] = &[
            ("a", &[], 1.0),
            ("b", &["a"], 9.0),
            ("c", &["gone"], 5.0),
            ("d", &["b", "c"], 1.0),
            ("e", &[], 5.0),
        ];
        check(items, None, &[&["c", "e", "a"], &["b"], &["d"]]);
        check(items, Some(2), &[&["c", "e"], &["a"], &["b"], &["d"]]);
    }
}
