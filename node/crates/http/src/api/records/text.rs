//! Records as JSON, made while it is sent.

use crate::error::HttpError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use weir_broker::{Broker, Fetched, Piece, ProduceError, SHARE_WITHIN, Taken};
use weir_types::batch::Cursor;
use weir_types::limits::BATCH_INFLATED_BYTES_MAX;
use weir_types::{Batch, Body as BatchBody, Codec, Offset, Record};

/// An answer is made in parts of about this size: no more of it is text at a time.
const PART_BYTES: usize = 64 << 10;

/// What was read, as text that is made while it is sent.
pub(crate) struct Text {
    pieces: VecDeque<Piece>,
    /// The batch whose records are shown, how far, and its share of the bytes of answers if they were compressed.
    batch: Option<(BatchBody, Cursor, Option<Taken>)>,
    gaps: Vec<Value>,
    from: Offset,
    /// What stands behind the records.
    ends: [Offset; 3],
    broker: Broker,
    address: Option<IpAddr>,
    shown: u64,
    begun: bool,
    is_over: bool,
    /// That of what was read.
    _share: Option<Arc<Taken>>,
}

impl Text {
    pub(crate) fn new(fetched: Fetched, from: Offset, broker: Broker, address: Option<IpAddr>) -> Self {
        Self {
            pieces: fetched.pieces.into(),
            batch: None,
            gaps: Vec::new(),
            from,
            ends: [fetched.next, fetched.log_start, fetched.committed_end],
            broker,
            address,
            shown: 0,
            begun: false,
            is_over: false,
            _share: fetched.share,
        }
    }

    /// The next part; none after the last.
    pub(crate) async fn part(&mut self) -> Result<Option<Bytes>, HttpError> {
        if self.is_over {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(PART_BYTES + (PART_BYTES >> 2));
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(b"{\"records\":[");
        }
        while out.len() < PART_BYTES {
            if let Some((body, cursor, share)) = self.batch.take() {
                // Making text of a large record takes a while, which others do not wait for.
                let more = match body.bytes().len() > PART_BYTES {
                    true => tokio::task::block_in_place(|| self.records(&body, cursor, &mut out))?,
                    false => self.records(&body, cursor, &mut out)?,
                };
                if let Some(cursor) = more {
                    self.batch = Some((body, cursor, share));
                }
                continue;
            }
            match self.pieces.pop_front() {
                Some(Piece::Gap(gap)) => {
                    let reason = gap.reason.to_string();
                    self.gaps
                        .push(json!({ "start": gap.start, "end": gap.end, "reason": reason }));
                }
                Some(Piece::Batch(batch)) => self.batch = Some(self.opened(&batch).await?),
                None => {
                    let gaps = Value::Array(std::mem::take(&mut self.gaps));
                    let [next, log_start, committed_end] = self.ends;
                    let ends = format!(
                        "],\"gaps\":{gaps},\"next_offset\":{next},\"log_start\":{log_start},\"committed_end\":{committed_end}}}"
                    );
                    out.extend_from_slice(ends.as_bytes());
                    self.is_over = true;
                    break;
                }
            }
        }
        Ok(Some(out.into()))
    }

    /// A batch, ready to be read. What is compressed takes room for itself.
    async fn opened(&self, batch: &Batch) -> Result<(BatchBody, Cursor, Option<Taken>), HttpError> {
        let mut share = None;
        if batch.codec() != Codec::None {
            // Not of what is held already: who waits for more of the same would wait for himself.
            let inflated = &self.broker.ledger().inflated;
            let taken = inflated.take(BATCH_INFLATED_BYTES_MAX, self.address, SHARE_WITHIN);
            share = Some(taken.await.map_err(|e| HttpError::busy(e.to_string()))?);
        }
        let body = batch.body().map_err(ProduceError::from)?;
        if let Some(share) = &mut share {
            share.keep(body.bytes().len());
        }
        Ok((body, Cursor::default(), share))
    }

    /// Shows records of a batch until there is a part's worth of text. Where to go on, unless that was the last.
    fn records(
        &mut self,
        body: &BatchBody,
        cursor: Cursor,
        out: &mut Vec<u8>,
    ) -> Result<Option<Cursor>, HttpError> {
        let mut records = body.records_at(cursor);
        while let Some(record) = records.next() {
            let record = record.map_err(ProduceError::from)?;
            if record.offset < self.from {
                continue;
            }
            if self.shown > 0 {
                out.push(b',');
            }
            self.shown += 1;
            let shown = show(&record.to_record(), record.offset);
            serde_json::to_writer(&mut *out, &shown).map_err(|e| HttpError::bad_request(e.to_string()))?;
            if out.len() >= PART_BYTES {
                return Ok(Some(records.cursor()));
            }
        }
        Ok(None)
    }
}

fn show(record: &Record, offset: Offset) -> Value {
    let mut fields = Map::new();
    fields.insert("offset".to_owned(), offset.get().into());
    fields.insert("timestamp".to_owned(), record.timestamp.into());
    put(&mut fields, "key", record.key.as_ref());
    put(&mut fields, "value", record.value.as_ref());
    let headers = record.headers.iter().map(|(name, value)| {
        let mut header = Map::new();
        header.insert("name".to_owned(), name.as_str().into());
        put(&mut header, "value", value.as_ref());
        Value::Object(header)
    });
    fields.insert("headers".to_owned(), headers.collect());
    Value::Object(fields)
}

/// Text where it is text, base64 under another name where it is not.
fn put(fields: &mut Map<String, Value>, name: &str, bytes: Option<&Bytes>) {
    match bytes.map(|b| std::str::from_utf8(b).map_err(|_| b)) {
        None => fields.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => fields.insert(name.to_owned(), text.into()),
        Some(Err(raw)) => fields.insert(format!("{name}_base64"), STANDARD.encode(raw).into()),
    };
}
