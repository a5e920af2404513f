//! What rules do to tasks.

use forebay_tasks::Rules;
use serde_json::json;

use crate::world::{Complete, World};

async fn rule(world: &World, rules: &str) {
    world.door.set_rules(Rules::parse(rules).expect("rules")).await.expect("they are taken");
}

#[tokio::test]
async fn a_task_that_the_rules_drop_is_not_enqueued_and_the_answer_says_so() {
    let world = World::start().await;
    world.task(json!({"id": "a"})).await;
    rule(&world, "[[drop]]\ntask = 'spam'\nnamespace = 'ns'").await;
    let task =
        |id: &str, namespace: &str| json!({"application": "app", "namespace": namespace, "task": "spam", "id": id});
    let tasks = json!({"tasks": [task("b", "ns"), task("c", "other"), task("", "ns")]});
    let answer = world.post("/tasks", Some(tasks)).await;
    let expected = json!([
        {"id": "b", "was_there": false, "dropped": true},
        {"id": "c", "was_there": false},
        {"id": "", "was_there": false, "dropped": true},
    ]);
    assert_eq!(answer["tasks"], expected);
    assert_eq!(world.counts().await, [2, 0, 0, 0]);
    assert_eq!((world.door.dropped().at_enqueue, world.door.dropped().waiting), (2, 0));
}

#[tokio::test]
async fn what_depends_on_a_dropped_task_of_its_request_is_dropped_with_it() {
    let world = World::start().await;
    rule(&world, "[[drop]]\ntask = 'spam'").await;
    let task = |id: &str, task: &str, on: &[&str], met_if_gone: bool| {
        json!({"application": "app", "namespace": "ns", "id": id, "task": task, "depends_on": on,
            "met_if_gone": met_if_gone})
    };
    let tasks = [
        task("a", "spam", &[], false),
        task("b", "t", &["a"], false),
        task("c", "t", &["b"], false),
        task("d", "t", &["a"], true),
        task("e", "t", &["d"], false),
    ];
    let answer = world.post("/tasks", Some(json!({"tasks": tasks}))).await;
    let dropped = |id: &str| json!({"id": id, "was_there": false, "dropped": true});
    let taken = |id: &str| json!({"id": id, "was_there": false});
    assert_eq!(answer["tasks"], json!([dropped("a"), dropped("b"), dropped("c"), taken("d"), taken("e")]));
    assert_eq!((world.worker().take().await.as_deref(), world.door.dropped().at_enqueue), (Some("d"), 3));
}

#[tokio::test]
async fn a_task_that_waits_and_is_dropped_is_handed_to_nobody() {
    let world = World::start().await;
    for (id, task) in [("a", "spam"), ("b", "keep"), ("c", "spam"), ("d", "keep")] {
        world.task(json!({"id": id, "task": task, "dead_letter": true})).await;
    }
    rule(&world, "[[drop]]\napplication = 'app'\ntask = 'spam'").await;
    let mut worker = world.worker();
    assert_eq!(worker.take().await.as_deref(), Some("b"));
    // Neither who reports and takes the next one.
    assert_eq!(worker.report_and_take("b", Complete).await, None);
    assert_eq!(worker.take().await.as_deref(), Some("d"));
    assert_eq!((world.counts().await, world.door.dropped().waiting), ([0, 1, 0, 0], 2));
    // A rule that is gone drops nothing.
    rule(&world, "").await;
    world.task(json!({"id": "e", "task": "spam"})).await;
    assert_eq!(worker.take().await.as_deref(), Some("e"));
}

#[tokio::test]
async fn what_waits_of_a_dropped_namespace_is_removed_without_a_worker() {
    let world = World::start().await;
    for _ in 0..2 {
        let namespace = |n| if n % 10 == 0 { "keep" } else { "old" };
        let task = |n| json!({"application": "app", "namespace": namespace(n), "task": "t", "dead_letter": true});
        let tasks: Vec<_> = (0..1_000).map(task).collect();
        world.post("/tasks", Some(json!({"tasks": tasks}))).await;
    }
    rule(&world, "[[drop]]\nnamespace = 'old'").await;
    while world.counts().await != [200, 0, 0, 0] {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.door.dropped().waiting, 1_800);
}

#[tokio::test]
async fn no_more_tasks_of_a_namespace_are_held_than_may_be() {
    let world = World::start().await;
    const RULES: &str = "[[namespace]]\napplication = 'app'\nname = 'ns'\nheld_max = 2";
    // Before there is such an application.
    rule(&world, RULES).await;
    for id in ["a", "b", "c", "d"] {
        world.task(json!({"id": id})).await;
    }
    world.task(json!({"id": "x", "namespace": "other"})).await;
    let mut worker = world.worker();
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(worker.ask(None, None).await.map(|task| task.known().expect("an activation").id).ok());
    }
    let names: Vec<Option<&str>> = taken.iter().map(|id| id.as_deref()).collect();
    assert_eq!(names, [Some("a"), Some("x"), Some("b"), None]);
    let world = world.restart().await;
    rule(&world, RULES).await;
    let mut worker = world.worker();
    assert_eq!(worker.take().await, None);
    assert!(worker.ask(Some("app"), Some("ns")).await.is_err());
    worker.report("a", Complete).await;
    assert_eq!(worker.take().await.as_deref(), Some("c"));
    assert_eq!(worker.take().await, None);
}

#[tokio::test]
async fn namespaces_and_applications_are_taken_from_as_they_weigh() {
    let world = World::start().await;
    for n in 0..30 {
        for (application, namespace) in [("app", "heavy"), ("app", "light"), ("other", "ns")] {
            let id = format!("{application} {namespace} {n}");
            world.task(json!({"id": id, "application": application, "namespace": namespace})).await;
        }
    }
    let weights =
        "[[namespace]]\napplication = 'app'\nname = 'heavy'\nweight = 3\n[[application]]\nname = 'app'\nweight = 2";
    rule(&world, weights).await;
    let mut worker = world.worker();
    let mut taken = [0; 3];
    for _ in 0..36 {
        let id = worker.ask(None, None).await.expect("a task").known().expect("an activation").id;
        let of = ["app heavy", "app light", "other ns"].iter().position(|of| id.starts_with(of));
        taken[of.expect("one of them")] += 1;
    }
    assert_eq!(taken, [18, 6, 12]);
}
