//! The routes of each template do what the OpenAPI document says.

use api_gateway_agent::api::{self, CreateApi};
use project_builder_agent::template::Template;
use serde_json::json;

use crate::support::{Server, World, typed_fields};

fn check_life_of_a_record(template: Template) {
    let world = World::new(template);
    let api = world.create("key", "items").unwrap();
    assert_eq!(api.routes.len(), 5);
    let server = Server::start(&world.project);

    assert_eq!(server.get("/items"), (200, json!({"items": [], "total": 0})));
    let body = json!({"name": "one", "description": "ä"}).to_string();
    let (status, location, record) = server.call("POST", "/items", &body);
    assert_eq!((status, location.as_deref()), (201, Some("/items/1")));
    assert_eq!(record, json!({"id": 1, "name": "one", "description": "ä"}));
    assert_eq!(server.get("/items/1"), (200, record.clone()));

    let changed = json!({"id": 1, "name": "uno"});
    let (status, answer) = server.send("PUT", "/items/1", &json!({"name": "uno"}));
    assert_eq!((status, &answer), (200, &changed));
    server.send("POST", "/items", &json!({"name": "two"}));
    let second = json!({"id": 2, "name": "two"});
    let page = json!({"items": [second], "total": 2});
    assert_eq!(server.get("/items?limit=1&offset=1"), (200, page));

    assert_eq!(server.send("DELETE", "/items/1", &json!(null)).0, 204);
    assert_eq!(server.get_status("/items/1"), 404);
    assert_eq!(server.get("/items").1["total"], 1);
}

fn check_validation(template: Template) {
    let world = World::new(template);
    let wish = CreateApi {
        fields: serde_json::from_value(typed_fields()).unwrap(),
        ..world.wish("order-lines")
    };
    api::create(&world.records, "key", &wish).unwrap();
    let server = Server::start(&world.project);
    let path = "/order-lines";

    let good = json!({"label": "äöü", "count": 1, "ratio": 0.5, "open": true});
    assert_eq!(server.send("POST", path, &good).0, 201);
    let problems = server.problems(path, &json!({"label": "", "ratio": "1", "other": 1}));
    assert_eq!(
        problems,
        json!({
            "label": "must not be empty",
            "count": "is missing",
            "ratio": "must be of type number",
            "other": "is not a field of this resource",
        })
    );
    let wrong = json!({"label": "four", "count": true, "open": 1});
    let problems = server.problems(path, &wrong);
    assert_eq!(problems["label"], "must have at most 3 characters");
    assert!(problems["count"].is_string() && problems["open"].is_string(), "{problems}");
    let problems = server.problems(path, &json!({"label": "a", "count": 1, "__proto__": 1}));
    assert!(problems["__proto__"].is_string(), "{problems}");

    for body in ["[]", "1", "", "{"] {
        assert_eq!(server.call("POST", path, body).0, 400, "{body}");
    }
    let large = format!("{{\"label\": \"{}\"}}", "a".repeat(70_000));
    assert_eq!(server.call("POST", path, &large).0, 413);
    for query in ["limit=0", "limit=1001", "offset=-1", "limit=x"] {
        assert_eq!(server.get_status(&format!("{path}?{query}")), 400, "{query}");
    }
    for id in ["0", "2", "x", "1.0", "%31", "99999999999999999999"] {
        assert_eq!(server.get_status(&format!("{path}/{id}")), 404, "{id}");
    }
    assert_eq!(server.send("PATCH", path, &json!({})).0, 405);
    assert_eq!(server.get(path).1["total"], 1);
}

fn check_chosen_routes(template: Template) {
    let world = World::new(template);
    let wish = CreateApi {
        routes: serde_json::from_value(json!(["get", "list"])).unwrap(),
        ..world.wish("items")
    };
    api::create(&world.records, "one", &wish).unwrap();
    world.create("two", "index-cards").unwrap();
    let server = Server::start(&world.project);
    assert_eq!(server.get_status("/items"), 200);
    assert_eq!(server.send("POST", "/items", &json!({"name": "a"})).0, 405);
    assert_eq!(server.send("POST", "/index-cards", &json!({"name": "a"})).0, 201);
    let (status, document) = server.get("/openapi.json");
    assert_eq!(status, 200);
    assert!(document["paths"]["/items"]["post"].is_null());
    assert!(document["paths"]["/index-cards/{id}"]["put"].is_object());
}

#[test]
fn a_typescript_api_keeps_records() {
    check_life_of_a_record(Template::TypescriptApi);
}

#[test]
fn a_python_service_keeps_records() {
    check_life_of_a_record(Template::PythonService);
}

#[test]
fn a_typescript_api_refuses_what_does_not_fit() {
    check_validation(Template::TypescriptApi);
}

#[test]
fn a_python_service_refuses_what_does_not_fit() {
    check_validation(Template::PythonService);
}

#[test]
fn a_typescript_api_offers_the_chosen_routes_alone() {
    check_chosen_routes(Template::TypescriptApi);
}

#[test]
fn a_python_service_offers_the_chosen_routes_alone() {
    check_chosen_routes(Template::PythonService);
}
