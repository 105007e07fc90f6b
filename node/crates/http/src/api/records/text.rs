//! Records as JSON, written while the answer is sent.

use crate::error::HttpError;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use weir_api::Gap;
use weir_broker::{Broker, Fetched, Piece, ProduceError, SHARE_WITHIN, Taken};
use weir_types::batch::Cursor;
use weir_types::limits::BATCH_INFLATED_BYTES_MAX;
use weir_types::{Batch, Body as BatchBody, Codec, Offset, Record};

/// Size of the parts of an answer, in bytes: only a part is text at a time.
const PART_BYTES: usize = 64 << 10;

/// The answer to a read, made part by part.
pub(crate) struct Text {
    pieces: VecDeque<Piece>,
    /// Current batch, the position in it, and its share of memory if it was compressed.
    batch: Option<(BatchBody, Cursor, Option<Taken>)>,
    gaps: Vec<Gap>,
    from: Offset,
    /// Next offset, log start and committed end.
    ends: [Offset; 3],
    broker: Broker,
    address: Option<IpAddr>,
    shown: u64,
    begun: bool,
    is_over: bool,
    /// Share of the batches that were read.
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

    /// Returns the next part; none after the last.
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
                // A large record takes a while: other tasks move to another thread.
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
                    self.gaps.push(weir_admin::gap(&gap));
                }
                Some(Piece::Batch(batch)) => self.batch = Some(self.opened(&batch).await?),
                None => {
                    let gaps = serde_json::to_string(&std::mem::take(&mut self.gaps));
                    let gaps = gaps.map_err(|e| HttpError::bad_request(e.to_string()))?;
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

    /// Opens a batch. A compressed batch takes a share of memory.
    async fn opened(&self, batch: &Batch) -> Result<(BatchBody, Cursor, Option<Taken>), HttpError> {
        let mut share = None;
        if batch.codec() != Codec::None {
            // Not the share that the answer holds already: a client must not wait for itself.
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

    /// Writes records of a batch until the part is full. Returns the position to go on, unless the batch is
    /// at its end.
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
            let (offset, record) = (record.offset, record.to_record());
            serde_json::to_writer(&mut *out, &show(&record, offset))
                .map_err(|e| HttpError::bad_request(e.to_string()))?;
            if out.len() >= PART_BYTES {
                return Ok(Some(records.cursor()));
            }
        }
        Ok(None)
    }
}

fn show<'a>(record: &'a Record, offset: Offset) -> weir_api::Record<'a> {
    let headers = record.headers.iter();
    let shown = weir_api::Record::new(
        offset.get(),
        record.timestamp,
        record.key.as_deref(),
        record.value.as_deref(),
    );
    weir_api::Record {
        headers: headers
            .map(|(name, value)| weir_api::Header::new(name, value.as_deref()))
            .collect(),
        ..shown
    }
}
