//! The cache's rules, and the client against a server.

use std::sync::Arc;
use std::time::Duration;

use super::cache::Cache;
use super::fake::{FakeOriginApi, TOKEN};
use super::{LookupError, OriginApi, Routes};
use crate::config::Limits;
use crate::counters::Counters;

fn routes(api: &FakeOriginApi, token: &str) -> Arc<Routes> {
    Arc::new(Routes::new(
        OriginApi::new(api.address, token).unwrap(),
        api.revision.subscribe(),
        Duration::from_secs(2),
        &Limits::default(),
        Arc::new(Counters::default()),
    ))
}

#[tokio::test]
async fn many_who_ask_at_one_time_are_one_question() {
    let api = FakeOriginApi::start().await;
    api.host("a.example.com", &["192.0.2.1"], None);
    let routes = routes(&api, TOKEN);
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let routes = Arc::clone(&routes);
            tokio::spawn(async move { routes.host("a.example.com").await })
        })
        .collect();
    for one in asking {
        assert!(one.await.unwrap().unwrap().is_some());
    }
    assert_eq!(api.asked(), 1);
}

#[tokio::test]
async fn answer_is_good_for_one_revision_only() {
    let api = FakeOriginApi::start().await;
    let routes = routes(&api, TOKEN);
    assert_eq!(routes.host("a.example.com").await, Ok(None));
    assert_eq!(routes.host("a.example.com").await, Ok(None));
    assert_eq!(api.asked(), 1);
    api.host("a.example.com", &["192.0.2.1"], None);
    assert!(routes.host("a.example.com").await.unwrap().is_some());
    api.remove("a.example.com");
    assert_eq!(routes.host("a.example.com").await, Ok(None));
}

#[tokio::test]
async fn failure_is_told_and_not_kept() {
    let api = FakeOriginApi::start().await;
    let routes = routes(&api, "wrong");
    assert_eq!(
        routes.host("a.example.com").await,
        Err(LookupError::Status(403))
    );
    assert_eq!(routes.cache.len(), 0);
}

#[tokio::test]
async fn silent_origin_api_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let routes = Routes::new(
        OriginApi::new(silent.local_addr().unwrap(), TOKEN).unwrap(),
        tokio::sync::watch::channel(1).1,
        Duration::from_millis(50),
        &Limits::default(),
        Arc::new(Counters::default()),
    );
    assert_eq!(
        routes.host("a.example.com").await,
        Err(LookupError::TimedOut)
    );
}

#[test]
fn cache_stays_within_its_bound_and_keeps_what_is_used() {
    let cache: Cache<u32> = Cache::new(8);
    let first = cache.slot("used", 1);
    for n in 0..1000 {
        cache.slot(&format!("host{n}"), 1);
        assert!(Arc::ptr_eq(&first, &cache.slot("used", 1)), "{n}");
        assert!(cache.len() <= 8);
    }
    assert!(!Arc::ptr_eq(&first, &cache.slot("used", 2)));
    assert_eq!(cache.len(), 1);
}
