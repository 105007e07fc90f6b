//! Agreement of all JSON readers on any bytes; shared by the tests and a fuzz target.

use weir_sdk::document::{Document, Node, Value};
use weir_sdk::{Json, Path, check};

/// Holds the readers of `data` against each other.
///
/// # Panics
/// Where two of them read something else.
pub(crate) fn agree(data: &[u8]) {
    let ours = Document::parse(data);
    assert_eq!(
        check(data),
        ours.as_ref().map(|_| ()).map_err(Clone::clone),
        "a check and a whole reading"
    );
    let theirs = serde_json::from_slice::<serde_json::Value>(data);
    let is_twice = ours.as_ref().err().is_some_and(|why| why.contains("twice"));
    // A number that no double can hold is still a number, and a reader that gave up is no judge of the rest.
    let gave_up = |why: &serde_json::Error| {
        let why = why.to_string();
        why.contains("out of range") || why.contains("recursion limit")
    };
    match (&ours, &theirs) {
        (Ok(_), Err(why)) => assert!(gave_up(why), "{why}"),
        (Err(why), Ok(_)) => assert!(is_twice || why.contains("deeper"), "{why}"),
        _ => {}
    }
    if let Ok(document) = &ours {
        walk(document, document.root(), &mut String::new(), 0);
    }
    for path in ["ab", "/ab", "ab.ab", "/ab/0", "/"] {
        unsound(data, path, &ours);
    }
}

/// Each value of a sound document is the same to all, by its path.
fn walk(document: &Document<'_>, node: &Node<'_>, path: &mut String, depth: usize) {
    let data = document.text();
    if depth > 0 {
        let text = data.get(node.span()).unwrap_or_default();
        let parsed = Path::new(path);
        let found = Json::new(data).at(&parsed);
        assert_eq!(found.text(), Some(text), "the scanner, at {path}");
        if matches!(document.root().value(), Value::Object(_)) {
            let whole = Json::new(data).whole_at(&parsed).map(|json| json.text());
            assert_eq!(whole, Ok(Some(text)), "the scanner of all, at {path}");
        }
        let host = weir_pipeline::json::at(data, path).map(|found| found.map(str::as_bytes));
        assert_eq!(host, Ok(Some(text)), "the node, at {path}");
        match node.value() {
            Value::Number(number) => {
                let double: f64 = number.parse().unwrap_or(f64::NAN);
                assert_eq!(
                    found.number().map(f64::to_bits),
                    Some(double.to_bits()),
                    "{number}"
                );
            }
            Value::Text(text) => assert_eq!(found.string().as_deref(), Some(&**text)),
            Value::Boolean(is) => assert_eq!(found.boolean(), Some(*is)),
            Value::Null => assert!(found.is_null()),
            Value::List(items) => assert_eq!(found.items().count(), items.len()),
            Value::Object(fields) => assert_eq!(found.fields().count(), fields.len()),
        }
    }
    let before = path.len();
    let mut deeper = |name: &str, below: &Node<'_>| {
        path.push('/');
        path.push_str(&name.replace('~', "~0").replace('/', "~1"));
        walk(document, below, path, depth + 1);
        path.truncate(before);
    };
    match node.value() {
        // Each look-up begins at the beginning: of many, some are enough.
        Value::List(items) => items
            .iter()
            .enumerate()
            .take(8)
            .for_each(|(place, item)| deeper(&place.to_string(), item)),
        Value::Object(fields) => fields
            .iter()
            .take(8)
            .for_each(|field| deeper(&field.name, &field.node)),
        _ => {}
    }
}

/// Checks that no reader of whole documents finds a value at `path` where the path is there twice, or where
/// something follows the document.
fn unsound(data: &[u8], path: &str, ours: &Result<Document<'_>, String>) {
    let whole = Json::new(data).whole_at(&Path::new(path));
    let host = weir_pipeline::json::at(data, path);
    let follows = ours.as_ref().err().is_some_and(|why| why.contains("follows"));
    let begins = data.trim_ascii_start().first();
    if follows && matches!(begins, Some(b'{' | b'[')) {
        assert!(whole.is_err() && host.is_err(), "something follows it");
    }
    if ours.is_ok() && matches!(ours.as_ref().map(|d| d.root().value()), Ok(Value::Object(_))) {
        assert!(whole.is_ok(), "{whole:?}");
    }
    // In a document that is broken elsewhere, too, the scanner need not see every fault.
    let is_json = serde_json::from_slice::<serde_json::Value>(data).is_ok();
    let says_twice = |why: &String| why.contains("twice");
    let is_twice = host.as_ref().is_err_and(says_twice) && ours.as_ref().is_err_and(says_twice);
    assert!(
        !(is_json && is_twice) || whole.is_err(),
        "{path} is there twice: {}",
        data.escape_ascii()
    );
}
