//! Imports a function that no module is granted: the import must be refused by name.

wit_bindgen::generate!({
    inline: r#"
        package greedy:guest;
        interface clock { now: func() -> u64; }
        world greedy { import clock; export run: func() -> u64; }
    "#,
});

struct Greedy;

impl Guest for Greedy {
    fn run() -> u64 {
        greedy::guest::clock::now()
    }
}

export!(Greedy);
