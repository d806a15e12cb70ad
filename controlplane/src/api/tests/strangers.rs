//! Ids of other accounts and zones, in paths and in fields.

use http::Method;
use serde_json::json;

use super::stage::{NOBODY, NOBODY_HEX, Operation, Stage, with};

/// What other accounts have is not there, and is refused with the very words for what is nowhere.
#[tokio::test]
async fn ids_of_other_accounts_and_zones_are_answered_as_if_they_were_nobodys() {
    let Stage {
        mut world, zone, ..
    } = Stage::only().await;
    let second = world.second_account();
    let mine = std::mem::replace(&mut world.account, second);
    let mut other = Stage::new(world, "foreign.example", "198.51.100.8").await;
    let mut items = Vec::new();
    for (path, method, about) in other.world.document().await.operations() {
        let is_item = path.ends_with('}') && path.contains("}/");
        let is_no_id =
            ["{ip}", "{cidr}", "{host}", "{setting}", "{family}"].map(|part| path.contains(part));
        if is_item && !is_no_id.contains(&true) {
            let content = &about["requestBody"]["content"]["application/json"];
            let body = content["examples"]["1"]["value"].clone();
            items.push((
                path.to_owned(),
                method.to_uppercase().parse::<Method>().unwrap(),
                body,
            ));
        }
    }
    // What is deleted is looked for last.
    items.sort_by_key(|(path, method, _)| (*method == Method::DELETE, path.clone()));
    assert!(items.len() > 15, "{}", items.len());
    for (template, method, example) in items {
        let theirs = other.path(&method, &template).await;
        let body = other.real(&example);
        let here = theirs
            .replace(&other.world.account, &mine)
            .replace(&other.zone, &zone);
        let (above, id) = here.rsplit_once('/').unwrap();
        let nobody = if id.contains('-') { NOBODY } else { NOBODY_HEX };
        let (status, foreign) = other.refused(&method, &here, &body).await;
        assert_eq!(status, 404, "{method} {here}: {foreign}");
        let nowhere = other
            .refused(&method, &format!("{above}/{nobody}"), &body)
            .await;
        let named = nowhere.1.to_string().replace(nobody, id);
        assert_eq!(
            (status, foreign.to_string()),
            (nowhere.0, named),
            "{method} {here}"
        );
    }
}

/// A field that names what another account has is refused with the words for what is nowhere.
#[tokio::test]
async fn a_field_cannot_name_what_another_account_has() {
    let Stage {
        mut world,
        vnet,
        tunnel,
        ..
    } = Stage::only().await;
    world.account = world.second_account();
    let mut other = Stage::new(world, "foreign.example", "198.51.100.8").await;
    let mut count = 0;
    for operation in Operation::all(other.world.document().await) {
        let path = other.path(&operation.method, &operation.template).await;
        for example in &operation.examples {
            for (name, foreign) in [("virtual_network_id", &vnet), ("tunnel_id", &tunnel)] {
                if example.get(name).is_none() {
                    continue;
                }
                let mut said = Vec::new();
                for id in [foreign.as_str(), NOBODY] {
                    let body = with(&other.real(example), &format!("/{name}"), json!(id));
                    let (_, answer) = other.refused(&operation.method, &path, &body).await;
                    assert_eq!(answer["errors"][0]["source"]["pointer"], format!("/{name}"));
                    said.push(answer.to_string().replace(id, "ID"));
                }
                assert_eq!(said[0], said[1], "{} {path}", operation.method);
                count += 1;
            }
        }
    }
    assert!(count > 8, "{count}");
}
