//! Rows of keys that span runs.

use store::KeyChange;

use crate::support::World;

fn change(key: &str, expected_version: i64, version: i64, body: Option<&str>) -> KeyChange {
    let body = body.map(|body| body.as_bytes().to_vec());
    KeyChange { kind: 1, key: key.to_owned(), expected_version, version, body }
}

pub(crate) async fn keys_change_by_compare_and_swap(world: World) {
    let store = &world.store;
    let new = |body| change("b", 0, 7, Some(body));
    assert_eq!(
        store.put_keys(&[new("x"), change("a", 0, 1, Some("y"))]).await.unwrap(),
        [true, true]
    );
    assert_eq!(store.put_keys(&[new("z")]).await.unwrap(), [false], "it is there");
    let changes = [change("b", 6, 9, Some("no")), change("a", 1, 2, Some("yes"))];
    assert_eq!(store.put_keys(&changes).await.unwrap(), [false, true], "one loses alone");
    let rows = store.keys(1, &["a", "b", "c", "nul\0"]).await.unwrap();
    let mut rows: Vec<_> = rows.iter().map(|row| (&*row.key, row.version, &*row.body)).collect();
    rows.sort();
    assert_eq!(rows, [("a", 2, &b"yes"[..]), ("b", 7, &b"x"[..])]);
    assert_eq!(store.keys(2, &["a"]).await.unwrap(), [], "another kind, another key");
    let changes = [change("a", 1, 3, None), change("b", 7, 8, None), change("c", 0, 1, None)];
    assert_eq!(store.put_keys(&changes).await.unwrap(), [false, true, true]);
    assert_eq!(store.list_keys(None, 10).await.unwrap().len(), 1);
}

pub(crate) async fn keys_are_listed_by_pages(world: World) {
    let changes: Vec<_> = (0..5).map(|n| change(&format!("k{n}"), 0, 1, Some("body"))).collect();
    world.store.put_keys(&changes).await.unwrap();
    let page = world.store.list_keys(Some((1, "k1")), 2).await.unwrap();
    let keys: Vec<_> = page.iter().map(|row| &*row.key).collect();
    assert_eq!(keys, ["k2", "k3"]);
    assert_eq!(world.store.list_keys(Some((1, "k4")), 2).await.unwrap(), []);
    assert_eq!(world.store.list_keys(Some((0, "z")), 9).await.unwrap().len(), 5);
}

pub(crate) async fn two_who_change_many_keys_at_once_do_not_wait_for_one_another(world: World) {
    let names: Vec<String> = (0..50).map(|n| format!("k{n}")).collect();
    let write = |reversed: bool| {
        let (store, mut names) = (std::sync::Arc::clone(&world.store), names.clone());
        if reversed {
            names.reverse();
        }
        tokio::spawn(async move {
            let mut won = 0;
            for round in 1..=20 {
                let keys: Vec<_> = names.iter().map(|name| &**name).collect();
                let rows = store.keys(1, &keys).await.unwrap();
                let version = |name: &str| {
                    rows.iter().find(|row| row.key == name).map_or(0, |row| row.version)
                };
                let changes: Vec<_> = names
                    .iter()
                    .map(|name| {
                        let (expected, body) = (version(name), format!("{round}"));
                        change(name, expected, expected + 1, Some(&body))
                    })
                    .collect();
                let outcomes = store.put_keys(&changes).await.unwrap();
                won += outcomes.into_iter().filter(|won| *won).count() as i64;
            }
            won
        })
    };
    let (one, two) = (write(false), write(true));
    let won = one.await.unwrap() + two.await.unwrap();
    let rows = world.store.list_keys(None, 100).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.version).sum::<i64>(), won, "each change counts once");
}
