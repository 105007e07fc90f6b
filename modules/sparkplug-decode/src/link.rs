//! The sequence of an edge node's payloads, and the request for a birth certificate.

use crate::payload::Payload;
use serde::{Deserialize, Serialize};

/// Minimum time between two requests to a node, in milliseconds of event time. A birth certificate can be
/// long and its link slow, and a node that does not answer must not get a request per payload.
const AGAIN_MS: u64 = 60_000;
/// Metric that occurs only in birth and death certificates of a node (Sparkplug 3.0.0, 6.4.19 and 6.4.25).
const BIRTH: &str = "bdSeq";
/// Metric that tells a node to send its certificates again (6.4.20).
const REBIRTH: &[u8] = b"Node Control/Rebirth";
/// Type `boolean` of a metric (6.4.16).
const BOOLEAN: u8 = 11;

/// The known order of a node's payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// `seq` of the last payload that had a number.
    last: Option<u64>,
    is_born: bool,
    /// Time of the last request for a birth certificate.
    asked: Option<i64>,
}

impl Link {
    /// Adds a payload's number; returns the expected number if it differs. Numbers go from 0 to 255 and
    /// restart at a birth (6.4.14).
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

    /// Returns true if a birth certificate must be requested at this time: none has been seen, or something
    /// `is_amiss`, and no request was sent recently.
    pub(crate) fn ask(&mut self, is_amiss: bool, at: i64) -> bool {
        let is_recent = self.asked.is_some_and(|asked| asked.abs_diff(at) < AGAIN_MS);
        let asks = (is_amiss || !self.is_born) && !is_recent;
        if asks {
            self.asked = Some(at);
        }
        asks
    }
}

/// Builds the payload of a command that tells an edge node to send its birth certificates.
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
