//! Steps as a node takes them.

use super::*;

fn step<'a>(base: Option<u64>, revision: u64, writes: &'a str) -> Step<'a> {
    let writes = serde_json::from_str(writes).unwrap();
    Step {
        base,
        revision,
        is_last: true,
        writes,
    }
}

#[test]
fn an_object_that_cannot_be_read_is_refused_and_the_last_good_one_stays() {
    let directory = Directory::new();
    let objects = Objects::replica(store(&directory.0.join("copy"))).unwrap();
    let mut intake = Intake::new(Arc::clone(&objects));
    let epoch = Uuid::new_v4();
    let account = r#"{"id":"00000000000000000000000000000001","name":"a","created_on":"2026-01-01T00:00:00Z"}"#;
    let key = "account/00000000000000000000000000000001";
    let good = format!(r#"[{{"key":"{key}","value":{account}}}]"#);
    assert_eq!(
        intake.take(epoch, step(None, 5, &good)).unwrap(),
        Taken::Done
    );
    let bad = format!(
        r#"[{{"key":"{key}","value":{{"id":3}}}},{{"key":"dragon/1","value":{{}}}},
            {{"key":"account/00000000000000000000000000000002","value":{}}}]"#,
        account.replace("0001", "0002")
    );
    let progress = |revision| Progress {
        revision,
        rejected: Vec::new(),
    };
    for (base, revision) in [(Some(5), 6), (None, 7)] {
        assert_eq!(
            intake.take(epoch, step(base, revision, &bad)).unwrap(),
            Taken::Done
        );
        let snapshot = objects.snapshot();
        let names: Vec<&str> = snapshot
            .accounts
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(names, ["a", "a"], "the last good one, and the new one");
        assert_eq!(intake.reached(&progress(revision)), Some(revision));
        let (refused, total) = intake.refused(&progress(revision));
        assert_eq!(total, 2);
        assert_eq!(refused[0].object, key);
        assert!(refused[0].reason.contains("cannot be read"), "{refused:?}");
        assert_eq!(refused[1].object, "dragon/1");
    }
    let none = format!(r#"[{{"key":"{key}","value":null}}]"#);
    assert_eq!(
        intake.take(epoch, step(Some(7), 8, &none)).unwrap(),
        Taken::Done
    );
    assert_eq!(
        intake.refused(&progress(8)).1,
        1,
        "what is gone is not refused"
    );
}

#[test]
fn a_step_that_does_not_fit_asks_for_everything() {
    let directory = Directory::new();
    let objects = Objects::replica(store(&directory.0.join("copy"))).unwrap();
    let mut intake = Intake::new(objects);
    let epoch = Uuid::new_v4();
    let gap = |taken| matches!(taken, Ok(Taken::Gap(_)));
    assert!(
        gap(intake.take(epoch, step(Some(1), 2, "[]"))),
        "nothing to begin with"
    );
    assert_eq!(
        intake.take(epoch, step(None, 5, "[]")).unwrap(),
        Taken::Done
    );
    assert!(gap(intake.take(epoch, step(Some(4), 6, "[]"))));
    assert!(gap(intake.take(epoch, step(Some(6), 7, "[]"))));
    assert!(
        gap(intake.take(Uuid::new_v4(), step(Some(5), 6, "[]"))),
        "of another start"
    );
    assert_eq!(
        intake.take(epoch, step(Some(5), 6, "[]")).unwrap(),
        Taken::Done
    );
}
