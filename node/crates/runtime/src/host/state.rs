//! `weir:module/state`, and the table shared with `weir:module/timers`.

use crate::bindings::weir::module::state::Host;
use crate::bindings::weir::module::types::ColumnResult;
use crate::error::StateError;
use crate::host::Guest;
use crate::moment::Moment;
use crate::state::table::Table;
use weir_types::Column;
use weir_types::columns::ColumnView;

/// Approximate bytes of an answer to `scan`: a guest without memory for more cannot request smaller parts.
const SCAN_BYTES: usize = 1 << 20;
/// Items of one answer to `scan`.
const SCAN_ROWS_MAX: u32 = 10_000;

/// The table of an instance, during a call.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) table: Option<Table>,
    pub(super) moment: Moment,
    /// Bytes that this call may still read and write. Endless reads or writes of the same value allocate
    /// memory.
    pub(crate) bytes_left: usize,
    /// Reason for stopping the guest.
    pub(crate) refused: Option<String>,
    /// Limit of all tables together, when that was the reason.
    pub(crate) crowded: Option<u64>,
}

/// Price of each item beside its bytes: a row of the journal.
const ITEM_BYTES: usize = 32;

impl State {
    /// Begins a call, on `table` if state was granted.
    pub(crate) fn begin_call(&mut self, moment: Moment, table: Option<Table>, bytes: usize) {
        self.moment = moment;
        (self.table, self.bytes_left, self.refused) = (table, bytes, None);
        self.crowded = None;
    }

    pub(super) fn refuse<T>(&mut self, why: String) -> wasmtime::Result<T> {
        let error = wasmtime::Error::msg(why.clone());
        self.refused = Some(why);
        Err(error)
    }

    pub(super) fn table(&mut self) -> wasmtime::Result<&mut Table> {
        if self.table.is_none() {
            return self.refuse("there is none in `init` and `describe`: use it in `process`".to_owned());
        }
        let none = || wasmtime::Error::msg("no state");
        self.table.as_mut().ok_or_else(none)
    }

    pub(super) fn charge(&mut self, bytes: usize) -> wasmtime::Result<()> {
        match self.bytes_left.checked_sub(bytes + ITEM_BYTES) {
            Some(left) => {
                self.bytes_left = left;
                Ok(())
            }
            None => {
                self.refuse("one call read or wrote more of it than `limits.output_bytes` allows".to_owned())
            }
        }
    }

    fn read(&mut self, key: &[u8]) -> wasmtime::Result<Option<&[u8]>> {
        let bytes = self.table()?.get(key).map_or(0, <[u8]>::len);
        self.charge(bytes)?;
        Ok(self.table()?.get(key))
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) -> wasmtime::Result<()> {
        self.charge(key.len() + value.map_or(0, <[u8]>::len))?;
        match self.table()?.put(key, value) {
            Ok(()) => Ok(()),
            Err(e) => self.refuse_for(&e),
        }
    }

    /// Refuses a row or timer that was not written.
    pub(super) fn refuse_for<T>(&mut self, error: &StateError) -> wasmtime::Result<T> {
        if let StateError::Node(max) = error {
            self.crowded = Some(*max);
        }
        self.refuse(error.to_string())
    }
}

impl Host for Guest {
    fn get(&mut self, key: Vec<u8>) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.state.read(&key)?.map(<[u8]>::to_vec))
    }

    fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> wasmtime::Result<()> {
        self.state.write(&key, value.as_deref())
    }

    fn get_many(&mut self, keys: ColumnResult) -> wasmtime::Result<ColumnResult> {
        let count = keys.ends.len();
        let keys = match view("keys", &keys, keys.ends.len()) {
            Ok(keys) => keys,
            Err(e) => return self.state.refuse(e),
        };
        let mut values = Column::default();
        for i in 0..count {
            let value = match keys.item(i) {
                Some(key) => self.state.read(key)?,
                None => None,
            };
            values.push(value);
        }
        Ok(result(values))
    }

    fn put_many(&mut self, keys: ColumnResult, values: ColumnResult) -> wasmtime::Result<()> {
        let count = keys.ends.len();
        let views = view("keys", &keys, count).and_then(|k| Ok((k, view("values", &values, count)?)));
        let (keys, values) = match views {
            Ok(views) => views,
            Err(e) => return self.state.refuse(e),
        };
        for i in 0..count {
            if let Some(key) = keys.item(i) {
                self.state.write(key, values.item(i))?;
            }
        }
        Ok(())
    }

    fn scan(
        &mut self,
        prefix: Vec<u8>,
        after: Option<Vec<u8>>,
        limit: u32,
    ) -> wasmtime::Result<(ColumnResult, ColumnResult)> {
        let (mut keys, mut values) = (Column::default(), Column::default());
        let rows = self.state.table()?.scan(&prefix, after.as_deref());
        for (key, value) in rows.take(limit.min(SCAN_ROWS_MAX) as usize) {
            keys.push(Some(key));
            values.push(Some(value));
            if keys.data.len() + values.data.len() >= SCAN_BYTES {
                break;
            }
        }
        self.state
            .charge(keys.data.len() + values.data.len() + keys.len() * ITEM_BYTES)?;
        Ok((result(keys), result(values)))
    }
}

pub(super) fn view<'a>(what: &str, column: &'a ColumnResult, items: usize) -> Result<ColumnView<'a>, String> {
    let view = ColumnView::check(&column.ends, &column.data, column.nulls.as_deref(), items);
    view.map_err(|e| format!("a column of {what} {e}"))
}

fn result(column: Column) -> ColumnResult {
    ColumnResult {
        ends: column.ends,
        data: column.data,
        nulls: column.nulls,
    }
}
