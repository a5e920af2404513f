//! Routes that are not there yet.

use hyper::Method;

use crate::world::World;

#[tokio::test]
async fn a_route_that_is_not_there_yet_says_so_by_its_name() {
    let world = World::start().await;
    for (method, path, name) in [
        (Method::GET, "/access_groups", "list_access_groups"),
        (Method::POST, "/admin/sql", "admin_sql"),
        (Method::GET, "/workflows/1/ro_crate_entities", "list_ro_crate_entities"),
        (Method::DELETE, "/workflows/1/remote_workers/a", "delete_remote_worker"),
    ] {
        assert_eq!(world.refused(method, path, None).await, (501, format!("{name} is not implemented yet")));
    }
    for path in ["/nothing", "/workflows/1/nothing", "/jobs/1/nothing"] {
        assert_eq!(world.send(Method::GET, path, None).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let world = World::start().await;
    let one = world.send(Method::GET, "/ping", None).await;
    let other = world.send(Method::GET, "/ping", None).await;
    assert_ne!(one.headers["x-span-id"], other.headers["x-span-id"]);
}
