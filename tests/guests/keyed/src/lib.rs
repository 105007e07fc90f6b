//! Counts records by key, and drops them: the subject of a benchmark of state.

use weir_sdk::prelude::*;
use weir_sdk::state::Map;

struct Keyed {
    counts: Map<u64>,
    fetch: bool,
}

impl Module for Keyed {
    const ABOUT: &'static str = "Counts records by key.";
    const STATE_VERSION: u32 = 1;

    fn parameters() -> Vec<Parameter> {
        vec![Parameter::preset::<bool>(
            "fetch",
            false,
            "Ask for the values of a batch at once.",
        )]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let counts = Map::new("n");
        let fetch = config.get("fetch")?;
        Ok((Self { counts, fetch }, Interface::keys().with(true, false, false)))
    }

    fn process(&mut self, batch: &Batch<'_>, _: &mut Out) -> Result<(), Fault> {
        if self.fetch {
            self.counts.fetch(batch.keys().flatten());
        }
        for key in batch.keys() {
            self.counts
                .update(key.unwrap_or_default(), |n| *n.get_or_insert(0) += 1);
        }
        Ok(())
    }
}

weir_sdk::export!(Keyed);
