//! Folding, pages and filters.

use store::{Cursor, RunFilter};

use crate::support::{NOW, World, ended, long, next, run, start, with_body};

pub(crate) async fn a_run_that_is_not_there_is_none(world: World) {
    assert_eq!(world.store.run(run(1)).await.unwrap(), None);
    assert_eq!(world.store.fold(run(1)).await.unwrap(), None);
    assert_eq!(world.store.journal(run(1), 0, 10).await.unwrap(), []);
    assert_eq!(world.store.request("default", "a\0b").await.unwrap(), None);
    assert_eq!(world.store.workflow("default", "a\0b", None).await.unwrap(), None);
}

pub(crate) async fn a_journal_is_folded_in_order(world: World) {
    let mut commit = world.win(start(1, 1)).await;
    let mut events = commit.events.clone();
    for count in [12, 1, 300, 2] {
        commit = world.win(next(&commit, count)).await;
        events.extend(commit.events.iter().cloned());
    }
    world.win(start(2, 7)).await;
    let folded = world.store.fold(run(1)).await.unwrap();
    assert_eq!(folded, Some((commit.row, events)));
}

pub(crate) async fn a_journal_is_read_by_pages(world: World) {
    let commit = world.win(start(1, 25)).await;
    let mut seen = Vec::new();
    loop {
        let after = seen.len() as i64;
        let page = world.store.journal(run(1), after, 10).await.unwrap();
        assert!(page.len() <= 10);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, commit.events);
    let capped = world.win(start(2, 1100)).await;
    let page = world.store.journal(capped.run, 0, u32::MAX).await.unwrap();
    assert_eq!(page.len(), store::limits::PAGE_ROWS_MAX as usize);
}

/// Events of one moment may share a row; nobody sees it.
pub(crate) async fn what_happened_together_is_read_apart(world: World) {
    let together = |mut commit: store::Commit| {
        for event in &mut commit.events {
            event.at = NOW;
        }
        commit
    };
    let first = world.win(together(start(1, 25))).await;
    let long = with_body(together(next(&first, 3)), long(1));
    let second = world.win(long).await;
    let third = world.win(together(next(&second, 400))).await;
    let all = [&first.events[..], &second.events, &third.events].concat();
    let folded = world.store.fold(run(1)).await.unwrap();
    assert_eq!(folded, Some((third.row, all.clone())));
    for after in [0, 1, 10, 24, 25, 26, 27, 28, 29, 300, 427, 428] {
        for limit in [1, 7, 1000] {
            let page = world.store.journal(run(1), after, limit).await.unwrap();
            let expected = all.iter().skip(after as usize).take(limit as usize);
            assert_eq!(page, expected.cloned().collect::<Vec<_>>(), "{limit} after {after}");
        }
    }
}

pub(crate) async fn unfinished_runs_are_read_by_pages(world: World) {
    for number in (1..=9).rev() {
        let commit = start(number, 1);
        let commit = if number % 3 == 0 { ended(commit, NOW) } else { commit };
        world.win(commit).await;
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = world.store.unfinished(after, 4).await.unwrap();
        after = page.last().map(|row| row.run_id);
        if page.is_empty() {
            break;
        }
        seen.extend(page.into_iter().map(|row| row.run_id));
    }
    assert_eq!(seen, [1, 2, 4, 5, 7, 8].map(run));
}

pub(crate) async fn runs_are_listed_by_time_in_both_directions(world: World) {
    for number in [3, 1, 5, 2, 4] {
        let mut commit = start(number, 1);
        // The id decides where the time does not.
        commit.row.created_at = NOW + (number / 2) as i64;
        world.win(commit).await;
    }
    for (ascending, expected) in [(true, [1, 2, 3, 4, 5]), (false, [5, 4, 3, 2, 1])] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let filter = RunFilter::default();
            let page = world.store.runs(&filter, after, ascending, 2).await.unwrap();
            after = page.last().map(|row| Cursor { at: row.created_at, id: row.run_id });
            if page.is_empty() {
                break;
            }
            seen.extend(page.into_iter().map(|row| row.run_id));
        }
        assert_eq!(seen, expected.map(run));
    }
}

pub(crate) async fn runs_are_filtered(world: World) {
    for number in 1..=6 {
        let mut commit = start(number, 1);
        commit.row.status = (number % 2) as i16;
        commit.row.parent = (number > 3).then(|| run(1));
        if number == 6 {
            commit.row.workflow = "deploy".to_owned();
            commit.row.tenant = "other".to_owned();
        }
        world.win(commit).await;
    }
    let found = async |filter: RunFilter| {
        let rows = world.store.runs(&filter, None, true, 100).await.unwrap();
        (1..=6).filter(|n| rows.iter().any(|row| row.run_id == run(*n))).collect::<Vec<u64>>()
    };
    let all = RunFilter::default();
    assert_eq!(found(all.clone()).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(found(RunFilter { status: Some(1), ..all.clone() }).await, [1, 3, 5]);
    assert_eq!(found(RunFilter { parent: Some(run(1)), ..all.clone() }).await, [4, 5, 6]);
    let deploy = Some("deploy".to_owned());
    assert_eq!(found(RunFilter { workflow: deploy, ..all.clone() }).await, [6]);
    let tenant = Some("default".to_owned());
    let (status, parent) = (Some(1), Some(run(1)));
    let workflow = Some("build".to_owned());
    assert_eq!(found(RunFilter { tenant, workflow, status, parent }).await, [5]);
    assert!(found(RunFilter { tenant: Some("a\0b".to_owned()), ..all }).await.is_empty());
}

pub(crate) async fn a_journal_is_replayed_event_by_event(world: World) {
    let first = world.win(with_body(start(1, 3), long(1))).await;
    let second = world.win(next(&first, 300)).await;
    let mut events = Vec::new();
    let whole = world.store.replay(&second.row, &mut |event| events.push(event)).await;
    assert!(whole.unwrap());
    assert_eq!(events, [&first.events[..], &second.events[..]].concat());
    // As it was.
    events.clear();
    assert!(world.store.replay(&first.row, &mut |event| events.push(event)).await.unwrap());
    assert_eq!(events, first.events);
    let missing = start(2, 1).row;
    assert!(!world.store.replay(&missing, &mut |event| events.push(event)).await.unwrap());
    assert_eq!(events.len(), 3);
}
