//! A single answer: the scanner and the parser of the SDK, the node's reader and `serde_json` agree about the
//! same bytes. The fuzz target `json_readers` continues where this test ends.

mod agree;

use agree::agree;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]{0,2}".prop_map(|text| format!("\"{text}\"")),
        Just(r#""\u0061b""#.to_owned()),
        Just(r#""a\u0062""#.to_owned()),
        Just(r#""\"ab\":1""#.to_owned()),
        Just(r#""größe""#.to_owned()),
        Just(r#""\ud83d\ude00\n""#.to_owned()),
        Just(r#""a.b""#.to_owned()),
        Just(r#""a/b~""#.to_owned()),
        Just(r#""}]{[,:""#.to_owned()),
        "[a-z]{60,70}".prop_map(|text| format!("\"{text}\"")),
    ]
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n}")),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        // Numbers for Rust or other readers, and not for JSON.
        Just("01".to_owned()),
        Just("1.".to_owned()),
        Just("-0".to_owned()),
        Just(".5".to_owned()),
        Just("+1".to_owned()),
        Just("inf".to_owned()),
        Just("1e".to_owned()),
    ]
}

pub(crate) fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        number(),
        text(),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("\"ab\"".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let blank = prop_oneof![Just(""), Just(" "), Just("\n\t ")];
        let name = prop_oneof![text(), Just("\"ab\"".to_owned()), Just("\"\"".to_owned())];
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), blank.clone())
                .prop_map(|(items, blank)| format!("[{blank}{}{blank}]", items.join(&format!("{blank},")))),
            (prop::collection::vec((name, inner), 0..4), blank).prop_map(|(fields, blank)| {
                let fields = fields
                    .iter()
                    .map(|(name, value)| format!("{name}{blank}:{blank}{value}"));
                format!("{{{blank}{}{blank}}}", fields.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn json_readers_agree(
        text in json(),
        behind in prop_oneof![4 => Just(""), 1 => Just(" \n"), 1 => Just("{\"ab\":1}"), 1 => Just("}"), 1 => Just(",")],
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"\"\\{}[],:0 -"[..])],
    ) {
        let mut text = format!("{text}{behind}").into_bytes();
        agree(&text);
        let at = at.index(text.len());
        text[at] = byte;
        agree(&text);
        text.truncate(at);
        agree(&text);
    }
}
