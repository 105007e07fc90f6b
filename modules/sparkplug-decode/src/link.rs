//! Whether the payloads of an edge node follow each other, and how a birth certificate is asked for.

use crate::payload::Payload;
use serde::{Deserialize, Serialize};

/// Time between two requests to one node, in milliseconds of the records' time: a birth certificate can be long and its link slow, and a node
/// that does not answer shall not be asked at each of its payloads.
const AGAIN_MS: u64 = 60_000;
/// Metric of a node's birth and death certificates, and of no other payload (Sparkplug 3.0.0, 6.4.19 and 6.4.25).
const BIRTH: &str = "bdSeq";
/// Metric by which a node is told to send its certificates again (6.4.20).
const REBIRTH: &[u8] = b"Node Control/Rebirth";
/// `boolean` among the types of metrics (6.4.16).
const BOOLEAN: u8 = 11;

/// The order of a node's payloads, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// `seq` of the last payload that had one.
    last: Option<u64>,
    is_born: bool,
    /// When a birth certificate was asked for.
    asked: Option<i64>,
}

impl Link {
    /// Takes a payload's number; the expected number, if it is another. They go from 0 to 255 and begin anew at a birth (6.4.14).
    pub(crate) fn follow(&mut self, payload: &Payload<'_>) -> Option<u64> {
        let seq = payload.seq?;
        let expected = self.last.map(|last| (last + 1) % 256);
        self.last = Some(seq % 256);
        if payload.metrics.iter().any(|metric| metric.name == Some(BIRTH)) {
            self.is_born = true;
            self.asked = None;
            return None;
        }
        expected.filter(|expected| *expected != seq)
    }

    /// Whether a birth certificate shall be asked for at a time: nobody has seen one, or something `is_amiss`, and nobody has asked lately.
    pub(crate) fn ask(&mut self, is_amiss: bool, at: i64) -> bool {
        let is_recent = self.asked.is_some_and(|asked| asked.abs_diff(at) < AGAIN_MS);
        let asks = (is_amiss || !self.is_born) && !is_recent;
        if asks {
            self.asked = Some(at);
        }
        asks
    }
}

/// A command's payload that tells an edge node to send its birth certificates.
pub(crate) fn rebirth(at: u64) -> Vec<u8> {
    let timestamp = |field: u8, to: &mut Vec<u8>| {
        to.push(field << 3);
        varint(at, to);
    };
    let mut metric = vec![1 << 3 | 2, REBIRTH.len() as u8];
    metric.extend_from_slice(REBIRTH);
    timestamp(3, &mut metric);
    metric.extend_from_slice(&[4 << 3, BOOLEAN, 14 << 3, 1]);
    let mut payload = Vec::new();
    timestamp(1, &mut payload);
    payload.push(2 << 3 | 2);
    varint(metric.len() as u64, &mut payload);
    payload.extend_from_slice(&metric);
    payload
}

fn varint(mut n: u64, to: &mut Vec<u8>) {
    while n >= 0x80 {
        to.push(n as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Value;

    #[test]
    fn a_request_is_a_payload_with_one_metric() {
        for at in [0, 127, 128, 1_769_860_810_000, u64::MAX] {
            let bytes = rebirth(at);
            let payload = Payload::read(&bytes).unwrap();
            assert_eq!((payload.timestamp, payload.seq), (Some(at), None));
            let [metric] = &payload.metrics[..] else {
                panic!("{payload:?}")
            };
            assert_eq!(
                (metric.name, metric.timestamp),
                (Some("Node Control/Rebirth"), Some(at))
            );
            assert_eq!((metric.datatype, metric.value), (Some(11), Value::Boolean(true)));
        }
    }
}
