//! How far each schedule has come.

use store::{ScheduleId, ScheduleRow};

use crate::support::{NOW, World, owner};

fn id(workflow: &str, schedule: &str) -> ScheduleId {
    ScheduleId {
        tenant: "default".to_owned(),
        workflow: workflow.to_owned(),
        schedule: schedule.to_owned(),
    }
}

pub(crate) async fn a_schedule_advances_by_compare_and_swap(world: World) {
    let id = id("build", "0 3 * * *");
    let row = world.store.put_schedule(&id, b"{}").await.unwrap();
    let new = ScheduleRow {
        id: id.clone(),
        spec: b"{}".to_vec(),
        version: 1,
        last_instant: None,
        owner: None,
    };
    assert_eq!(row, new);
    let advance = async |version, instant, number| {
        world.store.advance_schedule(&id, version, instant, owner(number)).await.unwrap()
    };
    assert!(advance(1, NOW, 1).await);
    assert!(!advance(1, NOW, 2).await, "taken by another");
    assert!(advance(2, NOW + 1, 2).await);
    let rows = world.store.schedules(None, 10).await.unwrap();
    let (version, last_instant, owner) = (3, Some(NOW + 1), Some(owner(2)));
    assert_eq!(rows, [ScheduleRow { version, last_instant, owner, ..new }]);
}

pub(crate) async fn a_schedule_keeps_its_progress_over_another_spec(world: World) {
    let id = id("build", "@hourly");
    world.store.put_schedule(&id, b"old").await.unwrap();
    assert!(world.store.advance_schedule(&id, 1, NOW, owner(1)).await.unwrap());
    let same = world.store.put_schedule(&id, b"old").await.unwrap();
    assert_eq!((same.version, same.last_instant), (2, Some(NOW)));
    let changed = world.store.put_schedule(&id, b"new").await.unwrap();
    assert_eq!((changed.version, changed.last_instant), (3, Some(NOW)));
    assert_eq!(changed.spec, b"new");
    assert!(!world.store.advance_schedule(&id, 2, NOW + 1, owner(1)).await.unwrap());
}

pub(crate) async fn schedules_are_listed_and_deleted(world: World) {
    let ids = [id("a", "x"), id("a", "y"), id("b", "x")];
    for id in ids.iter().rev() {
        world.store.put_schedule(id, b"").await.unwrap();
    }
    let list = async |after: Option<&ScheduleId>| {
        let rows = world.store.schedules(after, 2).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None).await, ids[..2]);
    assert_eq!(list(Some(&ids[1])).await, ids[2..]);
    assert!(world.store.delete_schedule(&ids[0]).await.unwrap());
    assert!(!world.store.delete_schedule(&ids[0]).await.unwrap());
    assert!(!world.store.advance_schedule(&ids[0], 1, NOW, owner(1)).await.unwrap());
    assert_eq!(list(None).await, ids[1..]);
}
