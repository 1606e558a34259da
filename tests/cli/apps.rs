//! `fanfare apps`, and `--app` of other commands: what they ask, what they print, what they refuse to ask.

use serde_json::json;

use crate::commands::{PlayedApi, json_lines, run};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn apps_are_listed_shown_stored_and_removed_by_their_calls() {
    let row = |app: &str, source: &str| json!({"app": app, "source": source, "stored": source == "api", "faulty": false});
    let mut shop = row("shop", "api");
    shop["settings"] = json!({"auth": {"anonymous": true}});
    let answers = [
        (
            200,
            json!({"apps": [row("default", "node")], "next": "default"}),
        ),
        (200, json!({"apps": [row("shop", "api")]})),
        (200, shop),
        (200, json!({"app": "shop", "changed": true})),
        (200, json!({"app": "shop"})),
    ];
    let api = PlayedApi::start(answers);
    let url = api.url();
    let call = |more: &[&str]| run(&[&["apps"], more, &["--api-url", &url]].concat());

    let listed = text(&call(&["list", "--format", "text"]).stdout);
    let lines: Vec<_> = listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .collect();
    assert_eq!(
        lines,
        [
            vec!["app", "from", "stored"],
            vec!["default", "node", "no"],
            vec!["shop", "api", "yes"]
        ]
    );
    let lines: Vec<_> = api.asked().iter().map(|asked| asked.line.clone()).collect();
    assert_eq!(
        lines,
        [
            "GET /v1/apps?limit=1000",
            "GET /v1/apps?limit=1000&after=default"
        ]
    );

    let shown = text(&call(&["show", "shop", "--format", "text"]).stdout);
    assert!(
        shown.starts_with("shop from api\n{\n") && shown.contains("\"anonymous\": true"),
        "{shown}"
    );
    assert_eq!(api.asked()[2].line, "GET /v1/apps/shop");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shop.json");
    std::fs::write(&file, r#"{"auth":{"anonymous":true}}"#).unwrap();
    let put = call(&["put", "shop", file.to_str().unwrap()]);
    assert_eq!(json_lines(&put), [json!({"app": "shop", "changed": true})]);
    assert_eq!(api.asked()[3].line, "PUT /v1/apps/shop");
    assert_eq!(api.asked()[3].body, json!({"auth": {"anonymous": true}}));

    let removed = text(&call(&["remove", "shop", "--format", "text"]).stdout);
    assert_eq!(removed, "shop removed\n");
    assert_eq!(api.asked()[4].line, "DELETE /v1/apps/shop");
}

#[test]
fn what_cannot_be_read_or_is_refused_is_told() {
    let output = run(&["apps", "put", "shop", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(74));
    assert!(text(&output.stderr).contains("cannot read /no/such/file"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large.json");
    std::fs::write(&file, " ".repeat(65_537)).unwrap();
    let output = run(&["apps", "put", "shop", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(65));
    assert!(text(&output.stderr).contains("more than 65536 bytes"));
    let told = "the settings of the app `shop` have a fault: auth.anonymous cannot be 1";
    let api = PlayedApi::start([(
        400,
        json!({"error": {"code": "bad_request", "message": told}}),
    )]);
    std::fs::write(&file, "{}").unwrap();
    let output = run(&[
        "apps",
        "put",
        "shop",
        file.to_str().unwrap(),
        "--api-url",
        &api.url(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains(told));
    assert_eq!(run(&["apps"]).status.code(), Some(64));
}

#[test]
fn a_call_says_which_app_it_is_about() {
    let published = json!({"position": "1-0"});
    let api = PlayedApi::start([(200, published.clone()), (200, published)]);
    let url = api.url();
    let of_app = run(&["publish", "t", "1", "--app", "shop", "--api-url", &url]);
    assert_eq!(of_app.status.code(), Some(0), "{of_app:?}");
    run(&["publish", "t", "1", "--api-url", &url]);
    let apps: Vec<_> = api.asked().iter().map(|asked| asked.app.clone()).collect();
    assert_eq!(apps, [Some("shop".to_owned()), None]);
    let output = run(&["publish", "t", "1", "--app", "Shop", "--api-url", &url]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("1 to 32 of a-z 0-9 _ -"));
}
