//! Opening, migrating, closing.

use store::testing::TestDatabase;
use store::{Error, Outcome};

use crate::support::{World, execute, next, run, start};

pub(crate) async fn a_database_is_opened_again_with_all_that_is_in_it(world: World) {
    let first = world.win(start(1, 2)).await;
    let second = store::open(world.database.url()).await.unwrap();
    assert_eq!(second.kind(), world.store.kind());
    assert_eq!(second.run(run(1)).await.unwrap(), Some(first.row.clone()));
    world.store.close().await;
    let outcomes = second.commit(&[next(&first, 1)]).await.unwrap();
    assert_eq!(outcomes, [store::Outcome::Committed]);
    second.close().await;
    let third = store::open(world.database.url()).await.unwrap();
    assert_eq!(third.fold(run(1)).await.unwrap().unwrap().1.len(), 3);
    third.close().await;
}

pub(crate) async fn it_says_what_it_is(world: World) {
    let first = world.store.facts().await.unwrap();
    assert_eq!(first.schema, store::SCHEMA_KNOWN);
    assert!(first.version.starts_with(|letter: char| letter.is_ascii_digit()), "{first:?}");
    assert!(first.bytes > 4096, "{first:?}");
    let second = world.store.facts().await.unwrap();
    // A clock in another unit, or of another epoch, would be far from this.
    let year_2020 = 1_577_836_800_000_000;
    assert!(first.now > Some(year_2020) && second.now >= first.now, "{first:?} {second:?}");
    assert!(second.now < Some(year_2020 * 10), "{second:?}");
}

pub(crate) async fn a_newer_schema_is_refused(world: World) {
    execute(
        world.database.url(),
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 7, 'future', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
    )
    .await;
    execute(world.database.url(), "UPDATE schema_compatibility SET oldest = 7").await;
    let Err(error) = store::open(world.database.url()).await else {
        panic!("opened a schema of the future");
    };
    let known_here = store::SCHEMA_KNOWN;
    let told = matches!(error, Error::NewerSchema { found: 7, known } if known == known_here);
    assert!(told, "{error}");
    assert!(error.to_string().contains("start a release"), "{error}");
    // Nothing is left locked.
    execute(world.database.url(), "DELETE FROM _sqlx_migrations WHERE version = 7").await;
    store::open(world.database.url()).await.unwrap().close().await;
}

/// The release before starts on a schema that a newer one brought forward, as long as that says so.
pub(crate) async fn a_release_works_beside_a_newer_one(world: World) {
    let first = world.win(start(1, 1)).await;
    let before = store::testing::open_as(world.database.url(), 2).await.unwrap();
    let second = next(&first, 1);
    let outcomes = before.commit(&[second.clone(), start(2, 1)]).await.unwrap();
    assert_eq!(outcomes, [Outcome::Committed, Outcome::Committed]);
    assert_eq!(before.fold(run(1)).await.unwrap().unwrap().1.len(), 2);
    world.win(next(&second, 1)).await;
    assert_eq!(world.store.fold(run(2)).await.unwrap().unwrap().1.len(), 1);
    before.close().await;
    execute(world.database.url(), "UPDATE schema_compatibility SET oldest = 3").await;
    let refused = store::testing::open_as(world.database.url(), 2).await.err().unwrap();
    assert!(matches!(refused, Error::NewerSchema { found: 3, known: 2 }), "{refused}");
}

pub(crate) async fn what_a_release_before_wrote_is_there(world: World) {
    let old = new_database(&world).await;
    let before = store::testing::open_as(old.url(), 2).await.unwrap();
    let (commit, other) = (start(1, 3), start(2, 2));
    let went_on = next(&other, 4);
    before.commit(&[commit.clone(), other.clone()]).await.unwrap();
    before.commit(std::slice::from_ref(&went_on)).await.unwrap();
    before.close().await;
    let now = store::open(old.url()).await.unwrap();
    assert_eq!(now.fold(run(1)).await.unwrap(), Some((commit.row.clone(), commit.events.clone())));
    let journal = [other.events, went_on.events].concat();
    assert_eq!(now.fold(run(2)).await.unwrap(), Some((went_on.row, journal)));
    assert_eq!(now.commit(&[next(&commit, 1)]).await.unwrap(), [Outcome::Committed]);
    now.close().await;
}

/// An empty one of the same kind.
async fn new_database(world: &World) -> TestDatabase {
    match world.store.kind() {
        "sqlite" => store::testing::sqlite(),
        _ => store::testing::postgres().await,
    }
}

pub(crate) async fn a_closed_store_is_unavailable(world: World) {
    world.store.health().await.unwrap();
    world.store.close().await;
    world.store.close().await;
    assert!(matches!(world.store.health().await, Err(Error::Unavailable(_))));
    assert!(matches!(world.store.run(run(1)).await, Err(Error::Unavailable(_))));
    let refused = world.store.commit(&[start(1, 1)]).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
}

async fn refusal(url: &str) -> String {
    match store::open(url).await {
        Err(error @ Error::Url(_)) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn addresses_that_cannot_be_used_are_refused_with_the_remedy() {
    assert!(refusal("postgres://host/db").await.contains("postgres://USER@host/database"));
    assert!(refusal("sqlite::memory:").await.contains("sqlite:/path/file.db"));
    assert!(refusal("sqlite:").await.contains("names no file"));
    for url in ["mysql://me:secret@host/db", "me:secret@host", "", "postgres://me:secret@h:x/d"] {
        let text = refusal(url).await;
        assert!(text.contains("postgres://user@host/database"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let Err(error) = store::open("postgres://me:secret@127.0.0.1:1/db").await else {
        panic!("opened");
    };
    assert!(matches!(error, Error::Unavailable(_)), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}
